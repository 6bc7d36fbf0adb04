"""Independent checker of assignments: NumPy and plain loops, no code shared with the game.

Each violation has a kind, so that every sort of damage is told apart. What the game may do is
checked here; what memory could do, for mappings from elsewhere, in `physical`.
"""

from __future__ import annotations

from malloc_game.problem.assignment import PREFETCH, Assignment, replaced_slices
from malloc_game.problem.definition import Problem
from malloc_game.problem.physical import check_limits, check_overlap, check_physical
from malloc_game.problem.violation import (
    ALIGNMENT,
    BANDWIDTH,
    CAPACITY,
    EXCLUDED,
    NO_COPY,
    NOT_ALLOWED,
    PARTIAL,
    SIZE,
    TOO_EARLY,
    TOO_LATE,
    UNCOVERED,
    Violation,
)


def check(problem: Problem, assignment: Assignment, *, expressible: bool = True) -> list[Violation]:
    """All rules that `assignment` breaks, in bytes and cycles; an empty list means it is valid.

    expressible: hold it to what the game may do, which is what the compiler can be told. Otherwise
    to what memory could do: the rules for XLA's own mapping, a solver's or a file's, with slices,
    evictions and copies inside loops; waiting for a copy is allowed there.
    """
    if not expressible:
        return check_physical(problem, assignment)
    return [
        *_check_chunks(problem, assignment),
        *check_overlap(problem, assignment),
        *_check_positions(problem, assignment),
        *_check_parameters(problem, assignment),
        *_check_askable(problem, assignment),
        *_check_bandwidth(problem, assignment),
        *check_limits(problem, assignment),
    ]


def _check_chunks(problem: Problem, assignment: Assignment) -> list[Violation]:
    found = []
    target = problem.target
    for i, chunk in enumerate(assignment.chunks):
        value = problem.values[chunk.value]
        label = f"chunk {i} of {value.name}"
        if chunk.offset < 0 or chunk.offset + chunk.size > target.alternate_memory_bytes:
            found.append(Violation(CAPACITY, f"{label}: [{chunk.offset}, +{chunk.size})"))
        if chunk.offset % target.alignment_bytes:
            found.append(Violation(ALIGNMENT, f"{label}: offset {chunk.offset}"))
        if not value.may_be_in_alternate or value.is_refused:
            found.append(Violation(NOT_ALLOWED, label))
        if chunk.size != value.size_bytes or chunk.value_offset:
            found.append(Violation(SIZE, f"{label}: {chunk.size}, not {value.size_bytes} bytes"))
        if chunk.start < value.start:
            found.append(Violation(TOO_EARLY, f"{label}: {chunk.start} < {value.start}"))
        if chunk.end > value.end:
            found.append(Violation(TOO_LATE, f"{label}: {chunk.end} > {value.end}"))
    inside_loops = {t for t, x in enumerate(problem.instructions) if not x.in_entry}
    for i, copy in enumerate(assignment.copies):
        value = problem.values[copy.value]
        label = f"copy {i} of {value.name}"
        if copy.size != value.size_bytes or copy.value_offset:
            found.append(Violation(SIZE, f"{label}: {copy.size}, not {value.size_bytes} bytes"))
        if copy.start < value.start or copy.start in inside_loops or copy.trip_count != 1:
            found.append(Violation(TOO_EARLY, f"{label}: starts at {copy.start}"))
        if copy.end >= value.end or copy.end <= copy.start:
            found.append(Violation(TOO_LATE, f"{label}: ends at {copy.end}"))
    return found


def _check_positions(problem: Problem, assignment: Assignment) -> list[Violation]:
    found = []
    chunks: dict[int, list] = {}
    for chunk in assignment.chunks:
        chunks.setdefault(chunk.value, []).append(chunk)
    inside: dict[int, set[bool]] = {}
    for t, instruction in enumerate(problem.instructions):
        for p, position in enumerate(instruction.positions):
            in_alternate = bool(assignment.masks[t] >> p & 1)
            if t == problem.values[position.value].copied_at and in_alternate:
                inside.setdefault(position.value, set()).add(True)
                continue  # the copy has become a prefetch, which may start later
            inside.setdefault(position.value, set()).add(in_alternate)
            if in_alternate and not any(
                c.start <= t < c.end for c in chunks.get(position.value, ())
            ):
                found.append(Violation(UNCOVERED, f"{instruction.name} {position}"))
    for v, sides in inside.items():
        value = problem.values[v]
        if not value.is_parameter and len(sides) > 1:
            found.append(Violation(PARTIAL, value.name))
        if not value.is_parameter and sides == {True}:
            start = value.start
            if value.copied_at >= 0:
                start = min(
                    (t for t, _ in problem.positions_of_value[v] if t != value.copied_at),
                    default=value.start,
                )
            whole = [c for c in chunks.get(v, ()) if c.start <= start and c.end >= value.end]
            if not whole:
                found.append(Violation(UNCOVERED, f"{value.name} has no chunk for its whole life"))
    return found


