"""`tests.yardstick`: a stand-alone loop is raced by the rules of all contenders."""

import json
import subprocess
import sys
import time
import types

from click.testing import CliRunner

from agent import cli, race
from tests import yardstick, yardstick_child
from tests.test_cli import assert_one_line_error
from workloads.contest import rows

# Compiles two programs, and a third one when its time is up.
SCRIPT = """
import importlib.util, sys, time
import jax

path, function = sys.argv[1].rsplit(":", 1)
spec = importlib.util.spec_from_file_location("program", path)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
fn, args = getattr(module, function)()
assert callable(fn) and sys.argv[2:4] == ["v4", "--rounds"] and __name__ == "__main__"
began, seconds = time.monotonic(), float(sys.argv[sys.argv.index("--seconds") + 1])
for wait in (0, 0, seconds):
    time.sleep(wait)
    jax.jit(lambda x: x + 1).lower(1.0).compile()
print("its own last line")
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
    assert "[1/1] heat-v4: loop, seed 1: 1.2500x XLA's default" in done.output
    [command] = asked
    assert command[:-1] == [
        "tests.yardstick_child", str(script), "loop", "heat", "v4", "6.0", "1",
    ]  # fmt: skip
    assert CliRunner().invoke(yardstick.main, arguments).output == "" and len(asked) == 1
    [row] = rows.race_results(tmp_path).read()
    assert (row.contender, row.seed, row.compiled) == ("loop", 1, 80.0)
    report = ["race", "heat-v4", "--report-only", "--seconds", "6", "--out", str(tmp_path)]
    assert "| loop | 1 |" in CliRunner().invoke(cli.cli, report).output


def test_a_pair_that_is_none_is_one_clear_line(tmp_path):
    script = tmp_path / "loop.py"
    script.write_text("")
    command = [sys.executable, "-m", "tests.yardstick", script, "nothing-v4", "--out", tmp_path]
    assert_one_line_error(subprocess.run(command, capture_output=True, text=True), 2, "nothing-v4")
    assert not (tmp_path / "race.jsonl").exists()


def test_what_the_script_compiles_in_time_is_judged(tmp_path, monkeypatch):
    import jax

    script = tmp_path / "loop.py"
    script.write_text(SCRIPT)
    monkeypatch.setattr(jax.stages.Lowered, "compile", jax.stages.Lowered.compile)  # put back
    monkeypatch.setattr("sys.argv", [])
    costs = iter([100.0, 90.0])
    monkeypatch.setattr(yardstick_child, "Module", lambda hlo: hlo)
    monkeypatch.setattr(
        yardstick_child,
        "compiled_latency",
        lambda hlo, target: types.SimpleNamespace(cycles=next(costs)),
    )
    found = yardstick_child.run(str(script), "heat", "v4", 3.0, time.monotonic())
    assert [cycles for _, cycles in found["history"]] == [100.0, 90.0]
    assert found["xla_default"] == 100.0
