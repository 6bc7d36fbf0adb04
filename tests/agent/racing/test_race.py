"""Races of contenders that use the compiler: rows, time limits, what goes on, and the tables."""

import dataclasses
import json
import subprocess
import types

import pytest

import workloads.baselines
from agent.racing import child, contenders, report
from agent.tuning import main_job
from agent.tuning.outcome import Improvement
from malloc_game import MallocGameError
from malloc_game.solvers import solve
from tests.agent.cli import test_cli
from tests.agent.cli.test_cli import assert_one_line_error
from workloads.benchmark import rows
from workloads.benchmark.keeping import no_progress
from workloads.compiler import session
from workloads.errors import WorkloadError
from workloads.programs.suite_problems import DATA, pairs

call = test_cli.call  # the same fixture
PAIRS = [p for p in pairs() if p.name in ("heat-v4", "heat-v5e")]


@pytest.fixture
def children(monkeypatch):
    """Children that answer at once; what was asked of them, and what they answer by contender."""
    asked, answers = [], {}

    def run(command, env, **options):
        name, program, target, seconds, seed, _ = command[-6:]
        asked.append((name, program, target, float(seconds), int(seed), env["MALLOCGAME_CACHE"]))
        answer = answers.get(name, {"history": [[1.0, 100.0], [5.0, 80.0]], "xla_default": 100.0})
        if isinstance(answer, str):
            return subprocess.CompletedProcess(command, 3, "", f"Traceback\n{answer}\n")
        return subprocess.CompletedProcess(command, 0, f"noise\n{json.dumps(answer)}\n", "")

    monkeypatch.setattr(contenders.subprocess, "run", run)
    return types.SimpleNamespace(asked=asked, answers=answers)


def test_what_comes_after_the_time_does_not_count(children, tmp_path):
    late = {"history": [[1.0, 100.0], [5.0, 80.0], [6.1, 40.0]], "xla_default": 100.0}
    children.answers["optimize"] = late
    (row,) = contenders.race(PAIRS[:1], ["optimize"], 6.0, [3], tmp_path, no_progress)
    assert (row.compiled, row.speedup, row.xla_default) == (80.0, 1.25, 100.0)
    assert row.history == ((1.0, 100.0), (5.0, 80.0), (6.1, 40.0))
    assert (row.pair, row.contender, row.seed, row.seconds_limit) == ("heat-v4", "optimize", 3, 6.0)


def test_who_was_too_late_has_xlas_default(children, tmp_path):
    children.answers["knobs"] = {"history": [[7.0, 50.0]], "xla_default": 100.0}
    (row,) = contenders.race(PAIRS[:1], ["knobs"], 6.0, [0], tmp_path, no_progress)
    assert row.speedup == 1.0


def test_every_run_has_an_empty_cache_and_is_not_run_again_unless_it_failed(children, tmp_path):
    children.answers["knobs"] = "CompileError: no compiler"
    found = contenders.race(PAIRS, ["optimize", "knobs"], 6.0, [0], tmp_path, no_progress)
    assert [(r.pair, r.contender, r.error) for r in found] == [
        ("heat-v4", "optimize", None),
        ("heat-v4", "knobs", "CompileError: no compiler"),
        ("heat-v5e", "optimize", None),
        ("heat-v5e", "knobs", "CompileError: no compiler"),
    ]
    assert len({cache for *_, cache in children.asked}) == 4
    assert rows.race_results(tmp_path).read() == found
    children.answers.clear()
    again = contenders.race(PAIRS, ["optimize", "knobs"], 6.0, [0], tmp_path, no_progress)
    assert [name for name, *_ in children.asked[4:]] == ["knobs", "knobs"]
    assert all(row.error is None for row in again)


def test_an_unknown_contender_is_named():
    with pytest.raises(WorkloadError, match="no contender 'magic'; there are optimize, learned"):
        contenders.choose_contenders(["magic"])
    assert contenders.choose_contenders([]) == contenders.CONTENDERS
    assert contenders.choose_contenders(["knobs", "knobs"]) == ("knobs",)


def test_the_childs_clock_begins_where_the_parents_does(monkeypatch):
    clock = types.SimpleNamespace(monotonic=lambda: 107.0)
    monkeypatch.setattr(child, "time", clock)

    def optimize(program, target, seed, deadline):
        assert (program, target, seed, deadline) == ("heat", "v4", 2, 160.0)
        history = (Improvement(3.0, 90.0, "CP-SAT LNS"),)
        return types.SimpleNamespace(history=history, xla_default_cycles=100.0)

    monkeypatch.setattr(main_job, "optimize", optimize)
    found = child.run("optimize", "heat", "v4", 60.0, 2, 100.0)
    assert found == {
        "history": [(10.0, 90.0)], "found_by": ["CP-SAT LNS"], "xla_default": 100.0
    }  # fmt: skip

    class Session:
        def __init__(self, program, target):
            assert (program, target) == ("heat", "v4")

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    def run(name, session, seconds, seed):
        assert (name, seconds, seed) == ("knobs", 53.0, 2)
        return types.SimpleNamespace(history=((1.0, 95.0),), xla_default_cycles=100.0)

    monkeypatch.setattr(session, "CompilerSession", Session)
    monkeypatch.setattr(workloads.baselines, "run", run)
    found = child.run("knobs", "heat", "v4", 60.0, 2, 100.0)
    assert found == {"history": [(8.0, 95.0)], "found_by": ["knobs"], "xla_default": 100.0}


