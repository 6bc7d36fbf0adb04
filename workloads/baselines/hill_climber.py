"""Hill climbing over which values XLA may place, from its own mapping, one compile a step.

A move keeps a few values in default memory, or permits a few that were kept; it stays if the
compiled program is faster. Moves are drawn by what the costs seen so far say of them, with chances
for all: XLA answers a move by placing other things in the room that it leaves.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from malloc_game import Problem
from workloads.baselines.clocked_run import Race
from workloads.overrides.permits import Benefits, permit, placeable

MAX_MOVED = 8  # values at a time
_LEAST_CHANCE = 0.2  # of the mean chance, for a move that learned costs speak against
_MAX_REPEATS = 64  # moves in a row that lead to where a compile has been


def hill_climbing(race: Race, seed: int = 0) -> None:
    """Climb until `TimeIsUp`, or until no move leads anywhere new."""
    race.start()
    rng = np.random.default_rng(seed)
    problem = race.extraction.problem
    movable = placeable(problem)
    kept: frozenset[int] = frozenset()
    best, masks = race.xla_default_cycles, race.xla_default.masks
    been = {kept}
    moved = 2.0
    repeats = 0
    while movable and repeats < _MAX_REPEATS:
        neighbour = move(Benefits(race.extraction.problem), masks, movable, kept, moved, rng)
        if neighbour in been:
            repeats += 1
            moved = min(moved * 1.2, MAX_MOVED)
            continue
        repeats = 0
        been.add(neighbour)
        tried = race.try_options(keeping(problem, neighbour))
        if tried is not None and tried[0] <= best:
            # What works is done in larger steps, what does not in smaller ones.
            moved = min(moved * 1.5, MAX_MOVED) if tried[0] < best else moved
            kept, best, masks = neighbour, tried[0], tried[1].masks
        else:
            moved = max(moved / 1.2, 1.0)


def keeping(problem: Problem, kept: Collection[int]) -> dict[str, str]:
    """Compiler options that keep these values in default memory, and say nothing of others."""
    return permit(problem, set(range(len(problem.values))).difference(kept)) if kept else {}


def move(
    benefits: Benefits,
    masks: Sequence[int],
    movable: Sequence[int],
    kept: frozenset[int],
    mean: float,
    rng: np.random.Generator,
) -> frozenset[int]:
    """Other values to keep than `kept`: about `mean` of `movable` are different, at least one.

    masks: what the compile that kept `kept` does.
    """
    values = np.array(movable)
    number = min(1 + rng.poisson(mean - 1.0), len(values))
    chances = _chances(benefits, masks, values, kept)
    flipped = rng.choice(values, size=number, replace=False, p=chances)
    return kept.symmetric_difference(flipped.tolist())


def _chances(
    benefits: Benefits, masks: Sequence[int], values: np.ndarray, kept: frozenset[int]
) -> np.ndarray:
    """How likely each value is to be flipped: float64[len(values)], sum 1.

    A kept one by what it would save in alternate memory, another by what it costs there now, or by
    the little that it saves for its size, since the room may be worth more to others.
    """
    saved = np.array([benefits.of(int(v), masks) for v in values])
    is_kept = np.array([int(v) in kept for v in values])
    density = np.array([benefits.density(int(v), masks) for v in values])
    rank = np.argsort(np.argsort(density)) / max(len(values) - 1, 1)  # 0: the least dense
    scale = max(float(np.abs(saved).mean()), 1e-9)
    hope = np.where(is_kept, saved, -saved) / scale
    weight = np.maximum(hope, 0.0) + np.where(is_kept, 0.0, (1.0 - rank) ** 2)
    weight += _LEAST_CHANCE * max(float(weight.mean()), 1e-9)
    return weight / weight.sum()
