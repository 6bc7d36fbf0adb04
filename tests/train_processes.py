"""One of several processes that train as one, for tests: `python -m tests.train_processes ...`.

Trains on files as `mallocgame train` does, and prints one line of JSON: digests of the
parameters, as every device of this process has them.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import pathlib

import jax
import numpy as np

from agent import hosts, train_command, training
from agent.mesh import make_mesh
from tests.training_for_tests import SMALL

CONFIG = dataclasses.replace(SMALL, seed_games=False)  # whose games are long to compile


def digests(train_state) -> list[str]:
    """One for each device of this process."""
    leaves = jax.tree.leaves(train_state)
    found = []
    for number in range(jax.local_device_count()):
        digest = hashlib.sha256()
        for leaf in leaves:
            digest.update(np.asarray(leaf.addressable_shards[number].data).tobytes())
        found.append(digest.hexdigest()[:16])
    return found


def main() -> None:
    """Trains, and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--coordinator")
    parser.add_argument("--process-count", type=int, default=1)
    parser.add_argument("--process-id", type=int, default=0)
    parser.add_argument("--num-hosts", type=int, default=1)
    parser.add_argument("--iterations", type=int, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("problems", type=pathlib.Path, nargs="+")
    told = parser.parse_args()
    if told.coordinator:
        hosts.connect(told.coordinator, told.process_count, told.process_id)
    if told.process_count == 1:  # one process that trains as several hosts would
        training.make_mesh = lambda: make_mesh(num_hosts=told.num_hosts)
    trainer = train_command.train(
        CONFIG, told.problems, [], told.out, iterations=told.iterations, resume=told.resume
    )
    print(json.dumps(digests(trainer.arrays()["train_state"])))


if __name__ == "__main__":
    main()
