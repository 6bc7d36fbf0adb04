"""What a run hands back: all that was found, whatever ends it, and what found it."""

from __future__ import annotations

import types

import pytest

import malloc_game as mg
from agent.planner import finders
from agent.report import results
from agent.tuning import main_job
from agent.tuning.compiler_loop import CompilerLoop
from agent.tuning.outcome import CRASHED, FAILED, NOT_TRIED, PLANNED, Compiled, Missing, Outcome
from malloc_game.solvers.decode import greedy_assignment
from workloads.errors import CompileError, CompilerKilled

PROBLEM = mg.random_problem(3, 24)
PLAN, DEFAULT = greedy_assignment(PROBLEM), mg.all_default(PROBLEM)


def compiled(source, cycles, assignment=DEFAULT):
    return Compiled(source, source, assignment, cycles, compiled=cycles, honoured=1.0)


class Session:
    """A compiler that was asked for two compiles, and answers no more."""

    name, num_compiles, deadline = "made up", 2, 0.0

    def __init__(self, *given, **how):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def compile(self, options):
        raise CompilerKilled("killed")


class Loop(CompilerLoop):
    """A run whose first two compiles are done."""

    def extract(self, seconds):
        self.extraction = types.SimpleNamespace(problem=PROBLEM, versions={})
        for source, cycles in (("all_default", 150.0), ("xla_default", 100.0)):
            self._keep(compiled(source, cycles))


@pytest.fixture
def faulty(monkeypatch):
    """Runs `optimize` on a compiler of the past, with a plan that finds something and fails."""

    def run(error, found=()):
        def plan(loop, *how, **too):
            for candidate in found:
                loop._keep(candidate)
            raise error

        monkeypatch.setattr(main_job, "CompilerSession", Session)
        monkeypatch.setattr(main_job, "CompilerLoop", Loop)
        monkeypatch.setattr(main_job, "_plan", plan)
        said = []
        return main_job.optimize("made up", "v4", progress=said.append), said

    return run


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), CompilerKilled("killed"), ValueError("a bug"), MemoryError()]
)
def test_whatever_ends_a_run_what_was_found_is_handed_back(faulty, error, capsys):
    outcome, said = faulty(error, [compiled("planner", 80.0, PLAN)])
    assert outcome.best.source == "planner" and outcome.compiled_speedup == 1.25
    assert outcome.compiled_speedup_monotone is None, "the compiler is not asked again"
    assert outcome.is_interrupted == isinstance(error, KeyboardInterrupt)
    assert outcome.stopped and outcome.stopped in said[-1]
    assert [improvement.cycles for improvement in outcome.history] == [150.0, 100.0, 80.0]
    assert outcome.missing == {"greedy": Missing(NOT_TRIED), "guided": Missing(NOT_TRIED)}
    results.show(outcome, None)
    assert "stopped early" in capsys.readouterr().out


def test_it_is_written_like_any_other(faulty, tmp_path):
    outcome, _ = faulty(KeyboardInterrupt(), [compiled("planner", 80.0, PLAN)])
    results.write(outcome, tmp_path / "out")
    assert results.run_of(outcome).result["stopped"] == main_job.INTERRUPTED
    assert mg.load_assignment(tmp_path / "out" / "assignment.json", PROBLEM) == PLAN


def outcome_of(candidates, missing=None, decisions=24):
    by_source = {candidate.source: candidate for candidate in candidates}
    missing = {s: Missing(NOT_TRIED) for s in PLANNED if s not in by_source} | (missing or {})
    return Outcome(
        problem=PROBLEM, program="p", decisions=decisions, versions={}, seed=0, seconds=1.0,
        candidates=by_source, missing=missing,
        best=min(candidates, key=lambda candidate: candidate.compiled), num_compiles=3,
        planner_stats={},
    )  # fmt: skip


BOTH = [compiled("all_default", 150.0), compiled("xla_default", 100.0)]


