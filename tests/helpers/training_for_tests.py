"""A training so small that tests can afford it, and its problems."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any, TypeVar

import malloc_game as mg
from agent.learning.buckets import Task, make_task
from agent.learning.training_config import TrainingConfig

C = TypeVar("C")


def changed(config: C, **parts: Any) -> C:
    """`config` with other values, at any depth: a part is given as a dict of what changes in it."""
    values = {
        name: changed(getattr(config, name), **value) if isinstance(value, dict) else value
        for name, value in parts.items()
    }
    return dataclasses.replace(config, **values)


# Every config that tests train or plan with is this one but for what a test is about: what has the
# same config and shapes is compiled once.
SMALL = changed(
    TrainingConfig(),
    agent={
        "network": {"hidden_size": 32, "num_bins": 21},
        "search": {"num_simulations": 4, "value_scale": 0.5},
        "self_play": {"num_games": 8, "chunk_moves": 16},
        "train": {
            "warmup_updates": 0,
            "decay_updates": 0,
            "batch_size": 32,
            "updates_per_iteration": 4,
            "unroll_steps": 2,
            "td_steps": 8,
            "discount": 0.9,
            "target_step_size": 0.05,
        },
    },
    replay={"capacity": 1024},
    evaluation={"every_iterations": 0},
    checkpoint={"every_iterations": 2},
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
