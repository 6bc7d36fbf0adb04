"""A training so small that tests can afford it, and its problems."""

from __future__ import annotations

import dataclasses
import pathlib

import malloc_game as mg
from agent.learning.buckets import Task, make_task
from agent.learning.config import (
    AgentConfig,
    NetworkConfig,
    SearchConfig,
    SelfPlayConfig,
    TrainConfig,
)
from agent.learning.training_config import (
    CheckpointConfig,
    EvaluationConfig,
    PrioritisedReplayConfig,
    TrainingConfig,
)

SMALL = TrainingConfig(
    agent=AgentConfig(
        network=NetworkConfig(hidden_size=32, num_bins=21, features="outlook"),
        search=SearchConfig(num_simulations=4),
        self_play=SelfPlayConfig(num_games=8, chunk_moves=16),
        train=TrainConfig(
            batch_size=32,
            updates_per_iteration=4,
            unroll_steps=2,
            td_steps=8,
            reward_unit="stake",
            return_scale=10.0,
            target_step_size=0.05,
        ),
    ),
    replay=PrioritisedReplayConfig(capacity=1024),
    evaluation=EvaluationConfig(every_iterations=0),
    checkpoint=CheckpointConfig(every_iterations=2),
)


def tasks(*sizes: int) -> list[Task]:
    """Tasks of random problems, of `sizes` instructions each, named by their number."""
    found = []
    for seed, size in enumerate(sizes):
        problem = dataclasses.replace(mg.random_problem(seed, size), name=f"random{seed}")
        reference, bound = mg.all_default(problem), 0.5 * int(mg.encode(problem).default_cycles)
        problem = dataclasses.replace(problem, provenance={"bound_cycles": bound})
        found.append(make_task(problem, reference))
    return found


def problem_files(directory: pathlib.Path) -> list[pathlib.Path]:
    """Files of two problems of one bucket."""
    paths = []
    for task in tasks(12, 16):
        paths.append(directory / f"{task.name}.json.gz")
        mg.save_problem(task.problem, paths[-1], mg.all_default(task.problem))
    return paths
