"""Mappings as solutions of the constraint program, and back."""

from __future__ import annotations

from collections.abc import Callable

from ortools.sat.python import cp_model

from malloc_game.problem.assignment import Assignment, Chunk, Copy
from malloc_game.problem.definition import Problem
from malloc_game.solvers.cpsat.costs import Costs
from malloc_game.solvers.cpsat.model import Job, Placement

# Copies times starts that the model lists. Where there are more, each copy can choose from fewer,
# and the bound comes from elsewhere.
_MAX_STARTS = 4_000


def stated(
    problem: Problem, start: Assignment, most_starts: int | None = None
) -> tuple[Placement, Costs, list[int]]:
    """The constraint program of `problem`, its costs, and the solution that a mapping is.

    start: of the game's rules. most_starts: as in `Placement`; by default as many as keep the
    model small."""
    placement = Placement(problem, most_starts or _most_starts(problem), start)
    costs = Costs(placement)
    return placement, costs, hint_of(placement, costs, start)


def _most_starts(problem: Problem) -> int | None:
    """How many starts a copy can choose from so that the model stays small; None for all."""
    uses = sum(
        len({t for t, _ in places if problem.instructions[t].in_entry})
        for value, places in zip(problem.values, problem.positions_of_value, strict=True)
        if value.may_be_in_alternate and (value.is_parameter or value.copied_at >= 0)
    )
    every = len(problem.instructions) * uses
    return None if every <= _MAX_STARTS else max(4, _MAX_STARTS // max(1, uses))


def read(placement: Placement, value_of: Callable[[cp_model.IntVar], int]) -> Assignment:
    """The mapping that a solution stands for; `value_of` gives the value of a variable."""
    problem = placement.problem
    masks = [0] * len(problem.instructions)
    for (t, p), inside in placement.literals.items():
        masks[t] |= int(value_of(inside)) << p
    copies = [
        Copy(j.value, _start(j, value_of), j.deadline, problem.values[j.value].size_bytes)
        for j in placement.jobs
        if value_of(j.is_made)
    ]
    copies.sort(key=lambda c: (c.start, c.end))
    chunks = []
    for v, inside in placement.values.items():
        if value_of(inside):
            start, job = problem.values[v].start, placement.value_jobs.get(v)
            start = start if job is None else _start(job, value_of)
            place = placement.alignment * value_of(placement.value_offsets[v])
            size, end = problem.values[v].size_bytes, problem.values[v].end
            chunks.append(Chunk(v, place, size, start, end))
    for v, uses in placement.uses.items():
        for i, use in enumerate(uses):
            if value_of(use.job.is_made):
                last = i
                while uses[last].stays is not None and value_of(uses[last].stays):
                    last += 1
                place = placement.alignment * value_of(use.offset)
                size, start = problem.values[v].size_bytes, _start(use.job, value_of)
                chunks.append(Chunk(v, place, size, start, uses[last].time + 1))
    return Assignment(tuple(masks), tuple(chunks), tuple(copies), "cpsat")


def _start(job: Job, value_of: Callable[[cp_model.IntVar], int]) -> int:
    return next(t for t, starts in job.starts.items() if value_of(starts))


def hint_of(placement: Placement, costs: Costs, hint: Assignment) -> list[int]:
    """The solution that a mapping of the game is: the value of every variable, by its number."""
    problem = placement.problem
    hints: dict[int, int] = {}  # by number of the variable, each once

    def suggest(variable: cp_model.IntVar, value: int) -> None:
        hints[variable.index] = int(value)

    starts = {(c.value, c.end): c.start for c in hint.copies}
    ready = {(c.value, c.start): c.end for c in hint.copies}
    for job in placement.jobs:
        start = starts.get((job.value, job.deadline))
        suggest(job.is_made, start is not None)
        for t, starts_then in job.starts.items():
            suggest(starts_then, t == start)
    for job, first, length, end in placement.spans:
        start = starts.get((job.value, job.deadline), 0)
        suggest(first, start)
        suggest(length, end - start)
    for (t, p), inside in placement.literals.items():
        suggest(inside, hint.in_alternate(t, p))
    for t, (masks, entries) in enumerate(costs.entries):
        if entries[0] is not None:
            for mask, entry in zip(masks, entries, strict=True):
                suggest(entry, mask == hint.masks[t] & max(masks))
    chunks: dict[int, list[Chunk]] = {v: [] for v in range(len(problem.values))}
    for chunk in hint.chunks:
        chunks[chunk.value].append(chunk)
    for v, offset in placement.value_offsets.items():
        place = chunks[v][0].offset if chunks[v] else 0
        suggest(offset, place // placement.alignment)
    for v, uses in placement.uses.items():
        for use in uses:
            here = [c for c in chunks[v] if ready[v, c.start] <= use.time < c.end]
            suggest(use.offset, here[0].offset // placement.alignment if here else 0)
            if use.stays is not None:
                suggest(use.stays, bool(here) and here[0].end > use.time + 1)
    started, backlog = costs.queue_of(hints)
    for variables, values in ((costs.started, started), (costs.backlog, backlog)):
        for variable, value in zip(variables[1:], values[1:], strict=True):
            suggest(variable, value)
    fixed = placement.cp.proto.variables  # constants
    return [hints.get(n, fixed[n].domain[0]) for n in range(len(fixed))]
