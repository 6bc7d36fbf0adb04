"""Measurements of fidelity: one of a tiny program, its report, its file, and many as tables."""

from __future__ import annotations

import dataclasses
import importlib
import json

import jax
import jax.numpy as jnp
import pytest

import malloc_game as mg
from workloads.compiler.session import versions
from workloads.errors import CompileError, WorkloadError
from workloads.fidelity import report
from workloads.fidelity.measurement import (
    CompiledSample,
    Fidelity,
    Sample,
    WorstInstruction,
    measure,
)
from workloads.loop.calibration import RandomGames

DEFAULT = CompiledSample("xla_default", 1010.0, 1000.0, 1.0, "default", 0, 5.0)
PLAN = Sample("greedy", 900.0, 900.0, 1.0, "exact", 0, 0.0)
RANDOM = (
    Sample("random 1", 990.0, 1000.0, 1.0, "exact", 0, 0.0),
    Sample("random 2", 1236.0, 1200.0, 0.9, "relaxed", 2, 1.5),
    Sample("random 3", 1400.0, 1400.0, 1.0, "permitted", 0, 0.0),
    Sample("random 4", 1500.0, None, None, "none", 0, None),
)


def cell(**changes) -> Fidelity:
    """A measurement made up by hand."""
    made = Fidelity(
        program="mlp",
        target="v4",
        versions=versions(),
        seed=3,
        instructions=7,
        decisions=9,
        refused=1,
        is_fast=True,
        xla_default=DEFAULT,
        final=PLAN,
        random=RANDOM,
        compiles=12,
        checks=5,
        deviation=0.002,
        seconds=81.2,
        worst=(WorstInstruction("fusion.1", "fusion", 6, 0.0125),),
    )
    return dataclasses.replace(made, **changes)


# -- figures ---------------------------------------------------------------------------------


def test_figures_of_a_measurement():
    made = cell()
    assert made.errors == pytest.approx([0.01, 0.03, 0.0])  # where there is something to compare
    assert [s.fits for s in RANDOM] == [True, True, False, False]
    assert made.honoured == pytest.approx(2.9 / 4)  # what is not compiled is not honoured
    assert made.rank_correlation == pytest.approx(1.0)
    turned = [dataclasses.replace(s, predicted=-s.predicted) for s in RANDOM]
    assert cell(random=tuple(turned)).rank_correlation == pytest.approx(-1.0)


def test_no_random_mappings_have_no_errors_and_no_rank():
    made = cell(random=())
    assert made.errors.shape == (0,) and made.rank_correlation is None and made.honoured == 1.0
    assert "median -" in report.text(made) and "| - |" in report.markdown([made])


def test_equal_latencies_have_no_rank():
    same = tuple(dataclasses.replace(s, compiled=1000.0) for s in RANDOM)
    assert cell(random=same).rank_correlation is None


# -- one measurement as text and as a file ---------------------------------------------------


def test_the_text_says_what_was_predicted_and_what_came_out():
    text = report.text(cell())
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    assert "mlp on v4: 7 timed instructions, 9 decisions (1 refused" in lines[0]
    assert "12 compiles and 5 checks" in lines[1]
    by_name = {" ".join(line.split()[:2]): line for line in lines}
    assert by_name["random 2"].split()[2:] == [
        "1,236", "1,200", "+3.000%", "90.00%", "relaxed,", "2", "repaired",
    ]  # fmt: skip
    assert by_name["random 4"].split()[2:] == ["1,500", "-", "-", "-", "none"]
    assert "median 1.00%" in text and "rank correlation 1.000" in text and "2 did not fit" in text
    assert "1.250%  fusion.1 (fusion x 6)" in text


def test_json_holds_everything_and_the_figures():
    content = json.loads(report.result(cell()))
    assert content["random"][1]["repairs"] == 2
    assert content["summary"] == {
        "honoured": pytest.approx(0.725), "error_median": pytest.approx(0.01),
        "error_p95": pytest.approx(0.028), "rank_correlation": pytest.approx(1.0),
    }  # fmt: skip


