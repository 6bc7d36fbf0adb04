"""Rounding the linear relaxation: what it puts in alternate memory, played as a game.

The relaxation weighs everything at once (memory over time, bandwidth, what instructions gain
together), which greedy by benefit cannot; the game makes a legal mapping of it.
"""

from __future__ import annotations

import numpy as np

import malloc_game as mg
from malloc_game.game.state import Program
from malloc_game.problem.definition import Problem
from malloc_game.solvers.decode import (
    greedy_actions,
    latencies_of_wanted,
    num_slots,
    positions_of_decisions,
    to_assignment,
)
from malloc_game.solvers.relaxation.bounds import Bound, lower_bound
from malloc_game.solvers.result import Progress, Result, Search

_BATCH = 64


def fractions(problem: Problem, program: Program, bound: Bound) -> np.ndarray | None:
    """How much of each decision the relaxation puts in alternate memory: float[D], or None."""
    if bound.relaxed is None:
        return None
    found = np.zeros(num_slots(program))
    for d, (_, _, places) in enumerate(positions_of_decisions(problem, program)):
        found[d] = max(bound.relaxed.placement.get(place, 0.0) for place in places)
    return found


def rounding(
    problem: Problem,
    seconds: float,
    seed: int = 0,
    *,
    max_iterations: int | None = None,
    progress: Progress | None = None,
    goal: float | None = None,
) -> Result:
    """The best of plays that want what the relaxation wants, by thresholds and at random.

    The first batch has a threshold each; later ones draw every decision with its fraction,
    sharpened or flattened. Begins with greedy.
    """
    search = Search(problem, seconds, max_iterations, progress, goal)
    program = mg.encode(problem)
    search.offer(to_assignment(problem, program, greedy_actions(program), "greedy"))
    time_limit = np.inf if max_iterations is not None else max(1.0, search.remaining / 2)
    bound = lower_bound(problem, expressible=True, time_limit=time_limit)
    fraction = fractions(problem, program, bound)
    rng = np.random.default_rng(seed)
    while fraction is not None and search.next_round():
        if search.iterations == 1:
            wanted = fraction > np.linspace(0.0, 0.99, _BATCH)[:, None]
        else:
            power = np.exp(rng.normal(0.0, 1.0, (_BATCH, 1)))
            wanted = rng.random((_BATCH, len(fraction))) < fraction**power
        cycles, actions = latencies_of_wanted(program, wanted)
        best = int(np.argmin(cycles))
        if int(cycles[best]) < search.best_cycles:
            search.offer(to_assignment(problem, program, np.asarray(actions)[best], "rounding"))
    return search.result(bound=bound.cycles)
