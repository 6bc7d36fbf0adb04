"""Local search over what the compiler may place: it fills the rest in, and every step is checked.

A state is a set of values that must stay in default memory, and of computed values that must be in
alternate memory. Everything else is left to XLA, with its slices, evictions and prefetches across
programs, so that XLA's default is the empty state. The fast check (`placement`) says in about half
a second what the compiler makes of a state; the learned costs and the simulator say what it is
worth. The most promising states are compiled, which corrects the costs, and the search goes on.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from malloc_game import Assignment, Problem, latency
from workloads.compile import OVERRIDES_OPTION, CompilerSession
from workloads.errors import CompileError, CompilerKilled
from workloads.extract import Extraction
from workloads.hlo import Module
from workloads.judge import CompiledLatency, compiled_latency
from workloads.overrides import EXACT_OPTIONS, keep_value, pin_value
from workloads.placed import placed_module
from workloads.placement import placer_of

# Sizes of a move, in values; small ones refine, large ones leave local optima.
_MOVE_SIZES = (1, 1, 1, 2, 4, 8)
_P_KEEP, _P_RELEASE, _P_PIN = 0.6, 0.25, 0.15
# A move chooses among this share of the values, those that look best for it.
_POOL_SHARE, _POOL_LEAST = 1 / 3, 6
_MAX_TRIES = 50  # moves drawn before the neighbourhood counts as exhausted
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

    def options(self, problem: Problem) -> dict[str, str]:
        """Compiler options that say so."""
        rows = [row for v in sorted(self.kept) for row in keep_value(problem, v)]
        rows += [row for v in sorted(self.pinned) for row in pin_value(problem, v)]
        asked = {OVERRIDES_OPTION: "\n".join(rows)} if rows else {}
        return {**VARIANTS[self.variant], **asked}


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
      checks: fast checks made.
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
        self._placer = placer_of(session)
        self._rng = np.random.default_rng(seed)
        self._values = [
            v
            for v, value in enumerate(extraction.problem.values)
            if value.may_be_in_alternate and extraction.problem.positions_of_value[v]
        ]
        self._placed: dict[State, Assignment | None] = {State(): xla_default}
        self._predicted: dict[State, float] = {}
        self._compiled: dict[State, Found | None] = {State(): None}
        self._current = State()
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
            try:
                placed = self._placer.place(state.options(problem))
                found = self._extraction.assignment_of(placed, "guided, placed")
            except CompilerKilled:
                raise
            except CompileError:
                found = None
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

    # -- moves -------------------------------------------------------------------------------

    def _benefits(self, assignment: Assignment) -> tuple[np.ndarray, np.ndarray]:
        """For each of the values: cycles that alternate memory saves it per byte and time, given
        where everything else is, and whether it is there anywhere: float64[V], bool[V]."""
        problem = self._extraction.problem
        density, is_inside = np.zeros(len(self._values)), np.zeros(len(self._values), bool)
        for i, v in enumerate(self._values):
            bits: dict[int, int] = {}
            for t, p in problem.positions_of_value[v]:
                bits[t] = bits.get(t, 0) | 1 << p
                is_inside[i] |= assignment.in_alternate(t, p)
            saved = sum(
                problem.instructions[t].trip_count
                * (
                    problem.instruction_cycles(t, assignment.masks[t] & ~mask)
                    - problem.instruction_cycles(t, assignment.masks[t] | mask)
                )
                for t, mask in bits.items()
            )
            value = problem.values[v]
            density[i] = saved / (max(value.size_bytes, 1) * max(value.end - value.start, 1))
        return density, is_inside

    def _moves(self) -> Iterator[State]:
        """Random neighbours of the current state that were not tried."""
        state, values = self._current, np.array(self._values)
        placed = self._placed[state]
        assert placed is not None
        density, is_inside = self._benefits(placed)
        problem = self._extraction.problem
        is_kept = np.isin(values, list(state.kept))
        is_pinned = np.isin(values, list(state.pinned))
        can_pin = np.array(
            [
                not (x.is_parameter or x.is_live_out or x.is_refused) and x.copied_at < 0
                for x in (problem.values[v] for v in self._values)
            ]
        )
        free_to_keep = ~is_kept & is_inside
        pools = {
            "keep": values[free_to_keep][np.argsort(density[free_to_keep])],
            "release": values[is_kept | is_pinned],
            "pin": values[can_pin & ~is_inside][np.argsort(-density[can_pin & ~is_inside])],
        }
        for _ in range(_MAX_TRIES):
            kind = self._rng.choice(list(pools), p=[_P_KEEP, _P_RELEASE, _P_PIN])
            pool = pools[kind]
            if not len(pool):
                continue
            if kind != "release":
                pool = pool[: max(_POOL_LEAST, int(len(pool) * _POOL_SHARE))]
            size = min(int(self._rng.choice(_MOVE_SIZES)), len(pool))
            chosen = frozenset(self._rng.choice(pool, size, replace=False).tolist())
            kept = state.kept | chosen if kind == "keep" else state.kept - chosen
            pinned = state.pinned | chosen if kind == "pin" else state.pinned - chosen
            move = dataclasses.replace(state, kept=kept, pinned=pinned)
            if move not in self._placed:
                yield move

    def step(self) -> bool:
        """Try one neighbour of the current state; returns False if none is left."""
        move = next(self._moves(), None)
        if move is None:
            return False
        self.consider(move)
        return True

    # -- compiles ----------------------------------------------------------------------------

    def compile_best(self) -> Found | None:
        """Compile the most promising state that was not; learn from it, and rank all states anew.

        None if there is none that promises more than what was compiled, or the compiler fails.
        """
        best_compiled = min((f.cycles for f in self.found), default=np.inf)
        left = [s for s in self._predicted if s not in self._compiled]
        state = min(left, key=self._predicted.__getitem__, default=None)
        if state is None or self._predicted[state] >= best_compiled:
            return None
        options = state.options(self._extraction.problem)
        predicted = self._predicted[state]
        self._compiled[state] = None
        try:
            judged, assignment = self._compile(options)
        except CompilerKilled:
            raise
        except CompileError:
            self._placed[state] = None
            self.rank()
            return None
        found = Found(state, predicted, judged, assignment, options)
        self._compiled[state], self._placed[state] = found, assignment
        self.found.append(found)
        self.rank()
        return found

    def _compile(self, options: Mapping[str, str]) -> tuple[CompiledLatency, Assignment]:
        """Compile, and let the extraction learn from it."""
        compiled = self._session.compile(options)
        module = placed_module(compiled)
        self._extraction.learn(module)
        self._extraction.refresh()
        judged = compiled_latency(Module(compiled.hlo), self._extraction.target)
        return judged, self._extraction.assignment_of(compiled, "guided, compiled", module)

    @property
    def promise(self) -> float:
        """Cycles predicted for the most promising state not yet compiled; infinite for none."""
        left = (c for s, c in self._predicted.items() if s not in self._compiled)
        return min(left, default=np.inf)

    @property
    def best(self) -> Found | None:
        """The fastest compiled state."""
        return min(self.found, key=lambda f: f.cycles, default=None)


def guided_search(
    session: CompilerSession,
    extraction: Extraction,
    xla_default: Assignment,
    *,
    starts: Iterable[Assignment] = (),
    deadline: float | None = None,
    max_checks: int | None = None,
    max_compiles: int | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda message: None,
) -> GuidedSearch:
    """Search and compile by turns until the deadline (`time.monotonic()`) or the limits are met.

    starts: mappings whose values in default memory are kept there to begin with, such as game
    plans. About as much time goes into checks as into compiles. Give a deadline or both limits.

    Raises:
      CompilerKilled: the compiler was killed.
    """
    search = GuidedSearch(session, extraction, xla_default, seed)
    compile_seconds, checks_between = 0.0, 8

    def is_over() -> bool:
        late = deadline is not None and time.monotonic() + 0.5 * compile_seconds > deadline
        return late or (max_checks is not None and search.checks >= max_checks)

    for state in (
        *(State(variant=i) for i in range(1, len(VARIANTS))),
        *(search.guided_by(start) for start in starts),
    ):
        if is_over():
            break
        search.consider(state)
    is_left = True
    while True:
        began, checks = time.monotonic(), search.checks
        while is_left and not is_over():
            spent = time.monotonic() - began
            if search.checks - checks >= checks_between and spent >= compile_seconds:
                break
            is_left = search.step()
        if max_compiles is not None and len(search.found) >= max_compiles:
            return search
        began = time.monotonic()
        found = search.compile_best()
        if found is not None:
            compile_seconds = time.monotonic() - began
            progress(
                f"guided: predicted {found.predicted:,.0f}, compiled {found.cycles:,.0f} cycles;"
                f" {len(found.state.kept)} values kept, {len(found.state.pinned)} pinned,"
                f" {search.checks} checks"
            )
        if is_over() or (found is None and not is_left):
            return search
