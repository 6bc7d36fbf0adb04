"""A mapping as text: alternate memory over logical time, in characters."""

from __future__ import annotations

import string
from collections.abc import Iterable

import numpy as np

from malloc_game.errors import MallocGameError, printable
from malloc_game.problem.assignment import EVICTION, PREFETCH, Assignment, Chunk, Copy
from malloc_game.problem.definition import Problem
from malloc_game.render.layout import size_text, title

_LETTERS = string.ascii_uppercase + string.ascii_lowercase
_EMPTY, _SPARSE, _OTHER = ".", ":", "#"
_MARGIN = 10  # characters left of the picture


def render_text(
    problem: Problem, assignment: Assignment, *, width: int = 100, height: int = 16, legend: int = 8
) -> str:
    """Alternate memory over logical time as characters, no line longer than `width`.

    A row is a range of offsets, the lowest at the bottom; a column is one instruction, or several
    where there are more than fit. A letter is the value that holds most of its cell; `#` stands for
    values that have no letter left, `:` for a cell that is less than half held, `.` for an empty
    one. Below it, how many copies are under way at most (`+`: ten or more).

    width: characters, at least 40. height: rows of memory. legend: how many values are named.
    """
    if width < 40 or height < 1:
        raise MallocGameError(f"a picture of {width} x {height} is too small; need 40 x 1")
    times = len(problem.instructions)
    columns = min(times, width - _MARGIN)
    held, owner = _cells(problem, assignment.chunks, height, columns)
    values = _by_area(assignment.chunks)
    letter = dict(zip(values, _LETTERS, strict=False))
    lines = list(title(problem, assignment))
    for row in reversed(range(height)):
        cells = [
            _cell(share, letter.get(value, _OTHER))
            for share, value in zip(held[row], owner[row], strict=True)
        ]
        # Every fourth row is labelled, with the offset at which it begins.
        offset = problem.target.alternate_memory_bytes * row / height
        label = size_text(offset) if row % 4 == 0 else ""
        lines.append(f"{label:>{_MARGIN - 1}}|" + "".join(cells))
    for direction in (PREFETCH, EVICTION):
        copies = [c for c in assignment.copies if c.direction == direction]
        if copies:
            counts = _counts(copies, times, columns)
            lines.append(f"{direction:>{_MARGIN - 1}}|" + counts)
    lines.append(" " * (_MARGIN - 1) + "+" + _axis(times, columns))
    lines.extend(_legend(problem, assignment, values[:legend], letter))
    return "\n".join(printable(line)[:width].rstrip() for line in lines) + "\n"


def _cell(share: float, letter: str) -> str:
    if share == 0:
        return _EMPTY
    return letter if share >= 0.5 else _SPARSE


def _cells(
    problem: Problem, chunks: Iterable[Chunk], rows: int, columns: int
) -> tuple[np.ndarray, np.ndarray]:
    """What is held of each cell, float[rows, columns] in 0..1, and by which value for the most."""
    low = np.linspace(0, problem.target.alternate_memory_bytes, rows + 1)
    early = np.linspace(0, len(problem.instructions), columns + 1)
    held = np.zeros((rows, columns))
    most, owner = np.zeros((rows, columns)), np.full((rows, columns), -1)
    for chunk in chunks:
        down, across = (
            np.clip(np.minimum(end, edges[1:]) - np.maximum(start, edges[:-1]), 0, None)
            / np.diff(edges)
            for start, end, edges in (
                (chunk.offset, chunk.offset + chunk.size, low),
                (chunk.start, chunk.end, early),
            )
        )
        (r,), (c,) = np.nonzero(down), np.nonzero(across)
        if not len(r) or not len(c):
            continue
        box = slice(r[0], r[-1] + 1), slice(c[0], c[-1] + 1)
        share = np.outer(down[box[0]], across[box[1]])
        held[box] += share
        owner[box] = np.where(share > most[box], chunk.value, owner[box])
        most[box] = np.maximum(share, most[box])
    return held, owner


def _counts(copies: Iterable[Copy], times: int, columns: int) -> str:
    change = np.zeros(times + 1, int)
    for copy in copies:
        change[copy.start] += 1
        change[copy.end] -= 1
    under_way = np.cumsum(change)[:times]
    first = (np.arange(columns) * times) // columns
    most = np.maximum.reduceat(under_way, first)
    return "".join(_EMPTY if n == 0 else str(n) if n < 10 else "+" for n in most.tolist())


def _axis(times: int, columns: int) -> str:
    """Logical times at every tenth column."""
    marks = ""
    for column in range(0, columns, 10):
        marks = marks.ljust(column) + str(column * times // columns)
    return marks + "  (instruction)"


def _legend(
    problem: Problem, assignment: Assignment, values: list[int], letter: dict[int, str]
) -> list[str]:
    spans: dict[int, list[str]] = {value: [] for value in values}
    for chunk in sorted(assignment.chunks, key=lambda c: c.start):
        if chunk.value in spans:
            spans[chunk.value].append(f"{chunk.start}-{chunk.end}")
    return [
        f"{letter[v]} {problem.values[v].name}, {size_text(problem.values[v].size_bytes)}:"
        f" {', '.join(spans[v])}"
        for v in values
    ]


def _by_area(chunks: Iterable[Chunk]) -> list[int]:
    """Values by what they hold of the picture, bytes x instructions, the largest first."""
    area: dict[int, int] = {}
    for chunk in chunks:
        area[chunk.value] = area.get(chunk.value, 0) + chunk.size * (chunk.end - chunk.start)
    return sorted(area, key=lambda value: (-area[value], value))
