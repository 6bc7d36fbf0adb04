"""Learned-cost greedy in a correction loop: choose by the costs known so far, compile, learn.

How it chooses is in `workloads.baselines.strategies`.
"""

from __future__ import annotations

from workloads.baselines.clocked_run import Race
from workloads.baselines.greedy_plans import plan
from workloads.baselines.strategies import Strategies

_MAX_IDLE = 12  # turns in a row without a compile


def learned_greedy(race: Race, seed: int = 0) -> None:
    """Run until `TimeIsUp`, or until nothing new comes to mind."""
    race.start(meanwhile=lambda problem: plan(problem, rounds=1))
    strategies = Strategies(race, seed)
    idle = 0
    while idle < _MAX_IDLE:
        before = race.compiles
        strategies.take_turn()
        idle = 0 if race.compiles > before else idle + 1
