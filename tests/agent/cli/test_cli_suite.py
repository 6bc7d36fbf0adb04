"""`mallocgame suite` and `mallocgame bench` as a user meets them."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest

import malloc_game as mg
from agent.cli import bench
from malloc_game.solvers import Result
from tests.agent.cli import test_cli
from tests.agent.cli.test_cli import assert_one_line_error
from tests.helpers.paths import ROOT
from workloads.benchmark.suite_building import describe
from workloads.programs.suite_problems import write_index

call = test_cli.call  # the same fixture


def nothing(problem, seconds, seed, **options):
    """A solver that leaves everything in default memory."""
    mapping = mg.all_default(problem)
    return Result(mapping, mg.latency(problem, mapping).cycles, 0.0, None, {"improvements": []})


@pytest.fixture(autouse=True)
def instant_solver(monkeypatch):
    monkeypatch.setattr(bench, "extra_solvers", lambda: {"nothing": nothing})


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> pathlib.Path:
    """Two pairs as the suite ships them."""
    directory = tmp_path_factory.mktemp("data")
    found = []
    for seed, (program, target) in enumerate([("decode", "v4"), ("alexnet", "v5e")]):
        problem = mg.random_problem(seed, num_instructions=12, target=mg.TARGETS[target])
        reference = mg.all_default(problem)
        cycles = mg.latency(problem, reference).cycles
        problem = problem.replace(
            provenance={
                "program": program,
                "bound_cycles": cycles * (0.995 if program == "alexnet" else 0.5),
                "xla_default_compiled_cycles": cycles,
            }
        )
        path = directory / f"{program}-{target}.json.gz"
        mg.save_problem(problem, path, reference)
        found.append(describe(path))
    write_index(found, directory)
    return directory


# -- suite -----------------------------------------------------------------------------------


def test_the_suite_is_listed_as_a_table_and_as_json(call, data):
    done = call("suite", "--data", data)
    assert done.returncode == 0
    assert "2 pairs, 1 contended" in done.stdout and "50.0%" in done.stdout
    rows = json.loads(call("suite", "--data", data, "--json").stdout)
    assert [row["program"] for row in rows] == ["alexnet", "decode"]
    assert rows[1] == {
        "program": "decode", "family": "decode", "split": "test", "target": "v4",
        "decisions": rows[1]["decisions"], "contended": True, "headroom": 0.5,
    }  # fmt: skip
    assert rows[1]["decisions"] > 0


@pytest.mark.parametrize(
    "filters",
    [["--target", "v4"], ["--split", "test"], ["--family", "decode"], ["--contended"]],
)
def test_the_suite_is_filtered(call, data, filters):
    rows = json.loads(call("suite", "--data", data, "--json", *filters).stdout)
    assert [row["program"] for row in rows] == ["decode"]


# -- bench -----------------------------------------------------------------------------------


def test_pairs_and_files_are_run_reported_and_not_run_again(call, data, tmp_path):
    mine, out = tmp_path / "mine.json", tmp_path / "out"
    mg.save_problem(mg.random_problem(5, num_instructions=12), mine)
    words = ["bench", "decode", mine, "--data", data, "--out", out, "--seconds", 1]
    words += ["--solver", "nothing", "--seeds", "0,1"]
    done = call(*words)
    assert done.returncode == 0, done.stderr
    assert "nothing" in done.stdout and "report.md" in done.stdout
    assert "\x1b" not in done.stderr
    assert "[4/4] decode-v4: nothing, seed 1: 1.0000x XLA's default" in done.stderr
    files = {"results.jsonl", "report.md", "report.html", "profile.svg", "assignments"}
    assert files <= {path.name for path in out.iterdir()}
    before = (out / "results.jsonl").read_bytes()
    again = call(*words, "--json")
    assert "4 of 4 runs are there already" in again.stderr
    assert (out / "results.jsonl").read_bytes() == before
    rows = json.loads(again.stdout)
    assert [(r["program"], r["seed"], r["split"]) for r in rows] == [
        ("mine", 0, None), ("mine", 1, None), ("decode", 0, "test"), ("decode", 1, "test"),
    ]  # fmt: skip
    assert {"predicted", "gap_closed", "compiled", "honoured"} <= rows[0].keys()


def test_a_report_can_be_made_again_of_all_or_of_a_choice(call, data, tmp_path):
    out = tmp_path / "out"
    assert call("bench", "--data", data, "--out", out, "--solver", "nothing").returncode == 0
    for path in out.glob("report.*"):
        path.unlink()
    assert call("bench", "--out", out, "--report-only").returncode == 0
    text = (out / "report.md").read_text()
    assert "### alexnet on v5e" in text and "### decode on v4" in text
    assert call("bench", "decode", "--data", data, "--out", out, "--report-only").returncode == 0
    assert "alexnet" not in (out / "report.md").read_text()


@pytest.mark.parametrize(
    "arguments, pattern",
    [
        (["decoed"], "'decoed' in the suite; did you mean decode"),
        (["nowhere.json"], "nowhere.json.*No such file"),
        (["--split", "tset"], "no pair has split 'tset'; there are train, test"),
        (["--target", "v9"], "no pair has target 'v9'"),
        (["--solver", "gredy"], "no solver 'gredy'; there are greedy.*nothing"),
        (["--seconds", "0"], "0"),
        (["--seeds", "0,x"], "--seeds '0,x': need different numbers"),
        (["--seeds", "1,1"], "--seeds '1,1'"),
        (["--seeds", "-1"], "--seeds '-1'"),
        (["--report-only", "--compile"], "leave --compile out"),
        (["--report-only"], "no results here"),
        (["alexnet", "--contended"], "no pair of the suite is all of that"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(call, data, tmp_path, arguments, pattern):
    out = tmp_path / "out"
    done = call("bench", *arguments, "--data", data, "--out", out)
    assert_one_line_error(done, 2, pattern)
    assert not out.exists()


def test_data_without_an_index_or_with_another_file_is_named(call, data, tmp_path):
    assert_one_line_error(call("suite", "--data", tmp_path), 2, "index.json.*No such file")
    copy, out = tmp_path / "copy", tmp_path / "out"
    shutil.copytree(data, copy)
    mg.save_problem(mg.random_problem(0), copy / "decode-v4.json.gz")
    done = call("bench", "decode", "--data", copy, "--out", out, "--solver", "nothing")
    assert done.returncode == 2
    assert "decode-v4.json.gz differs from its index" in done.stderr.splitlines()[-1]


def test_an_output_that_is_no_directory_is_refused(call, data, tmp_path):
    (tmp_path / "file").write_text("")
    done = call("bench", "--data", data, "--out", tmp_path / "file", "--solver", "nothing")
    assert_one_line_error(done, 2, "is not a directory")


def test_a_choice_without_results_is_named(call, data, tmp_path):
    out = tmp_path / "out"
    call("bench", "decode", "--data", data, "--out", out, "--solver", "nothing")
    done = call("bench", "alexnet", "--data", data, "--out", out, "--report-only")
    assert_one_line_error(done, 2, "holds no results of these pairs and solvers")


@pytest.fixture
def heard():
    """Ctrl-C is heard by children: shells start what runs in the background with it ignored."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.mark.usefixtures("heard")
def test_ctrl_c_ends_at_once_and_says_what_is_kept(tmp_path):
    path, out = tmp_path / "mine.json.gz", tmp_path / "out"
    # Of 30 instructions the optimum is proved in two seconds, which a busy machine can lose.
    mg.save_problem(mg.random_problem(2, num_instructions=100), path)
    words = ["bench", path, "--solver", "cpsat", "--seconds", 100, "--out", out]
    process = subprocess.Popen(
        [sys.executable, "-m", "agent.cli", *map(str, words)],
        cwd=ROOT, env=dict(os.environ), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for line in process.stderr:
        if line.endswith("cpsat, seed 0\n"):
            process.send_signal(signal.SIGINT)
            break
    rest = process.communicate(timeout=120)[1]
    assert process.returncode == 130, rest
    assert rest.startswith("mallocgame: interrupted; what is done is kept in ")
    assert (out / "results.jsonl").read_bytes() == b""
