"""What the loop makes of refusals: those in so many words at once, others when they come twice."""

from __future__ import annotations

import dataclasses
import functools
import types

import numpy as np
import pytest

import malloc_game as mg
from agent.tuning import compiler_loop
from agent.tuning.compiler_loop import CompilerLoop
from agent.tuning.outcome import CRASHED, REFUSED, Compiled, Missing
from tests.helpers.mapped_by_name import PROBLEM, inside
from workloads.baselines.greedy_plans import plan, with_costs_sampled
from workloads.errors import CompileError, OverrideError
from workloads.loop.correction import Round


def compiled(assignment, cycles):
    return Compiled("greedy", "greedy", assignment, cycles, compiled=cycles, honoured=1.0)


W, X = 0, 1  # a parameter, a computed value


class FakeExtraction:
    problem = PROBLEM

    def __init__(self):
        self.values, self.uses = set(), set()

    def refuse(self, values, uses):
        self.values |= values
        self.uses |= uses

    def refresh(self):
        return self.problem


@pytest.fixture
def loop():
    made = CompilerLoop(types.SimpleNamespace(), lambda message: None)
    made.extraction = FakeExtraction()
    return made


def test_what_was_refused_for_another_reason_than_room_is_not_asked_again(loop):
    found = types.SimpleNamespace(assignment=inside("y"), refused={(X, None), (W, 2)})
    loop._note_refusals(inside("w", "x", "y"), found)
    assert loop.extraction.values == {X} and loop.extraction.uses == {(2, W)}


def test_what_came_out_otherwise_is_asked_once_more(loop):
    found = types.SimpleNamespace(assignment=inside("y"), refused=frozenset())
    loop._note_refusals(inside("x", "y"), found)
    assert loop.extraction.values == set()
    loop._note_refusals(inside("x", "y"), found)
    assert loop.extraction.values == {X} and loop.extraction.uses == set()


@pytest.mark.parametrize(("is_fast", "seconds"), [(True, 20 * 0.5 + 6), (False, 20 * 6 + 6)])
def test_the_guided_search_is_as_slow_as_its_checks(monkeypatch, loop, is_fast, seconds):
    dry_run = types.SimpleNamespace(is_fast=is_fast, seconds_per_dry_run=0.5)
    monkeypatch.setattr(compiler_loop, "dry_run_of", lambda session: dry_run)
    loop.session.seconds_per_compile = 6.0
    assert loop.seconds_of_guided() == seconds


@pytest.mark.parametrize(
    ("left", "waits"), [(100.0, None), (60.0, None), (59.0, 29.0), (30.0, 0.0), (-5.0, 0.0)]
)
def test_the_last_compile_may_wait_as_long_as_it_still_fits(monkeypatch, loop, left, waits):
    loop.seconds_of_first = 20.0  # one of ours may take 30
    monkeypatch.setattr(compiler_loop.time, "monotonic", lambda: 1000.0)
    loop.deadline = 1000.0 + left
    assert loop.seconds_before_the_last() == waits


@pytest.mark.parametrize(("share", "may"), [(0.0, False), (0.1, True)])
def test_costs_that_no_compile_has_shown_may_turn_out_better(monkeypatch, loop, share, may):
    found = inside("x", "y")
    cycles = mg.latency(PROBLEM, found).cycles
    best = compiled(found, cycles * 0.99)
    loop.candidates["greedy"] = best
    monkeypatch.setattr(compiler_loop, "latency_deviation", lambda e, masks: np.array([share]))
    assert loop.may_be_best(found) is may
    loop.tried[dataclasses.replace(found, source="")] = best
    assert not loop.may_be_best(found)


def test_what_a_mapping_missed_is_planned_with_until_it_is_given_up(loop):
    wanted = inside("w", "x", "y")
    found = types.SimpleNamespace(
        assignment=inside("y"), missed={(X, None), (W, 2)}, refused=frozenset(), cycles=90.0,
        honoured=0.5, not_honoured=(), options={},
    )  # fmt: skip
    assert loop.problem_to_plan() is loop.problem_to_plan() is PROBLEM
    loop.give_up_missed(wanted)  # not compiled yet
    assert loop.problem_to_plan() is PROBLEM
    loop._note("planner", "greedy", Round(wanted, 80.0, found))
    assert loop.problem_to_plan() is PROBLEM
    loop.give_up_missed(dataclasses.replace(wanted, source="whoever"))
    planned = loop.problem_to_plan()
    assert planned is loop.problem_to_plan()
    refused = {
        (t, position.value)
        for t, instruction in enumerate(planned.instructions)
        for position in instruction.positions
        if position.is_refused
    }
    assert planned.values[X].is_refused and not PROBLEM.values[X].is_refused
    assert {value for _, value in refused} == {W}
    loop.extraction.problem = PROBLEM.replace(name="with other costs")
    anew = loop.problem_to_plan()
    assert anew.name == "with other costs" and anew.values[X].is_refused


def test_a_plan_under_sampled_costs_is_new_and_would_be_the_fastest_under_them(monkeypatch, loop):
    problem = mg.random_problem(3, 24)
    short = functools.partial(plan, rounds=4)
    monkeypatch.setattr(compiler_loop, "plan", short)
    best = short(problem, (), np.random.default_rng(0))  # all that local search finds
    cycles = mg.latency(problem, best).cycles
    loop.extraction.problem = problem
    loop.candidates["greedy"] = compiled(best, cycles)
    tables = [np.array(table.cycles, float) for table in problem.cost_tables]
    loop.extraction.uncertainty = [np.zeros(len(table)) for table in tables]
    monkeypatch.setattr(compiler_loop, "with_costs_sampled", None)
    assert loop.plan_sampled(np.random.default_rng(0)) is None, "nothing is unknown"
    drawn = []
    monkeypatch.setattr(
        compiler_loop,
        "with_costs_sampled",
        lambda *given: drawn.append(with_costs_sampled(*given)) or drawn[-1],
    )
    loop.extraction.uncertainty = [0.3 * table for table in tables]
    found = loop.plan_sampled(np.random.default_rng(0))
    assert found is not None and found.masks != best.masks
    assert mg.latency(drawn[-1], found).cycles < cycles
    loop.tried[dataclasses.replace(found, source="")] = None
    another = loop.plan_sampled(np.random.default_rng(0))
    assert another is None or another.masks != found.masks
    loop.candidates["greedy"] = compiled(best, 1.0)
    assert loop.plan_sampled(np.random.default_rng(0)) is None, "nothing can be so fast"


@pytest.mark.parametrize(
    ("error", "status"), [(OverrideError("no room"), REFUSED), (CompileError("abort"), CRASHED)]
)
def test_a_round_of_greedy_that_failed_says_how(loop, error, status):
    loop._note("greedy", "greedy", Round(inside("x"), 80.0, None, str(error), error))
    assert loop.missing(["greedy"])["greedy"] == Missing(status, str(error))
