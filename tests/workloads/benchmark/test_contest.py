"""The benchmark of solvers: its journal, its runs, its arithmetic, its report."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import subprocess
import sys

import numpy as np
import pytest

import malloc_game as mg
from malloc_game import MallocGameError
from malloc_game.solvers import Result, SolverError, lower_bound
from tests.helpers.toy import toy
from workloads.benchmark import (
    Case,
    CompiledRow,
    choose_solvers,
    compile_mappings,
    load,
    run,
    scores,
    select,
    write,
)
from workloads.benchmark import document as documents
from workloads.benchmark import rows as journals
from workloads.benchmark.report import document
from workloads.benchmark.rows import JudgedCompiledRow, JudgedRow, Row
from workloads.costs.judge import CompiledLatency
from workloads.errors import CompileError, CompilerUnavailable, WorkloadError
from workloads.loop.verification import Verification
from workloads.programs.suite_problems import Pair

compiling = importlib.import_module("workloads.benchmark.compiling")

# x and y, 4 KiB each, in a memory of 4 KiB: one of them can be there. x saves 2 x 1, y 1 + 4.
TOY = """
cycles           8   8   8   8
x   4  temp      D1  u1  .   .
y   4  temp      .   D1  -   u4
"""


@pytest.fixture
def toy_file(tmp_path):
    """A problem file: everything in default memory is XLA's mapping."""
    problem = toy(TOY, memory_kib=4)
    path = tmp_path / "toy-toy.json.gz"
    mg.save_problem(problem, path, mg.all_default(problem))
    return path


def with_values(*inside: int):
    """A solver that puts these values of the toy in alternate memory, all at the same place."""

    def solve(problem, seconds, seed, **options):
        calls.append((seconds, seed))
        masks = [
            sum(1 << k for k, p in enumerate(i.positions) if p.value in inside)
            for i in problem.instructions
        ]
        chunks = tuple(
            mg.Chunk(
                v, 0, problem.values[v].size_bytes, problem.values[v].start, problem.values[v].end
            )
            for v in inside
        )
        mapping = mg.Assignment(tuple(masks), chunks, (), "by hand")
        cycles = mg.latency(problem, mapping).cycles
        return Result(mapping, cycles, 0.0, None, {"improvements": [[0.5, cycles]]})

    calls: list[tuple[float, int]] = []
    solve.calls = calls
    return solve


def broken(problem, seconds, seed, **options):
    raise RuntimeError("out of\nideas")


# -- running ---------------------------------------------------------------------------------


def test_a_run_becomes_a_row_with_its_mapping(toy_file, tmp_path):
    out = tmp_path / "out"
    (row,) = run([Case.of_file(toy_file)], {"y": with_values(1)}, 3.0, [7], out)
    assert (row.pair, row.solver, row.seed, row.seconds_limit) == ("toy-toy", "y", 7, 3.0)
    assert (row.all_default, row.xla_default, row.predicted) == (32, 32, 27)
    assert row.speedup == pytest.approx(32 / 27)
    assert row.bound == pytest.approx(lower_bound(toy(TOY, memory_kib=4)).cycles)
    assert row.gap_closed == pytest.approx(5 / (32 - row.bound))
    assert row.headroom == pytest.approx(1 - row.bound / 32) and row.contended
    assert (row.family, row.split, row.error) == (None, None, None)
    assert row.improvements == ((0.5, 27.0),)
    assert 0 <= row.seconds < 3.0 and 0 <= row.cpu_seconds < 60.0
    assert row.versions["malloc_game"] == mg.__version__
    mapping = mg.load_assignment(out / "assignments" / "toy-toy.y.7.json", toy(TOY, memory_kib=4))
    assert mapping.source == "by hand" and mapping.chunks[0].value == 1
    assert load(out).runs == (row,)


