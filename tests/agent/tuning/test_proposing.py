"""Who proposes what in a run: the planner first, Thompson sampling where it has nothing new."""

from __future__ import annotations

import dataclasses
import types
from unittest.mock import MagicMock

import numpy as np
import pytest

import malloc_game as mg
from agent.planner import finders
from agent.planner.problem_planner import Best
from agent.tuning import compiler_loop, main_job
from agent.tuning import proposing as proposing_module
from agent.tuning.compiler_loop import CompilerLoop
from agent.tuning.outcome import CRASHED, REFUSED, Compiled
from agent.tuning.proposing import Proposing
from malloc_game.solvers.decode import greedy_assignment
from workloads.errors import CompileError, CompilerKilled, OverrideError
from workloads.loop.verification import MODES

PROBLEM = mg.random_problem(3, 24)
PLAN, DEFAULT = greedy_assignment(PROBLEM), mg.all_default(PROBLEM)


class Session:
    """A compiler that was asked for as many compiles as mappings were verified."""

    seconds_per_compile = 10.0

    def __init__(self):
        self.num_compiles = 0


class Loop(CompilerLoop):
    """A run whose compiles take what `cycles` says, in turn; an error is raised."""

    def __init__(self, cycles, is_promising=True, sampled=None, seconds_of_first_guided=1e6):
        self.said = []
        super().__init__(Session(), self.said.append)
        self.session.loop = self
        self.extraction = MagicMock(problem=PROBLEM)
        self.candidates["xla_default"] = Compiled(
            "xla_default", finders.XLA_DEFAULT, DEFAULT, 100.0, compiled=100.0, honoured=1.0
        )
        self.cycles, self.is_promising, self.sampled = list(cycles), is_promising, sampled
        self.seconds_of_first_guided = seconds_of_first_guided
        self.proposed, self.given_up, self.guided_for = [], [], []

    def verify(self, session, extraction, assignment, **how):
        session.num_compiles += 1
        self.proposed.append(assignment)
        found = self.cycles.pop(0)
        if isinstance(found, Exception):
            raise found
        return types.SimpleNamespace(
            assignment=assignment, refused=frozenset(), missed=frozenset(), cycles=found,
            honoured=1.0, not_honoured=(), options={}, mode=MODES[0].name,
        )  # fmt: skip

    def may_be_best(self, assignment, deviations=1.0):
        return self.is_promising

    def plan_sampled(self, rng):
        assert isinstance(rng, np.random.Generator)
        return self.sampled

    def give_up_missed(self, assignment):
        self.given_up.append(assignment)

    def left(self):
        return 60.0

    def seconds_of_guided(self):
        return self.seconds_of_first_guided

    def start_guided(self, seed):
        self.guided = f"with seed {seed}"

    def guide(self, seconds):
        self.guided_for.append(seconds)

    def compile_guided(self):
        self.session.num_compiles += 1


class Background:
    def __init__(self, found=None):
        self.found, self.problems, self.fault = found, [], None

    def best(self):
        return self.found

    def set_problem(self, problem, known):
        self.problems.append((problem, known))


def _verify(session, extraction, assignment, **how):
    return session.loop.verify(session, extraction, assignment, **how)


@pytest.fixture(autouse=True)
def permitting(monkeypatch):
    """The search by permissions, which has a test of its own."""

    made = types.SimpleNamespace(is_checking=False, turns=0)

    def take_turn():
        made.turns += 1

    made.take_turn = take_turn
    monkeypatch.setattr(proposing_module, "Permitting", lambda *how: made)
    monkeypatch.setattr(proposing_module, "_POLL_SECONDS", 0.0)
    monkeypatch.setattr(compiler_loop, "verify", lambda *args, **how: _verify(*args, **how))
    return made


def make(loop, found=None, budget=90.0):
    background = Background(Best(PLAN, 1.0, finders.CPSAT_LNS) if found is None else found)
    return Proposing(loop, background, PROBLEM, 7, budget), background


def test_the_planners_plan_is_proposed_if_it_may_be_the_best_and_in_its_finders_name():
    loop = Loop([90.0, 95.0], sampled=DEFAULT)
    proposing, background = make(loop)
    proposing.thompson_turn()
    assert loop.proposed == [PLAN]
    assert loop.candidates["planner"].found_by == finders.CPSAT_LNS
    # What is slower than another plan does not change who found the best.
    background.found = Best(DEFAULT, 1.0, finders.GREEDY)
    proposing.planner_turn()
    assert len(loop.proposed) == 2
    assert loop.candidates["planner"].found_by == finders.CPSAT_LNS


def test_a_plan_under_sampled_costs_is_proposed_where_the_planner_has_nothing_new():
    loop = Loop([90.0], is_promising=False, sampled=DEFAULT)
    proposing, _ = make(loop)
    proposing.planner_turn()
    assert loop.proposed == [] and loop.given_up == [PLAN]
    proposing.thompson_turn()
    assert loop.proposed == [DEFAULT]
    assert loop.candidates["planner"].found_by == finders.THOMPSON


