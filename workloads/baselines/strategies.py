"""Strategies for choosing what to compile next by learned costs, and whose turn it is.

There are several, and which one pays depends on the program: a plan of our own packs and times
everything itself; a permission leaves that to XLA, which has slices and prefetches across programs,
too; a small change to the best permission so far needs no faith in the costs. Each strategy gets
its turn; then the one that came closest to the best gets two of three. A plan that is predicted to
be slower than what is there is not compiled. Where a choice comes out as one that was compiled
before, costs that no compile has shown are sampled from what they may be (Thompson sampling).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

import malloc_game as mg
from malloc_game import Assignment, Problem
from workloads.baselines.compiling import Compiling
from workloads.baselines.demanding import demand
from workloads.baselines.greedy_plans import ROUNDS, plan, with_costs_sampled, with_refusals
from workloads.baselines.hill_climber import MAX_MOVED, keeping, move
from workloads.errors import CompileError
from workloads.overrides.comparison import compare
from workloads.overrides.packing import shaken
from workloads.overrides.permits import Benefits, placeable, placing_first, values_inside
from workloads.overrides.text import EXACT_OPTIONS

# Shares of the values worth permitting that are kept out, the least dense ones: XLA's own greedy
# choice among what it may place does the better the less it is offered.
_CUTS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2)
# With slices or without, in the order of learned benefit per byte or in XLA's own.
_STYLES = ((True, True), (False, False), (False, True), (True, False))
_MARGIN = 1.05  # a plan may be predicted to be so much slower than the best compile, and be tried
_FAR = 0.95  # of XLA's default: what is faster leaves it far behind
_MAX_SAMPLES = 4  # of costs, for one choice that was not compiled before
_REFUSED = 2  # a decision that did not hold so often is taken to be refused
STRATEGIES = ("plan", "permit_planned", "climb", "permit_wanted")
# Of a problem, mappings to begin with, and a source of randomness.
Planner = Callable[[Problem, Sequence[Assignment], np.random.Generator], Assignment]


@dataclasses.dataclass
class Strategy:
    """A way of choosing, and how it has done."""

    take_turn: Callable[[int], float]  # number of the turn, from 1; returns compiled cycles
    turns: int = 0
    best: float = float("inf")


def next_strategy(strategies: list[Strategy]) -> Strategy:
    """Whose turn it is: one after the other first, then the best's two times out of three."""
    fresh = [strategy for strategy in strategies if strategy.turns == 0]
    if fresh:
        return fresh[0]
    leader = min(strategies, key=lambda strategy: strategy.best)
    others = [strategy for strategy in strategies if strategy is not leader]
    is_leaders = sum(strategy.turns for strategy in strategies) % 3 > 0
    return leader if is_leaders or not others else min(others, key=lambda strategy: strategy.turns)


@dataclasses.dataclass(frozen=True)
class _Permission:
    """A compile in which XLA placed what it was permitted to."""

    cycles: float
    has_slices: bool  # of parameters, and prefetches across programs
    values: frozenset[int]  # permitted
    priority: Mapping[int, float] | None  # highest is placed first; None: XLA's own order
    masks: tuple[int, ...]  # what it does


