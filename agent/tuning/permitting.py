"""A further way of searching: what XLA may place by itself, chosen by the costs that were learned.

The strategies are the strongest baseline's, for which every choice is a compile. Here a placement
dry run, mostly a tenth of one, says first what the compiler would make of a choice. What the
learned costs then speak against, even if those that no compile has shown were a few standard
deviations better, is not compiled; the search goes on from what is predicted of it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

import malloc_game as mg
from agent.planner import finders
from agent.tuning.compiler_loop import CompilerLoop
from malloc_game.solvers.decode import greedy_assignment
from workloads.baselines.strategies import Strategies
from workloads.compiler.session import Compiled
from workloads.errors import CompileError
from workloads.extraction.dry_run import dry_run_of, placed_by
from workloads.extraction.extraction import Extraction
from workloads.overrides.packing import SORT_ORDER_OPTION

# Plans of our own are the planner's and greedy's business.
_STRATEGIES = ("permit_planned", "climb", "permit_wanted")
SOURCE = "guided"
_MAX_IDLE = 4  # choices in a row that came to nothing, not even a check
_CHECK_SHARE = 0.5  # of a compile's time that a check may take, to be worth it
_MAX_DEVIATIONS = 3.0
_Choice = frozenset[tuple[str, str]]  # by its compiler options


class Permitting:
    """Turns of `Strategies` within a run: what they compile becomes a candidate of `SOURCE`."""

    def __init__(
        self,
        loop: CompilerLoop,
        seed: int,
        planned: Callable[[], mg.Assignment | None] = lambda: None,
    ):
        """planned: the best plan so far, if there is one; what it has inside is permitted once.
        Where it may well be the fastest, it is its turn."""
        self._loop = loop
        self._planned = planned
        self._permitted: set[tuple[int, ...]] = set()  # masks
        # What came of a choice, by its options: where there are few, they come to mind again. And
        # what a check says the compiler would make of it; None: refused.
        self._known: dict[_Choice, tuple[float, mg.Assignment] | None] = {}
        self._placed: dict[_Choice, mg.Assignment | None] = {}
        self._done: dict[mg.Assignment, tuple[float, mg.Assignment]] = {}  # what came of mappings
        self._num_checks = 0
        self._check_seconds: dict[bool, float] = {}  # of the last check, by whether it had an order
        self._deviations = 1.0
        self._strategies = Strategies(self, seed, _STRATEGIES, self._plan)

    def take_turn(self) -> None:
        """Compile one choice; none, if nothing that may be the fastest comes to mind for as long as
        that takes.

        Choices are checked before, where that is cheap. If no check leaves any hope, the next
        turn believes less in the costs that no compile has shown."""
        best = self._loop.best()
        self._strategies.note(best.compiled, best.assignment)
        compiles, first_checks = self._loop.num_compiles, self._num_checks
        end = time.monotonic() + min(self._loop.seconds_per_compile, self._loop.left())
        idle = 0
        while idle < _MAX_IDLE:
            checks = self._num_checks
            self._strategies.take_turn()
            if self._loop.num_compiles > compiles:
                self._deviations = 1.0
                return
            idle = 0 if self._num_checks > checks else idle + 1
            if (plan := self._planned()) is not None and self._loop.may_be_best(plan):
                return
            if time.monotonic() >= end:
                break
        if self._num_checks > first_checks:
            self._deviations = min(self._deviations + 1.0, _MAX_DEVIATIONS)

    @property
    def is_checking(self) -> bool:
        """Whether checks are so cheap that choices are checked before they are compiled."""
        return self._is_cheap(has_order=False)

    def _is_cheap(self, has_order: bool) -> bool:
        """Whether a check is; one of a choice with an order of placing takes several times longer,
        for the compiler looks for each value that the order names."""
        dry_run = dry_run_of(self._loop.session)
        each = self._check_seconds.get(has_order, dry_run.seconds_per_dry_run)
        return dry_run.is_fast and each < _CHECK_SHARE * self._loop.seconds_per_compile

    def _plan(
        self, problem: mg.Problem, starts: Sequence[mg.Assignment], rng: np.random.Generator
    ) -> mg.Assignment:
        """The plan of someone who plans all the time, or, if it is known already, greedy's.

        That takes no time, and costs that no compile has shown may be drawn for it."""
        del starts, rng
        found = self._planned()
        if found is None or found.masks in self._permitted:
            return greedy_assignment(problem)
        self._permitted.add(found.masks)
        return found

    # -- `workloads.baselines.strategies.Compiling`
    # ---------------------------------------------------

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
        return self._loop.xla_default_cycles

    @property
    def best_cycles(self) -> float:
        """Compiled latency of the fastest compile so far."""
        return self._loop.best_compiled()

    def compile(self, options: Mapping[str, str]) -> Compiled:
        """Compile. Raises: CompileError."""
        return self._loop.session.compile(options)

    def learn(self, compiled: Compiled) -> tuple[float, mg.Assignment]:
        """Learn from a compile, and keep it if it is the best of its kind."""
        return self._loop.take_in(compiled, SOURCE, finders.PERMISSIONS)

    def try_options(self, options: Mapping[str, str]) -> tuple[float, mg.Assignment] | None:
        """Compile and learn; None if the compiler fails, or is not asked because a dry run shows
        what cannot be the fastest. What was tried is not compiled again."""
        choice = frozenset(options.items())
        if choice in self._known:
            return self._known[choice]
        if self._is_cheap(SORT_ORDER_OPTION in options):
            placed = self._check(choice, options)
            if placed is None:
                return None
            if (same := self._done.get(dataclasses.replace(placed, source=""))) is not None:
                return same
            if not self._loop.may_be_best(placed, self._deviations):
                return None
        try:
            self._known[choice] = self.learn(self.compile(options))
        except CompileError as error:
            self._known[choice] = None
            self._loop.note_failure(SOURCE, finders.PERMISSIONS, error)
        if (tried := self._known[choice]) is not None:
            self._done[dataclasses.replace(tried[1], source="")] = tried
        return tried

    def _check(self, choice: _Choice, options: Mapping[str, str]) -> mg.Assignment | None:
        """What the compiler would do under these options; None if it would not have them."""
        if choice not in self._placed:
            began = time.monotonic()
            dry_run = dry_run_of(self._loop.session)
            source = f"{SOURCE}, placed"
            self._placed[choice] = placed_by(dry_run, self.extraction, options, source)
            self._num_checks += 1
            self._check_seconds[SORT_ORDER_OPTION in options] = time.monotonic() - began
        return self._placed[choice]
