"""`optimize` with a solver of the suite in the planner's place: an opponent alike in all else.

The same two compiles, the same questions to the compiler, the same way of asking for a mapping and
of correcting costs. What differs is who plans: a solver that starts anew with every correction.
"""

from __future__ import annotations

import dataclasses
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import malloc_game as mg
from agent.tuning.compiler_loop import RESERVE, CompilerLoop, probing_seconds
from agent.tuning.outcome import Improvement
from malloc_game.platform import num_cores
from malloc_game.solvers import Result, solve
from workloads.compiler.session import CompilerSession
from workloads.progress import Progress, silent

_SHARE = 0.5  # of the time that is left besides, for one solve: the next one has corrected costs
_LEAST_SECONDS = 2.0
_MAX_IDLE = 4  # solves in a row that came to a mapping which was compiled before
_SEEDS = 1000  # of the solves of one run, at most


@dataclasses.dataclass(frozen=True)
class Solved:
    """What a solver had the compiler make in its time."""

    history: tuple[Improvement, ...]
    xla_default: float  # cycles, compiled
    num_solves: int
    num_compiles: int


def solve_and_compile(
    solver: str,
    program: Any,
    target: str,
    *,
    seed: int,
    deadline: float,
    progress: Progress = silent,
) -> Solved:
    """Solve, compile what was found, learn what it costs, and so on until the deadline.

    solver: a key of `malloc_game.solvers.SOLVERS`; one is run on each core, and the best of what
    they find is compiled. deadline: of `time.monotonic()`; a compile that is under way then is
    stopped, but for the two of the extraction.

    Raises:
      WorkloadError: the program or target cannot be used. CompileError: the compiler failed.
      SolverError: there is no such solver, or a package that it needs.
    """
    with CompilerSession(program, target) as session:
        loop = CompilerLoop(session, progress)
        loop.extract(probing_seconds(deadline - time.monotonic()))
        loop.deadline = session.deadline = deadline
        rounds = _Rounds(loop, solver, seed)
        has_decisions = int(mg.encode(loop.extraction.problem).num_decisions) > 0
        idle = 0
        while has_decisions and loop.left() > 0 and idle < _MAX_IDLE:
            idle = 0 if rounds.one() else idle + 1
        return Solved(
            tuple(loop.history), loop.xla_default_cycles, rounds.number, loop.num_compiles
        )


class _Rounds:
    """Rounds of one run, each a solve and mostly a compile."""

    def __init__(self, loop: CompilerLoop, solver: str, seed: int):
        self.number = 0
        self._loop, self._solver, self._seed = loop, solver, seed
        self._longest = loop.seconds_of_first  # of all compiles, refusals included

    def one(self) -> bool:
        """Solve, and have the result compiled; False if that was done before."""
        left = self._loop.left() - RESERVE * self._longest
        seconds = max(_SHARE * left, _LEAST_SECONDS)
        found = min(self._solve(seconds), key=lambda result: result.latency_cycles)
        self.number += 1
        began = time.monotonic()
        is_new = self._loop.propose(found.assignment, self._solver)
        self._longest = max(self._longest, time.monotonic() - began)
        if not is_new:
            self._loop.give_up_missed(found.assignment)
        return is_new

    def _solve(self, seconds: float) -> list[Result]:
        """A solve on every core, each with a seed of its own."""
        problem, cores = self._loop.problem_to_plan(), num_cores()
        first = self._seed * _SEEDS + self.number * cores

        def one(seed: int) -> Result:
            return solve(self._solver, problem, seconds, seed)

        with ThreadPoolExecutor(cores, self._solver) as pool:
            return list(pool.map(one, range(first, first + cores)))
