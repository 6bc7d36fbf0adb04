"""Training on many programs as a whole: it learns, and it goes on as if nothing had happened."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import types

import chex
import jax
import numpy as np
import pytest

from agent.cli import commands
from agent.learning import training_run
from agent.learning.checkpoint import Checkpoints
from agent.learning.config import ConfigError
from agent.learning.trainer import Trainer
from agent.learning.training_run import train
from agent.learning.weights import load_agent
from tests.helpers.paths import ROOT
from tests.helpers.training_for_tests import SMALL, problem_files, tasks


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    return problem_files(tmp_path_factory.mktemp("problems"))


def _equal(a: Trainer, b: Trainer) -> None:
    left, right = (jax.device_get(x.arrays()) for x in (a, b))
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(left), jax.tree.leaves(right), strict=True
    ):
        np.testing.assert_array_equal(x, y, err_msg=jax.tree_util.keystr(path))
    assert a.record() == b.record()


def test_each_bucket_is_compiled_once_and_learning_once(caplog):
    trainer = Trainer(SMALL, tasks(12, 16, 90))
    with jax.log_compiles():
        for _ in range(8):
            trainer.iterate()
    compiled = [line.split()[1] for line in caplog.messages if line.startswith("Compiling")]
    # Of both, what another test has compiled already is there.
    assert 1 <= compiled.count("jit(play_chunk)") <= 2
    assert compiled.count("jit(learn_from_stream)") <= 1


def test_games_save_more_and_losses_fall_as_training_goes_on():
    trainer = Trainer(SMALL, tasks(12, 16))
    each = [trainer.iterate() for _ in range(60)]
    losses = [stats["loss"]["total"] for stats in each]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    assert each[-1]["self_play"]["saved"] > 1.5 * each[9]["self_play"]["saved"] > 0


def test_straight_and_resumed_training_are_equal_to_the_bit(problems, tmp_path):
    silent = {"say": lambda line: None}
    straight = train(SMALL, problems, problems[:1], tmp_path / "a", iterations=5, **silent)
    train(SMALL, problems, problems[:1], tmp_path / "b", iterations=3, **silent)
    resumed = train(
        SMALL, problems, problems[:1], tmp_path / "b", iterations=5, resume=True, **silent
    )
    _equal(straight, resumed)
    chex.assert_tree_all_finite(jax.device_get(straight.params))
    assert straight.iteration == 5 and int(straight.arrays()["train_state"].num_updates) == 20
    kept = sorted(int(x.name) for x in (tmp_path / "b" / "checkpoints").iterdir())
    assert kept == [4, 5]  # the last two
    lines = (tmp_path / "b" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == [1, 2, 3, 4, 5]
    config, params = load_agent(tmp_path / "b" / "agent.msgpack")
    assert config == SMALL.agent
    chex.assert_trees_all_close(params, resumed.params, rtol=1e-2)


def _subprocess(problems, out, *more):
    config = out.parent / "config.json"
    config.write_text(SMALL.to_json())
    files = [x for path in problems for x in ("--problems", str(path))]
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "agent.cli",
            "train",
            "--config",
            str(config),
            "--out",
            str(out),
        ]
        + [*files, *more],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_as_if_nothing_had_happened(problems, tmp_path):
    out = tmp_path / "out"
    killed = _subprocess(problems, out, "--iterations", "1000000")
    deadline = time.monotonic() + 500
    while killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
        if any(x.name == "4" for x in out.glob("checkpoints/*")):
            break
    time.sleep(0.2)  # somewhere in what comes next
    assert killed.poll() is None, killed.communicate()
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    latest = Checkpoints(out / "checkpoints", 2)
    last = latest.latest() + 3
    latest.close()
    resumed = _subprocess(problems, out, "--iterations", str(last), "--resume")
    stdout, stderr = resumed.communicate(timeout=500)
    assert resumed.returncode == 0, stderr
    assert "resumed after" in stdout
    straight = train(SMALL, problems, [], tmp_path / "b", iterations=last, say=lambda line: None)
    restored = Trainer(SMALL, [training_run.load_task(path) for path in problems])
    checkpoints = Checkpoints(out / "checkpoints", 2)
    restored.restore(checkpoints.arrays(last, restored.arrays()), checkpoints.record(last))
    checkpoints.close()
    _equal(straight, restored)


@pytest.fixture(scope="module")
def run(problems, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    train(SMALL, problems, [], out, iterations=2, say=lambda line: None)
    return out


def _resume(problems, out, config=SMALL, **more):
    return train(
        config, problems, [], out, iterations=3, resume=True, say=lambda line: None, **more
    )


def test_checkpoints_of_another_training_are_refused(problems, run):
    with pytest.raises(ConfigError, match="--resume"):
        train(SMALL, problems, [], run, iterations=3, say=lambda line: None)
    with pytest.raises(ConfigError, match="another set of problems"):
        _resume(problems[:1], run)
    with pytest.raises(ConfigError, match="another config"):
        _resume(problems, run, dataclasses.replace(SMALL, max_decisions=1000))


def test_a_checkpoint_of_this_training_is_known_by_the_former_names_of_its_fields():
    trainer = Trainer(SMALL, tasks(12, 16))
    record = trainer.record()
    assert "lns_windows" in record["config"]
    trainer.check_record(record | {"config": record["config"].replace("lns_windows", "stretches")})
    with pytest.raises(ConfigError, match="another config"):
        trainer.check_record(
            record | {"config": dataclasses.replace(SMALL, seed_games=False).to_json()}
        )


def test_a_damaged_checkpoint_is_refused_with_its_name(problems, run):
    arrays = run / "checkpoints" / "2" / "arrays"
    files = [path for path in arrays.rglob("*") if path.is_file()]
    assert files
    for path in files:
        path.write_bytes(b"damaged")
    with pytest.raises(ConfigError, match=r"checkpoints/2 cannot be used"):
        _resume(problems, run)


def test_reads_that_end_after_a_failed_restore_print_nothing(tmp_path, monkeypatch):
    printed = []
    monkeypatch.setattr(sys, "unraisablehook", printed.append)
    late, other = (
        types.SimpleNamespace(exc_value=RuntimeError(text))
        for text in ("Event loop is closed", "another")
    )
    checkpoints = Checkpoints(tmp_path / "c", 2)
    checkpoints.save(1, {"x": np.arange(3)}, {})
    checkpoints.record(1)
    sys.unraisablehook(late)
    assert printed == [late]  # nothing has failed: it is somebody else's
    printed.clear()

    def fails(*_, **__):
        sys.unraisablehook(late)  # a read can be late before the error has come up
        raise ValueError("damaged")

    monkeypatch.setattr(checkpoints._manager, "restore", fails)
    for _ in range(2):
        with pytest.raises(ConfigError):
            checkpoints.record(1)
    checkpoints.close()
    sys.unraisablehook(late)
    sys.unraisablehook(other)
    assert printed == [other]


def test_a_half_written_checkpoint_does_not_count(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c", 2)
    arrays = {"x": np.arange(3)}
    checkpoints.save(1, arrays, {"number": 1})
    checkpoints.close()
    partial = tmp_path / "c" / "2.orbax-checkpoint-tmp-0" / "arrays"
    partial.mkdir(parents=True)
    again = Checkpoints(tmp_path / "c", 2)
    assert again.latest() == 1
    assert again.record(1)["number"] == 1
    np.testing.assert_array_equal(again.arrays(1, arrays)["x"], arrays["x"])
    with pytest.raises(ConfigError, match="cannot be used"):
        again.arrays(1, {"x": np.zeros(4, int)})
    with pytest.raises(ConfigError, match="cannot be used"):
        again.arrays(1, {"y": np.arange(3)})
    again.close()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "--iterations"),
        (["--iterations", "1", "--config", "nowhere.json"], "nowhere.json"),
        (["--iterations", "1", "--problems", "{empty}"], "no problem files"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(arguments, named, tmp_path, monkeypatch, capsys):
    arguments = [str(tmp_path) if x == "{empty}" else x for x in arguments]
    monkeypatch.setattr(
        sys, "argv", ["mallocgame", "train", "--out", str(tmp_path / "out"), *arguments]
    )
    with pytest.raises(SystemExit) as stop:
        commands.main()
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert named in error and error.count("\n") == 1
