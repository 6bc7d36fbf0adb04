"""Sets of values that the compiler may place in alternate memory, everything else kept out.

XLA places what is permitted as it sees fit, with its own prefetches, slices and evictions. Which
values are worth permitting follows from the cost tables that compiles have filled.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np

from malloc_game import Assignment, Problem
from workloads.compiler.session import OVERRIDES_OPTION
from workloads.overrides.packing import SORT_ORDER_OPTION, in_this_order
from workloads.overrides.text import overrides

_MAX_SWEEPS = 6


def masks_of(problem: Problem, values: Collection[int]) -> list[int]:
    """Placement masks with `values` in alternate memory wherever they are used."""
    chosen = set(values)
    return [
        sum(1 << p for p, position in enumerate(i.positions) if position.value in chosen)
        for i in problem.instructions
    ]


def permit(problem: Problem, values: Collection[int]) -> dict[str, str]:
    """Compiler options that keep everything but `values` in default memory."""
    allowed = Assignment(tuple(masks_of(problem, values)), (), (), "permitted")
    return {OVERRIDES_OPTION: overrides(problem, allowed, pin=False, prefetch=False)}


def placing_first(problem: Problem, values: Iterable[int]) -> dict[str, str]:
    """Compiler options under which these values are placed before all others, in this order.

    Left to itself, XLA goes by its own estimate of benefit per byte.
    """
    order = in_this_order(problem, values)
    return {SORT_ORDER_OPTION: order} if order else {}


def placeable(problem: Problem) -> list[int]:
    """Values that a compile may place and that something that takes time touches."""
    return [
        v
        for v, value in enumerate(problem.values)
        if problem.positions_of_value[v] and value.may_be_in_alternate
    ]


def values_inside(problem: Problem, masks: Sequence[int]) -> set[int]:
    """Values that are in alternate memory anywhere."""
    return {
        position.value
        for instruction, mask in zip(problem.instructions, masks, strict=True)
        for p, position in enumerate(instruction.positions)
        if mask >> p & 1
    }


class Benefits:
    """Cycles that values save in alternate memory, by the problem's cost tables.

    They depend on where the other operands are: a copy that changes the layout is dearest between
    two buffers in alternate memory. So everything is said of a mapping, given by its masks.
    """

    def __init__(self, problem: Problem):
        self._problem = problem
        self._cycles = [table.cycles for table in problem.cost_tables]
        # For each value, its bits in each instruction that touches it.
        self._bits: list[dict[int, int]] = [{} for _ in problem.values]
        for v, places in enumerate(problem.positions_of_value):
            for t, p in places:
                self._bits[v][t] = self._bits[v].get(t, 0) | 1 << p

    def of(self, value: int, masks: Sequence[int]) -> float:
        """Cycles saved by `value` in alternate memory, everything else as in `masks`."""
        saved = -float(self._problem.values[value].write_back_cycles)
        for t, bits in self._bits[value].items():
            instruction = self._problem.instructions[t]
            cycles = self._cycles[instruction.cost_table]
            out, inside = masks[t] & ~bits, masks[t] | bits
            priced = len(cycles) - 1
            saved += instruction.trip_count * (cycles[out & priced] - cycles[inside & priced])
        return saved

    def density(self, value: int, masks: Sequence[int]) -> float:
        """The same per byte."""
        return self.of(value, masks) / max(self._problem.values[value].size_bytes, 1)

    def wanted(self, masks: Sequence[int], values: Sequence[int]) -> set[int]:
        """Those of `values` that save cycles if room is no matter: a local optimum from `masks`.

        One value after another is put where it saves more, given where the others are by then.
        """
        masks = list(masks)
        inside = values_inside(self._problem, masks)
        order = sorted(values, key=lambda v: -abs(self.of(v, masks)))
        for _ in range(_MAX_SWEEPS):
            changed = False
            for v in order:
                wants = self.of(v, masks) > 0
                if wants != (v in inside):
                    changed = True
                    (inside.add if wants else inside.discard)(v)
                for t, bits in self._bits[v].items():
                    masks[t] = masks[t] | bits if wants else masks[t] & ~bits
            if not changed:
                break
        return inside & set(values)

    def densest(self, values: Collection[int], cut: float) -> list[int]:
        """`values` by benefit per byte, densest first, without the share `cut` at the end."""
        masks = masks_of(self._problem, values)
        density = {v: self.density(v, masks) for v in sorted(values)}
        order = sorted(density, key=lambda v: -density[v])
        return order[: int(np.ceil(len(order) * (1.0 - cut)))]
