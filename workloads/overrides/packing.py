"""The order in which the compiler should place buffers, so that a mapping that fits packs there.

The compiler chooses offsets by itself, one buffer after another, each in a free gap over its whole
life (smallest gap that fits, lowest address in it). If every buffer comes after those that lie
below it in our mapping while both are alive, then everything above our offset is still free when
its turn comes, so that it ends up there or lower: what fits in the mapping fits in the compiler.
Values with several chunks can contradict each other; then the lowest goes first.
Source: `xla_tpu_msa_sort_order_overrides`; GetBufferIntervalOverridePriority in XLA's
memory_space_assignment/utils.cc (a smaller number is placed earlier).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

import numpy as np

from malloc_game import Assignment, Problem
from workloads.overrides.text import definitions, position_matcher

SORT_ORDER_OPTION = "xla_tpu_msa_sort_order_overrides"
# Buffers that the mapping says nothing about have priority 0: ours come before them.
_FIRST = -(1 << 40)

# A shaken order: the share of its values that move, by what share of its length.
_SHAKEN, _SHAKE = 0.1, 0.2


def placement_order(assignment: Assignment) -> list[int]:
    """Values with chunks, in an order in which each comes after all that lie below it."""
    chunks = assignment.chunks
    if not chunks:
        return []
    value, offset, start, end = np.array([(c.value, c.offset, c.start, c.end) for c in chunks]).T
    is_below = (
        (offset[:, None] < offset) & (start[:, None] < end) & (start < end[:, None])
        & (value[:, None] != value)
    )  # fmt: skip
    above: dict[int, set[int]] = {v: set() for v in value.tolist()}
    for low, high in zip(*(value[i].tolist() for i in np.nonzero(is_below)), strict=True):
        above[low].add(high)
    waits = dict.fromkeys(above, 0)
    for highs in above.values():
        for high in highs:
            waits[high] += 1
    lowest = {v: int(offset[value == v].min()) for v in above}
    ready = [(lowest[v], v) for v, count in waits.items() if count == 0]
    heapq.heapify(ready)
    left = set(above)
    order = []
    while left:
        if not ready:  # a circle
            heapq.heappush(ready, min((lowest[v], v) for v in left))
        v = heapq.heappop(ready)[1]
        if v not in left:
            continue
        left.remove(v)
        order.append(v)
        for high in above[v] & left:
            waits[high] -= 1
            if waits[high] == 0:
                heapq.heappush(ready, (lowest[high], high))
    return order


def sort_order(problem: Problem, assignment: Assignment) -> str:
    """`MsaSortOrderOverrides` text for an assignment with chunks."""
    return in_this_order(problem, placement_order(assignment))


def in_this_order(problem: Problem, values: Iterable[int]) -> str:
    """`MsaSortOrderOverrides` text under which these values are placed before all others."""
    return "\n".join(
        f"overrides {{ {position_matcher(name)}"
        f" override_options {{ assign_value: {_FIRST + rank} }} }}"
        for rank, value in enumerate(values)
        for name in definitions(problem, value)
    )


def shaken(ranks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Ranks of values in an order of placement, float64[N], some of them moved up or down."""
    step = rng.normal(scale=_SHAKE * len(ranks), size=len(ranks))
    return ranks + step * (rng.random(len(ranks)) < _SHAKEN)
