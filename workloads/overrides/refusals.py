"""What the compiler says when overrides cannot be fulfilled, read back."""

from __future__ import annotations

import re

from malloc_game import Problem
from malloc_game.problem.definition import index_text

# Two forms that name the value by the instruction that defines it, and one that names the use.
_VALUE = re.compile(
    r"defining instruction '([^']+)'|value defined at (\S+?)(?: ?\{([\d, ]*)\})? requires"
)
_SCHEDULED = re.compile(r"scheduled prefetch time \((\d+)\)")
_USE = re.compile(r"for instruction '([^']+)' operand (\d+)")


def is_prefetch(message: str) -> bool:
    """Whether an override error says that a demanded prefetch did not come about."""
    return "scheduled prefetch time" in message


def is_moved(message: str) -> bool:
    """Whether an override error says that a prefetch came about, but at another time.

    Time 0 is that of a prefetch that did not come about."""
    found = _SCHEDULED.search(message)
    return found is not None and int(found.group(1)) > 0


def is_about_room(message: str) -> bool:
    """Whether an override error says that something did not fit, where or when it was asked."""
    return "Out of alternate memory" in message or "spatial placement" in message


def refused_value(problem: Problem, message: str) -> int | None:
    """The value that an override error speaks of, None if it cannot be told."""
    use = _USE.search(message)
    for instruction in problem.instructions:
        if use and instruction.name == use.group(1):
            for position in instruction.positions:
                if not position.is_output and position.number == int(use.group(2)):
                    return position.value
    defining = _VALUE.search(message)
    if not defining:
        return None
    name = defining.group(1) or defining.group(2)
    index = tuple(int(i) for i in re.findall(r"\d+", defining.group(3) or ""))
    for v, value in enumerate(problem.values):
        first = value.name.rstrip("'")
        if first == name + index_text(index) or (not index and first.startswith(name + "{")):
            return v
    for instruction in problem.instructions:  # an in-place update of a value
        if instruction.name == name:
            for position in instruction.positions:
                if position.is_output and position.index in (index, ()):
                    return position.value
    return None


def alike(problem: Problem, value: int) -> frozenset[int]:
    """Values of one size that the same kinds of instructions use in the same places."""

    def kind(v: int) -> tuple:
        places = ((problem.instructions[t].cost_table, p) for t, p in problem.positions_of_value[v])
        this = problem.values[v]
        return this.size_bytes, this.is_parameter, frozenset(places)

    wanted = kind(value)
    return frozenset(v for v in range(len(problem.values)) if kind(v) == wanted)