def rows_of(children, tmp_path):
    children.answers["knobs"] = {"history": [[1.0, 100.0]], "xla_default": 100.0}
    return contenders.race(PAIRS, ["optimize", "knobs"], 6.0, [0, 1], tmp_path, no_progress)


def test_standings_are_over_pairs_that_all_have_finished(children, tmp_path):
    found = rows_of(children, tmp_path)
    least = {"heat-v4": report.Limits(0.6, 0.7), "heat-v5e": report.Limits(0.75, 1.1)}
    first, second = report.standings(found, least)
    assert (first.contender, first.pairs) == ("optimize", 2)
    # 0.8 of XLA's default: of 0.4 and 0.25 by memory's bound, of 0.3 and of nothing by the game's.
    assert first.memory_gap == pytest.approx((0.5 + 0.8) / 2)
    assert first.game_gap == pytest.approx(2 / 3)
    assert (second.memory_gap, second.game_gap) == (0.0, 0.0)
    assert first.speedup == pytest.approx(1.25) and second.speedup == pytest.approx(1.0)
    assert dataclasses.astuple(second.first_against) == (2, 0, 0)
    partly = [row for row in found if (row.pair, row.contender) != ("heat-v5e", "knobs")]
    assert [s.pairs for s in report.standings(partly, least)] == [1, 1]
    text = report.markdown(found, least)
    for seed in ("all", "0", "1"):
        assert f"| {seed} | optimize | 2 | 1.0 | 1.2500 |  |  |  | 65.0% | 66.7% |" in text
        assert f"| {seed} | knobs | 2 | 1.0 | 1.0000 | 2 | 0 | 0 | 0.0% | 0.0% |" in text
    assert "| heat-v4 | **1.2500** | 1.0000 | 1.4286 | 1.6667 |" in text
    assert "| all |" not in report.markdown([row for row in found if not row.seed], least)
    assert report.markdown([], {}) == ""


def test_seeds_that_differ_are_told_apart(children, tmp_path):
    first = rows_of(children, tmp_path)
    slower = {"speedup": 1.0, "history": ((3.0, 100.0),)}
    found = [dataclasses.replace(row, **slower) if row.seed else row for row in first]
    least = dict.fromkeys(("heat-v4", "heat-v5e"), report.Limits(0.6, 0.7))
    text = report.markdown(found, least)
    assert "| heat-v4 | **1.1180** (1.0000 to 1.2500) | 1.0000 | 1.4286 | 1.6667 |" in text
    assert "| all | optimize | 2 | 2.0 | 1.1180 |" in text
    assert "| 0 | knobs | 2 | 1.0 | 1.0000 | 2 | 0 | 0 |" in text
    assert "| 1 | knobs | 2 | 3.0 | 1.0000 | 0 | 2 | 0 |" in text


def test_a_line_a_contender_has_seed_by_seed_against_the_first(children, tmp_path):
    found = rows_of(children, tmp_path)  # 1.25 and 1.0 on both pairs
    speedup = {("optimize", 1): 1.1, ("knobs", 1): 1.2}
    found = [
        dataclasses.replace(row, speedup=speedup.get((row.contender, row.seed), row.speedup))
        for row in found
    ]
    of_beam = {"heat-v4": 1.25, "heat-v5e": 1.3}
    found += [
        dataclasses.replace(row, contender="beam", seed=2, speedup=of_beam[row.pair])
        for row in found
        if (row.contender, row.seed) == ("optimize", 0)
    ]
    header, _, knobs, beam = report.by_seed(found)
    assert "of optimize, same seed" in header and "against its seed 0" in header
    # With seed 1 optimize loses to knobs, its seed 0 does not; of means 1.1726 beat 1.0954.
    assert knobs == (
        "| knobs | 0, 1 | 1.000, 1.200 | 2 / 0 / 0, 0 / 0 / 2 | 100%, 0% "
        "| 2 / 0 / 0, 2 / 0 / 0 | 100%, 100% | 2 / 0 / 0 | 100% |"
    )
    # No seed in common, so nothing but optimize's first is there to compare with.
    assert beam == "| beam | 2 | 1.275 | 0 / 0 / 0 | - | 0 / 1 / 1 | 50% | 0 / 0 / 0 | - |"
    least = dict.fromkeys(("heat-v4", "heat-v5e"), report.Limits(0.6, 0.7))
    assert f"\n\n{header}\n" in report.markdown(found, least)
    one_seed = report.markdown([row for row in found if row.seed == 0], least)
    assert header not in one_seed and "| 0 | knobs |" in one_seed


