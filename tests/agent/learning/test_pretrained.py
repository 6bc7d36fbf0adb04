"""The agent that ships: there, small, of its config, and of use on programs it has never seen."""

import dataclasses

import jax
import numpy as np
import pytest

import malloc_game as mg
from agent.learning.pretrained import AGENT_FILE, TRAINING_FILE, load_pretrained
from agent.learning.training_config import TrainingConfig
from agent.learning.updates import init_train_state
from agent.learning.zero_shot_play import zero_shot
from agent.planner.pretrained_planner import make_planner
from agent.planner.pretrained_planner import planning_config as config_for_planning
from agent.planner.solvers import agent
from agent.planner.solvers import zero_shot as zero_shot_solver
from tests.helpers.training_for_tests import changed
from workloads.programs.suite_problems import pairs


def test_the_agent_is_of_the_config_beside_it():
    config, params = load_pretrained()
    assert config == TrainingConfig.from_json(TRAINING_FILE.read_text()).agent
    assert AGENT_FILE.stat().st_size < 10 << 20
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


@pytest.fixture(scope="module")
def pair():
    """The shortest program but one of the families that it has never seen."""
    return next(p for p in pairs() if p.name == "decode_wide-tpu7x")


@pytest.fixture(scope="module")
def problem(pair):
    return pair.load()[0]


@pytest.fixture(scope="module")
def greedy(problem):
    return mg.greedy(mg.encode(problem))[0]


def test_zero_shot_play_of_a_test_program_is_no_slower_than_greedys(pair, problem, greedy):
    _, cycles = zero_shot(problem, load_pretrained())
    assert cycles < pair.all_default
    assert cycles <= int(greedy.latency)


@pytest.mark.slow
def test_zero_shot_play_of_a_test_program_beats_an_untrained_network(problem):
    config, params = load_pretrained()
    without_hints = changed(config, network={"hint_weight": 0.0})
    untrained = init_train_state(without_hints, jax.random.key(0)).params
    _, cycles = zero_shot(problem, (config, params))
    _, without = zero_shot(problem, (without_hints, untrained))
    assert cycles < without


def test_planning_keeps_the_networks_and_the_units_of_the_trained_agent():
    trained, _ = load_pretrained()
    planning = config_for_planning(trained)
    assert planning.network == dataclasses.replace(trained.network, dtype="float32")
    for name in ("discount", "td_steps", "reward_unit", "return_scale"):
        assert getattr(planning.train, name) == getattr(trained.train, name)


def test_a_planner_knows_the_mappings_that_it_is_given(problem, greedy):
    known = mg.to_assignment(problem, greedy)
    planner = make_planner(problem, known=(known,))
    assert planner.best_cycles <= int(greedy.latency)
    assert mg.latency(problem, planner.best_assignment).cycles == planner.best_cycles


def test_the_agent_as_a_solver_gives_a_valid_mapping_and_says_when_it_was_found(problem, greedy):
    result = agent(problem, 60.0, max_iterations=1)
    assert mg.check(problem, result.assignment) == []
    assert mg.latency(problem, result.assignment).cycles == pytest.approx(result.latency_cycles)
    assert result.latency_cycles <= int(greedy.latency)
    assert result.stats["improvements"] and result.stats["found_by"]


def test_one_game_of_the_agent_is_a_solver_too_and_seeds_and_seconds_change_nothing(problem):
    found, again = zero_shot_solver(problem, 60.0), zero_shot_solver(problem, 0.001, seed=5)
    assert mg.check(problem, found.assignment) == []
    assert found.latency_cycles == zero_shot(problem, load_pretrained())[1]
    assert found.assignment == again.assignment