class Strategies:
    """The strategies, and what they share: costs, refusals, and the best mapping so far."""

    def __init__(
        self, race: Compiling, seed: int, names: Sequence[str] = STRATEGIES, planner: Planner = plan
    ):
        """names: of the strategies that take turns. planner: for what `permit_planned` permits."""
        self._planner = planner
        self.race, self.extraction = race, race.extraction
        self.strategies = [Strategy(getattr(self, name)) for name in names]
        self.rng = np.random.default_rng(seed)
        self.best, self.best_cycles = race.xla_default, race.xla_default_cycles
        self.done: set[Assignment] = set()
        self.misses: dict[tuple[int, int | None], int] = {}
        self.everything = frozenset(range(len(self.extraction.problem.values)))
        self.placeable = placeable(self.extraction.problem)
        self.been: set[tuple[bool, frozenset[int]]] = set()
        self.best_permission = _Permission(
            self.best_cycles, True, self.everything, None, self.best.masks
        )

    def take_turn(self) -> None:
        """The turn of one strategy, mostly a compile. Raises: what the compiler's side raises."""
        strategy = next_strategy(self.strategies)
        strategy.turns += 1
        strategy.best = min(strategy.best, strategy.take_turn(strategy.turns))

    def note(self, cycles: float, found: Assignment) -> float:
        """Take note of a compiled mapping, whoever had it compiled; its cycles."""
        if cycles < self.best_cycles:
            self.best, self.best_cycles = found, cycles
        return cycles

    # -- strategies --------------------------------------------------------------------------------

    def plan(self, turn: int) -> float:
        """A game of our own, demanded of the compiler decision by decision."""
        problem, assignment = self._new_plan(turn)
        if assignment is None or not self._is_worth_a_compile(problem, assignment):
            return float("inf")
        self.done.add(assignment)
        try:
            compiled, given_up = demand(self.race, problem, assignment)
        except CompileError:
            return float("inf")
        cycles, found = self.race.learn(compiled)
        for miss in compare(problem, assignment, found)[1]:
            if miss.wanted_in_alternate:
                key = miss.value, miss.time
                step = _REFUSED if miss.value in given_up else 1
                self.misses[key] = self.misses.get(key, 0) + step
        return self.note(cycles, found)

    def permit_planned(self, turn: int) -> float:
        """What a game of our own has in alternate memory anywhere is permitted."""
        problem = self._costs(turn)
        planned = self._planner(problem, [self.best], self.rng)
        if not self._is_worth_a_compile(problem, planned):
            return float("inf")
        return self._permit(False, values_inside(problem, planned.masks))

    def permit_wanted(self, turn: int) -> float:
        """What would be in alternate memory if room were no matter, less the least dense."""
        repeat, rest = divmod(turn - 1, len(_STYLES) * len(_CUTS))
        cut, style = divmod(rest, len(_STYLES))
        has_slices, is_ordered = _STYLES[style]
        benefits = Benefits(self._costs(1 + repeat))
        wanted = benefits.wanted(self.best.masks, self.placeable)
        chosen = benefits.densest(wanted, _CUTS[cut])
        priority = {v: -float(rank) for rank, v in enumerate(chosen)} if is_ordered else None
        return self._permit(has_slices, chosen, priority)

    def climb(self, turn: int) -> float:
        """The best permission so far, changed a little.

        First everything is permitted, without slices, if XLA's default is not far behind.
        """
        if turn == 1 and self.best_cycles > _FAR * self.race.xla_default_cycles:
            return self._permit(False, self.everything)
        start, benefits = self.best_permission, Benefits(self.extraction.problem)
        kept, priority = self.everything - start.values, start.priority
        if priority is not None and turn % 2:
            return self._permit(start.has_slices, start.values, self._shaken(priority))
        for attempt in range(_MAX_SAMPLES):
            mean = min(2.0 + attempt, MAX_MOVED)
            neighbour = move(benefits, start.masks, self.placeable, kept, mean, self.rng)
            if (start.has_slices, neighbour) not in self.been:
                break
        else:
            return float("inf")
        return self._permit(start.has_slices, self.everything - neighbour, priority)

    # -- parts -------------------------------------------------------------------------------

    def _is_worth_a_compile(self, problem: Problem, planned: Assignment) -> bool:
        """Whether a plan is predicted to be about as fast as all that was compiled so far."""
        return mg.latency(problem, planned).cycles < _MARGIN * self.race.best_cycles

    def _permit(
        self, has_slices: bool, values: Collection[int], priority: Mapping[int, float] | None = None
    ) -> float:
        """Compile with nothing but `values` permitted in alternate memory.

        priority: those of highest priority are placed first; None: XLA's own order.
        """
        problem, permitted = self.extraction.problem, frozenset(values)
        kept = self.everything - permitted
        self.been.add((has_slices, kept))
        options = {**({} if has_slices else EXACT_OPTIONS), **keeping(problem, kept)}
        if priority is not None:
            first = permitted & priority.keys()
            options |= placing_first(problem, sorted(first, key=lambda v: (-priority[v], v)))
        tried = self.race.try_options(options)
        if tried is None:
            return float("inf")
        cycles, found = tried
        if cycles < self.best_permission.cycles:
            self.best_permission = _Permission(cycles, has_slices, permitted, priority, found.masks)
        return self.note(cycles, found)

    def _shaken(self, priority: Mapping[int, float]) -> dict[int, float]:
        """Priorities (0, -1, -2 ...) with some values moved up or down the order."""
        ranks = shaken(np.array(list(priority.values())), self.rng)
        return dict(zip(priority, ranks.tolist(), strict=True))

    def _new_plan(self, turn: int) -> tuple[Problem, Assignment | None]:
        """A plan that was not compiled before, None if none is found, and the problem it solves."""
        refused = {key for key, count in self.misses.items() if count >= _REFUSED}
        for sample in range(1, 1 + _MAX_SAMPLES):
            problem = with_refusals(self._costs(sample), refused)
            # The first plan is wanted soon, and changes to it would rest on guesses.
            rounds = 0 if turn == 1 else ROUNDS
            assignment = plan(problem, [self.best], self.rng, rounds)
            if assignment not in self.done:
                return problem, assignment
        return problem, None

    def _costs(self, sample: int) -> Problem:
        """The problem as it is; from the second sample on, with unknown costs sampled."""
        problem = self.extraction.problem
        if sample <= 1:
            return problem
        return with_costs_sampled(problem, self.extraction.uncertainty, self.rng)
