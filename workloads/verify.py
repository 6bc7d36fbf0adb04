"""Compile an assignment and see what became of it: compiled cycles, and which decisions held."""

from __future__ import annotations

import dataclasses
import re

from malloc_game import Assignment, Problem
from workloads.compile import OVERRIDES_OPTION, Compiled, CompilerSession
from workloads.errors import CompileError, CompilerKilled, CompileTimeout, OverrideError
from workloads.extract import Extraction
from workloads.hlo import Module
from workloads.judge import CompiledLatency, compiled_latency
from workloads.overrides import EXACT_OPTIONS, overrides


@dataclasses.dataclass(frozen=True)
class Verification:
    """An assignment after the compiler has had its say."""

    latency: CompiledLatency
    honoured: float  # fraction of decisions that hold in the compiled program, 0..1
    not_honoured: tuple[str, ...]  # one line for each decision that does not
    mode: str  # how the compiler was asked: "exact", "relaxed" or "guided"
    options: dict[str, str]  # compiler options that give this program, overrides included
    assignment: Assignment  # what the compiled program really does

    @property
    def cycles(self) -> float:
        """Compiled latency in cycles."""
        return self.latency.cycles


@dataclasses.dataclass(frozen=True)
class Mode:
    """A way of asking for an assignment, from demanding to permitting."""

    name: str
    pin: bool
    prefetch: bool
    options: dict[str, str]


EXACT = Mode("exact", True, True, EXACT_OPTIONS)
RELAXED = Mode("relaxed", False, True, EXACT_OPTIONS)
# XLA places what the assignment allows, with its own copies, slices and cross-program prefetch.
GUIDED = Mode("guided", False, False, {})
MODES = (EXACT, RELAXED, GUIDED)


def compare(
    extraction: Extraction, wanted: Assignment, found: Assignment
) -> tuple[float, tuple[str, ...]]:
    """Fraction of the problem's decisions on which two assignments agree, and where they do not.

    A decision is a computed value, or one use of a parameter, that may be in alternate memory.
    """
    problem = extraction.problem
    total, wrong = 0, []
    for v, value in enumerate(problem.values):
        if not value.may_be_in_alternate:
            continue
        groups: dict[int, list[tuple[int, int]]] = {}
        for t, p in problem.positions_of_value[v]:
            if problem.instructions[t].in_entry or not value.is_parameter:
                groups.setdefault(t if value.is_parameter else -1, []).append((t, p))
        for places in groups.values():
            total += 1
            bad = [
                (t, p) for t, p in places if wanted.in_alternate(t, p) != found.in_alternate(t, p)
            ]
            if bad:
                t, p = bad[0]
                side = "alternate" if wanted.in_alternate(t, p) else "default"
                where = f"{problem.instructions[t].name} {problem.instructions[t].positions[p]}"
                wrong.append(f"{value.name}: wanted in {side} memory at {where}")
    return (1.0 - len(wrong) / total if total else 1.0), tuple(wrong)


# How the compiler names what it could not do; see MSA's override errors.
_REFUSED_VALUE = re.compile(r"defining instruction '([^']+)'|value defined at (\S+) requires")
_REFUSED_USE = re.compile(r"for instruction '([^']+)' operand (\d+)")
_MAX_REPAIRS = 24


def _refused_value(problem: Problem, message: str) -> int | None:
    """The value that an override error speaks of, None if it cannot be told."""
    defining, use = _REFUSED_VALUE.search(message), _REFUSED_USE.search(message)
    for t, instruction in enumerate(problem.instructions):
        if use and instruction.name == use.group(1):
            for position in problem.instructions[t].positions:
                if not position.is_output and position.number == int(use.group(2)):
                    return position.value
    if defining:
        for v, value in enumerate(problem.values):
            if re.split(r"[{']", value.name)[0] in defining.groups():
                return v
    return None


def _compile_repaired(
    session: CompilerSession, problem: Problem, assignment: Assignment, mode: Mode
) -> tuple[Compiled, dict[str, str]]:
    """Compile; what the compiler refuses to be forced into it is then only permitted to do.

    A refusal takes a fraction of a second, so a few of them cost less than one compile.
    """
    permitted: frozenset[int] = frozenset()
    while True:
        text = overrides(
            problem, assignment, pin=mode.pin, prefetch=mode.prefetch, permitted=permitted
        )
        options = {**mode.options, OVERRIDES_OPTION: text}
        try:
            return session.compile(options), options
        except OverrideError as error:
            value = _refused_value(problem, str(error))
            if value is None or value in permitted or len(permitted) >= _MAX_REPAIRS:
                raise
            permitted |= {value}


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
    for i, mode in enumerate(modes):
        try:
            compiled, options = _compile_repaired(session, problem, assignment, mode)
        except (CompilerKilled, CompileTimeout):
            raise
        except CompileError:  # refused, or more than the compiler can take: ask for less
            if i == len(modes) - 1:
                raise
            continue
        module = Module(compiled.hlo)
        extraction.learn(module)
        extraction.refresh()
        found = extraction.assignment_of(compiled, f"{assignment.source}, compiled", module)
        honoured, wrong = compare(extraction, assignment, found)
        latency = compiled_latency(module, extraction.target)
        extraction.calibrate(latency.cycles, found, is_ours=True)
        extraction.refresh()
        return Verification(latency, honoured, wrong, mode.name, options, found)
    raise ValueError("modes is empty")
