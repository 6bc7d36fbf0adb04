"""The parts of what runs for hours: finding the processes of a run, and judging what it left."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys

import pytest

from tests.experiments.endurance import faults, soak
from tests.experiments.endurance.processes import kill, marked, new_mark, wait_until

# Starts a process that outlives it, as a compiler that was forgotten would.
_LEAVES_AN_ORPHAN = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
time.sleep(float(sys.argv[1]))
"""
# The end of a script: it says that it is under way, and waits for what happens to it.
_READY = "import pathlib, sys, time; pathlib.Path(sys.argv[2]).touch(); time.sleep(60)"


def _start(mark, seconds):
    return subprocess.Popen(
        [sys.executable, "-c", _LEAVES_AN_ORPHAN, str(seconds)], env={**os.environ, **mark}
    )


def test_processes_are_found_whoever_their_parent_is():
    mark, other = new_mark(), new_mark()
    parent = _start(mark, 60)
    try:
        assert wait_until(lambda: len(marked(mark)) == 2, 20)
        parent.kill()
        parent.wait()
        assert len(marked(mark)) == 1 and parent.pid not in marked(mark)
        assert marked(other) == []
    finally:
        kill(marked(mark))
    assert wait_until(lambda: not marked(mark), 20)


@pytest.fixture
def subject(tmp_path):
    """Makes a subject of a script in place of the command line."""

    def make(script, check=lambda out: None):
        class Scripted(faults.Victim):
            def __init__(self, subject, work, out, log):
                del subject, out
                self.mark = new_mark()
                self._log = work / f"{log}.log"
                with self._log.open("wb") as output:
                    self.process = subprocess.Popen(
                        [sys.executable, "-c", script, "60", str(work / "ready")],
                        env={**os.environ, **self.mark},
                        stdout=output,
                        stderr=subprocess.STDOUT,
                    )

        (tmp_path / "tmp").mkdir(exist_ok=True)
        return faults.Subject("scripted", lambda out: [], check, ()), Scripted

    return make


def _inject(subject, tmp_path, monkeypatch, kind="kill command"):
    """A fault as soon as the script is `_READY`."""
    made, victim = subject
    monkeypatch.setattr(faults, "Victim", victim)
    monkeypatch.setattr(faults, "_END_SECONDS", 2.0)
    (tmp_path / "ready").unlink(missing_ok=True)

    def moment(low, high):
        assert wait_until((tmp_path / "ready").exists, 60)
        return 0.0

    rng = random.Random(1)
    rng.uniform = moment
    return faults.one(made, kind, 3.0, tmp_path, rng)


def test_a_fault_that_costs_nothing(subject, tmp_path, monkeypatch):
    found = _inject(subject(_READY), tmp_path, monkeypatch)
    assert found["lost"] == [] and found["code"] == -signal.SIGKILL


def test_an_orphan_is_a_loss(subject, tmp_path, monkeypatch):
    leaves_an_orphan = _LEAVES_AN_ORPHAN.rpartition("time.sleep")[0] + _READY
    found = _inject(subject(leaves_an_orphan), tmp_path, monkeypatch)
    assert found["lost"] == ["orphans: 1"]


def test_a_damaged_file_is_a_loss(subject, tmp_path, monkeypatch):
    def check(out):
        raise ValueError("cut off")

    found = _inject(subject(_READY, check), tmp_path, monkeypatch)
    assert found["lost"] == ["a file that cannot be used: ValueError: cut off"]


def test_a_traceback_and_a_strange_end_are_losses(subject, tmp_path, monkeypatch):
    broken = f"import signal; signal.signal(15, lambda *a: 1 / 0); {_READY}"
    found = _inject(subject(broken), tmp_path, monkeypatch, kind="terminate")
    assert "ZeroDivisionError" in found["lost"][0]
    silent = f"import os, signal; signal.signal(15, lambda *a: os._exit(7)); {_READY}"
    found = _inject(subject(silent), tmp_path, monkeypatch, kind="terminate")
    assert found["lost"][0].startswith("exit code 7")


def test_faults_are_counted_by_kind():
    records = [
        {"subject": "train", "kind": "kill all", "lost": []},
        {"subject": "train", "kind": "kill all", "lost": ["orphans: 1"]},
        {"subject": "train", "kind": "run to the end", "lost": []},
    ]
    text = faults.table(records)
    assert "| train | 2 | 1 | 1 |" in text and text.endswith("2 faults, 1 losses")


def test_memory_grows_only_if_the_last_third_is_larger_than_the_middle_one():
    records = [{"resident_mib": float(x)} for x in (100, 400, 500, 500, 500, 500, 540, 560, 550)]
    assert soak.growth(records, "resident_mib") == pytest.approx(0.1)
    assert soak.growth(records[:2], "resident_mib") == 0.0
