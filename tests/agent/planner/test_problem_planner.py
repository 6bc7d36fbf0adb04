"""What a planner of a problem goes on from after a correction, and whose its best mapping is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import malloc_game as mg
from agent.learning.buckets import relaxed_choices
from agent.learning.config import AgentConfig, NetworkConfig, SelfPlayConfig
from agent.planner import finders, problem_planner
from agent.planner.problem_planner import GivenGame, ProblemPlanner
from malloc_game.solvers import solve

PROBLEM = mg.random_problem(3, 24)
HINTED = AgentConfig(
    network=NetworkConfig(hidden_size=16, num_bins=11, features="hints"),
    self_play=SelfPlayConfig(num_games=4, chunk_moves=8),
)


def corrected(problem):
    """Alternate memory is of no use but to the last third of the schedule."""
    tables = [
        t if i > 2 * len(problem.cost_tables) / 3 else dataclasses.replace(t, cycles=t.cycles[::-1])
        for i, t in enumerate(problem.cost_tables)
    ]
    return problem.replace(cost_tables=tuple(tables))


def test_the_network_is_hinted_by_the_relaxation_under_the_costs_of_now(monkeypatch):
    told = []

    class Games:
        """A planner of games that keeps the relaxations that it is told."""

        best_actions, best_source = np.zeros(64, np.int32), "self_play"

        def __init__(self, program, config, seed, params, relaxed):
            told.append(relaxed)

        def seed_games(self, games):
            pass

        def set_program(self, program, relaxed):
            told.append(relaxed)

    monkeypatch.setattr(problem_planner, "SelfPlayPlanner", Games)
    planner = ProblemPlanner(PROBLEM, HINTED, seed=0)
    assert isinstance(planner.planner, Games)
    other = corrected(PROBLEM)
    planner.set_problem(other)
    before, now = (relaxed_choices(p, mg.encode(p)) for p in (PROBLEM, other))
    assert not np.array_equal(before, now, equal_nan=True), "the test would say nothing"
    np.testing.assert_array_equal(told, [before, now])


def test_the_best_mapping_is_in_the_name_of_what_found_it():
    planner = ProblemPlanner(PROBLEM, HINTED, seed=0)
    assert planner.best.source in (finders.GREEDY, finders.LP_ROUNDING)
    assert planner.best_assignment.source == planner.best.source
    better = solve("cpsat", PROBLEM, 60.0, max_iterations=30).assignment
    better = dataclasses.replace(better, source=finders.THOMPSON)
    planner.set_problem(PROBLEM, [better])
    assert planner.best.source == finders.THOMPSON
    # The planner of games is given it, too, and plays it as its own best.
    assert planner.planner.best_source == "seed"
    assert planner._best_game().source == finders.THOMPSON


@pytest.mark.parametrize("length", [3, 5])
def test_a_given_game_is_known_again_with_and_without_padding(length):
    game = GivenGame(np.array([1, 2, 0]), finders.GREEDY)
    assert game.is_of(np.resize(np.array([1, 2, 0, 0, 0]), length))
    assert not game.is_of(np.array([1, 2, 2, 0, 0])[:length])
