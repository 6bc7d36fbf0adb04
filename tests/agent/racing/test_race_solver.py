"""A solver in the planner's place: what it plans is compiled, and who ends when."""

from __future__ import annotations

import dataclasses
import time
import types

import pytest

from agent.planner import finders
from agent.racing import child, contenders, solver
from agent.tuning.outcome import Improvement
from malloc_game.solvers import Result
from tests.helpers.mapped_by_name import PROBLEM, inside
from tests.helpers.programs_for_tests import chain


class Loop:
    """A compiler loop on a made-up clock that keeps what it is asked to compile."""

    seconds_of_first = 10.0

    def __init__(self, seconds):
        self.seconds, self.now = seconds, 0.0
        self.proposed, self.given_up = [], []

    def left(self):
        return self.seconds - self.now

    def problem_to_plan(self):
        return PROBLEM

    def propose(self, assignment, found_by):
        self.now += 10.0
        is_new = all(assignment != known for _, known in self.proposed)
        self.proposed.append((found_by, assignment))
        return is_new

    def give_up_missed(self, assignment):
        self.given_up.append(assignment)


@pytest.fixture
def made(monkeypatch):
    """Rounds of two cores, whose solves find what `answers` has for a seed, and what was asked."""
    loop, asked, answers = Loop(100.0), [], {}

    def solve(name, problem, seconds, seed):
        asked.append((name, seconds, seed))
        cycles, assignment = answers.get(seed, (50.0, inside("w")))
        return Result(assignment, cycles, seconds, None, {})

    monkeypatch.setattr(solver, "solve", solve)
    monkeypatch.setattr(solver, "num_cores", lambda: 2)
    monkeypatch.setattr(solver.time, "monotonic", lambda: loop.now)
    rounds = solver._Rounds(loop, "beam", seed=3)
    return types.SimpleNamespace(loop=loop, asked=asked, answers=answers, rounds=rounds)


def test_the_best_of_all_cores_is_compiled(made):
    made.answers |= {
        3000: (40.0, inside("x")),
        3001: (30.0, inside("y")),
        3002: (20.0, inside("x")),
    }
    assert made.rounds.one() and made.rounds.one()
    assert made.loop.proposed == [("beam", inside("y")), ("beam", inside("x"))]
    seeds = [seed for *_, seed in made.asked]
    assert sorted(seeds) == [3000, 3001, 3002, 3003], "every solve has its own"


def test_a_solve_has_half_of_the_time_that_a_compile_leaves(made):
    made.rounds.one()  # of 100 s, 15 are for a compile that takes 10
    made.rounds.one()  # 90 are left
    made.loop.now = 99.0
    made.rounds.one()
    assert sorted({seconds for _, seconds, _ in made.asked}) == [2.0, 37.5, 42.5]


def test_what_a_plan_that_was_compiled_before_missed_is_given_up(made):
    assert made.rounds.one() and not made.rounds.one()
    assert made.loop.given_up == [inside("w")]


def test_solvers_race_by_their_names(monkeypatch):
    assert contenders.choose_contenders(["cpsat", "knobs"]) == ("cpsat", "knobs")
    assert "cpsat" not in contenders.choose_contenders([])

    def solve_and_compile(*what, seed, deadline):
        assert (what, seed, deadline) == (("cpsat", "heat", "v4"), 2, 160.0)
        return solver.Solved((Improvement(3.0, 90.0, "cpsat"),), 100.0, 1, 3)

    monkeypatch.setattr(child, "time", types.SimpleNamespace(monotonic=lambda: 107.0))
    monkeypatch.setattr(solver, "solve_and_compile", solve_and_compile)
    found = child.run("cpsat", "heat", "v4", 60.0, 2, 100.0)
    assert found == {"history": [(10.0, 90.0)], "found_by": ["cpsat"], "xla_default": 100.0}


@pytest.fixture
def extracted(made, monkeypatch):
    """A run with made-up rounds of a problem."""

    def run(problem, seconds):
        made.loop.seconds = seconds
        made.loop.extraction = types.SimpleNamespace(problem=problem)
        made.loop.xla_default_cycles = 7.0
        made.loop.history, made.loop.num_compiles, made.loop.extract = [], 2, probed.append
        monkeypatch.setattr(solver, "CompilerLoop", lambda session, say: made.loop)
        return solver.solve_and_compile("beam", chain(), "v5e", seed=0, deadline=120.0)

    probed = []
    yield run
    assert probed == [12.0]


def test_without_decisions_there_is_nothing_to_solve(extracted, made):
    values = tuple(dataclasses.replace(v, may_be_in_alternate=False) for v in PROBLEM.values)
    nothing = PROBLEM.replace(values=values)
    assert extracted(nothing, 100.0) == solver.Solved((), 7.0, 0, 2)
    assert made.asked == []


# A round takes 10 s on the made-up clock, and all but the first come to the same mapping.
@pytest.mark.parametrize(("seconds", "rounds"), [(25.0, 3), (1000.0, 1 + solver._MAX_IDLE)])
def test_rounds_end_with_the_time_or_when_nothing_new_comes(extracted, seconds, rounds):
    assert extracted(PROBLEM, seconds).num_solves == rounds


@pytest.mark.requires_libtpu
def test_a_solver_has_its_mapping_of_a_real_program_compiled():
    deadline = time.monotonic() + 40.0
    done = solver.solve_and_compile("cpsat", chain(), "tpu7x", seed=0, deadline=deadline)
    assert done.num_solves >= 1 and done.num_compiles >= 3
    cycles = [improvement.cycles for improvement in done.history]
    assert {improvement.found_by for improvement in done.history} <= {*finders.MEANING, "cpsat"}
    assert cycles == sorted(cycles, reverse=True) and cycles[-1] <= done.xla_default
