"""Learned-cost greedy in a correction loop: choose by the costs known so far, compile, learn.

There are several ways of making a choice, and which one pays depends on the program: a plan of our
own packs and times everything itself, a permission leaves that to XLA, with slices and prefetches
across programs, which plans lack. Each way gets a turn; then the one that came closest to the best
gets two of three. A choice that was compiled before is replaced by one from costs drawn at random
from what is still possible.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from malloc_game import Assignment, CostTable, Problem
from workloads.errors import CompileError
from workloads.learning import plan_greedily
from workloads.overrides import EXACT_OPTIONS
from workloads.rivals.permits import (
    Benefits,
    permit,
    placeable,
    densest_first,
    values_inside,
)
from workloads.rivals.race import Race, TimeIsUp
from workloads.verify import EXACT, PERMITTED, RELAXED, verify

# Shares of the values worth permitting that are kept out, the least dense ones: XLA's own greedy
# choice of what it places does the better the less it is offered.
_CUTS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2)
_MAX_DRAWS = 8  # choices in a row that were all compiled before


def learned_greedy(race: Race, seed: int = 0) -> None:
    """Run until `TimeIsUp`, or until nothing new comes to mind."""
    race.start(meanwhile=plan_greedily)
    chooser = _Chooser(race, seed)
    ways = [_Way(chooser.plan), _Way(chooser.permit_planned), _Way(chooser.permit_wanted),
            _Way(chooser.permit_in_order)]  # fmt: skip
    idle = 0
    while idle < _MAX_DRAWS * len(ways):
        way = _next(ways)
        way.turns += 1
        before = race.compiles
        cycles = way.take_turn(way.turns)
        way.best = min(way.best, cycles)
        idle = 0 if race.compiles > before else idle + 1


@dataclasses.dataclass
class _Way:
    """A way of choosing, and how it has done."""

    take_turn: Callable[[int], float]  # number of the turn, from 1; returns compiled cycles
    turns: int = 0
    best: float = float("inf")


def _next(ways: list[_Way]) -> _Way:
    """The way whose turn it is: all in order first, then the best two times out of three."""
    leader = min(ways, key=lambda way: (way.turns > 0, way.best))
    if leader.turns == 0:
        return next(way for way in ways if way.turns == 0)
    others = [way for way in ways if way is not leader]
    least = min(others, key=lambda way: way.turns)
    return least if sum(w.turns for w in ways) % 3 == 2 else leader


class _Chooser:
    """The ways, and what they share."""

    def __init__(self, race: Race, seed: int):
        self.race, self.extraction = race, race.extraction
        self.rng = np.random.default_rng(seed)
        self.done: set[Assignment] = set()
        self.failed: dict[tuple[int, int | None], int] = {}
        self.masks = self.extraction.problem  # replaced below
        self.masks = race.xla_default.masks
        self.masks_cycles = race.xla_default_cycles

    # -- ways --------------------------------------------------------------------------------

    def plan(self, turn: int) -> float:
        """Greedy's game on the problem, demanded of the compiler decision by decision."""
        assignment = self._new_plan(turn)
        if assignment is None:
            return float("inf")
        try:
            found = verify(
                self.race, self.extraction, assignment, modes=(EXACT, RELAXED, PERMITTED)
            )
        except CompileError:
            return float("inf")
        self._note(found.cycles, found.assignment)
        return found.cycles

    def permit_planned(self, turn: int) -> float:
        """What greedy's game has in alternate memory anywhere is permitted, and no more."""
        plan = plan_greedily(self._costs(turn))
        return self._try(permit(self.extraction.problem, values_inside(self.extraction.problem, plan.masks)), turn)

    def permit_wanted(self, turn: int) -> float:
        """What would be in alternate memory if room were no matter, less the least dense."""
        return self._permit(turn, in_order=False)

    def permit_in_order(self, turn: int) -> float:
        """The same, and XLA places it in the order of learned benefit per byte."""
        return self._permit(turn, in_order=True)

    # -- parts -------------------------------------------------------------------------------

    def _permit(self, turn: int, in_order: bool) -> float:
        problem = self._costs(1 + (turn - 1) // len(_CUTS))
        benefits = Benefits(problem)
        wanted = benefits.wanted(self.masks, placeable(problem))
        chosen = benefits.densest(wanted, _CUTS[(turn - 1) % len(_CUTS)])
        options = permit(problem, chosen)
        if in_order:
            options |= densest_first(problem, chosen)
        return self._try(options, turn)

    def _try(self, options: dict[str, str], turn: int) -> float:
        tried = self.race.try_options(options)
        if tried is None:
            return float("inf")
        self._note(*tried)
        return tried[0]

    def _note(self, cycles: float, found: Assignment) -> None:
        if cycles <= self.masks_cycles:
            self.masks, self.masks_cycles = found.masks, cycles

    def _new_plan(self, turn: int) -> Assignment | None:
        for draw in range(_MAX_DRAWS):
            assignment = plan_greedily(self._costs(1 + draw))
            key = dataclasses.replace(assignment, source="")
            if key not in self.done:
                self.done.add(key)
                return assignment
        return None

    def _costs(self, draw: int) -> Problem:
        """The problem as it is; from the second draw on, unknown costs are drawn at random."""
        problem = self.extraction.problem
        if draw <= 1:
            return problem
        tables = []
        for table, deviation in zip(
            problem.cost_tables, self.extraction.uncertainty, strict=True
        ):
            noise = self.rng.standard_normal(len(deviation)) * deviation
            cycles = np.maximum(np.rint(np.array(table.cycles) + noise), 0).astype(int)
            tables.append(CostTable(tuple(cycles.tolist()), table.known))
        return problem.replace(cost_tables=tuple(tables))