@pytest.mark.parametrize(
    ("candidates", "missing", "decisions", "said"),
    [
        ([*BOTH, compiled("greedy", 120.0)], {}, 24, "nothing to change"),
        (BOTH, {s: Missing(CRASHED, "SIGABRT") for s in PLANNED}, 24, "nothing is known"),
        (BOTH, {}, 24, "nothing is known"),
        (BOTH, {}, 0, "nothing to decide"),
        ([*BOTH, compiled("greedy", 50.0)], {}, 24, "found by greedy"),
    ],
)
def test_the_verdict_says_nothing_of_what_was_not_compiled(candidates, missing, decisions, said):
    outcome = outcome_of(candidates, missing, decisions)
    verdict = " ".join(results.verdict(outcome))
    assert said in verdict
    assert ("nothing to change" in verdict) == (said == "nothing to change")
    assert ("SIGABRT" in verdict) == bool(missing)


def test_what_has_no_mapping_has_no_row_of_another(capsys):
    results.show(outcome_of([*BOTH, compiled("greedy", 50.0)], {"planner": Missing(CRASHED)}), None)
    lines = {line.split("│")[1].strip(): line for line in capsys.readouterr().out.splitlines()
             if line.startswith("│")}  # fmt: skip
    assert CRASHED in lines["planner"] and NOT_TRIED in lines["guided"]
    assert "150" in lines["all default"] and "150" not in lines["planner"] + lines["guided"]
    content = results.result(outcome_of(BOTH))
    assert set(content["latency_cycles"]) == {"all_default", "xla_default", "best"}
    assert content["missing"]["planner"] == {"status": NOT_TRIED, "reason": ""}


def test_a_fault_of_planning_without_a_compiler_loses_nothing(monkeypatch):
    class Planner:
        best = types.SimpleNamespace(assignment=PLAN, cycles=1.0, source=finders.LP_ROUNDING)

        def __init__(self, *given):
            pass

        def run(self, seconds):
            raise RuntimeError("no memory")

        def stats(self):
            return {"games": 0}

    monkeypatch.setattr(main_job, "make_planner", Planner)
    outcome = main_job.plan_offline(PROBLEM, None, budget=60.0)
    assert outcome.stopped == "RuntimeError: no memory"
    assert outcome.candidates["planner"].found_by == finders.LP_ROUNDING
    assert "xla_default" not in outcome.candidates and outcome.compiled_speedup is None

    def fails(*given):
        raise RuntimeError("no network")

    monkeypatch.setattr(main_job, "make_planner", fails)
    outcome = main_job.plan_offline(PROBLEM, None, budget=60.0)
    assert outcome.missing == {"planner": Missing(FAILED, "RuntimeError: no network")}
    assert outcome.best.source in ("greedy", "all_default")


@pytest.mark.parametrize("fails_at", ["calibrate", "correct_greedy"])
def test_a_compiler_that_dies_before_the_turns_does_not_end_the_run(monkeypatch, fails_at):
    class Background:
        fault = None

        def __init__(self, *how, **too):
            pass

        __enter__, __exit__ = Session.__enter__, Session.__exit__

        def start(self, deadline):
            pass

        def stop(self):
            return None

    def fails(*how):
        raise CompileError("SIGABRT")

    loop, turns = Loop(Session(), lambda message: None), []
    loop.extract(1.0)
    loop.xla_default = DEFAULT
    for name in ("calibrate", "correct_greedy"):
        monkeypatch.setattr(loop, name, fails if name == fails_at else lambda *how: None)
    monkeypatch.setattr(main_job, "BackgroundPlanner", Background)
    proposing = types.SimpleNamespace(turns=list, plan_anew=lambda: None)
    monkeypatch.setattr(main_job, "Proposing", lambda *how: proposing)
    monkeypatch.setattr(main_job, "take_turns", lambda *how: turns.append(how))
    main_job._plan(loop, None, 0, 10.0, {}, is_hard=False)
    assert len(turns) == 1 and loop.missing(["greedy"])["greedy"].status == CRASHED
