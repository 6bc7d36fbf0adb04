"""Two processes with four virtual devices each train as one, over loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from agent.cli import commands
from agent.learning.checkpoint import Checkpoints
from tests.helpers.paths import ROOT
from tests.helpers.train_processes import CONFIG
from tests.helpers.training_for_tests import problem_files

# What processes that train as one do together but for training, and how one ends without the other.
SCRIPT = """
import json
import os
import signal
import sys

import jax
import numpy as np

from agent.learning import hosts
from agent.learning.config import ConfigError
from agent.learning.mesh import BY_DEVICE, EVERYWHERE, gather, make_mesh, place
from agent.learning.stream_updates import _mean_of_all

hosts.END_SECONDS = 2
number = int(sys.argv[2])
hosts.connect(sys.argv[1], 2, number)
found = {"is_first": hosts.is_first(), "decided": hosts.first_decides(number == 0)}
hosts.check_same({"--seed": "0"})
try:
    hosts.check_same({"--seed": "0", "--config": str(number)})
except ConfigError as error:
    found["differing"] = str(error)
try:
    with hosts.together():
        if number == 1:
            raise ConfigError("no such file")
except ConfigError as error:
    found["failed"] = str(error)
mesh = make_mesh()
found["mesh"] = list(mesh.devices.shape)
gradients = place(np.arange(4.0, dtype=np.float32), mesh, BY_DEVICE)
found["gathered"] = gather(gradients).tolist()
mean = jax.shard_map(
    _mean_of_all, mesh=mesh, in_specs=BY_DEVICE, out_specs=EVERYWHERE, check_vma=False
)
mean = jax.jit(mean)(gradients)
found["means"] = [np.asarray(shard.data).tolist() for shard in mean.addressable_shards]
print(json.dumps(found), flush=True)
if number == 1:
    os.kill(os.getpid(), signal.SIGKILL)
try:
    while True:
        hosts.first_decides(True)
except Exception as error:
    print(type(error).__name__, file=sys.stderr)
    hosts.leave(3)
"""


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    return [str(path) for path in problem_files(tmp_path_factory.mktemp("problems"))]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Compiled once, for all tests: speed does not matter here, compile time does."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("jax")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }


def _start(arguments, devices, cache):
    flags = os.environ.get("XLA_FLAGS", "")
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env={
            **os.environ,
            **cache,
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={devices}",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _free_address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def _start_two(module, arguments, cache):
    among = ["--coordinator", _free_address(), "--process-count", 2, "--process-id"]
    return [_start(["-m", module, *arguments, *among, number], 4, cache) for number in (0, 1)]


def _ends(processes, timeout=550):
    """What the processes printed; kills all of them if one does not end."""
    try:
        return [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()


def _losses(out, iterations):
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == list(range(1, iterations + 1))
    return [line["loss/total"] for line in lines]


def _wait_for_a_second_checkpoint(out, processes):
    end = time.monotonic() + 500
    while not any(x.name == "2" for x in out.glob("checkpoints/*")):
        assert time.monotonic() < end and all(p.poll() is None for p in processes)
        time.sleep(0.05)


def _latest(out):
    checkpoints = Checkpoints(out / "checkpoints", 2)
    latest = checkpoints.latest()
    checkpoints.close()
    return latest


def test_two_processes_agree_fail_together_and_do_not_wait_for_one_that_is_gone():
    address = _free_address()
    both = [_start(["-c", SCRIPT, address, number], 2, {}) for number in (0, 1)]
    (first, error), (second, _) = _ends(both, timeout=60)
    first, second = (json.loads(text.splitlines()[-1]) for text in (first, second))
    assert (first["is_first"], second["is_first"]) == (True, False)
    assert first["decided"] and second["decided"]
    differing = "--config: process 1 has another one than process 0"
    assert first["differing"] == second["differing"] == differing
    assert first["failed"] == "process 1 has failed; its own output says why"
    assert second["failed"] == "no such file"
    assert first["mesh"] == second["mesh"] == [2, 2]
    assert first["gathered"] == second["gathered"] == [0, 1, 2, 3]
    assert first["means"] == second["means"] == [[1.5], [1.5]]
    assert [process.returncode for process in both] == [3, -signal.SIGKILL], error


@pytest.mark.slow
def test_two_processes_of_which_one_is_killed_go_on_and_learn_as_one_that_has_all_devices(
    problems, cache, tmp_path
):
    out, config = tmp_path / "two", tmp_path / "config.json"
    config.write_text(CONFIG.to_json())
    files = [x for path in problems for x in ("--problems", path)]
    told = ["--config", config, *files, "--iterations"]
    first = _start_two("agent.cli", ["train", *told, 10**6, "--out", out], cache)
    _wait_for_a_second_checkpoint(out, first)
    first[1].send_signal(signal.SIGKILL)
    began = time.monotonic()
    _ends(first, timeout=120)
    assert first[0].returncode != 0  # it did not wait for ever
    assert time.monotonic() - began < 120

    latest = _latest(out)
    told = [*told, latest + 4, "--out"]
    second = _start_two("tests.helpers.train_processes", [*told, out, "--resume"], cache)
    printed = _ends(second)
    assert [process.returncode for process in second] == [0, 0], printed
    assert f"resumed after iteration {latest}" in printed[0][0]
    assert "moves/s" in printed[0][0] and "moves/s" not in printed[1][0]
    digests = [json.loads(stdout.splitlines()[-1]) for stdout, _ in printed]
    # The same parameters on all devices of both.
    assert len(digests[0]) == len(digests[1]) == 4
    assert len({*digests[0], *digests[1]}) == 1

    alone = tmp_path / "one"
    as_two = ["-m", "tests.helpers.train_processes", "--num-hosts", 2]
    one = [_start([*as_two, *told, alone], 8, cache)]
    printed = _ends(one)
    assert one[0].returncode == 0, printed
    # The same games and batches; sums over devices may be taken in another order.
    losses = [_losses(directory, latest + 4) for directory in (alone, out)]
    np.testing.assert_allclose(losses[0][0], losses[1][0], rtol=1e-5)
    np.testing.assert_allclose(*[np.mean(x) for x in losses], rtol=0.1)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--coordinator", "host:1"], "go together"),
        (["--coordinator", "host", "--process-count", "2", "--process-id", "0"], "HOST:PORT"),
        (["--coordinator", "host:1", "--process-count", "2", "--process-id", "2"], "--process-id"),
        (["--distributed", "--process-id", "0"], "go together"),
    ],
)
def test_flags_that_do_not_say_which_process_this_is(arguments, named, monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["mallocgame", "train", "--iterations", "1", "--out", "nowhere", *arguments]
    )
    with pytest.raises(SystemExit) as stop:
        commands.main()
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert named in error and error.count("\n") == 1
