"""What the compiler says when overrides cannot be fulfilled, read back."""

from __future__ import annotations

import re

from malloc_game import Problem

# Two forms that name the value by the instruction that defines it, and one that names the use.
_VALUE = re.compile(r"defining instruction '([^']+)'|value defined at (\S+) requires")
_USE = re.compile(r"for instruction '([^']+)' operand (\d+)")


def refused_value(problem: Problem, message: str) -> int | None:
    """The value that an override error speaks of, None if it cannot be told."""
    defining, use = _VALUE.search(message), _USE.search(message)
    for instruction in problem.instructions:
        if use and instruction.name == use.group(1):
            for position in instruction.positions:
                if not position.is_output and position.number == int(use.group(2)):
                    return position.value
    if defining:
        for v, value in enumerate(problem.values):
            if re.split(r"[{']", value.name)[0] in defining.groups():
                return v
    return None
