"""Compile an assignment and see what became of it: compiled cycles, and which decisions held."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from malloc_game import Assignment
from workloads.compile import OVERRIDES_OPTION, Compiled, CompilerSession
from workloads.errors import OverrideError
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
    compiled: Compiled

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


def verify(
    session: CompilerSession,
    extraction: Extraction,
    assignment: Assignment,
    modes: tuple[Mode, ...] = MODES,
    on_compiled: Callable[[Verification], None] | None = None,
) -> Verification:
    """Compile `assignment` in the first of `modes` that the compiler accepts.

    Costs that the compile reveals go into the extraction's store (`refresh` it to use them).

    Raises:
      OverrideError: no mode is accepted (the last one only permits, so with it that is rare).
      CompileError: the compiler failed otherwise.
    """
    problem = extraction.problem
    for i, mode in enumerate(modes):
        text = overrides(problem, assignment, pin=mode.pin, prefetch=mode.prefetch)
        options = {**mode.options, OVERRIDES_OPTION: text}
        try:
            compiled = session.compile(options)
        except OverrideError:
            if i == len(modes) - 1:
                raise
            continue
        module = Module(compiled.hlo)
        extraction.learn(module)
        found = extraction.assignment_of(compiled, f"{assignment.source}, compiled")
        honoured, wrong = compare(extraction, assignment, found)
        latency = compiled_latency(module, extraction.target)
        result = Verification(latency, honoured, wrong, mode.name, options, found, compiled)
        if on_compiled is not None:
            on_compiled(result)
        return result
    raise ValueError("modes is empty")
