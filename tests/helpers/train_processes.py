"""One of several processes that train as one, for tests: `python -m tests.helpers.train_processes`.

It is the command `mallocgame train`, which prints one line of JSON more: digests of the
parameters, as every device of this process has them.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys

import jax
import numpy as np

from agent.cli import commands
from agent.learning import trainer, training_run
from agent.learning.mesh import make_mesh
from tests.helpers.training_for_tests import SMALL

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
    """Runs `mallocgame train` with these arguments, and prints.

    With --num-hosts N, one process trains as N hosts would.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--num-hosts", type=int)
    told, arguments = parser.parse_known_args()
    if told.num_hosts is not None:
        trainer.make_mesh = lambda: make_mesh(num_hosts=told.num_hosts)
    train = training_run.train

    def train_and_print(*args, **kwargs):
        print(json.dumps(digests(train(*args, **kwargs).arrays()["train_state"])))

    training_run.train = train_and_print
    sys.argv[1:] = ["train", *arguments]
    commands.main()


if __name__ == "__main__":
    main()
