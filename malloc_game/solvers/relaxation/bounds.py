"""Proven lower bounds on latency: how much is left to win, whoever plays."""

from __future__ import annotations

import dataclasses
import time

import numpy as np

from malloc_game.problem.definition import Problem
from malloc_game.solvers.relaxation.program import Relaxed, relax

# Of the bound, given away for the rounding of sums of floating-point numbers.
_SLACK = 1e-9


@dataclasses.dataclass(frozen=True)
class Bound:
    """A latency that no mapping can beat."""

    cycles: float  # the better of the two below
    best_entries_cycles: float  # every instruction under its best placement, whatever the others do
    relaxed_cycles: float | None  # of the linear relaxation; None if there was not time enough
    seconds: float  # what it took
    relaxed: Relaxed | None  # the relaxation itself, as a guide for heuristics


def best_entries(problem: Problem) -> float:
    """Cycles if every instruction had its best placement: a bound without any work.

    A plain copy that a prefetch may replace can cost what it does without one too (see `latency`);
    a plain slice that an asynchronous one may replace can cost nothing.
    """
    plain: dict[int, float] = {}
    for value in problem.values:
        if value.copied_at >= 0:
            price = max(value.copy_cycles, 0)  # where it is not known, at least nothing
            plain[value.copied_at] = min(price, plain.get(value.copied_at, np.inf))
        if value.sliced_at >= 0:
            plain[value.sliced_at] = 0.0
    return float(
        sum(
            x.trip_count
            * min(min(problem.cost_tables[x.cost_table].cycles), plain.get(t, float("inf")))
            for t, x in enumerate(problem.instructions)
        )
    )


def lower_bound(
    problem: Problem, *, expressible: bool = False, time_limit: float = np.inf
) -> Bound:
    """A lower bound on `latency` over all mappings that pass `check`.

    expressible: over those that the game can make; otherwise over everything that memory could do
    (`check(..., expressible=False)`): evictions, slices, values that move between uses, waiting,
    cross-program prefetches. The prefetches that replace a plain copy must, as any that help, bring
    the whole value.
    time_limit: seconds for the linear program; after them the bound is that of `best_entries`.
    """
    start = time.perf_counter()
    simple = best_entries(problem) * (1 - _SLACK)
    relaxed = relax(problem, expressible=expressible, time_limit=time_limit)
    best = simple
    if relaxed is not None:
        slack = _SLACK * max(1.0, abs(relaxed.cycles))
        best = max(simple, relaxed.cycles - slack)
    return Bound(
        cycles=best,
        best_entries_cycles=simple,
        relaxed_cycles=None if relaxed is None else relaxed.cycles,
        seconds=time.perf_counter() - start,
        relaxed=relaxed,
    )
