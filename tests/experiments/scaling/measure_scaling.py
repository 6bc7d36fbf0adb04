"""Weak scaling of training over virtual devices, and what they exchange, from the compiled HLO.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m tests.measure_scaling

Every device has the same games and the same share of the learning batch, however many there are.
Time is processor time of all threads, so that other work on the machine does not count. By device,
it shows what splitting the work costs; it cannot show what waiting for a network would.
"""

from __future__ import annotations

import argparse
import math
import re
import time

import jax
import numpy as np

from agent.learning import compiled
from agent.learning.mesh import BY_HOST, make_mesh, place
from agent.learning.trainer import Trainer
from tests.helpers.training_for_tests import SMALL, changed, tasks

_COLLECTIVE = re.compile(
    r"= (.*?) (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("
)
_SHAPE = re.compile(r"\b([a-z]+)(\d+)\[([\d,]*)\]")


def exchanged(hlo: str) -> dict[str, int]:
    """Bytes of the results of collectives in a compiled module, by their kind, each counted once.

    An all-reduce of n bytes moves about 2 n through each participant."""
    found: dict[str, int] = {}
    for result, kind in _COLLECTIVE.findall(hlo):
        count = 0
        for _, bits, dimensions in _SHAPE.findall(result):
            sizes = [int(x) for x in dimensions.split(",") if x]
            count += math.prod(sizes) * max(int(bits) // 8, 1)
        found[kind] = found.get(kind, 0) + count
    return found


def measure(num_devices: int, num_hosts: int, iterations: int) -> tuple[float, dict[str, int]]:
    """Processor seconds of an iteration, and bytes exchanged by one update."""
    config = changed(
        SMALL,
        agent={
            "self_play": {"num_games": 8 * num_devices},
            "train": {"batch_size": 32 * num_devices, "updates_per_iteration": 1},
        },
        replay={"capacity": 1024 * num_devices},
        seed_games=False,
    )
    mesh = make_mesh(num_devices, num_hosts)
    trainer = Trainer(config, tasks(12, 16), mesh=mesh)
    key = trainer._replicate(jax.random.key(0))
    state = (trainer._train_state, place(trainer._replay_state, mesh, BY_HOST), key)
    hlo = compiled.learn.lower(config, mesh, *state).compile().as_text()
    trainer.iterate()
    began = time.process_time()
    for _ in range(iterations):
        trainer.iterate()
    return (time.process_time() - began) / iterations, exchanged(hlo)


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--hosts", type=int, default=1, help="rows of the mesh, emulated")
    parser.add_argument("--iterations", type=int, default=20)
    told = parser.parse_args()
    print("| devices | CPU s / iteration | by device | exchanged by an update |")
    print("|---:|---:|---:|---|")
    for number in told.devices:
        seconds, by_kind = measure(number, min(told.hosts, number), told.iterations)
        what = ", ".join(f"{kind} {count:,} B" for kind, count in sorted(by_kind.items()))
        print(f"| {number} | {seconds:.3f} | {seconds / number:.4f} | {what or 'nothing'} |")
    params = jax.tree.leaves(Trainer(SMALL, tasks(12)).params)
    print(f"parameters: {sum(int(np.size(x)) for x in params):,}")


if __name__ == "__main__":
    main()
