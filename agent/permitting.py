"""A further way of searching: what XLA may place by itself, chosen by the costs that were learned.

`workloads.guided` checks a choice before it compiles it; here every choice is a compile, as the
strongest rival has it. Where the costs of what was not compiled are far off, that is what helps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

import malloc_game as mg
from agent.compiler_loop import CompilerLoop
from workloads.compile import Compiled
from workloads.errors import CompileError, CompilerKilled
from workloads.extract import Extraction
from workloads.learning import plan_greedily
from workloads.rivals.ways import Ways

# Plans of our own are the agent's and greedy's business.
_WAYS = ("permit_planned", "climb", "permit_wanted")
SOURCE = "guided"


class Permitting:
    """Turns of `Ways` within a run: what they have compiled becomes a candidate of `SOURCE`."""

    def __init__(
        self,
        loop: CompilerLoop,
        seed: int,
        planned: Callable[[], mg.Assignment | None] = lambda: None,
    ):
        """planned: the best plan so far, if there is one; what it has inside is permitted once."""
        self._loop = loop
        self._planned = planned
        self._permitted: set[tuple[int, ...]] = set()  # masks
        # What came of a choice, by its options: where there are few, they come to mind again.
        self._known: dict[frozenset[tuple[str, str]], tuple[float, mg.Assignment] | None] = {}
        self._ways = Ways(self, seed, _WAYS, self._plan)

    def take_turn(self) -> None:
        """Compile one choice; none, if nothing promising comes to mind."""
        best = self._loop.best()
        if best.compiled and best.assignment is not None:
            self._ways.note(best.compiled, best.assignment)
        self._ways.take_turn()

    def _plan(
        self, problem: mg.Problem, starts: Sequence[mg.Assignment], rng: np.random.Generator
    ) -> mg.Assignment:
        """The plan of someone who plans all the time, or, if it is known already, greedy's.

        That takes no time, and costs that no compile has shown may be drawn for it."""
        del starts, rng
        found = self._planned()
        if found is None or found.masks in self._permitted:
            return plan_greedily(problem)
        self._permitted.add(found.masks)
        return found

    # -- `workloads.rivals.ways.Compiling` ---------------------------------------------------

    @property
    def extraction(self) -> Extraction:
        """The program as the game sees it, with the costs that compiles have shown."""
        return self._loop.extraction

    @property
    def xla_default(self) -> mg.Assignment:
        """XLA's default mapping."""
        return self._loop.xla_default

    @property
    def xla_default_cycles(self) -> float:
        """Its compiled latency."""
        return self._loop.candidates["xla_default"].compiled or float("inf")

    @property
    def best_cycles(self) -> float:
        """Compiled latency of the fastest compile so far."""
        return self._loop.best_compiled()

    def compile(self, options: Mapping[str, str]) -> Compiled:
        """Compile. Raises: CompileError."""
        self._loop.num_compiles += 1
        return self._loop.session.compile(options)

    def learn(self, compiled: Compiled) -> tuple[float, mg.Assignment]:
        """Learn from a compile, and keep it if it is the best of its kind."""
        return self._loop.take_in(compiled, SOURCE)

    def try_options(self, options: Mapping[str, str]) -> tuple[float, mg.Assignment] | None:
        """Compile and learn; None if the compiler fails. What was tried is not compiled again."""
        key = frozenset(options.items())
        if key not in self._known:
            try:
                self._known[key] = self.learn(self.compile(options))
            except CompilerKilled:
                raise
            except CompileError:
                self._known[key] = None
        return self._known[key]
