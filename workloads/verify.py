"""Compile an assignment and see what became of it: compiled cycles, and which decisions held."""

from __future__ import annotations

import dataclasses
import functools
import itertools

from malloc_game import Assignment, Problem
from workloads.compare import compare, keep_only
from workloads.compile import OVERRIDES_OPTION, Compiled, CompilerSession
from workloads.errors import CompileError, CompilerKilled, CompileTimeout, OverrideError
from workloads.extract import Extraction
from workloads.judge import CompiledLatency
from workloads.overrides import EXACT_OPTIONS, KEEP_PREFETCHES, overrides
from workloads.packing import SORT_ORDER_OPTION, sort_order
from workloads.placement import Placer, placer_of
from workloads.refusal import is_prefetch, refused_value


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

_MAX_REPAIRS = 40
# Without the fast check a refusal still comes early, but where the compiler begins anew it may come
# from its second attempt, at the price of a compile.
_MAX_SLOW_REPAIRS = 6


def _accepted_options(
    placer: Placer, problem: Problem, assignment: Assignment, mode: Mode
) -> tuple[dict[str, str], int, Compiled]:
    """Compiler options for `assignment` that pass the fast check, repairs made, and its program.

    Tried in this order: as it is; with the compiler placing buffers in the order in which they lie
    in the assignment; both again with no prefetch taken back, if that is what is refused (not
    before, for it lets the compiler make poor ones of its own); then what is refused is only
    permitted, and if it is refused again kept in default memory. Raises: CompileError.
    """
    permitted: frozenset[int] = frozenset()
    dropped: frozenset[int] = frozenset()
    held = {chunk.value for chunk in assignment.chunks}
    can_order = mode.pin and bool(assignment.chunks)
    order = functools.cache(lambda: {SORT_ORDER_OPTION: sort_order(problem, assignment)})
    refusal = OverrideError("nothing was asked")
    for _ in range(_MAX_REPAIRS if placer.is_fast else _MAX_SLOW_REPAIRS):
        asked = keep_only(problem, assignment, held - dropped) if dropped else assignment
        text = overrides(
            problem,
            asked,
            pin=mode.pin,
            prefetch=mode.prefetch,
            strict=mode.strict,
            permitted=permitted,
        )
        options = {**mode.options, OVERRIDES_OPTION: text}
        lost_a_prefetch = False
        for kept, ordered in itertools.product(({}, KEEP_PREFETCHES), (False, True)):
            if (ordered and not can_order) or (kept and not lost_a_prefetch):
                continue
            tried = {**options, **(order() if ordered else {}), **kept}
            try:
                return tried, len(permitted) + len(dropped), placer.place(tried)
            except OverrideError as error:
                refusal = error
                lost_a_prefetch |= is_prefetch(str(error))
        value = refused_value(problem, str(refusal))
        if value is None or value in dropped:
            raise refusal
        if value in permitted:
            dropped |= {value}
        else:
            permitted |= {value}
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
    """What `verify` would find honoured, by the fast check alone: under a second, mostly.

    Raises:
      CompileError: the compiler does not accept the assignment in this mode.
    """
    options, repairs, placed = _accepted_options(
        placer_of(session), extraction.problem, assignment, mode
    )
    found = extraction.assignment_of(placed, f"{assignment.source}, placed")
    honoured, differences = compare(extraction.problem, assignment, found)
    messages = tuple(difference.message for difference in differences)
    return Preview(honoured, messages, options, repairs, found)


def verify(
    session: CompilerSession,
    extraction: Extraction,
    assignment: Assignment,
    modes: tuple[Mode, ...] = MODES,
) -> Verification:
    """Compile `assignment` in the first of `modes` that the compiler accepts.

    What the compile reveals of costs goes into the extraction, whose `problem` is then a new one.

    Raises:
      CompileError: no mode is accepted (the last one only permits, so with it that is rare), or
        the compiler was killed or took too long.
    """
    problem = extraction.problem
    placer = placer_of(session)
    for i, mode in enumerate(modes):
        try:
            options, repairs, _ = _accepted_options(placer, problem, assignment, mode)
            compiled = session.compile(options)
        except (CompilerKilled, CompileTimeout):
            raise
        except CompileError:  # refused, or more than the compiler can take: ask for less
            if i == len(modes) - 1:
                raise
            continue
        latency, found = extraction.take_in(
            compiled, f"{assignment.source}, compiled", is_ours=True
        )
        honoured, differences = compare(problem, assignment, found)
        messages = tuple(difference.message for difference in differences)
        return Verification(latency, honoured, messages, mode.name, options, found, repairs)
    raise ValueError("modes is empty")
