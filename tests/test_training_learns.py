"""Learning is real: from scratch to the known optimum, on small problems that one network plays."""

import dataclasses

import numpy as np
import pytest

from agent.buckets import make_task
from agent.config import AgentConfig, NetworkConfig, SearchConfig, SelfPlayConfig, TrainConfig
from agent.training import Trainer
from agent.training_config import PrioritisedReplayConfig, TrainingConfig
from agent.zero_shot import latencies
from tests.exhaustive import optimum
from tests.tiny import tiny_problem

CONFIG = TrainingConfig(
    agent=AgentConfig(
        network=NetworkConfig(hidden_size=64, num_bins=31, features="outlook"),
        search=SearchConfig(num_simulations=8, value_scale=0.2),
        self_play=SelfPlayConfig(num_games=32, chunk_moves=16),
        train=TrainConfig(
            learning_rate=3e-3,
            batch_size=64,
            updates_per_iteration=8,
            unroll_steps=3,
            td_steps=12,
            discount=1.0,
            reward_unit="stake",
            return_scale=10.0,
            target_step_size=0.05,
        ),
        imitate_best=False,
    ),
    replay=PrioritisedReplayConfig(capacity=16384),
    seed_games=False,  # nobody shows it anything
)


@pytest.mark.slow
def test_one_network_learns_the_optimum_of_several_problems_from_scratch():
    problems = [
        dataclasses.replace(
            tiny_problem(seed, num_instructions=8, memory_share=0.1), name=f"tiny{seed}"
        )
        for seed in (1, 2, 4, 5, 7)
    ]
    best = {f"{p.name}-{p.target.name}": optimum(p)[0] for p in problems}
    trainer = Trainer(CONFIG, [make_task(p) for p in problems], seed=0)
    tasks = [task for bucket in trainer._buckets for task in bucket.tasks]
    default = {task.name: float(task.program.default_cycles) for task in tasks}

    def share_found() -> np.ndarray:
        """Of what the optimum saves, by the same search with the network as it is."""
        found = latencies(CONFIG.agent, trainer.params, trainer._buckets)
        return np.array([(default[n] - found[n]) / (default[n] - best[n]) for n in sorted(default)])

    untrained = share_found()
    first = trainer.iterate()
    for _ in range(59):
        last = trainer.iterate()
    np.testing.assert_array_equal(share_found(), 1.0)
    assert untrained.mean() < 0.6
    assert last["loss"]["total"] < 0.2 * first["loss"]["total"]
    assert last["self_play"]["saved"] > 1.3 * first["self_play"]["saved"] > 0
