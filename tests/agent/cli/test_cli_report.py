"""`mallocgame report`: pages and figures of a run's directory, mistakes in one line."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys

import pytest

import malloc_game as mg
from agent.cli import commands
from agent.planner import finders
from agent.report.figure import save_figure
from agent.report.run_files import load_run
from malloc_game.problem.files import read_json, write_json
from tests.helpers.run_for_tests import layers, make_run, save_run, weights_only


@pytest.fixture(scope="module")
def run():
    problem, everything = layers(8)
    return make_run(problem, everything, weights_only(problem, everything))


@pytest.fixture
def directory(run, tmp_path):
    return save_run(run, tmp_path / "run")


@pytest.fixture
def call(capsys, monkeypatch):
    """Run `mallocgame report`; returns exit code, output and error output."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mallocgame", "report", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            commands.main()
        return stop.value.code, *capsys.readouterr()

    return call


def test_a_run_is_read_back_as_it_was(run, directory):
    found = load_run(directory)
    assert found.result == run.result and found.latencies == run.latencies
    assert (found.problem, found.reference) == (run.problem, run.reference)
    assert found.assignment == run.assignment and not found.is_unchanged


def test_the_page_is_written_next_to_the_files(directory, call):
    code, output, errors = call(directory)
    assert (code, errors) == (0, "") and "report.html" in output
    assert (directory / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_page_and_figure_go_where_they_are_wanted(directory, tmp_path, call):
    pytest.importorskip("matplotlib")
    page, picture = tmp_path / "new" / "a.html", tmp_path / "figures" / "a.png"
    code, output, _ = call(directory, "--out", page, "--png", picture)
    assert code == 0 and str(page) in output and str(picture) in output
    assert picture.read_bytes().startswith(b"\x89PNG") and page.exists()
    assert not (directory / "report.html").exists()


@pytest.mark.parametrize("name, magic", [("a.svg", b"<?xml"), ("a.pdf", b"%PDF")])
def test_figures_are_vector_graphics_too(run, tmp_path, name, magic):
    pytest.importorskip("matplotlib")
    save_figure(run, tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(magic)


def test_a_figure_of_what_did_not_change_has_one_map(run, tmp_path):
    pytest.importorskip("matplotlib")
    default = run.reference
    won = make_run(run.problem, default, default, best_source="xla_default")
    empty = make_run(run.problem, mg.all_default(run.problem), None, compiled=False)
    for i, one in enumerate((won, empty, run)):
        save_figure(one, tmp_path / f"{i}.svg")
    titles = [(tmp_path / f"{i}.svg").read_text().count('id="axes_') for i in range(3)]
    assert titles == [2, 4, 4]


@pytest.mark.parametrize("fails", ["write", "rename"])
def test_a_failed_write_leaves_the_old_files(fails, run, directory, tmp_path, monkeypatch, call):
    pytest.importorskip("matplotlib")
    (directory / "report.html").write_text("old")
    picture = tmp_path / "a.png"
    picture.write_bytes(b"old")

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync" if fails == "write" else "replace", full)
    code, _, errors = call(directory, "--png", picture)
    assert code == 2 and errors.count("\n") == 1 and "No space left on device" in errors
    assert (directory / "report.html").read_text() == "old" and picture.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "run"]


def test_a_result_of_an_earlier_version_is_read(run, directory, tmp_path, call):
    content = json.loads((directory / "result.json").read_text())
    for name in ("found_by", "planner_games", "missing", "stopped"):
        del content[name]
    latencies = content["latency_cycles"]
    latencies["agent"] = latencies.pop("planner")
    content |= {"best_source": "agent", "agent_found_by": "stretches", "agent_games": 0}
    old = shutil.copytree(directory, tmp_path / "old")
    (old / "result.json").write_text(json.dumps(content))
    read = load_run(old)
    assert read.found_by == finders.CPSAT_LNS and read.result["planner_games"] == 0
    assert read.latencies["planner"].compiled == latencies["agent"]["compiled"]
    code, _, said = call(old)
    assert code == 0, said


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nowhere"], "nowhere: no such directory"),
        (["{run}/result.json"], "no such directory"),
        (["{run}", "--png", "a.gif"], "a.gif: a picture is named"),
        (["{run}", "--png", "{run}/result.json/a.png"], "--png .*not a directory"),
        (["{run}", "--out", "{run}/result.json/a.html"], "--out .*not a directory"),
        ([], "DIR"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, message, directory, call):
    code, output, errors = call(*(a.format(run=directory) for a in arguments))
    assert (code, output) == (2, "") and errors.count("\n") == 1
    assert errors.startswith("mallocgame: error: ")
    assert re.search(message, errors), errors
    assert not (directory / "report.html").exists()


@pytest.mark.parametrize("name", ["result.json", "problem.json", "assignment.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "another"])
def test_a_missing_or_damaged_file_is_one_line_that_names_it(name, damage, directory, call):
    path = directory / name
    if damage == "missing":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-40])
    else:
        path.write_text("[1, 2]")
    code, output, errors = call(directory)
    assert (code, output) == (2, "") and errors.count("\n") == 1 and name in errors
    assert "Traceback" not in errors and not (directory / "report.html").exists()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"seed": "one"}, "seed is 'one'; need int"),
        ({"compiled_speedup": -1.0}, "compiled_speedup is '-1.0'"),
        ({"latency_cycles": {}}, "latency_cycles has no 'best'"),
        (
            {
                "latency_cycles": dict.fromkeys(
                    ("best", "all_default", "xla_default", "planner"), {}
                )
            },
            "latency_cycles.best.predicted is 'None'; need int or float",
        ),
        ({"best_source": "nobody"}, "latency_cycles has no 'nobody'"),
        ({"best_not_honoured": [3]}, "best_not_honoured is '3'"),
        ({"compiler_options": {"a": 1}}, "compiler_options is '1'"),
        ({"target": "v5e"}, "they are of different runs"),
        ({"seconds": True}, "seconds is 'True'"),
    ],
)
def test_a_damaged_field_is_named(change, message, directory, call):
    path = directory / "result.json"
    write_json(path, {**read_json(path), **change})
    code, _, errors = call(directory)
    assert code == 2 and errors.count("\n") == 1 and message in errors, errors


