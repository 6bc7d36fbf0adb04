"""What every solver is: how it is called, keeps the best mapping and the time, and returns."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

from malloc_game.errors import MallocGameError
from malloc_game.problem.assignment import Assignment
from malloc_game.problem.checker import check
from malloc_game.problem.definition import Problem
from malloc_game.problem.latencies import latency

# (problem, seconds, seed; by keyword: max_iterations, progress, goal, and the solver's own) ->
# result. With `max_iterations` the same seed gives the same mapping on any machine; see `Search`.
Solver = Callable[..., "Result"]
# (seconds since the start, latency in cycles): called whenever a solver has found a better mapping.
Progress = Callable[[float, float], None]


# A latency within this share of a proven bound is optimal.
OPTIMAL = 1e-6


def is_optimal(cycles: float, bound: float) -> bool:
    """Whether `cycles` are as few as `bound` allows, but for rounding."""
    return cycles <= bound * (1 + OPTIMAL)


class SolverError(MallocGameError):
    """A solver cannot run: an unknown name, or an extra that is not installed."""


@dataclasses.dataclass(frozen=True)
class Result:
    """The best mapping that a solver found."""

    assignment: Assignment
    latency_cycles: float  # as `latency` judges the assignment
    seconds: float  # wall time, tracing and compiling included
    bound: float | None  # proven: no mapping that the game could make is faster; None if none known
    stats: Mapping[str, Any]  # "improvements": [[seconds, cycles], ...], and the solver's own


class Search:
    """One run of a solver: the clock, and the best mapping so far.

    It ends `seconds` after it was made, or after `max_iterations` rounds if that is given, with
    which the result does not depend on the machine's speed. goal: cycles below which nothing is
    known to be possible; a mapping that is there (see `OPTIMAL`) ends the run as well.
    """

    def __init__(
        self,
        problem: Problem,
        seconds: float,
        max_iterations: int | None = None,
        progress: Progress | None = None,
        goal: float | None = None,
    ):
        self.problem, self.limit, self.max_iterations = problem, seconds, max_iterations
        self.progress = progress
        self.goal = float("-inf") if goal is None else goal
        self.begin = time.perf_counter()
        self.iterations = 0
        self.longest = 0.0  # seconds of the longest round after the first, which may compile
        self.best: Assignment | None = None
        self.best_cycles = float("inf")
        self.improvements: list[list[float]] = []
        self._round_began = self.begin

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.begin

    @property
    def remaining(self) -> float:
        """Seconds that are left, at least 0."""
        return max(0.0, self.limit - self.elapsed)

    @property
    def fraction(self) -> float:
        """How much of the run is over, 0..1; of its rounds, if they are limited."""
        if self.max_iterations is not None:
            return min(1.0, self.iterations / max(1, self.max_iterations))
        return min(1.0, self.elapsed / max(self.limit, 1e-9))

    def next_round(self) -> bool:
        """Whether another round fits, judged by the longest so far; counts it if so."""
        now = time.perf_counter()
        if self.iterations > 1:
            self.longest = max(self.longest, now - self._round_began)
        if self.max_iterations is not None:
            goes_on = self.iterations < self.max_iterations
        else:
            goes_on = self.elapsed + self.longest < self.limit
        goes_on &= not is_optimal(self.best_cycles, self.goal)
        self._round_began = now
        self.iterations += goes_on
        return goes_on

    def offer(self, assignment: Assignment) -> bool:
        """Keep `assignment` if it is valid and the best so far; returns whether it is."""
        cycles = latency(self.problem, assignment).cycles
        if cycles >= self.best_cycles:
            return False
        violations = check(self.problem, assignment)
        assert not violations, f"{assignment.source}: {violations[0]}"
        self.best, self.best_cycles = assignment, cycles
        self.improvements.append([round(self.elapsed, 3), cycles])
        if self.progress is not None:
            self.progress(self.elapsed, cycles)
        return True

    def result(self, bound: float | None = None, **stats: Any) -> Result:
        """The best mapping as a `Result`."""
        assert self.best is not None, "no mapping was offered"
        stats = {"iterations": self.iterations, "improvements": self.improvements, **stats}
        return Result(self.best, self.best_cycles, self.elapsed, bound, stats)


def solver(run: Callable[..., Mapping[str, Any]]) -> Solver:
    """A decorator: the solver of a function that offers mappings to a `Search`.

    run: (search, seed, the solver's own options by keyword) -> what `Search.result` is to tell,
    besides the best mapping.
    """

    def solve(
        problem: Problem,
        seconds: float,
        seed: int = 0,
        *,
        max_iterations: int | None = None,
        progress: Progress | None = None,
        goal: float | None = None,
        **options: Any,
    ) -> Result:
        search = Search(problem, seconds, max_iterations, progress, goal)
        return search.result(**run(search, seed, **options))

    for name in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(solve, name, getattr(run, name))
    return solve
