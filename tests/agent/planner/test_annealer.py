"""Annealing led by the policy, in a thread beside games with search."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import malloc_game as mg
from agent.learning.inference import Model
from agent.learning.updates import init_train_state
from agent.planner.annealer import Annealer, disagreement
from agent.planner.self_play_planner import SelfPlayPlanner
from malloc_game.solvers.play.simulated_annealing import anneal, start_chains
from tests.helpers.training_for_tests import SMALL, changed

CONFIG = changed(SMALL.agent, self_play={"annealing_rounds": 1})


@pytest.fixture(scope="module")
def program():
    return mg.encode(mg.random_problem(3, 24))


@pytest.fixture(scope="module")
def model(program):
    params = init_train_state(CONFIG, jax.random.key(0)).params
    return Model.of(CONFIG, params, program)


def drop_all(program):
    return np.full(program.max_decisions, mg.DROP, np.int32)


def test_disagreement_is_a_weight_for_each_decision_and_none_for_padding(model):
    program = model.program
    weights = np.asarray(disagreement(CONFIG, model, jnp.asarray(drop_all(program))))
    number = int(program.num_decisions)
    assert (weights[:number] > 0).all() and (weights[:number] <= 1).all()
    assert not weights[number:].any()
    # A fresh policy is uniform over what is legal: it disagrees more where more else is legal.
    first = mg.init(program).options.legal
    chance = 1 - 1 / int(np.sum(first))
    assert weights[0] == pytest.approx(max(chance, 0.05), abs=1e-5)


def test_annealing_finds_better_games_and_the_same_for_the_same_keys(model):
    def found():
        annealer = Annealer(CONFIG, model, drop_all(model.program))
        annealer.start(3, model.params, jax.random.key(1))
        annealer.finish()
        annealer.start(3, model.params, jax.random.key(2))
        actions, cycles = annealer.finish()
        annealer.close()
        return actions, cycles

    actions, cycles = found()
    assert int(mg.replay(model.program, jnp.asarray(actions)).latency) == cycles
    assert cycles < int(model.program.default_cycles)
    again, same = found()
    assert same == cycles
    np.testing.assert_array_equal(actions, again)


def test_what_has_no_weight_is_hardly_ever_flipped(program):
    weights = jnp.zeros(program.max_decisions).at[2].set(1.0)
    chains = start_chains(drop_all(program), int(program.default_cycles), 4)
    hot = jnp.full(4, 1e9)
    chains = anneal(program, chains, hot, jax.random.key(0), 3, weights)
    flipped = np.asarray(chains.wanted).any(axis=0)
    assert flipped[2] and flipped.sum() == 1


def test_a_planner_that_anneals_is_repeatable_and_says_what_found_its_game(program):
    def plan():
        planner = SelfPlayPlanner(program, CONFIG, seed=0)
        planner.seed_games([drop_all(program)])
        planner.run(iterations=2)
        return planner

    first, second = plan(), plan()
    assert first.best_latency_cycles == second.best_latency_cycles
    np.testing.assert_array_equal(first.best_actions, second.best_actions)
    assert first.best_latency_cycles < int(program.default_cycles)
    assert first.stats()["annealing_seconds"] > 0
