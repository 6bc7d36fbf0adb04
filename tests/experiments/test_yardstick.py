"""`tests.experiments.yardstick`: a stand-alone loop is raced by the rules of all contenders."""

import json
import subprocess
import sys
import time
import types

import pytest
from click.testing import CliRunner

from agent.cli import commands
from agent.racing import contenders as race
from malloc_game import TARGETS
from tests.agent.cli.test_cli import assert_one_line_error
from tests.experiments.yardstick import child
from tests.experiments.yardstick import race as yardstick
from workloads.benchmark import rows
from workloads.compiler.session import CompilerSession
from workloads.costs.judge import compiled_latency
from workloads.hlo.module import Module

# Compiles two programs, and a third one when its time is up; then it fails.
SCRIPT = """
import importlib.util, sys, time
import jax

path, function = sys.argv[1].rsplit(":", 1)
spec = importlib.util.spec_from_file_location("program", path)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
fn, args = getattr(module, function)()
assert sys.argv[2:4] == ["v4", "--rounds"] and __name__ == "__main__"
lowered = jax.jit(fn).trace(*args).lower(lowering_platforms=("tpu",))
assert "donate" in lowered.as_text() or "aliasing_output" in lowered.as_text()
began, seconds = time.monotonic(), float(sys.argv[sys.argv.index("--seconds") + 1])
for number, wait in enumerate((0, 0, seconds)):
    time.sleep(wait)
    jax.jit(lambda x: x + number).lower(1.0).compile()
raise RuntimeError("its own")
"""


# As a user compiles ahead of time who has no TPU.
ONE_COMPILE = """
import os, runpy, sys

os.environ.update(TPU_SKIP_MDS_QUERY="1", TPU_ACCELERATOR_TYPE="v5litepod-1", JAX_PLATFORMS="cpu",
                  TPU_WORKER_HOSTNAMES="localhost", ALLOW_MULTIPLE_LIBTPU_LOAD="1")
import jax
from jax.experimental import topologies

fn, args = runpy.run_path(sys.argv[1].rsplit(":", 1)[0])["program"]()
[device, *_] = topologies.get_topology_desc(platform="tpu", topology_name="tpu7x:2x2x1").devices
where = jax.sharding.SingleDeviceSharding(device)
place = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)
jax.jit(fn).lower(*jax.tree.map(place, args)).compile()
"""


def test_a_row_for_each_pair_and_none_twice(tmp_path, monkeypatch):
    asked = []

    def run(command, **options):
        asked.append(command[2:])
        answer = json.dumps({"history": [[1.0, 100.0], [5.0, 80.0]], "xla_default": 100.0})
        return subprocess.CompletedProcess(command, 0, answer, "")

    monkeypatch.setattr(race.subprocess, "run", run)
    script = tmp_path / "loop.py"
    script.write_text("")
    arguments = [str(script), "--out", str(tmp_path), "--seconds", "6", "heat-v4"]
    done = CliRunner().invoke(yardstick.main, arguments)
    assert done.exit_code == 0
    assert "[1/1] heat-v4: loop, seed 1: estimated ratio 1.2500" in done.output
    [command] = asked
    assert command[:-1] == [
        "tests.experiments.yardstick.child", str(script), "loop", "heat", "v4", "6.0", "1",
    ]  # fmt: skip
    again = CliRunner().invoke(yardstick.main, arguments).output
    assert "1 of 1 runs are there already" in again and len(asked) == 1
    [row] = rows.race_results(tmp_path).read()
    assert (row.contender, row.seed, row.compiled) == ("loop", 1, 80.0)
    report = ["race", "heat-v4", "--report-only", "--seconds", "6", "--out", str(tmp_path)]
    assert "| loop | 1 |" in CliRunner().invoke(commands.cli, report).output


def test_a_pair_that_is_none_is_one_clear_line(tmp_path):
    script = tmp_path / "loop.py"
    script.write_text("")
    command = [
        sys.executable,
        "-m",
        "tests.experiments.yardstick.race",
        script,
        "nothing-v4",
        "--out",
        tmp_path,
    ]
    assert_one_line_error(subprocess.run(command, capture_output=True, text=True), 2, "nothing-v4")
    assert not (tmp_path / "race.jsonl").exists()


def test_what_the_script_compiles_in_time_is_judged(tmp_path, monkeypatch, capsys):
    import jax

    script = tmp_path / "loop.py"
    script.write_text(SCRIPT)
    for where, name in ((jax, "jit"), (jax.stages.Lowered, "compile")):
        monkeypatch.setattr(where, name, getattr(where, name))  # put back
    monkeypatch.setattr("sys.argv", [])
    monkeypatch.setenv("XLA_FLAGS", "")
    now, slept = time.monotonic, []  # a clock that its sleep moves
    monkeypatch.setattr(time, "monotonic", lambda: now() + sum(slept))
    monkeypatch.setattr(time, "sleep", slept.append)
    modules, costs = iter([b"first", b"second", b"late"]), iter([100.0, 90.0])
    monkeypatch.setattr(child, "read_module", lambda dumps: next(modules))
    monkeypatch.setattr(child, "Module", lambda hlo: hlo)
    monkeypatch.setattr(
        child,
        "compiled_latency",
        lambda hlo, target: types.SimpleNamespace(cycles=next(costs)),
    )
    found = child.run(str(script), "adam_step", "v4", 60.0, time.monotonic())
    assert [cycles for _, cycles in found["history"]] == [100.0, 90.0]
    assert found["xla_default"] == 100.0 and "RuntimeError: its own" in capsys.readouterr().err
    assert next(modules, None) is None


@pytest.mark.requires_libtpu
@pytest.mark.parametrize("program", ["adam_step", pytest.param("decode", marks=pytest.mark.slow)])
def test_the_script_compiles_the_program_that_all_compile(program, tmp_path):
    """With its donations; and the module is in dumps, for no executable can give that of decode."""
    script = tmp_path / "loop.py"
    script.write_text(ONE_COMPILE)
    command = [
        sys.executable,
        "-m",
        "tests.experiments.yardstick.child",
        script,
        "loop",
        program,
        "tpu7x",
    ]
    command += ["100", "0", str(time.monotonic())]
    done = subprocess.run(command, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    with CompilerSession(program, "tpu7x") as session:
        cycles = compiled_latency(Module(session.compile().hlo), TARGETS["tpu7x"]).cycles
    assert found["xla_default"] == cycles and len(found["history"]) == 1, done.stderr
