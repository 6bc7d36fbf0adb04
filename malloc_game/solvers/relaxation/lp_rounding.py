"""Rounding the linear relaxation: what it puts in alternate memory, played as a game.

The relaxation weighs everything at once (memory over time, bandwidth, what instructions gain
together), which greedy by benefit cannot; the game makes a legal mapping of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from malloc_game.game.decisions import list_decisions
from malloc_game.problem.definition import Problem
from malloc_game.solvers.decode import begin_with_greedy, latencies_of_wanted, offer_best
from malloc_game.solvers.relaxation.bounds import Bound, lower_bound
from malloc_game.solvers.result import Search, solver

_BATCH = 64


def fractions(problem: Problem, length: int, bound: Bound) -> np.ndarray | None:
    """How much of each decision the relaxation puts in alternate memory: float[length], or None."""
    if bound.relaxed is None:
        return None
    found = np.zeros(length)
    for d, decision in enumerate(list_decisions(problem)):
        found[d] = max(bound.relaxed.placement.get(place, 0.0) for place in decision.positions)
    return found


@solver
def rounding(search: Search, seed: int) -> dict[str, Any]:
    """The best of plays that want what the relaxation wants, by thresholds and at random.

    The first batch has a threshold each; later ones draw every decision with its fraction,
    sharpened or flattened. Begins with greedy.
    """
    program, _ = begin_with_greedy(search)
    time_limit = np.inf if search.max_iterations is not None else max(1.0, search.remaining / 2)
    bound = lower_bound(search.problem, expressible=True, time_limit=time_limit)
    fraction = fractions(search.problem, program.max_decisions, bound)
    rng = np.random.default_rng(seed)
    while fraction is not None and search.next_round():
        if search.iterations == 1:
            wanted = fraction > np.linspace(0.0, 0.99, _BATCH)[:, None]
        else:
            power = np.exp(rng.normal(0.0, 1.0, (_BATCH, 1)))
            wanted = rng.random((_BATCH, len(fraction))) < fraction**power
        cycles, actions = latencies_of_wanted(program, wanted)
        offer_best(search, program, cycles, actions, "rounding")
    return dict(bound=bound.cycles)
