"""A mapping of a problem's values to memory: who is in alternate memory, when and where."""

from __future__ import annotations

import dataclasses

from malloc_game.problem import Problem

PREFETCH = "prefetch"
EVICTION = "eviction"


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Alternate memory [offset, offset + size) held by a value over logical times [start, end)."""

    value: int
    offset: int  # bytes
    size: int  # bytes
    start: int
    end: int


@dataclasses.dataclass(frozen=True)
class Copy:
    """An asynchronous copy: it may run under instructions start..end-1 and is awaited before `end`.

    Copies enter their queue in the order of `start`; copies of one start in the order of the
    assignment's tuple.
    """

    value: int
    start: int
    end: int
    size: int  # bytes
    direction: str = PREFETCH


@dataclasses.dataclass(frozen=True)
class Assignment:
    """A complete mapping, from the game, a solver, a file or the compiler.

    `masks[t]` has bit p set when position p of instruction t is in alternate memory. Chunks and
    copies say how that is possible; XLA's own assignments may use slices and evictions as well.
    """

    masks: tuple[int, ...]
    chunks: tuple[Chunk, ...] = ()
    copies: tuple[Copy, ...] = ()
    source: str = ""

    def in_alternate(self, time: int, position: int) -> bool:
        """Whether position `position` of instruction `time` is in alternate memory."""
        return bool(self.masks[time] >> position & 1)


def all_default(problem: Problem) -> Assignment:
    """Everything in default memory."""
    return Assignment(masks=(0,) * len(problem.instructions), source="all_default")
