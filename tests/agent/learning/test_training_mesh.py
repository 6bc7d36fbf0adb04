"""Training over virtual devices, in a process of its own."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.helpers.paths import ROOT

# Arguments: for each training its number of devices.
SCRIPT = """
import json
import sys
import jax
import numpy as np
from agent.learning.mesh import make_mesh
from agent.learning.trainer import Trainer
from tests.helpers.training_for_tests import SMALL, tasks

found = []
for devices in json.loads(sys.argv[1]):
    trainer = Trainer(SMALL, tasks(12, 16), mesh=make_mesh(devices))
    losses = [trainer.iterate()["loss"]["total"] for _ in range(40)]
    differing = 0
    for leaf in jax.tree.leaves(trainer.arrays()["train_state"]):
        copies = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        assert len(copies) == devices, (len(copies), devices)
        differing += sum(not np.array_equal(copies[0], copy) for copy in copies)
    games = trainer._groups[0].stream.history
    found.append({
        "losses": losses,
        "differing": differing,
        "rows": [shard.data.shape[0] for shard in games.addressable_shards],
    })
print(json.dumps(found))
"""


def _train(*counts):
    flags = os.environ.get("XLA_FLAGS", "")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(counts)],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={max(counts)}",
        },
        capture_output=True,
        text=True,
        timeout=550,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_eight_devices_learn_as_one_does_and_hold_the_same_parameters():
    one, eight = _train(1, 8)
    assert one["rows"] == [8] and eight["rows"] == [1] * 8
    assert one["differing"] == eight["differing"] == 0
    # Other random numbers, the same curve: it falls, and ends in the same place.
    start, ends = np.mean(one["losses"][:3]), [np.mean(x["losses"][-10:]) for x in (one, eight)]
    assert max(ends) < 0.8 * start
    assert abs(ends[0] - ends[1]) < 0.2 * start
