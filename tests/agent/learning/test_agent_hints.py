"""Hints: what greedy and the linear relaxation would do, as the networks see it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import malloc_game as mg
from agent.learning.buckets import make_buckets, make_task, relaxed_choices
from agent.learning.config import ConfigError, NetworkConfig
from agent.learning.features import (
    HINT_SIZE,
    OUTLOOK_SIZE,
    make_hint,
    outlook_features,
    simple_plays,
)
from agent.learning.inference import observation_size, outlook_for
from agent.learning.updates import init_train_state
from agent.learning.zero_shot_play import zero_shot
from agent.planner.problem_planner import first_games
from malloc_game.game.playing import NUM_GREEDY_PLAYS
from tests.helpers.training_for_tests import SMALL, changed

HINTS = changed(SMALL.agent, network={"features": "hints"})


def test_a_hint_has_the_choices_of_greedys_best_play():
    program = mg.encode(mg.random_problem(7, 40))
    states, actions = mg.greedy_plays(program)
    hint = make_hint(program, states.latency, actions)
    best, best_actions = mg.greedy(program)
    number = int(program.num_decisions)
    chosen = np.asarray(best_actions) != mg.DROP
    np.testing.assert_array_equal(np.asarray(hint.choices[:number, 0]), chosen[:number])
    assert not np.asarray(hint.choices[number:]).any()
    saved = 1 - int(best.latency) / int(program.default_cycles)
    np.testing.assert_allclose(float(hint.saved), saved, rtol=1e-5)


def test_the_relaxation_is_seen_and_greedy_stands_in_where_there_is_none():
    program = mg.encode(mg.random_problem(7, 40))
    relaxed = np.full(program.max_decisions, 0.25, np.float32)
    relaxed[0] = np.nan
    choices = np.asarray(outlook_for(HINTS, program, jnp.asarray(relaxed)).hint.choices)
    number = int(program.num_decisions)
    assert (choices[1:number, 2] == 0.25).all()
    assert choices[0, 2] == choices[0, 1]
    alone = np.asarray(outlook_for(HINTS, program).hint.choices)
    np.testing.assert_array_equal(alone[:, 2], alone[:, 1])


def test_hints_make_the_observation_longer_by_what_is_announced():
    program = mg.encode(mg.random_problem(7, 40))
    outlook = outlook_for(HINTS, program)
    seen = outlook_features((program, outlook), mg.init(program))
    assert seen.shape == (OUTLOOK_SIZE + HINT_SIZE,)
    assert np.isfinite(seen).all() and np.abs(seen).max() <= 2.0
    assert observation_size(HINTS) == mg.OBSERVATION_SIZE + OUTLOOK_SIZE + HINT_SIZE
    plain = dataclasses.replace(outlook, hint=None)
    np.testing.assert_array_equal(
        seen[:OUTLOOK_SIZE], outlook_features((program, plain), mg.init(program))
    )


def test_relaxed_choices_are_those_of_each_task_in_a_bucket():
    tasks = [make_task(mg.random_problem(seed, 12), has_hints=True) for seed in (1, 2)]
    (bucket,) = make_buckets(tasks, 4)
    for row, task in zip(bucket.relaxed, bucket.tasks, strict=True):
        number = int(task.program.num_decisions)
        np.testing.assert_array_equal(row[:number], task.relaxed[:number])
        assert ((row >= 0) & (row <= 1)).all() and not row[number:].any()
    without = [make_task(mg.random_problem(1, 12)), tasks[1]]
    assert make_buckets(without, 4)[0].relaxed is None


def test_first_games_are_legal_distinct_in_order_and_no_worse_than_greedy():
    problem = mg.random_problem(7, 40)
    program = mg.encode(problem)
    games = first_games(program, relaxed_choices(problem, program), count=3)
    cycles = [int(mg.replay(program, jnp.asarray(game.actions)).latency) for game in games]
    assert cycles == sorted(cycles)
    assert cycles[0] <= int(mg.greedy(program)[0].latency)


def test_admitting_plays_take_what_is_admitted_and_nothing_else():
    program = mg.encode(mg.random_problem(7, 40))
    admitted = jnp.zeros((NUM_GREEDY_PLAYS, program.max_decisions), bool).at[1].set(True)
    only_gains = jnp.arange(NUM_GREEDY_PLAYS) != 1
    states, actions = jax.device_get(mg.admitting_plays(program, admitted, only_gains))
    assert (actions[0] == mg.DROP).all()
    assert int(states.latency[0]) == int(program.default_cycles)
    assert (actions[1] != mg.DROP).any()


def test_the_relaxations_plays_are_hinted_at_where_they_are_better():
    program = mg.encode(mg.random_problem(7, 40))
    greedy, _ = mg.greedy(program)
    everything = jnp.ones(program.max_decisions)
    latency, actions = simple_plays(program, everything)
    assert latency.shape == (2 * NUM_GREEDY_PLAYS,) and actions.shape[0] == len(latency)
    # That relaxation admits all, so that its plays hold one that takes whatever is legal.
    all_admitted = jnp.ones((NUM_GREEDY_PLAYS, program.max_decisions), bool)
    legal_only = mg.admitting_plays(program, all_admitted, jnp.zeros(NUM_GREEDY_PLAYS, bool))
    assert int(latency.min()) == min(int(greedy.latency), int(legal_only[0].latency[0]))


@pytest.fixture(scope="module")
def best_simple_play():
    """A problem, and of its best simple play the actions of its decisions and the latency."""
    problem = mg.random_problem(7, 40)
    program = mg.encode(problem)
    latency, actions = simple_plays(program, jnp.asarray(relaxed_choices(problem, program)))
    best = int(jnp.argmin(latency))
    return problem, actions[best][: int(program.num_decisions)], int(latency[best])


def _untrained_play(problem, config):
    params = init_train_state(config, jax.random.key(0)).params
    return zero_shot(problem, (config, params), num_simulations=4)


def test_an_untrained_network_with_a_hint_weight_does_what_the_best_simple_play_does(
    best_simple_play,
):
    problem, actions, latency = best_simple_play
    played, cycles = _untrained_play(problem, changed(HINTS, network={"hint_weight": 2.0}))
    np.testing.assert_array_equal(played[: len(actions)], actions)
    assert cycles == latency


@pytest.mark.slow
def test_an_untrained_network_without_a_hint_weight_is_slower_than_that(best_simple_play):
    problem, _, latency = best_simple_play
    assert _untrained_play(problem, HINTS)[1] > latency


def test_a_hint_weight_needs_hints():
    with pytest.raises(ConfigError, match="hint_weight"):
        NetworkConfig(features="outlook", hint_weight=1.0)