@pytest.mark.parametrize("is_checking", [True, False])
@pytest.mark.parametrize("seconds", [1.0, 1e6])
def test_the_guided_search_has_a_turn_of_its_own_or_when_nothing_comes_to_mind(
    permitting, is_checking, seconds
):
    permitting.is_checking = is_checking
    loop = Loop([], is_promising=False, seconds_of_first_guided=seconds)
    proposing, _ = make(loop)
    is_guided = seconds < 9.0  # a tenth of the budget
    assert len(proposing.turns()) == 3 + is_guided
    proposing.thompson_turn()
    assert len(loop.guided_for) == (is_checking and not is_guided)


@pytest.mark.parametrize(("per_compile", "expected"), [(1.0, 4.0), (10.0, 10.0), (60.0, 15.0)])
def test_the_guided_search_goes_on_for_a_compile_within_the_turns_share(per_compile, expected):
    loop = Loop([])
    loop.session.seconds_per_compile = per_compile
    make(loop)[0].guided_turn()
    assert loop.guided_for == [expected] and loop.guided == "with seed 7"


def test_after_each_turn_the_planner_goes_on_with_the_costs_of_now_from_the_best(permitting):
    loop = Loop([90.0])
    proposing, background = make(loop)
    plan, permit, _ = proposing.turns()
    permit()
    assert permitting.turns == 1 and background.problems == []  # nothing was learned
    learned = loop.extraction.problem = dataclasses.replace(PROBLEM)
    plan()
    ((problem, (known,)),) = background.problems
    assert problem is learned and known.masks == PLAN.masks
    assert known.source == finders.CPSAT_LNS
    permit()
    assert len(background.problems) == 1


def test_a_turn_without_any_plan_ends(monkeypatch):
    loop = Loop([])
    monkeypatch.setattr(loop, "left", lambda: 0.01)
    background = Background(None)
    Proposing(loop, background, PROBLEM, 7, 90.0).planner_turn()
    assert loop.proposed == loop.given_up == []


def test_a_planner_that_failed_is_not_waited_for():
    background = Background(None)
    background.fault = RuntimeError("no memory")
    Proposing(Loop([]), background, PROBLEM, 7, 1e9).planner_turn()


@pytest.mark.parametrize(
    ("error", "status"),
    [(OverrideError("no room"), REFUSED), (CompileError("abort"), CRASHED),
     (CompilerKilled("killed"), CRASHED)],
)  # fmt: skip
def test_what_the_compiler_fails_at_is_a_failed_try_that_says_how(error, status):
    loop = Loop([error])
    proposing, _ = make(loop)
    proposing.turns()[0]()
    assert loop.missing(["planner"])["planner"].status == status
    assert loop.best().source == "xla_default" and status in loop.said[-1]


def test_what_a_turn_of_the_compilers_side_raises_is_a_failed_try(permitting):
    loop = Loop([])
    proposing, _ = make(loop)

    def fails():
        raise CompilerKilled("killed")

    permitting.take_turn = fails
    proposing._permitting.take_turn = fails
    turn = proposing.turns()[1]
    turn()
    turn()
    assert loop.missing(["guided"])["guided"].status == CRASHED
    with pytest.raises(CompilerKilled):  # again and again: nothing comes of going on
        turn()


@pytest.mark.parametrize("is_made", [True, False])
def test_the_only_compile_is_of_what_the_planner_has_by_then(monkeypatch, is_made):
    loop = Loop([90.0])
    proposing, background = make(loop)
    best, background.found = background.found, Best(DEFAULT, 2.0, finders.GREEDY)

    def sleep(seconds):
        assert seconds == 20.0
        background.found = best if is_made else None

    monkeypatch.setattr(proposing_module.time, "sleep", sleep)
    assert proposing.only_turn(20.0) is is_made
    assert loop.proposed == ([PLAN] if is_made else [])


@pytest.mark.parametrize("is_planned", [True, False])
@pytest.mark.parametrize("waits", [5.0, None])
@pytest.mark.parametrize("is_hard", [True, False])
def test_greedy_goes_first_unless_one_compile_is_all_there_is(
    monkeypatch, is_hard, waits, is_planned
):
    done = []
    background = MagicMock(fault=None)
    background.__enter__.return_value = background
    proposing = types.SimpleNamespace(plan_anew=lambda: done.append("anew"), turns=list)
    proposing.only_turn = lambda seconds: done.append(seconds) or is_planned
    loop = Loop([], is_promising=False)
    loop.xla_default, loop.candidates["planner"] = DEFAULT, loop.candidates["xla_default"]
    monkeypatch.setattr(loop, "calibrate", lambda *how: None)
    monkeypatch.setattr(loop, "seconds_before_the_last", lambda: waits)
    monkeypatch.setattr(loop, "correct_greedy", lambda seconds: done.append("greedy"))
    monkeypatch.setattr(main_job, "BackgroundPlanner", lambda *how, **too: background)
    monkeypatch.setattr(main_job, "Proposing", lambda *how: proposing)
    monkeypatch.setattr(main_job, "take_turns", lambda *how: None)
    monkeypatch.setattr(main_job, "_say_how_far", lambda *how: None)
    main_job._plan(loop, None, 0, 100.0, {}, is_hard)
    is_last = is_hard and waits is not None
    first = [5.0] if is_last else []
    assert done == [*first, *([] if is_last and is_planned else ["greedy"]), "anew"]
