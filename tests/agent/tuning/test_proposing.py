"""Who proposes what in a run: the agent first, drawn costs where it has nothing new."""

from __future__ import annotations

import dataclasses
import importlib
import types
from unittest.mock import MagicMock

import numpy as np
import pytest

import malloc_game as mg
from agent.planner.problem_planner import Best
from agent.tuning import proposing as proposing_module
from agent.tuning.outcome import DRAWN, Candidate
from agent.tuning.proposing import Proposing
from malloc_game.solvers.decode import greedy_assignment

optimize_module = importlib.import_module("agent.tuning.main_job")
PROBLEM = mg.random_problem(3, 24)
PLAN, DEFAULT = greedy_assignment(PROBLEM), mg.all_default(PROBLEM)


@dataclasses.dataclass
class Loop:
    """A run in which the agent's candidates take what `cycles` says, in turn."""

    cycles: list[float]
    is_promising: bool = True
    drawn: mg.Assignment | None = None
    seconds_of_first_guided: float = 1e6
    seconds_per_compile: float = 10.0
    guided: object = None
    num_compiles: int = 0

    def __post_init__(self):
        self.problem, self.given_up, self.proposed, self.guided_for = PROBLEM, [], [], []
        self.candidates = {"xla_default": Candidate("xla_default", DEFAULT, 100.0, 100.0, 1.0)}

    def propose(self, source, assignment):
        self.num_compiles += 1
        self.proposed.append(assignment)
        found = self.cycles.pop(0)
        known = self.candidates.get(source)
        if known is None or found < known.compiled:
            self.candidates[source] = Candidate(source, assignment, found, found, 1.0)

    def best(self):
        return min(self.candidates.values(), key=lambda candidate: candidate.compiled)

    def promises(self, assignment):
        return self.is_promising

    def plan_drawn(self, rng):
        assert isinstance(rng, np.random.Generator)
        return self.drawn

    def problem_to_plan(self):
        return self.problem

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
        self.num_compiles += 1


class Background:
    def __init__(self, found=None):
        self.found, self.problems = found, []

    def best(self):
        return self.found

    def set_problem(self, problem, known):
        self.problems.append((problem, known))


@pytest.fixture(autouse=True)
def permitting(monkeypatch):
    """The search by permissions, which has a test of its own."""

    made = types.SimpleNamespace(is_checking=False, turns=0)

    def take_turn():
        made.turns += 1

    made.take_turn = take_turn
    monkeypatch.setattr(proposing_module, "Permitting", lambda *how: made)
    monkeypatch.setattr(proposing_module, "_POLL_SECONDS", 0.0)
    return made


def make(loop, found=None, budget=90.0):
    background = Background(Best(PLAN, 1.0, "search") if found is None else found)
    return Proposing(loop, background, PROBLEM, 7, budget), background


def test_the_agents_plan_is_proposed_if_it_promises_something():
    loop = Loop([90.0, 95.0], drawn=DEFAULT)
    proposing, background = make(loop)
    proposing.drawn_turn()
    assert loop.proposed == [PLAN] and proposing.found_by == "search"
    # What is slower than another of the agent's does not change who found the best.
    background.found = Best(DEFAULT, 1.0, "seed")
    proposing.agent_turn()
    assert len(loop.proposed) == 2 and proposing.found_by == "search"


def test_a_plan_under_drawn_costs_is_proposed_where_the_agent_has_nothing_new():
    loop = Loop([90.0], is_promising=False, drawn=DEFAULT)
    proposing, _ = make(loop)
    proposing.agent_turn()
    assert loop.proposed == [] and loop.given_up == [PLAN]
    proposing.drawn_turn()
    assert loop.proposed == [DEFAULT] and proposing.found_by == DRAWN


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
    proposing.drawn_turn()
    assert len(loop.guided_for) == (is_checking and not is_guided)


@pytest.mark.parametrize(("per_compile", "expected"), [(1.0, 4.0), (10.0, 10.0), (60.0, 15.0)])
def test_the_guided_search_goes_on_for_a_compile_within_the_turns_share(per_compile, expected):
    loop = Loop([], seconds_per_compile=per_compile)
    make(loop)[0].guided_turn()
    assert loop.guided_for == [expected] and loop.guided == "with seed 7"


def test_after_each_turn_the_agent_plans_with_the_costs_of_now_from_the_best(permitting):
    loop = Loop([90.0])
    proposing, background = make(loop)
    agent, permit, _ = proposing.turns()
    permit()
    assert permitting.turns == 1 and background.problems == []  # nothing was learned
    learned = loop.problem = dataclasses.replace(PROBLEM)
    agent()
    assert background.problems == [(learned, [PLAN])]
    permit()
    assert len(background.problems) == 1


def test_a_turn_without_any_plan_ends(monkeypatch):
    loop = Loop([])
    monkeypatch.setattr(loop, "left", lambda: 0.01)
    background = Background(None)
    Proposing(loop, background, PROBLEM, 7, 90.0).agent_turn()
    assert loop.proposed == loop.given_up == []


@pytest.mark.parametrize("is_made", [True, False])
def test_the_only_compile_is_of_what_the_agent_has_planned_by_then(monkeypatch, is_made):
    loop = Loop([90.0])
    proposing, background = make(loop)
    best, background.found = background.found, Best(DEFAULT, 2.0, "seed")

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
    background = MagicMock()
    background.__enter__.return_value = background
    proposing = types.SimpleNamespace(
        plan_anew=lambda: done.append("anew"), turns=list, found_by="stretches"
    )
    proposing.only_turn = lambda seconds: done.append(seconds) or is_planned
    loop = MagicMock(candidates={"agent": None})
    loop.seconds_before_the_last.return_value = waits
    loop.correct_greedy.side_effect = lambda seconds: done.append("greedy")
    loop.promises.return_value = False
    monkeypatch.setattr(optimize_module, "BackgroundPlanner", lambda *how, **too: background)
    monkeypatch.setattr(optimize_module, "Proposing", lambda *how: proposing)
    monkeypatch.setattr(optimize_module, "take_turns", lambda *how: None)
    monkeypatch.setattr(optimize_module, "_say_how_far", lambda *how: None)
    assert optimize_module._plan(loop, None, 0, 100.0, is_hard)[0] == "stretches"
    is_last = is_hard and waits is not None
    first = [5.0] if is_last else []
    assert done == [*first, *([] if is_last and is_planned else ["greedy"]), "anew"]