def test_what_one_solver_has_proven_ends_the_runs_of_the_others(toy_file, tmp_path):
    goals = {}

    def solver(name, bound):
        def solve(problem, seconds, seed, goal, **options):
            goals[name] = goal
            result = with_values(1)(problem, seconds, seed)
            return dataclasses.replace(result, bound=bound)

        return solve

    case = Case.of_file(toy_file)
    first = {"a": solver("a", None), "cpsat": solver("cpsat", 27.0)}
    rows = run([case], first, 3.0, [7], tmp_path / "out")
    assert [(r.solver, r.is_optimal) for r in rows] == [("a", True), ("cpsat", True)]
    assert goals == {"cpsat": rows[0].bound, "a": 27.0}  # the prover went first
    run([case], {"b": solver("b", None)}, 3.0, [7], tmp_path / "out")
    assert goals["b"] == 27.0  # from what is on record


def test_what_is_there_is_not_run_again_and_what_differs_is(toy_file, tmp_path):
    out, solver = tmp_path / "out", with_values(1)
    case = Case.of_file(toy_file)
    first = run([case], {"y": solver}, 3.0, [0, 1], out)
    assert run([case], {"y": solver}, 3.0, [0, 1, 2], out)[:2] == first
    assert solver.calls == [(3.0, 0), (3.0, 1), (3.0, 2)]
    run([case], {"y": solver}, 4.0, [0], out)  # another time limit
    run([case], {"y": solver}, 3.0, [0], out)  # whose row it replaced
    problem = toy(TOY.replace("u4", "u3"), memory_kib=4)
    mg.save_problem(problem, toy_file, mg.all_default(problem))
    (row,) = run([Case.of_file(toy_file)], {"y": solver}, 3.0, [1], out)  # another problem
    assert solver.calls[3:] == [(4.0, 0), (3.0, 0), (3.0, 1)]
    assert row.predicted == 28


def test_a_solver_that_raises_makes_a_row_and_is_tried_again(toy_file, tmp_path):
    case, out = Case.of_file(toy_file), tmp_path / "out"
    bad, good = run([case], {"a": broken, "y": with_values(1)}, 3.0, [0], out)
    assert bad.error == "RuntimeError: out of ideas"
    assert (bad.predicted, bad.speedup, bad.gap_closed) == (None, None, None)
    assert good.error is None
    (mended,) = run([case], {"a": with_values(0)}, 3.0, [0], out)
    assert (mended.error, mended.predicted) == (None, 30)
    assert {r.solver: r.error for r in load(out).runs} == {"a": None, "y": None}


def test_a_mapping_that_breaks_a_rule_is_an_error(toy_file, tmp_path):
    (row,) = run([Case.of_file(toy_file)], {"both": with_values(0, 1)}, 3.0, [0], tmp_path / "out")
    assert row.predicted is None
    assert row.error.startswith("Failed: ") and "violations" in row.error
    assert not list((tmp_path / "out" / "assignments").iterdir())


def test_a_latency_below_the_bound_is_an_error(toy_file):
    opened = Case.of_file(toy_file).open()
    runner = importlib.import_module("workloads.benchmark.runner")
    mapping = mg.all_default(opened.problem)
    assert runner.judge(opened, mapping) == 32
    with pytest.raises(MallocGameError, match=r"32\.0 cycles are fewer than the proven bound 33"):
        runner.judge(dataclasses.replace(opened, bound=33.0), mapping)


def test_an_interrupted_run_keeps_what_is_done(toy_file, tmp_path):
    def interrupted(problem, seconds, seed, **options):
        raise KeyboardInterrupt

    case, out = Case.of_file(toy_file), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run([case], {"y": with_values(1), "stop": interrupted}, 3.0, [0], out)
    assert [r.solver for r in load(out).runs] == ["y"]
    run([case], {"y": broken, "stop": with_values(0)}, 3.0, [0], out)  # and is not locked
    assert [(r.solver, r.error) for r in load(out).runs] == [("y", None), ("stop", None)]