def _check_parameters(problem: Problem, assignment: Assignment) -> list[Violation]:
    """What comes from default memory is served by a chunk that a copy has filled in time."""
    prefetches: dict[int, list] = {}
    for copy in assignment.copies:
        if copy.direction == PREFETCH:
            prefetches.setdefault(copy.value, []).append(copy)
    found = []
    for v, value in enumerate(problem.values):
        if not value.is_parameter and value.copied_at < 0:
            continue
        filled = [
            (copy.end, chunk.end)
            for chunk in assignment.chunks
            if chunk.value == v
            for copy in prefetches.get(v, ())
            if copy.start == chunk.start and copy.end < chunk.end
        ]
        for t, p in problem.positions_of_value[v]:
            in_alternate = assignment.masks[t] >> p & 1 and t != value.copied_at
            if in_alternate and not any(ready <= t < end for ready, end in filled):
                found.append(Violation(NO_COPY, f"{value.name} at {t}: no copy fills its chunk"))
    return found


def _check_askable(problem: Problem, assignment: Assignment) -> list[Violation]:
    """What the compiler cannot be asked for: refused uses, exclusions, asynchronous slices."""
    found = [
        Violation(NOT_ALLOWED, f"asynchronous slice {problem.values[v].name}")
        for v in sorted(replaced_slices(problem, assignment))
    ]
    # (value, time, is_output) -> whether it is in alternate memory there
    inside: dict[tuple[int, int, bool], bool] = {}
    for t, instruction in enumerate(problem.instructions):
        for p, position in enumerate(instruction.positions):
            in_alternate = bool(assignment.masks[t] >> p & 1)
            place = (position.value, t, position.is_output)
            inside[place] = inside.get(place, False) or in_alternate
            if position.is_refused and in_alternate:
                found.append(Violation(NOT_ALLOWED, f"{instruction.name} {position}"))
    for exclusion in problem.exclusions:
        parameter, output = exclusion.parameter, exclusion.output
        used = any(here for (v, _, _), here in inside.items() if v == parameter)
        if (
            used
            and not inside[parameter, exclusion.time, False]
            and inside[output, exclusion.time, True]
        ):
            names = problem.values[parameter].name, problem.values[output].name
            found.append(Violation(EXCLUDED, f"{names[0]} and {names[1]} at {exclusion.time}"))
    return found


def _check_bandwidth(problem: Problem, assignment: Assignment) -> list[Violation]:
    """Play the copies in order of their starts and see that each is done before its use."""
    order = sorted(
        range(len(assignment.copies)),
        key=lambda i: (assignment.copies[i].start, assignment.copies[i].start_order, i),
    )
    remaining = [float(assignment.copies[i].size) for i in order]
    front = 0
    found = []
    for t in range(len(problem.instructions)):
        for k, i in enumerate(order):
            copy = assignment.copies[i]
            if copy.end == t and remaining[k] > 1e-3:
                found.append(
                    Violation(
                        BANDWIDTH,
                        f"copy of {problem.values[copy.value].name} needed at {t}:"
                        f" {remaining[k]:.0f} bytes to go",
                    )
                )
        spare = (
            problem.instruction_cycles(t, assignment.masks[t])
            * problem.target.default_bytes_per_cycle
        )
        spare -= problem.default_bytes(t, assignment.masks[t])
        while spare > 0 and front < len(order) and assignment.copies[order[front]].start <= t:
            moved = min(spare, remaining[front])
            remaining[front] -= moved
            spare -= moved
            if remaining[front] > 1e-3:
                break
            front += 1
    return found
