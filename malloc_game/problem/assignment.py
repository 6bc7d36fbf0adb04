"""A mapping of a problem's values to memory: who is in alternate memory, when and where."""

from __future__ import annotations

import dataclasses

from malloc_game.problem.definition import Problem

PREFETCH = "prefetch"
EVICTION = "eviction"


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Alternate memory [offset, offset + size) held by a value over logical times [start, end).

    A value that slices fill one after another may have one chunk for each of them, side by side
    and each from the start of its slice.
    """

    value: int
    offset: int  # bytes
    size: int  # bytes
    start: int
    end: int
    value_offset: int = 0  # bytes; the first byte of the value that it holds


@dataclasses.dataclass(frozen=True)
class Copy:
    """An asynchronous copy: it may run under instructions start..end-1 and is awaited before `end`.

    Copies enter their queue in the order of `start`, then `start_order`, then the assignment's
    tuple. What happens before one instruction happens in this order: the copies that are awaited
    there, those that start there, and those that are awaited without an instruction in between.
    `start_order` and `end_order` put it in another order, smaller numbers first: the compiler's.
    """

    value: int
    start: int
    end: int
    size: int  # bytes; smaller than the value for a slice
    direction: str = PREFETCH
    value_offset: int = 0  # bytes; the first byte of the value that it copies
    trip_count: int = 1  # executions in one run of the program (> 1 inside loops)
    start_order: int = 0
    end_order: int = 0
    is_cross_program: bool = False  # already on its way when the program begins


@dataclasses.dataclass(frozen=True)
class Assignment:
    """A complete mapping, from the game, a solver, a file or the compiler.

    `masks[t]` has bit p set when position p of instruction t is in alternate memory. Chunks and
    copies say how that is possible. The game makes prefetches of whole parameters in the entry
    computation; XLA's own mappings have slices, evictions and copies inside loops as well.
    """

    masks: tuple[int, ...]
    chunks: tuple[Chunk, ...] = ()
    copies: tuple[Copy, ...] = ()
    source: str = ""

    def in_alternate(self, time: int, position: int) -> bool:
        """Whether position `position` of instruction `time` is in alternate memory."""
        return bool(self.masks[time] >> position & 1)


def replaced_slices(problem: Problem, assignment: Assignment) -> set[int]:
    """Values that asynchronous slices make in place of the plain ones that define them.

    They are prefetches of the value, and the first copies of it: nothing has been in default memory
    that another prefetch could bring. See `Value`.
    """
    first: dict[int, Copy] = {}
    for copy in sorted(assignment.copies, key=lambda c: (c.start, c.start_order)):
        first.setdefault(copy.value, copy)
    return {
        v
        for v, copy in first.items()
        if copy.direction == PREFETCH
        and any(
            t == problem.values[v].sliced_at and assignment.in_alternate(t, p)
            for t, p in problem.positions_of_value[v]
        )
    }


def all_default(problem: Problem) -> Assignment:
    """Everything in default memory."""
    return Assignment(masks=(0,) * len(problem.instructions), source="all_default")