@pytest.mark.parametrize("changes", [{}, {"final": None, "random": (), "worst": ()}])
def test_a_file_gives_back_the_measurement(tmp_path, changes):
    path = report.cell_path(tmp_path / "new", "mlp", "v4")
    report.save(cell(**changes), path)
    assert report.load(path) == cell(**changes)


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b'{"schema_version": 0, "fidelity": {}}',
        b'{"schema_version": 1, "fidelity": {"program": 3}}',
    ],
)
def test_a_file_that_is_none_of_ours_is_refused(tmp_path, content):
    path = tmp_path / "cell.json"
    path.write_bytes(content)
    with pytest.raises(mg.MallocGameError, match="cell.json|program") as caught:
        report.load(path)
    assert "\n" not in str(caught.value)
    assert report.load_same(path, num_random=4, seed=3) is None


def test_a_file_of_a_measurement_is_small(tmp_path):
    long = tuple(
        Sample(f"random {i}", 1e7 / 3 + i, 1e7 / 7 + i, 1 / 3, "permitted", 12, 1e5 / 3)
        for i in range(10)
    )
    worst = (WorstInstruction("bitcast_dynamic-update-slice_fusion.44", "fusion", 6, 1 / 3),) * 5
    report.save(cell(random=long, worst=worst), tmp_path / "cell.json")
    assert (tmp_path / "cell.json").stat().st_size < 10_000


