"""What pictures of a mapping share: titles, sizes in words, kinds of values, lanes of copies."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from malloc_game.problem.assignment import Assignment, Copy, all_default
from malloc_game.problem.definition import Problem
from malloc_game.problem.latencies import latency
from malloc_game.problem.target import MIB


def size_text(size: float) -> str:
    """Bytes in words: "3.5 MiB"."""
    for unit, name in ((MIB, "MiB"), (1024, "KiB")):
        if size >= unit:
            return (
                f"{size / unit:.3g} {name}" if size < 1000 * unit else f"{size / unit:,.0f} {name}"
            )
    return f"{size:.0f} B"


def title(problem: Problem, assignment: Assignment) -> tuple[str, str]:
    """Two lines: what is drawn, and how fast it is predicted to be."""
    held = len({chunk.value for chunk in assignment.chunks})
    name = f" ({assignment.source})" if assignment.source else ""
    cycles = latency(problem, assignment).cycles
    default = latency(problem, all_default(problem)).cycles
    share = f", {cycles / default:.4f} of all default" if default else ""
    return (
        f"{problem.name} on {problem.target.name}{name}: {held} of {len(problem.values)} values in"
        f" {size_text(problem.target.alternate_memory_bytes)} of alternate memory",
        f"predicted {cycles:,.0f} cycles{share}",
    )


def kind_of(problem: Problem, value: int) -> str:
    """What a value is: "parameter", "live-out" or "computed value"."""
    if problem.values[value].is_parameter:
        return "parameter"
    return "live-out" if problem.values[value].is_live_out else "computed value"


def copy_lanes(copies: Sequence[Copy]) -> list[int]:
    """Lanes to draw copies in, the lowest that is free from start to end; sorted by start."""
    free: list[int] = []
    busy: list[tuple[int, int]] = []  # end, lane
    lanes, num_lanes = [], 0
    for copy in copies:
        while busy and busy[0][0] <= copy.start:
            heapq.heappush(free, heapq.heappop(busy)[1])
        if free:
            lane = heapq.heappop(free)
        else:
            lane, num_lanes = num_lanes, num_lanes + 1
        lanes.append(lane)
        heapq.heappush(busy, (copy.end, lane))
    return lanes