def test_a_file_without_xlas_mapping_has_no_speedup(tmp_path):
    path = tmp_path / "mine.json"
    mg.save_problem(toy(TOY, memory_kib=4), path)
    (row,) = run([Case.of_file(path)], {"y": with_values(1)}, 3.0, [0], tmp_path / "out")
    assert (row.predicted, row.speedup, row.gap_closed, row.headroom) == (27, None, None, None)
    assert "mine on toy" in write(load(tmp_path / "out"), tmp_path / "out")


def test_a_real_solver_runs_on_a_random_problem(tmp_path):
    path = tmp_path / "random.json.gz"
    mg.save_problem(mg.random_problem(3, num_instructions=20), path)
    (row,) = run([Case.of_file(path)], choose_solvers(["random"]), 0.1, [0], tmp_path / "out")
    assert row.error is None
    assert row.bound <= row.predicted <= row.all_default


def test_two_files_of_one_name_are_refused(toy_file, tmp_path):
    other = tmp_path / "other" / toy_file.name
    other.parent.mkdir()
    mg.save_problem(toy(TOY), other)
    with pytest.raises(WorkloadError, match="both called toy-toy; rename"):
        run([Case.of_file(toy_file), Case.of_file(other)], {}, 1.0, [0], tmp_path / "out")


def test_solvers_are_those_named_or_all_with_the_extra_ones():
    extra = {"agent": broken}
    assert list(choose_solvers((), extra))[-1] == "agent"
    assert choose_solvers(["agent", "greedy"], extra)["agent"] is broken
    with pytest.raises(SolverError, match="no solver 'agnet'; there are greedy.*agent"):
        choose_solvers(["agnet"], extra)


def test_small_improvements_are_left_out_of_the_row_but_not_the_last():
    runner = importlib.import_module("workloads.benchmark.runner")
    found = [[1, 100.0], [2, 99.999], [3, 90.0], [4, 89.999], [5, 89.998]]
    result = Result(mg.Assignment(()), 89.998, 5.0, None, {"improvements": found})
    assert runner._improvements(result) == ((1, 100.0), (3, 90.0), (5, 89.998))
    one = Result(mg.Assignment(()), 1.0, 5.0, None, {"improvements": [[1, 2.0]]})
    assert runner._improvements(one) == ((1, 2.0),)


# -- the journal -----------------------------------------------------------------------------


def row(pair="p-v4", solver="a", predicted=100.0, *, xla=100.0, bound=50.0, seed=0, **changes):
    program, target = pair.split("-")
    failed = predicted is None
    fields = {
        "program": program, "target": target, "family": "f", "split": "test", "solver": solver,
        "seed": seed, "seconds_limit": 10.0, "seconds": 9.0, "cpu_seconds": 4.5,
        "decisions": 5, "instructions": 6, "problem_sha256": "0" * 64,
        "xla_default": xla, "all_default": 200.0, "bound": bound,
        "headroom": 1 - bound / xla, "contended": bound <= 0.99 * xla, "predicted": predicted,
        "speedup": None if failed else xla / predicted,
        "gap_closed": None if failed else journals.gap_closed(xla, bound, predicted),
        "solver_bound": None, "is_optimal": predicted == bound,
        "improvements": () if failed else ((1.0, 2 * predicted), (4.0, predicted)),
        "mapping_sha256": None if failed else f"{pair}{solver}{seed}",
        "error": "ValueError: no" if failed else None, "versions": {"jax": "1"},
    }  # fmt: skip
    return (Row if failed else JudgedRow)(**{**fields, **changes})


def test_a_torn_last_line_is_no_row_and_is_cut_off(tmp_path):
    journal = journals.results(tmp_path)
    with journal:
        journal.append(row(seed=0))
        journal.append(row(seed=1))
    whole = journal.path.read_bytes()
    for lost in (1, 2, 40, len(whole.splitlines()[1])):
        journal.path.write_bytes(whole[:-lost])
        assert journal.read() == [row(seed=0)]
        with journal:
            journal.append(row(seed=2))
        assert journal.read() == [row(seed=0), row(seed=2)]


