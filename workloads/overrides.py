"""An assignment as `MsaTensorOverrides` text: what the compiler is told, decision by decision.

The vocabulary is the one that the compiler was seen to obey: a value stays in default memory, a
computed value is pinned in alternate memory, a parameter is prefetched for a use at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from malloc_game import PREFETCH, Assignment, Problem
from malloc_game.problem import index_text

# Asking for a mapping is exact about slices and cross-program prefetch only when both are off.
EXACT_OPTIONS = {
    "xla_tpu_sliced_prefetch_max_slices": "0",
    "xla_msa_max_cross_program_prefetches": "0",
}
# One override that keeps every value in default memory: the program as it is before any mapping.
KEEP_EVERYTHING = (
    'overrides { hlo_position_matcher { instruction_name_regex: ".*" } keep_in_default_memory {} }'
)
_VALUE_NAME = re.compile(r"(.*?)(?:\{([\d,]+)\})?'*$")


def _quote(name: str) -> str:
    """A name as a regular expression that matches it alone, inside a quoted proto string."""
    return "^" + re.escape(name).replace("\\", "\\\\").replace('"', '\\"') + "$"


def _position(value_name: str) -> str:
    name, index = _VALUE_NAME.match(value_name).groups()
    inside = f'instruction_name_regex: "{_quote(name)}"'
    if index:
        inside += " tuple_index { " + " ".join(f"index: {i}" for i in index.split(",")) + " }"
    return f"hlo_position_matcher {{ {inside} }}"


def _operand(instruction: str, number: int, size: int | None = None) -> str:
    inside = f'instruction_name_regex: "{_quote(instruction)}" operand_number: {number}'
    if size is not None:
        inside += f" size_gte: {size} size_lte: {size}"
    return f"hlo_operand_filter {{ {inside} }}"


def _override(where: str, action: str) -> str:
    return f"overrides {{ {where} {action} }}"


def _definitions(problem: Problem, value: int) -> list[str]:
    """Names of the arrays that define a value: its first one, then in-place updates in the entry.

    What a loop body writes back into a carried value is left out: naming it aborts the compiler,
    and the carry follows the value that starts the chain.
    """
    names = {problem.values[value].name.rstrip("'"): None}
    for t, p in problem.positions_of_value[value]:
        instruction = problem.instructions[t]
        position = instruction.positions[p]
        if position.is_output and instruction.in_entry:
            names[instruction.name + index_text(position.index)] = None
    return list(names)


def overrides(
    problem: Problem,
    assignment: Assignment,
    *,
    pin: bool = True,
    prefetch: bool = True,
    permitted: frozenset[int] = frozenset(),
) -> str:
    """`MsaTensorOverrides` text that asks the compiler for `assignment`.

    pin: demand alternate memory for computed values that have it, instead of only allowing it.
    prefetch: demand the assignment's copies at their times, instead of leaving them to XLA.
    permitted: values for which nothing is demanded, only allowed.
    A demand that cannot be met makes the compile fail with `OverrideError`; a permission does not.
    """
    return "\n".join(_overrides(problem, assignment, pin, prefetch, permitted))


def _overrides(
    problem: Problem,
    assignment: Assignment,
    pin: bool,
    prefetch: bool,
    permitted: frozenset[int],
) -> Iterator[str]:
    copy_ends = {
        (copy.value, copy.end): copy for copy in assignment.copies if copy.direction == PREFETCH
    }
    # A parameter that a prefetch copies for another value must stay free to be prefetched.
    sources = {
        value.copied_from
        for v, value in enumerate(problem.values)
        if value.copied_at >= 0
        and any(assignment.in_alternate(t, p) for t, p in problem.positions_of_value[v])
    }
    for v, value in enumerate(problem.values):
        places = problem.positions_of_value[v]
        inside = [(t, p) for t, p in places if assignment.in_alternate(t, p)]
        if not inside and v not in sources:
            for name in _definitions(problem, v):
                yield _override(_position(name), "keep_in_default_memory {}")
            continue
        if not value.is_parameter:
            # Only permitted: a copy that is to become a prefetch, since XLA replaces it by itself,
            # and a live-out, whose last use needs default memory and contradicts a pin.
            is_free = value.copied_at >= 0 or value.is_live_out or v in permitted
            if pin and not is_free:
                yield _override(_position(value.name), "pin_in_alternate_memory {}")
            continue
        asked: set[int] = set()
        for t, p in places:
            position = problem.instructions[t].positions[p]
            name = problem.instructions[t].name
            if position.is_output:
                continue
            if not assignment.in_alternate(t, p):
                # Without the size the instruction's own output would stay in default memory too.
                where = _operand(name, position.number, value.size_bytes)
                yield _override(where, "keep_in_default_memory {}")
            elif prefetch and (v, t) in copy_ends and t not in asked and v not in permitted:
                asked.add(t)
                start = copy_ends[v, t].start
                time = problem.instructions[start].schedule_time - 1
                action = f"prefetch {{ logical_time: {max(time, 0)} strict_timing: true }}"
                yield _override(_operand(name, position.number), action)