@pytest.mark.parametrize("number", ["1e999", "NaN", "-Infinity"])
def test_numbers_that_are_none_do_not_reach_the_page(number, directory, call):
    path = directory / "result.json"
    text = path.read_text().replace('"seconds": 12.5', f'"seconds": {number}')
    path.write_text(text)
    code, _, errors = call(directory)
    assert code == 2 and errors.count("\n") == 1 and "result.json" in errors


def test_a_field_of_result_that_is_missing_is_named(directory, call):
    path = directory / "result.json"
    content = json.loads(path.read_text())
    del content["best_not_honoured"]
    path.write_text(json.dumps(content))
    code, _, errors = call(directory)
    assert code == 2 and "field 'best_not_honoured' is missing" in errors


def test_files_of_different_runs_are_told_apart(directory, tmp_path, call):
    problem, everything = layers(9)
    other = save_run(make_run(problem, everything, None, compiled=False), tmp_path / "other")
    shutil.copy(other / "assignment.json", directory / "assignment.json")
    code, _, errors = call(directory)
    assert code == 2 and errors.count("\n") == 1 and "9 instructions" in errors


def test_without_matplotlib_one_line_says_what_to_install(directory, tmp_path, monkeypatch, call):
    for name in [m for m in sys.modules if m.startswith("matplotlib")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    code, _, errors = call(directory, "--png", tmp_path / "a.png")
    assert code == 2 and "pip install 'mallocgame[plot]'" in errors
    assert not (directory / "report.html").exists()
