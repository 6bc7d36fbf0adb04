"""What memory could do: the rules that every mapping must keep, whoever made it.

A value may be in both memories, in several chunks, and come and go by prefetches, slices of them
and evictions. The data is followed through the program: a definition makes one copy of the value
current and all others stale, a copy carries what is current at its start, and a use must find
current data where it reads (`dataflow`). Plain loops, no code shared with the game.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from malloc_game.problem.assignment import PREFETCH, Assignment, Chunk, Copy, replaced_slices
from malloc_game.problem.dataflow import Flow, copied_at, loops_of
from malloc_game.problem.definition import Problem
from malloc_game.problem.violation import (
    ALIGNMENT,
    CAPACITY,
    OUTSTANDING,
    OVERLAP,
    SIZE,
    TOO_EARLY,
    TOO_LATE,
    Violation,
)


def check_physical(problem: Problem, assignment: Assignment) -> list[Violation]:
    """All physical rules that `assignment` breaks; an empty list means that memory could do it."""
    found = [
        *_check_chunks(problem, assignment),
        *check_overlap(problem, assignment, within_values=False),
        *_check_copies(problem, assignment),
        *check_limits(problem, assignment),
    ]
    loops = loops_of(problem, 0, len(problem.instructions), 0)
    sliced = replaced_slices(problem, assignment)
    found += _check_slices(problem, assignment, sliced)
    for v in range(len(problem.values)):
        found += Flow(problem, assignment, v, sliced).violations(loops)
    return found


def check_overlap(
    problem: Problem, assignment: Assignment, *, within_values: bool = True
) -> list[Violation]:
    """Chunks that share memory at the same time.

    within_values: chunks of one value must be apart as well, even where they hold the same bytes
    at the same place.
    """
    if not assignment.chunks:
        return []
    chunks = assignment.chunks
    rows = np.array([(c.offset, c.offset + c.size, c.start, c.end) for c in chunks])
    low, high, start, end = rows.T
    shared = (
        (low[:, None] < high) & (low < high[:, None])
        & (start[:, None] < end) & (start < end[:, None])
    )  # fmt: skip
    if not within_values:
        same = np.array([(c.value, c.offset - c.value_offset) for c in chunks])
        shared &= (same[:, None] != same).any(axis=-1)
    return [
        Violation(
            OVERLAP,
            f"chunks of {problem.values[chunks[i].value].name} and"
            f" {problem.values[chunks[j].value].name}",
        )
        for i, j in np.argwhere(np.triu(shared, 1))
    ]


def check_limits(problem: Problem, assignment: Assignment) -> Iterator[Violation]:
    """Memory that instructions need for themselves, and how many copies may be under way."""
    for t, instruction in enumerate(problem.instructions):
        for i, chunk in enumerate(assignment.chunks):
            if chunk.start <= t < chunk.end and chunk.offset < instruction.reserved_bytes:
                name = problem.values[chunk.value].name
                label = f"chunk {i} of {name} at {chunk.offset}"
                what = f"{instruction.name} needs {instruction.reserved_bytes} bytes at 0"
                yield Violation(CAPACITY, f"{label}: {what}")
        under_way = sum(copy.start <= t < copy.end for copy in assignment.copies)
        limit = problem.target.max_outstanding_copies
        if limit and under_way > limit:
            yield Violation(
                OUTSTANDING, f"{under_way} copies under {instruction.name}, not {limit}"
            )


def _last_time(problem: Problem, assignment: Assignment, value: int) -> int:
    """When a value's chunks must have ended: results and what the next run needs stay longer."""
    is_kept = problem.values[value].is_live_out or _crosses(assignment, value)
    return len(problem.instructions) if is_kept else problem.values[value].end


def _first_time(problem: Problem, value: int) -> int:
    """When a value's chunks and copies may begin."""
    if problem.values[value].sliced_at >= 0:
        return problem.values[problem.values[value].sliced_from].start
    return 0 if copied_at(problem, value) >= 0 else problem.values[value].start


def _crosses(assignment: Assignment, value: int) -> bool:
    return any(c.is_cross_program and c.value == value for c in assignment.copies)


def _check_chunks(problem: Problem, assignment: Assignment) -> Iterator[Violation]:
    for i, chunk in enumerate(assignment.chunks):
        value = problem.values[chunk.value]
        label = f"chunk {i} of {value.name}"
        end = chunk.offset + chunk.size
        if chunk.offset < 0 or end > problem.target.alternate_memory_bytes:
            yield Violation(CAPACITY, f"{label}: [{chunk.offset}, +{chunk.size})")
        if (chunk.offset - chunk.value_offset) % problem.target.alignment_bytes:
            yield Violation(ALIGNMENT, f"{label}: offset {chunk.offset}")
        yield from _check_part(label, chunk, value.size_bytes)
        first = _first_time(problem, chunk.value)
        if chunk.start < first:
            yield Violation(TOO_EARLY, f"{label}: {chunk.start} < {first}")
        last = _last_time(problem, assignment, chunk.value)
        if chunk.end > last or chunk.end <= chunk.start:
            yield Violation(TOO_LATE, f"{label}: [{chunk.start}, {chunk.end}), {last} at most")


def _check_part(label: str, part: Chunk | Copy, size: int) -> Iterator[Violation]:
    first, last = part.value_offset, part.value_offset + part.size
    if not 0 <= first < last <= size:
        yield Violation(SIZE, f"{label}: bytes [{first}, {last}) of {size}")


def _check_slices(
    problem: Problem, assignment: Assignment, sliced: set[int]
) -> Iterator[Violation]:
    """An asynchronous slice runs as often as the plain one that it replaces, in the same loop."""
    for i, copy in enumerate(assignment.copies):
        if copy.value in sliced:
            plain = problem.instructions[problem.values[copy.value].sliced_at]
            around = problem.instructions[min(copy.start, len(problem.instructions) - 1)].loops
            is_inside = copy.trip_count > 1
            if copy.trip_count != plain.trip_count or (is_inside and around != plain.loops):
                label = f"copy {i} of {problem.values[copy.value].name}"
                yield Violation(TOO_EARLY, f"{label}: not in the loop of {plain.name}")


def _check_copies(problem: Problem, assignment: Assignment) -> Iterator[Violation]:
    for i, copy in enumerate(assignment.copies):
        value = problem.values[copy.value]
        label = f"copy {i} of {value.name}"
        yield from _check_part(label, copy, value.size_bytes)
        first = _first_time(problem, copy.value)
        if copy.start < first or (copy.is_cross_program and copy.start > 0):
            yield Violation(TOO_EARLY, f"{label}: starts at {copy.start}")
        last = _last_time(problem, assignment, copy.value)
        if copy.direction == PREFETCH and not _crosses(assignment, copy.value):
            last = value.end - 1  # there must be a use to prefetch for
        order = (copy.start, copy.start_order), (copy.end, copy.end_order)
        if copy.end > last or order[1] < order[0]:
            yield Violation(TOO_LATE, f"{label}: [{copy.start}, {copy.end}), {last} at most")