def test_a_damaged_line_is_named(tmp_path):
    journal = journals.results(tmp_path)
    with journal:
        journal.append(row())
    journal.path.write_text(journal.path.read_text() + '{"program": "x"}\n')
    with pytest.raises(MallocGameError, match=r"results.jsonl:2: not a row.*'target' is missing"):
        journal.read()


def test_one_process_at_a_time_writes_a_journal(tmp_path):
    with journals.results(tmp_path), pytest.raises(MallocGameError, match="another process"):
        journals.results(tmp_path).__enter__()
    with journals.results(tmp_path) as journal:
        journal.append(row())


def test_a_killed_process_loses_no_row(tmp_path):
    """Rows are in the file as soon as `append` returns, whatever becomes of the process."""
    code = (
        "import os, signal, sys; from pathlib import Path; from workloads.benchmark import rows\n"
        "from tests.workloads.benchmark.test_contest import row\n"
        "with rows.results(Path(sys.argv[1])) as journal:\n"
        "    journal.append(row())\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    assert journals.results(tmp_path).read() == [row()]


# -- arithmetic ------------------------------------------------------------------------------


def test_gap_closed_by_hand():
    assert journals.gap_closed(100, 80, 90) == 0.5
    assert journals.gap_closed(100, 80, 110) == -0.5
    assert journals.gap_closed(100, 100 - 1e-8, 90) is None
    assert journals.gap_closed(100, 101, 90) is None
    assert journals.gap_closed(None, 80, 90) is None


def test_wins_ties_and_losses_by_hand():
    pairs = [(99.8, 100), (99.91, 100), (100, 100), (100.09, 100), (100.2, 100), (300, 100)]
    assert scores.record(pairs) == scores.Record(wins=1, ties=3, losses=2)
    assert str(scores.record([])) == "0/0/0"


def test_standings_by_hand():
    cells = scores.cells_of(
        [
            row("p-v4", "a", 50.0), row("p-v4", "b", 80.0),
            row("q-v4", "a", 100.0), row("q-v4", "b", 100.05),
            row("r-v4", "a", 110.0, bound=99.9), row("r-v4", "b", 99.95, bound=99.9),
        ]
    )  # fmt: skip
    a, b = scores.standings(cells)
    assert (a.solver, b.solver) == ("a", "b")
    assert a.speedup == pytest.approx((2 * 1 / 1.1) ** (1 / 3))
    assert a.speedup_contended == pytest.approx(math.sqrt(2))
    assert a.gap_closed == pytest.approx((1 + 0) / 2)
    assert b.gap_closed == pytest.approx((0.4 - 0.001) / 2)
    assert a.against_xla == scores.Record(1, 1, 1)
    assert b.against_xla == scores.Record(1, 2, 0)
    assert a.against_baselines == scores.Record(1, 1, 1)
    assert b.against_baselines == scores.Record(1, 1, 1)
    assert (a.optimal, b.optimal, a.pairs) == (1, 0, 3)


def test_of_several_seeds_the_median_counts_and_a_failure_is_all_default():
    (cell,) = scores.cells_of([row(predicted=p, seed=s) for s, p in enumerate((90.0, 50.0, 70.0))])
    assert (cell.latency, cell.gap_closed, cell.failed) == (70.0, 0.6, 0)
    (cell,) = scores.cells_of([row(predicted=p, seed=s) for s, p in enumerate((90.0, None, None))])
    assert (cell.latency, cell.speedup, cell.failed) == (200.0, 0.5, 2)


def test_means_are_over_pairs_that_every_solver_was_run_on():
    rows = [row("p-v4", "a"), row("p-v4", "b"), row("q-v4", "a")]
    assert {c.pair for c in scores.comparable(scores.cells_of(rows))} == {"p-v4"}
    assert scores.comparable(scores.cells_of([row("p-v4", "a"), row("q-v4", "b")])) == []


def test_profile_by_hand():
    """Dolan and More: of three problems, a is best on two and b, at half the time, on one."""
    found = scores.profile({"a": [1.0, 3.0, 8.0], "b": [2.0, 3.3, 4.0]})
    np.testing.assert_allclose(found["a"], [1, 1, 2])
    np.testing.assert_allclose(found["b"], [1, 1.1, 2])


def test_profile_has_xlas_default_where_it_is_known():
    cells = scores.cells_of([row("q-v4", "a", 50.0), row("p-v4", "a", 200.0)])
    found = scores.profile_of(cells)
    np.testing.assert_allclose(found["a"], [1, 2])
    np.testing.assert_allclose(found[scores.XLA], [1, 2])
    unknown = row("p-v4", "a", 50.0, xla_default=None)
    assert list(scores.profile_of(scores.cells_of([unknown]))) == ["a"]


def test_gap_curves_by_hand():
    """The median of two runs: nothing until both have a mapping, then each step of either."""
    one = row("p-v4", predicted=50.0, improvements=((1.0, 100.0), (3.0, 50.0)))
    two = row("q-v4", predicted=75.0, improvements=((2.0, 75.0),))
    curves = scores.gap_curves(scores.cells_of([one, two]), [0.5, 1.0, 2.0, 3.0])
    np.testing.assert_allclose(curves["a"], [np.nan, np.nan, 0.25, 0.75])
    nothing_to_win = row(bound=99.9)
    assert scores.gap_curves(scores.cells_of([nothing_to_win]), [1.0]) == {}


# -- the report ------------------------------------------------------------------------------

EVIL = "<script>alert('1')</script>|$x_$"


def test_names_are_escaped_in_the_page_and_in_tables(tmp_path):
    rows = [row("p-v4", EVIL, 60.0), row("p-v4", "b", None, error=f"Oops: {EVIL}")]
    rows = [dataclasses.replace(r, program=f"p{EVIL}", family=EVIL) for r in rows]
    with journals.results(tmp_path) as journal:
        for one in rows:
            journal.append(one)
    text = write(load(tmp_path), tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page and "<script" not in text
    assert "&lt;script&gt;alert(" in page
    tables = [line for line in text.splitlines() if line.startswith("|")]
    for before, line in zip(tables, tables[1:], strict=False):
        if before.startswith("| solver") or before.startswith("| pair"):
            assert len(line.replace(r"\|", "").split("|")) == len(before.split("|"))
    assert b"<svg" in (tmp_path / "profile.svg").read_bytes()


def test_the_page_needs_nothing_from_elsewhere(tmp_path):
    with journals.results(tmp_path) as journal:
        journal.append(row())
    write(load(tmp_path), tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/svg+xml;base64,") == 2
    for word in ("http:", "https:", "url(", "@import", "<link", 'src="/'):
        assert word not in page


def test_the_report_says_what_is_missing_or_mixed():
    def texts(*rows):
        found = document(load_of(rows))
        return " ".join(b.text for b in found if isinstance(b, documents.Text))

    def load_of(rows):
        report = importlib.import_module("workloads.benchmark.report")
        return report.Results(tuple(rows), ())

    assert "leave out: 1" in texts(row("p-v4", "a"), row("p-v4", "b"), row("q-v4", "a"))
    assert "no means" in texts(row("p-v4", "a"), row("q-v4", "b"))
    assert "limits differ" in texts(row(), row(seed=1, seconds_limit=20.0))
    assert "limits differ" not in texts(row(), row(seed=1))
    assert "processor time is 50% of wall time" in texts(row())
    late = [row(solver=s, seed=i, seconds=13.0) for i, s in enumerate("aab")]
    assert "more than 1.2 times their time limit: a 2, b 1." in texts(row(seed=9), *late)
    assert "times their time limit" not in texts(row(seconds=11.9))


def test_per_pair_the_best_solver_comes_first(tmp_path):
    with journals.results(tmp_path) as journal:
        for one in (row(solver="slow", predicted=90.0), row(solver="fast", predicted=60.0)):
            journal.append(one)
    text = write(load(tmp_path), tmp_path)
    pair = text[text.index("### p on v4") :]
    assert pair.index("fast") < pair.index("slow")


def test_without_matplotlib_there_are_no_pictures(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with journals.results(tmp_path) as journal:
        journal.append(row())
    assert "No pictures: pictures need matplotlib" in write(load(tmp_path), tmp_path)
    assert not (tmp_path / "profile.svg").exists()


def test_a_directory_without_results_is_named(tmp_path):
    with pytest.raises(MallocGameError, match="no results here"):
        load(tmp_path)


# -- pairs -----------------------------------------------------------------------------------


def pair(program, target, split="train", contended=True, **changes):
    fields = {"family": program, "decisions": 3, "headroom": 0.5, "xla_default": 32.0}
    fields |= {"xla_default_compiled": 32.0, "all_default": 32.0, "bound": 27.0}
    fields |= {"instructions": 4, "values": 2, "sha256": "", **changes}
    return Pair(program=program, target=target, split=split, contended=contended, **fields)


PAIRS = [pair("decode", "v4", "test"), pair("decode", "v5e", "test", False), pair("vit", "v4")]


def test_pairs_are_selected_by_name_and_by_filters():
    def names(*arguments, **filters):
        return [p.name for p in select(PAIRS, arguments, **filters)]

    assert names() == ["decode-v4", "decode-v5e", "vit-v4"]
    assert names("vit", "decode-v5e") == ["decode-v5e", "vit-v4"]
    assert names("decode") == ["decode-v4", "decode-v5e"]
    assert names(target="v4", split="test") == ["decode-v4"]
    assert names(contended=True, family="decode") == ["decode-v4"]


@pytest.mark.parametrize(
    "names, filters, message",
    [
        (["decoed"], {}, "'decoed' in the suite; did you mean decode"),
        (["zzz"], {}, "'zzz' in the suite; see"),
        ([], {"split": "tset"}, "no pair has split 'tset'; there are test, train"),
        (["vit"], {"target": "v5e"}, "all of that"),
    ],
)
def test_a_selection_of_nothing_is_refused(names, filters, message):
    with pytest.raises(WorkloadError, match=message):
        select(PAIRS, names, **filters)


# -- compiling, by a compiler played by hand -------------------------------------------------


@pytest.fixture
def compiler(monkeypatch):
    """Compiles mappings of the toy: 2 cycles more than predicted, XLA's default 40 cycles."""

    def latency_of(cycles):
        return CompiledLatency(cycles, 0.0)

    class Session:
        opened = 0
        program = toy(TOY, memory_kib=4)

        def __init__(self, program, target, *, timeout):
            del program, target, timeout
            Session.opened += 1

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            pass

        def compile(self, options):
            return options

    class Extraction:
        problem = None

        def monotone_latency(self, options):
            return latency_of(30.0 if options else 36.0)

    def extract_session(session):
        if Session.program is None:
            raise CompileError("no such luck")
        extraction = Extraction()
        extraction.problem = Session.program
        return compiling.Extracted(
            extraction, None, latency_of(40.0), None, latency_of(40.0), 0, 1.0
        )

    def verify(session, extraction, assignment):
        del session
        cycles = mg.latency(extraction.problem, assignment).cycles + 2
        return Verification(latency_of(cycles), 0.75, (), "exact", {"an": "option"}, assignment, 0)

    monkeypatch.setattr(compiling, "CompilerSession", Session)
    monkeypatch.setattr(compiling, "extract_session", extract_session)
    monkeypatch.setattr(compiling, "verify", verify)
    monkeypatch.setattr(compiling, "check_compiler", lambda: None)
    return Session


@pytest.fixture
def suite_case(toy_file):
    of_file = Case.of_file(toy_file)
    known = pair("toy", "toy", sha256=of_file.sha256)
    return dataclasses.replace(of_file, pair=known)


def test_mappings_are_compiled_once_and_joined(compiler, suite_case, tmp_path):
    out = tmp_path / "out"
    run([suite_case], {"x": with_values(0), "y": with_values(1)}, 3.0, [0, 1], out)
    x, y = compile_mappings([suite_case], out)
    assert (x.compiled, y.compiled, y.xla_default_compiled) == (32.0, 29.0, 40.0)
    assert y.compiled_speedup == pytest.approx(40 / 29)
    assert y.compiled_speedup_monotone == pytest.approx(36 / 30)
    assert (y.honoured, y.mode, y.error, y.seed) == (0.75, "exact", None, 0)
    assert compile_mappings([suite_case], out) == [x, y]
    assert compiler.opened == 1
    joined = load(out).joined()
    assert [(r["solver"], r["seed"], r["compiled"]) for r in joined] == [
        ("x", 0, 32.0), ("y", 0, 29.0), ("x", 1, None), ("y", 1, None),
    ]  # fmt: skip
    json.dumps(joined)
    text = write(load(out), out)
    assert "Compiled by the real compiler" in text and "1.3793" in text


def test_compiled_rows_of_an_earlier_mapping_do_not_count(compiler, suite_case, tmp_path):
    out = tmp_path / "out"
    run([suite_case], {"s": with_values(0)}, 3.0, [0], out)
    compile_mappings([suite_case], out)
    run([suite_case], {"s": with_values(1)}, 4.0, [0], out)
    assert load(out).compiled == ()
    (again,) = compile_mappings([suite_case], out)
    assert again.compiled == 29.0
    assert [c.compiled for _, c in load(out).compiled] == [29.0]


def test_another_compiler_is_an_error_row_and_tried_again(compiler, suite_case, tmp_path):
    out = tmp_path / "out"
    run([suite_case], {"y": with_values(1)}, 3.0, [0], out)
    for program, message in (
        (toy(TOY.replace("y   4", "z   4"), memory_kib=4), "makes another problem of it"),
        (None, "no such luck"),
    ):
        compiler.program = program
        (failed,) = compile_mappings([suite_case], out)
        assert message in failed.error and failed.compiled is None
    assert "no such luck" in write(load(out), out)
    compiler.program = toy(TOY, memory_kib=4)
    (good,) = compile_mappings([suite_case], out)
    assert good.error is None


def _renumbered(problem):
    """The same problem, its values in the other order, and so its positions."""
    last = len(problem.values) - 1

    def turned(instruction):
        positions = [
            dataclasses.replace(p, value=last - p.value) for p in reversed(instruction.positions)
        ]
        return dataclasses.replace(instruction, positions=tuple(positions))

    return dataclasses.replace(
        problem,
        values=tuple(reversed(problem.values)),
        instructions=tuple(turned(i) for i in problem.instructions),
        exclusions=(),
    )


def test_a_mapping_is_carried_over_to_values_and_positions_of_other_numbers():
    old = mg.random_problem(3, 24)
    greedy = mg.to_assignment(old, mg.greedy(mg.encode(old))[0], "greedy")
    assert greedy.copies and greedy.chunks
    new = _renumbered(old)
    compiling._check_same(old, new)
    carried = compiling.carried_over(greedy, old, new)
    for t, instruction in enumerate(old.instructions):
        last = len(instruction.positions) - 1
        for p in range(last + 1):
            assert greedy.in_alternate(t, p) == carried.in_alternate(t, last - p)
    for one, other in zip(
        greedy.chunks + greedy.copies, carried.chunks + carried.copies, strict=True
    ):
        assert old.values[one.value].name == new.values[other.value].name
        assert dataclasses.replace(other, value=one.value) == one
    assert compiling.carried_over(carried, new, old) == greedy


def test_a_problem_with_another_position_is_another_problem():
    old = mg.random_problem(3, 24)
    first = old.instructions[0]
    other = dataclasses.replace(first.positions[0], number=first.positions[0].number + 5)
    changed = dataclasses.replace(first, positions=(other, *first.positions[1:]))
    new = dataclasses.replace(old, instructions=(changed, *old.instructions[1:]))
    with pytest.raises(CompileError, match="another problem"):
        compiling._check_same(old, new)


def test_a_mapping_that_was_exchanged_is_not_compiled(compiler, suite_case, tmp_path):
    out = tmp_path / "out"
    run([suite_case], {"y": with_values(1)}, 3.0, [0], out)
    path = out / "assignments" / "toy-toy.y.0.json"
    path.write_text(path.read_text() + " ")
    (failed,) = compile_mappings([suite_case], out)
    assert "is not the mapping of its row" in failed.error


def test_files_that_are_not_of_the_suite_have_nothing_to_compile(compiler, toy_file, tmp_path):
    out, said = tmp_path / "out", []
    run([Case.of_file(toy_file)], {"y": with_values(1)}, 3.0, [0], out)
    found = compile_mappings(
        [Case.of_file(toy_file)], out, progress=lambda done, total, message: said.append(message)
    )
    assert found == [] and compiler.opened == 0
    assert any("no program" in message for message in said)


def test_compiling_without_a_compiler_is_refused(monkeypatch, suite_case, tmp_path):
    def refuse():
        raise CompilerUnavailable("not installed")

    monkeypatch.setattr(compiling, "check_compiler", refuse)
    with pytest.raises(CompilerUnavailable):
        compile_mappings([suite_case], tmp_path)
    assert not list(tmp_path.glob("*.jsonl"))


def test_of_several_compiled_seeds_the_one_predicted_fastest_counts(compiler, suite_case, tmp_path):
    def x_or_y(problem, seconds, seed, **options):
        return with_values(seed)(problem, seconds, seed)

    out = tmp_path / "out"
    for seed, cycles in ((0, 32.0), (1, 29.0)):
        run([suite_case], {"s": x_or_y}, 3.0, [seed], out)
        compile_mappings([suite_case], out)
        assert [(r.seed, c.compiled) for r, c in load(out).compiled] == [(seed, cycles)]


def test_runs_on_an_earlier_problem_do_not_count(toy_file, tmp_path):
    out = tmp_path / "out"
    run([Case.of_file(toy_file)], {"x": with_values(0), "y": with_values(1)}, 3.0, [0], out)
    mg.save_problem(toy(TOY.replace("u4", "u3"), memory_kib=4), toy_file)
    run([Case.of_file(toy_file)], {"y": with_values(1)}, 3.0, [0], out)
    assert [(r.solver, r.predicted) for r in load(out).runs] == [("y", 28)]


def test_compiled_standings_by_hand():
    def compiled(predicted, cycles, pair="p-v4", solver="a", **changes):
        one = row(pair, solver, predicted)
        fields = {"compiled": cycles, "xla_default_compiled": 100.0}
        fields |= {"compiled_speedup": 100 / cycles, "compiled_speedup_monotone": 1.0}
        fields |= {"honoured": 1.0, "mode": "exact", "compile_seconds": 1.0, "error": None}
        kind = CompiledRow if "error" in changes else JudgedCompiledRow
        return one, kind(
            one.program, one.target, one.solver, 0, "", versions={}, **{**fields, **changes}
        )

    failed = compiled(50.0, 50.0, compiled=None, error="CompileError: no")
    other = compiled(50.0, 100.0, solver="b")
    slow = compiled(100.0, 200.0, pair="q-v4")
    a, b = scores.compiled_standings([failed, compiled(50.0, 50.0), slow, other])
    assert (a.solver, a.pairs, a.failed) == ("a", 2, 1)
    assert (a.against_xla, a.against_baselines) == (scores.Record(1, 0, 1), scores.Record(1, 0, 0))
    assert (b.against_xla, b.against_baselines) == (scores.Record(0, 1, 0), scores.Record(0, 0, 1))
    assert a.speedup == pytest.approx(1.0)
    assert a.speedup_predicted == pytest.approx(math.sqrt(2))
    # All that is to be won on one pair; nothing on the other, where XLA's default is faster.
    assert a.gap_closed == a.gap_closed_median == pytest.approx(0.5)
    assert b.gap_closed == 0.0