def test_all_measurements_of_a_directory_are_read_whatever_made_them(tmp_path):
    old = cell(program="a", versions={"libtpu": "0.0.1"}, seed=9)
    for each in (cell(program="b"), old):
        report.save(each, report.cell_path(tmp_path, each.program, each.target))
    assert report.load_all(tmp_path) == [old, cell(program="b")]
    (tmp_path / "c-v4.json").write_text("[]")
    with pytest.raises(mg.MallocGameError, match="c-v4.json"):
        report.load_all(tmp_path)


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_a_directory_without_measurements_says_so(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(mg.MallocGameError, match=f"{name}: no "):
        report.load_all(tmp_path / name)


def test_only_a_measurement_of_the_same_settings_and_compiler_is_taken_again(tmp_path):
    path = tmp_path / "cell.json"
    assert report.load_same(path, num_random=4, seed=3) is None
    report.save(cell(), path)
    assert report.load_same(path, num_random=4, seed=3) == cell()
    assert report.load_same(path, num_random=4, seed=0) is None
    assert report.load_same(path, num_random=5, seed=3) is None
    report.save(cell(versions={**versions(), "libtpu": "0.0.1"}), path)
    assert report.load_same(path, num_random=4, seed=3) is None


# -- many ------------------------------------------------------------------------------------


def test_the_tables_have_a_row_for_each_measurement_and_say_what_is_met():
    good = cell(program="good", random=RANDOM[:1], worst=())
    tables = report.markdown([cell(), good], {"odd on v5e": "the compiler failed"})
    rows = [[c.strip() for c in r.split("|")[1:-1]] for r in tables.splitlines() if r[:1] == "|"]
    found = {row[0]: row for row in rows if len(row) == 14}
    assert found["mlp"][1:11] == [
        "v4", "9", "1", "72.50%", "1.00%", "2.80%", "0.00%", "1.00%", "1.000", "2",
    ]  # fmt: skip
    assert found["good"][4:11] == ["100.00%", "1.00%", "1.00%", "0.00%", "1.00%", "-", "0"]
    figures = {row[0]: row[2:] for row in rows if len(row) == 4}
    assert figures["decisions honoured, mean over random mappings"] == ["86.25%", "no"]
    assert figures["absolute error of random mappings, median"] == ["1.00%", "yes"]
    assert figures["random mappings that the compiler cannot fit"] == ["40.00%", "no"]
    assert figures["compiles before the random mappings, most"] == ["12", "yes"]
    assert figures["seconds for these, median and most"] == ["81, 81", "-"]
    assert ["mlp", "v4", "`fusion.1` (fusion)", "1.25%"] in rows
    assert "Not measured: odd on v5e: the compiler failed" in tables
    alone = report.markdown([good])
    assert alone.count("| no |") == 0 < tables.count("| no |")
    assert report.markdown([]) == "Nothing has been measured.\n"


def test_each_target_has_figures_of_its_own():
    v5e = cell(target="v5e", random=RANDOM[:1], compiles=4, seconds=10.0)
    tables = report.markdown([cell(), v5e, cell(program="other", random=RANDOM[:2], seconds=21.2)])
    rows = [[c.strip() for c in r.split("|")[1:-1]] for r in tables.splitlines() if r[:1] == "|"]
    found = {row[0]: row[1:] for row in rows if len(row) == 12}
    assert found["v4"] == [
        "2", "83.75%", "72.50%", "1.00%", "3.00%", "0.00%", "1.00%", "1.000", "33.33%", "12", "51",
    ]  # fmt: skip
    assert found["v5e"] == [
        "1", "100.00%", "100.00%", "1.00%", "1.00%", "0.00%", "1.00%", "-", "0.00%", "4", "10",
    ]  # fmt: skip


def test_the_text_around_the_tables_stays(tmp_path):
    path = tmp_path / "fidelity.md"
    report.write_into(path, "first\n")
    path.write_text("above\n" + path.read_text() + "below\n")
    report.write_into(path, "second\n")
    text = path.read_text()
    assert text.startswith("above\n") and text.endswith("\nbelow\n")
    assert "second" in text and "first" not in text
    report.write_into(path, "second\n")
    assert path.read_text() == text


def test_a_file_without_markers_is_left_alone(tmp_path):
    path = tmp_path / "mine.md"
    for mine in ("# Mine\n", f"{report.END} before {report.BEGIN}\n"):
        path.write_text(mine)
        with pytest.raises(WorkloadError, match="mine.md: needs the lines"):
            report.write_into(path, "tables")
        assert path.read_text() == mine
    with pytest.raises(WorkloadError, match="directory"):
        report.frame(tmp_path)


class Measure:
    """Measures by hand; fails for the program `bad`."""

    def __init__(self):
        self.asked = []

    def __call__(self, program, target):
        self.asked.append((program, target))
        if program == "bad":
            raise CompileError("refused")
        return cell(program=program, target=target)


def test_what_is_measured_is_not_measured_again_and_failures_are_told(tmp_path):
    pairs = [("a", "v4"), ("bad", "v4"), ("a", "v5e")]
    first, second, said = Measure(), Measure(), []
    settings = {"num_random": 4, "seed": 3}
    cells, failures = report.measure_all(pairs, first, tmp_path, **settings, progress=said.append)
    assert [(c.program, c.target) for c in cells] == [("a", "v4"), ("a", "v5e")]
    assert failures == {"bad on v4": "refused"} and any("bad" in line for line in said)
    assert report.measure_all(pairs, second, tmp_path, **settings)[0] == cells
    assert (first.asked, second.asked) == (pairs, [("bad", "v4")])
    third = Measure()
    report.measure_all(pairs[:1], third, tmp_path, num_random=4, seed=4)
    report.measure_all(pairs[:1], third, None, **settings)
    assert third.asked == pairs[:1] * 2


def test_the_only_measurement_fails_aloud():
    with pytest.raises(CompileError, match="refused"):
        report.measure_all([("bad", "v4")], Measure(), None, num_random=1, seed=0)


# -- measured --------------------------------------------------------------------------------


def tiny(a, b):
    return jnp.tanh(a @ b) @ b


@pytest.mark.requires_libtpu
def test_a_tiny_program_is_measured(monkeypatch):
    seeds = {}
    for name in ("workloads.loop.calibration", "workloads.fidelity.measurement"):

        def recorded(problem, *args, name=name, seed, **kwargs):
            seeds[name] = seed
            return RandomGames(problem, *args, seed=seed, **kwargs)

        monkeypatch.setattr(importlib.import_module(name), "RandomGames", recorded)
    matrix = jax.ShapeDtypeStruct((512, 512), jnp.bfloat16)
    said = []
    found = measure(
        (tiny, (matrix, matrix)), "v5e", num_random=2, compiles=5, seed=1, progress=said.append
    )
    assert (found.program, found.target, found.seed) == ("tiny", "v5e", 1)
    assert found.versions == versions() and found.is_fast and found.checks > 0
    assert found.decisions >= 3 and found.refused >= 1  # the result
    assert 3 <= found.compiles <= 5
    assert found.xla_default.error == pytest.approx(0.0, abs=0.02)
    assert abs(found.final.error) <= 0.005 and found.final.honoured == 1.0
    assert [s.source for s in found.random] == ["random 1", "random 2"]
    for sample in found.random:
        assert sample.fits and sample.honoured == 1.0
        assert sample.predicted > 0 and sample.compiled > 0
    # So few placements there are that calibration leaves no doubt about any.
    assert found.deviation == 0.0
    assert found.errors == pytest.approx([0.0, 0.0], abs=1e-3) and found.worst == ()
    assert len(set(seeds.values())) == 2  # not the games that calibration chooses from
    assert any("random mapping 2 of 2" in line for line in said)
    assert "tiny on v5e" in report.text(found)
