"""What a planner of a problem goes on from after a correction, and whose its best mapping is."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

import malloc_game as mg
from agent.learning.config import AgentConfig, NetworkConfig, SelfPlayConfig
from agent.planner import finders
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


def test_the_network_is_hinted_by_the_relaxation_under_the_costs_of_now():
    planner = ProblemPlanner(PROBLEM, HINTED, seed=0)
    before = planner.planner._outlook.hint
    planner.set_problem(corrected(PROBLEM))
    now = planner.planner._outlook.hint
    anew = ProblemPlanner(corrected(PROBLEM), HINTED, seed=0).planner._outlook.hint
    for mine, fresh in zip(jax.tree.leaves(now), jax.tree.leaves(anew), strict=True):
        np.testing.assert_array_equal(mine, fresh)
    same = [
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(now), strict=True)
    ]
    assert not all(same), "the correction changes nothing: the test would say nothing"


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