def test_the_best_of_the_solvers_leaves_the_other_contenders_out(children, tmp_path):
    found = rows_of(children, tmp_path)
    speedups = {"annealing": 1.1, "beam": 1.05, "hill_climbing": 1.2}
    found += [
        dataclasses.replace(row, contender=name, speedup=speedup)
        for row in found
        if row.contender == "knobs" and row.seed == 0
        for name, speedup in speedups.items()
    ]
    best = report.best_of_the_others(found)
    told = {(row.contender, row.seed): row.speedup for row in best}
    assert told == {("best of the solvers", 0): 1.1, ("best of the others", 0): 1.2}
    assert len(best) == 4
    least = dict.fromkeys(("heat-v4", "heat-v5e"), report.Limits(0.6, 0.7))
    assert "| all | best of the solvers |" not in report.markdown(found, least)
    twice = found + [dataclasses.replace(row, seed=1) for row in found if row.contender in speedups]
    assert "| all | best of the solvers | 2 | 1.0 | 1.1000 | 2 | 0 | 0 |" in (
        report.markdown(twice, least)
    )
    solvers = [row for row in found if row.contender not in ("knobs", "hill_climbing")]
    assert {row.contender for row in report.best_of_the_others(solvers)} == {"best of the others"}


def test_contenders_are_compared_by_the_seeds_that_both_have(children, tmp_path):
    children.answers["knobs"] = {"history": [[1.0, 100.0], [5.0, 76.0]], "xla_default": 100.0}
    found = contenders.race(PAIRS, ["optimize"], 6.0, [0, 1], tmp_path, no_progress)
    slow = {"speedup": 1.0, "history": ((3.0, 100.0),)}
    found = [row if row.seed else dataclasses.replace(row, **slow) for row in found]
    found += contenders.race(PAIRS, ["knobs"], 6.0, [1], tmp_path, no_progress)
    third = {"heat-v4": 1.28, "heat-v5e": 1.2}  # 1.2 is more than 1.25**0.5
    found += [
        dataclasses.replace(row, contender="hill_climbing", speedup=third[row.pair])
        for row in found
        if row.contender == "knobs"
    ]
    least = dict.fromkeys(("heat-v4", "heat-v5e"), report.Limits(0.6, 0.7))
    best = report.best_of_the_others(found)
    assert [(row.pair, row.seed, row.speedup) for row in best] == [
        ("heat-v4", 1, pytest.approx(100 / 76)), ("heat-v5e", 1, pytest.approx(100 / 76)),
    ]  # fmt: skip
    told = {s.contender: s for s in report.standings([*found, *best], least)}
    assert told["optimize"].speedup == pytest.approx(1.25**0.5)  # of both seeds
    assert dataclasses.astuple(told["knobs"].first_against) == (0, 0, 2)
    assert dataclasses.astuple(told["hill_climbing"].first_against) == (1, 0, 1)
    assert dataclasses.astuple(told["best of the others"].first_against) == (0, 0, 2)
    text = report.markdown(found, least)
    assert "| 1 | best of the others | 2 | 1.0 | 1.3158 | 0 | 0 | 2 |" in text
    assert "| 0 | best of the others |" not in text
    assert "| all | best of the others |" not in text  # which would be that of seed 1
    two = [row for row in found if row.contender != "knobs"]
    assert report.best_of_the_others(two) == []


def test_no_mapping_of_the_game_is_below_its_limit_and_that_is_not_below_memorys():
    pair = PAIRS[0]
    found = report.limits(pair, DATA)
    problem, _ = pair.load()
    assert found.memory == pair.bound / pair.xla_default
    assert found.memory <= found.game
    greedy = solve("greedy", problem, seconds=1, seed=0)
    assert found.game * pair.xla_default <= greedy.latency_cycles


def test_the_command_reports_what_is_there(children, tmp_path, call):
    rows_of(children, tmp_path)
    done = call("race", "heat-v4", "--seconds", 6, "--out", tmp_path, "--report-only",
                "--contender", "optimize")  # fmt: skip
    assert done.returncode == 0 and "| heat-v4 | **1.2500** |" in done.stdout
    assert (tmp_path / "race.md").read_text() == done.stdout
    done = call("race", "--seconds", 7, "--out", tmp_path, "--report-only")
    assert_one_line_error(done, 2, "holds no races")


def test_a_damaged_journal_is_one_clear_line(children, tmp_path):
    (tmp_path / "race.jsonl").write_text("{}\n")
    with pytest.raises(MallocGameError, match=r"race.jsonl:1: not a row of this release"):
        contenders.race(PAIRS, ["optimize"], 6.0, [0], tmp_path, no_progress)
