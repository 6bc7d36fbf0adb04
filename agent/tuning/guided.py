"""Local search over what the compiler may place: it fills the rest in, and every step is checked.

A state is a set of values that must stay in default memory, one of computed values that must be in
alternate memory, and an order in which XLA places values. Everything else is left to XLA, with its
slices, evictions and prefetches across programs, so that XLA's default is the empty state. A
placement dry run says in about half a second what the compiler makes of a state; the learned
costs and the simulator say what it is worth. The states of fewest predicted cycles are compiled,
which corrects the costs, and the search goes on.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from malloc_game import Assignment, Problem, latency
from workloads.compiler.session import OVERRIDES_OPTION, CompilerSession
from workloads.costs.judge import CompiledLatency
from workloads.errors import CompileError
from workloads.extraction.dry_run import dry_run_of, placed_by
from workloads.extraction.extraction import Extraction
from workloads.overrides.packing import shaken
from workloads.overrides.permits import Benefits, placeable, placing_first, values_inside
from workloads.overrides.text import EXACT_OPTIONS, keep_value, pin_value

# Sizes of a move, in values; small ones refine, large ones leave local optima.
_MOVE_SIZES = (1, 1, 1, 2, 4, 8)
# How often a move keeps values, releases them, pins them, or shakes the order of placement.
_SHARES = {"keep": 0.5, "release": 0.2, "pin": 0.15, "order": 0.15}
# A move chooses among this share of the values, those that look best for it.
_POOL_SHARE, _POOL_LEAST = 1 / 3, 6
_MAX_TRIES = 50  # moves drawn before the neighbourhood counts as exhausted
# Shares of the values worth having that are kept out to begin with, the least dense ones.
_CUTS = (0.0, 0.05, 0.15)
# Compiler options that a state may come with; the first is XLA's default.
VARIANTS: tuple[Mapping[str, str], ...] = (
    {},
    EXACT_OPTIONS,
    {"xla_tpu_sliced_prefetch_max_slices": "0"},
    {"xla_msa_max_cross_program_prefetches": "0"},
)


@dataclasses.dataclass(frozen=True)
class State:
    """What the compiler is told."""

    kept: frozenset[int] = frozenset()  # values in default memory
    pinned: frozenset[int] = frozenset()  # computed values in alternate memory
    variant: int = 0  # of VARIANTS
    order: tuple[int, ...] = ()  # values that are placed before all others, in this order

    def options(self, problem: Problem) -> dict[str, str]:
        """Compiler options that say so."""
        rows = [row for v in sorted(self.kept) for row in keep_value(problem, v)]
        rows += [row for v in sorted(self.pinned) for row in pin_value(problem, v)]
        asked = {OVERRIDES_OPTION: "\n".join(rows)} if rows else {}
        first = [v for v in self.order if v not in self.kept]
        return {**VARIANTS[self.variant], **asked, **placing_first(problem, first)}


@dataclasses.dataclass(frozen=True)
class Found:
    """A compiled state."""

    state: State
    predicted: float  # cycles, before the compile
    latency: CompiledLatency
    assignment: Assignment  # what the compiled program does
    options: dict[str, str]

    @property
    def cycles(self) -> float:
        """Compiled latency in cycles."""
        return self.latency.cycles


class GuidedSearch:
    """A search that can be stopped, corrected by a compile, and gone on with.

    Attributes:
      found: compiled states, in the order in which they were compiled.
      checks: placement dry runs made.
    """

    def __init__(
        self,
        session: CompilerSession,
        extraction: Extraction,
        xla_default: Assignment,
        seed: int = 0,
    ):
        """xla_default: XLA's default mapping, with which the search starts."""
        self._session, self._extraction = session, extraction
        self._dry_run = dry_run_of(session)
        self._rng = np.random.default_rng(seed)
        self._values = placeable(extraction.problem)
        self._placed: dict[State, Assignment | None] = {State(): xla_default}
        self._predicted: dict[State, float] = {}
        self._compiled: dict[State, Found | None] = {State(): None}
        self._current = State()
        self._queue: list[State] | None = None  # to be tried next; None: to be filled
        self.found: list[Found] = []
        self.checks = 0
        self.rank()

    # -- states ------------------------------------------------------------------------------

    def rank(self) -> None:
        """Predict all states by the extraction's costs of now, and go on from the best."""
        problem = self._extraction.problem
        self._predicted = {
            state: latency(problem, placed).cycles
            for state, placed in self._placed.items()
            if placed is not None
        }
        self._current = min(self._predicted, key=self.worth)

    def worth(self, state: State) -> float:
        """Cycles of a state: compiled where it was, predicted elsewhere, infinite if refused."""
        found = self._compiled.get(state)
        return found.cycles if found else self._predicted.get(state, np.inf)

    def consider(self, state: State) -> float:
        """Check a state, and go on from it if it is the best so far; its predicted cycles."""
        if state not in self._placed:
            self.checks += 1
            problem = self._extraction.problem
            options = state.options(problem)
            found = placed_by(self._dry_run, self._extraction, options, "guided, placed")
            self._placed[state] = found
            if found is not None:
                self._predicted[state] = latency(problem, found).cycles
            if self.worth(state) <= self.worth(self._current):
                self._current = state
        return self.worth(state)

    def guided_by(self, assignment: Assignment) -> State:
        """The state that keeps what an assignment has in default memory everywhere."""
        places = self._extraction.problem.positions_of_value
        return State(
            frozenset(
                v for v in self._values if not any(assignment.in_alternate(*at) for at in places[v])
            )
        )

    def worth_having(self) -> Iterator[State]:
        """States that permit what would save cycles if room were no matter, given the current one.

        Less the least dense values, in the order of benefit per byte and time or in XLA's own.
        """
        problem = self._extraction.problem
        benefits = Benefits(problem)
        placed = self._placed[self._current]
        assert placed is not None
        wanted = benefits.wanted(placed.masks, self._values)
        for cut, variant, is_ordered in itertools.product(_CUTS, (1, 0), (True, False)):
            permitted = benefits.densest(wanted, cut)
            kept = frozenset(self._values) - set(permitted)
            yield State(kept, variant=variant, order=tuple(permitted) if is_ordered else ())

    # -- moves -------------------------------------------------------------------------------

    def _pools(self) -> dict[str, list[int]]:
        """For each kind of move, the values to choose from: those that look best for it."""
        problem, state = self._extraction.problem, self._current
        placed = self._placed[state]
        assert placed is not None
        benefits = Benefits(problem)
        inside = values_inside(problem, placed.masks)

        def density(v: int) -> float:
            value = problem.values[v]
            return benefits.density(v, placed.masks) / max(value.end - value.start, 1)

        def can_be_pinned(v: int) -> bool:
            value = problem.values[v]
            is_free = value.is_parameter or value.is_live_out or value.is_refused
            return not is_free and value.copied_at < 0 and v not in inside

        def best(values: Iterable[int], sign: float) -> list[int]:
            ranked = sorted(values, key=lambda v: (sign * density(v), v))
            return ranked[: max(_POOL_LEAST, int(len(ranked) * _POOL_SHARE))]

        return {
            "keep": best((v for v in self._values if v in inside and v not in state.kept), 1.0),
            "release": sorted(state.kept | state.pinned),
            "pin": best((v for v in self._values if can_be_pinned(v)), -1.0),
            "order": list(state.order),
        }

    def _neighbour(self) -> State | None:
        """A random neighbour of the current state that was not tried; None if none is found."""
        state, pools = self._current, self._pools()
        for _ in range(_MAX_TRIES):
            kind = self._rng.choice(list(_SHARES), p=list(_SHARES.values()))
            pool = pools[kind]
            if not pool:
                continue
            size = min(int(self._rng.choice(_MOVE_SIZES)), len(pool))
            chosen = frozenset(self._rng.choice(pool, size, replace=False).tolist())
            kept = state.kept | chosen if kind == "keep" else state.kept
            pinned = state.pinned | chosen if kind == "pin" else state.pinned
            order = self._shaken(state.order) if kind == "order" else state.order
            if kind == "release":
                kept, pinned = kept - chosen, pinned - chosen
            move = dataclasses.replace(state, kept=kept, pinned=pinned - kept, order=order)
            if move not in self._placed:
                return move
        return None

    def _shaken(self, order: tuple[int, ...]) -> tuple[int, ...]:
        """The order with some values moved up or down."""
        ranks = shaken(np.arange(len(order), dtype=np.float64), self._rng)
        return tuple(np.array(order)[np.argsort(ranks)].tolist())

    def step(self) -> bool:
        """Try a state: one of the queue, else a neighbour; returns False if none is left.

        What is worth having is queued at the beginning, and again when a compile has taught costs.
        """
        if self._queue is None:
            self._queue = [s for s in self.worth_having() if s not in self._placed]
        state = self._queue.pop(0) if self._queue else self._neighbour()
        if state is None:
            return False
        self.consider(state)
        return True

    # -- compiles ----------------------------------------------------------------------------

    def compile_best(self, below: float = np.inf) -> Found | None:
        """Compile the best predicted state that was not; learn from it, and rank all states anew.

        None if none is predicted to be faster than what was compiled, or to have fewer cycles than
        `below`. Raises: CompileError: the compiler fails; the state is not tried again.
        """
        state, predicted = self._best_predicted()
        if state is None or predicted >= min([below, *(f.cycles for f in self.found)]):
            return None
        options = state.options(self._extraction.problem)
        self._compiled[state] = None
        try:
            judged, assignment = self._compile(options)
        except CompileError:
            self._placed[state] = None
            self.rank()
            raise
        found = Found(state, predicted, judged, assignment, options)
        self._compiled[state], self._placed[state] = found, assignment
        self.found.append(found)
        self.rank()
        self._queue = None
        return found

    def _compile(self, options: Mapping[str, str]) -> tuple[CompiledLatency, Assignment]:
        return self._extraction.take_in(self._session.compile(options), "guided, compiled")

    def _best_predicted(self) -> tuple[State | None, float]:
        """Of the states not yet compiled the one with fewest cycles predicted, and these."""
        left = ((s, c) for s, c in self._predicted.items() if s not in self._compiled)
        return min(left, key=lambda item: item[1], default=(None, np.inf))

    @property
    def best(self) -> Found | None:
        """The fastest compiled state."""
        return min(self.found, key=lambda f: f.cycles, default=None)
