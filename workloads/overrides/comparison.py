"""Which decisions of an assignment hold in another one of the same problem."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from malloc_game import Assignment, Problem


@dataclasses.dataclass(frozen=True)
class Difference:
    """A decision that came out otherwise than asked."""

    value: int
    time: int | None  # of a parameter's use; None for a computed value as a whole
    wanted_in_alternate: bool
    message: str


def decisions(problem: Problem) -> Iterator[tuple[int, int | None, list[tuple[int, int]]]]:
    """Every decision: value, time (None: its whole life), and its (time, position) pairs.

    A decision is a computed value, or one use of a parameter, that may be in alternate memory. Uses
    inside loops count, though the game never asks about those of parameters: they are to stay in
    default memory.
    """
    for v, value in enumerate(problem.values):
        if not value.may_be_in_alternate:
            continue
        groups: dict[int | None, list[tuple[int, int]]] = {}
        for t, p in problem.positions_of_value[v]:
            groups.setdefault(t if value.is_parameter else None, []).append((t, p))
        for time, places in groups.items():
            yield v, time, places


def compare(
    problem: Problem, wanted: Assignment, found: Assignment
) -> tuple[float, list[Difference]]:
    """Fraction of the problem's decisions on which two assignments agree, and where they do not."""
    total, wrong = 0, []
    for v, time, places in decisions(problem):
        total += 1
        bad = [(t, p) for t, p in places if wanted.in_alternate(t, p) != found.in_alternate(t, p)]
        if bad:
            t, p = bad[0]
            inside = wanted.in_alternate(t, p)
            side = "alternate" if inside else "default"
            where = f"{problem.instructions[t].name} {problem.instructions[t].positions[p]}"
            message = f"{problem.values[v].name}: wanted in {side} memory at {where}"
            wrong.append(Difference(v, time, inside, message))
    return (1.0 - len(wrong) / total if total else 1.0), wrong


def keep_only(problem: Problem, assignment: Assignment, values: Iterable[int]) -> Assignment:
    """The assignment with all but `values` in default memory."""
    kept = set(values)
    masks = [
        sum(
            1 << p for p, x in enumerate(instruction.positions) if x.value in kept and mask >> p & 1
        )
        for instruction, mask in zip(problem.instructions, assignment.masks, strict=True)
    ]
    return Assignment(
        tuple(masks),
        tuple(c for c in assignment.chunks if c.value in kept),
        tuple(c for c in assignment.copies if c.value in kept),
        assignment.source,
    )
