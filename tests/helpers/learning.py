"""One network learns several small problems from scratch; their optima are found by trying all."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from agent.learning.buckets import make_task
from agent.learning.trainer import Trainer
from agent.learning.zero_shot_play import latencies
from tests.helpers.exhaustive import optimum
from tests.helpers.tiny import tiny_problem
from tests.helpers.training_for_tests import SMALL, changed

PROBLEMS = (1, 2, 4, 5, 7)
ITERATIONS = 60
CONFIG = changed(
    SMALL,
    agent={
        "network": {"hidden_size": 64, "num_bins": 31},
        "search": {"num_simulations": 8, "value_scale": 0.2},
        "self_play": {"num_games": 32},
        "train": {
            "learning_rate": 3e-3,
            "batch_size": 64,
            "updates_per_iteration": 8,
            "unroll_steps": 3,
            "td_steps": 12,
            "discount": 1.0,
        },
        "imitate_best": False,
    },
    replay={"capacity": 16384},
    evaluation={"every_iterations": 50},
    checkpoint={"every_iterations": 50},
    seed_games=False,  # nobody shows it anything
)


def learn(seed: int) -> dict[str, Any]:
    """Train one network on all `PROBLEMS` for `ITERATIONS`.

    "untrained", "trained": of what each optimum saves, the share of a game without noise, by the
    same search, one for each problem; "loss", "saved": of the first iteration and of the last.
    """
    problems = [
        dataclasses.replace(
            tiny_problem(number, num_instructions=8, memory_share=0.1), name=f"tiny{number}"
        )
        for number in PROBLEMS
    ]
    best = {f"{p.name}-{p.target.name}": optimum(p)[0] for p in problems}
    trainer = Trainer(CONFIG, [make_task(p) for p in problems], seed=seed)
    tasks = [task for bucket in trainer._buckets for task in bucket.tasks]
    default = {task.name: float(task.program.default_cycles) for task in tasks}

    def shares() -> np.ndarray:
        found = latencies(CONFIG.agent, trainer.params, trainer._buckets)
        return np.array([(default[n] - found[n]) / (default[n] - best[n]) for n in sorted(default)])

    untrained = shares()
    each = [trainer.iterate() for _ in range(ITERATIONS)]
    ends = each[0], each[-1]
    return {
        "untrained": untrained.tolist(),
        "trained": shares().tolist(),
        "loss": [float(stats["loss"]["total"]) for stats in ends],
        "saved": [float(stats["self_play"]["saved"]) for stats in ends],
    }
