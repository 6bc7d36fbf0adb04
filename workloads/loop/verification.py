"""Compile an assignment and see what became of it: compiled cycles, and which decisions held."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping

from malloc_game import Assignment, Problem
from workloads.compiler.session import OVERRIDES_OPTION, Compiled, CompilerSession
from workloads.costs.judge import CompiledLatency
from workloads.errors import CompileError, CompilerKilled, CompileTimeout, OverrideError
from workloads.extraction.dry_run import DryRun, dry_run_of
from workloads.extraction.extraction import Extraction
from workloads.overrides.comparison import compare, keep_only
from workloads.overrides.packing import SORT_ORDER_OPTION, sort_order
from workloads.overrides.refusals import alike, is_about_room, is_moved, is_prefetch, refused_value
from workloads.overrides.text import EXACT_OPTIONS, KEEP_PREFETCHES, overrides


@dataclasses.dataclass(frozen=True)
class Verification:
    """An assignment after the compiler has had its say."""

    latency: CompiledLatency
    honoured: float  # fraction of decisions that hold in the compiled program, 0..1
    not_honoured: tuple[str, ...]  # one line for each decision that does not
    mode: str  # how the compiler was asked: the name of a `Mode`
    options: dict[str, str]  # compiler options that give this program, overrides included
    assignment: Assignment  # what the compiled program really does
    num_repairs: int  # values that were no longer demanded, so that the rest could be
    # (value, time), as of a `Difference`: what should be in alternate memory and is not; and of it
    # what the compiler refused to have there for another reason than room
    missed: frozenset[tuple[int, int | None]] = frozenset()
    refused: frozenset[tuple[int, int | None]] = frozenset()

    @property
    def cycles(self) -> float:
        """Compiled latency in cycles."""
        return self.latency.cycles


@dataclasses.dataclass(frozen=True)
class Mode:
    """A way of asking for an assignment, from demanding to permitting."""

    name: str
    pin: bool  # demand that computed values are in alternate memory
    prefetch: bool  # ask for the assignment's copies
    strict: bool  # demand them, at their very times
    options: dict[str, str]


EXACT = Mode("exact", True, True, True, EXACT_OPTIONS)
RELAXED = Mode("relaxed", True, True, False, EXACT_OPTIONS)
PERMITTED = Mode("permitted", False, True, False, EXACT_OPTIONS)
# XLA places what the assignment allows, with its own copies and slices; and what it prefetches
# across programs, which no override keeps in default memory.
GUIDED = Mode("guided", False, False, False, {})
MODES = (EXACT, RELAXED, PERMITTED, GUIDED)


@dataclasses.dataclass
class Repairs:
    """What the last mapping of a run needed so as not to be refused, where the next is like it.

    It is then asked for with these from the start: a refusal may take as long as a compile.
    """

    options: dict[str, str] = dataclasses.field(default_factory=dict)
    permitted: frozenset[int] = frozenset()  # values that could not be demanded
    loose: frozenset[int] = frozenset()  # values that XLA prefetches at times of its own
    # With the refusals of one mapping, in seconds. Then all of a kind is given up at the next one,
    # for whatever reason, and after twice as long the next mode is asked for. If it is finite, an
    # order of placement, with which all refusals take longer, is given only if there is no room.
    patience: float = math.inf

    def note(
        self, options: dict[str, str], permitted: frozenset[int], loose: frozenset[int]
    ) -> None:
        """What the next mapping is asked for with."""
        self.options, self.permitted, self.loose = options, permitted, loose


# A refusal comes before code generation. But where the compiler begins anew, so that there is no
# placement dry run either, it may come from its second attempt, at the price of a compile.
_MAX_REPAIRS, _MAX_SLOW_REPAIRS = 40, 6


def _max_repairs(dry_run: DryRun) -> int:
    return _MAX_REPAIRS if dry_run.is_fast else _MAX_SLOW_REPAIRS


@dataclasses.dataclass(frozen=True)
class _Accepted:
    """What was not refused."""

    options: dict[str, str]
    compiled: Compiled  # or placed
    given_up: frozenset[int]  # values that are no longer demanded
    unwanted: frozenset[int]  # those of them that were refused for another reason than room


def _accept(
    attempt: Callable[[Mapping[str, str]], Compiled],
    max_repairs: int,
    problem: Problem,
    assignment: Assignment,
    mode: Mode,
    repairs: Repairs,
    began: float,
) -> _Accepted:
    """Find compiler options for `assignment` that the compiler does not refuse.

    It is asked for as it is. If a prefetch is lost, then with no prefetch taken back (not before,
    for that lets the compiler make poor ones of its own); if anything else is refused, with the
    compiler placing buffers in the order in which they lie in the assignment. A prefetch that came
    about at another time is asked for without demanding the time. What is refused all the same is
    only permitted, and if it is refused again kept in default memory. What there is no room for is
    given up alone; where it is another reason, what is used like it in the other layers of a
    program would be refused next, one check of seconds after the other. Raises: CompileError.

    repairs: those to begin with, and what was needed in the end.
    began: when the mapping was first asked for, of `time.monotonic`; see `Repairs.patience`.
    """
    held = {chunk.value for chunk in assignment.chunks}
    permitted, loose = repairs.permitted & held, repairs.loose & held
    dropped: frozenset[int] = frozenset()
    unwanted: frozenset[int] = frozenset()
    # Repairs stay, for to try without them is a check of seconds. But with an order it may take
    # several times as long, for the compiler looks for each value that the order names: in a hurry
    # it is given only where there is no room.
    is_hasty = math.isfinite(repairs.patience)
    extra = {
        option: sort_order(problem, assignment) if option == SORT_ORDER_OPTION else value
        for option, value in repairs.options.items()
        if option != SORT_ORDER_OPTION or not is_hasty
    }
    can_order = mode.pin and bool(assignment.chunks)
    refusal = OverrideError("nothing was asked")
    for _ in range(max_repairs):
        asked = keep_only(problem, assignment, held - dropped) if dropped else assignment
        text = overrides(
            problem,
            asked,
            pin=mode.pin,
            prefetch=mode.prefetch,
            strict=mode.strict,
            permitted=permitted,
            loose=loose,
        )
        while True:
            tried = {**mode.options, **extra, OVERRIDES_OPTION: text}
            try:
                compiled = attempt(tried)
            except OverrideError as error:
                refusal = error
                waited = time.monotonic() - began
            else:
                repairs.note(extra, permitted | dropped, loose)
                return _Accepted(tried, compiled, permitted | dropped, unwanted)
            if waited > 2 * repairs.patience:
                # What was learned is of use to the next mode, and to the next mapping.
                repairs.note(extra, permitted | dropped, loose)
                raise refusal
            value = refused_value(problem, str(refusal))
            is_to_loosen = is_moved(str(refusal)) and value is not None and value not in loose
            if is_to_loosen:
                break
            keeps = KEEP_PREFETCHES.items() <= extra.items()
            if is_prefetch(str(refusal)) and not keeps:
                extra = {**extra, **KEEP_PREFETCHES}
            elif (
                can_order
                and SORT_ORDER_OPTION not in extra
                and (is_about_room(str(refusal)) or not is_hasty)
            ):
                extra = {**extra, SORT_ORDER_OPTION: sort_order(problem, assignment)}
            else:
                break
        if value is None or value in dropped:
            raise refusal
        is_patient = waited < repairs.patience
        if is_to_loosen:
            loose |= {value} if is_patient else held
            continue
        is_room = is_about_room(str(refusal))
        given_up = frozenset({value})
        if not is_patient or not (is_room or value in permitted):
            given_up |= alike(problem, value) & held
        if value in permitted:
            dropped |= given_up & permitted
        else:
            permitted |= given_up
            unwanted |= frozenset() if is_room else given_up
    raise refusal


@dataclasses.dataclass(frozen=True)
class Preview:
    """What the compiler makes of an assignment, without its cycles."""

    honoured: float  # fraction of decisions that hold, 0..1
    not_honoured: tuple[str, ...]  # one line for each decision that does not
    options: dict[str, str]  # compiler options that ask for the assignment
    num_repairs: int  # values that were no longer demanded, so that the rest could be
    assignment: Assignment  # what the compiler would do


def preview(
    session: CompilerSession,
    extraction: Extraction,
    assignment: Assignment,
    mode: Mode = EXACT,
) -> Preview:
    """What `verify` would find honoured, by the placement dry run alone: under a second, mostly.

    Raises:
      CompileError: the compiler does not accept the assignment in this mode.
    """
    dry_run = dry_run_of(session)
    accepted = _accept(
        dry_run.place,
        _max_repairs(dry_run),
        extraction.problem,
        assignment,
        mode,
        Repairs(),
        time.monotonic(),
    )
    found = extraction.assignment_of(accepted.compiled, f"{assignment.source}, placed")
    honoured, differences = compare(extraction.problem, assignment, found)
    messages = tuple(difference.message for difference in differences)
    return Preview(honoured, messages, accepted.options, len(accepted.given_up), found)


def verify(
    session: CompilerSession,
    extraction: Extraction,
    assignment: Assignment,
    modes: tuple[Mode, ...] = MODES,
    repairs: Repairs | None = None,
) -> Verification:
    """Compile `assignment` in the first of `modes` that the compiler accepts.

    There is no placement dry run first: what is refused is refused in the same time by a compile.
    What the compile reveals of costs goes into the extraction, whose `problem` is then a new one.
    repairs: shared by the verifications of a run, whose mappings are like one another; by default
    each begins without.

    Raises:
      CompileError: no mode is accepted (the last one only permits, so with it that is rare), or
        the compiler was killed or took too long.
    """
    problem, began = extraction.problem, time.monotonic()
    max_repairs = _max_repairs(dry_run_of(session))
    for i, mode in enumerate(modes):
        try:
            known = repairs if repairs is not None and mode.pin else Repairs()
            accepted = _accept(
                session.compile, max_repairs, problem, assignment, mode, known, began
            )
        except (CompilerKilled, CompileTimeout):
            raise
        except CompileError:  # refused, or more than the compiler can take: ask for less
            if i == len(modes) - 1:
                raise
            continue
        latency, found = extraction.take_in(
            accepted.compiled, f"{assignment.source}, compiled", is_ours=True
        )
        honoured, differences = compare(problem, assignment, found)
        messages = tuple(difference.message for difference in differences)
        missed = frozenset((d.value, d.time) for d in differences if d.wanted_in_alternate)
        return Verification(
            latency,
            honoured,
            messages,
            mode.name,
            accepted.options,
            found,
            len(accepted.given_up),
            missed,
            frozenset((value, time) for value, time in missed if value in accepted.unwanted),
        )
    raise ValueError("modes is empty")
