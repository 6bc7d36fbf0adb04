"""The planner on small random programs."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import malloc_game
from agent.learning.config import (
    AgentConfig,
    NetworkConfig,
    ReplayConfig,
    SearchConfig,
    SelfPlayConfig,
    TrainConfig,
)
from agent.planner import self_play_planner
from agent.planner.self_play_planner import Planner, evaluate_actions

SMALL = AgentConfig(
    network=NetworkConfig(hidden_size=48, num_bins=31),
    search=SearchConfig(num_simulations=4),
    self_play=SelfPlayConfig(num_games=8, chunk_moves=16),
    replay=ReplayConfig(capacity=16384),
    train=TrainConfig(batch_size=64, updates_per_iteration=16),
)


@pytest.fixture(scope="module")
def program():
    return malloc_game.encode(malloc_game.random_problem(0, num_instructions=30))


def _random_actions(program, seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 3, program.max_decisions).astype(np.int32)


def _random_play_latencies(program, num_games):
    def play_one(key):
        def move(state, key):
            legal = malloc_game.legal_actions(program, state)
            action = jax.random.categorical(key, jnp.where(legal, 0.0, -jnp.inf))
            state = malloc_game.step(program, state, action)
            return state, state.reward

        keys = jax.random.split(key, program.max_decisions)
        _, rewards = jax.lax.scan(move, malloc_game.init(program), keys)
        return program.default_cycles - rewards.sum()

    return np.asarray(jax.jit(jax.vmap(play_one))(jax.random.split(jax.random.key(0), num_games)))


def _with_other_costs(program):
    """The same program after a correction of its cost tables."""
    cycles = program.cycles // 2 + 7
    in_default = jnp.sum(program.trip_count * cycles[program.table_start])
    return program.replace(cycles=cycles, default_cycles=in_default.astype(jnp.int32))


def test_learning_beats_random_play_and_its_own_start(program):
    planner = Planner(program, SMALL, seed=0)
    planner.run(iterations=3)
    early_loss = planner.stats()["loss"]["total"]
    planner.run(iterations=57)
    assert planner.stats()["loss"]["total"] < 0.8 * early_loss
    random_latencies = _random_play_latencies(program, 64)
    plays = planner.network_play_latencies
    assert np.mean(plays[-5:]) < random_latencies.mean()
    assert planner.best_latency_cycles < random_latencies.min()
    assert planner.best_latency_cycles <= min(plays)
    assert planner.best_source in ("self_play", "greedy_play", "perturbation")


def test_the_best_actions_have_the_best_latency(program):
    planner = Planner(program, SMALL, seed=1)
    planner.run(iterations=3)
    latency, state = jax.jit(evaluate_actions)(program, planner.best_actions)
    assert int(latency) == planner.best_latency_cycles
    assert bool(state.done)
    actions, latency = planner.greedy_play()
    assert (
        int(evaluate_actions(program, actions)[0])
        == latency
        == (planner.network_play_latencies[-1])
    )


def test_the_same_seed_and_iterations_give_the_same_result(program):
    def result(seed):
        planner = Planner(program, SMALL, seed=seed)
        planner.seed_games([_random_actions(program, 0)])
        planner.run(iterations=4)
        return (
            planner.best_actions.tolist(),
            planner.network_play_latencies,
            planner.stats()["loss"],
        )

    assert result(3) == result(3)
    assert result(3) != result(4)


def test_every_function_is_traced_once(program, monkeypatch):
    for name in ("play", "learn"):
        counted = chex.assert_max_traces(getattr(self_play_planner, name), n=1)
        monkeypatch.setattr(
            self_play_planner, f"_{name}", jax.jit(counted, static_argnames="config"), raising=True
        )
    planner = Planner(program, SMALL, seed=0)
    planner.seed_games([_random_actions(program, 0)])
    planner.run(iterations=4)
    planner.greedy_play()
    planner.set_program(_with_other_costs(program))
    planner.run(iterations=1)


def test_planning_in_the_true_game_works(program):
    config = dataclasses.replace(SMALL, search=SearchConfig(num_simulations=4, dynamics="env"))
    planner = Planner(program, config, seed=0)
    planner.run(iterations=2)
    assert planner.stats()["searched_moves"] > 0
    assert int(evaluate_actions(program, planner.best_actions)[0]) == planner.best_latency_cycles
    assert planner.best_latency_cycles < _random_play_latencies(program, 64).mean()


def test_seed_games_are_recorded_with_their_latencies(program):
    planner = Planner(program, SMALL, seed=0)
    games = [_random_actions(program, seed) for seed in range(10)]  # more than one batch
    evaluate = jax.jit(evaluate_actions)
    expected = [int(evaluate(program, game)[0]) for game in games]
    assert planner.seed_games(games) == expected
    assert planner.best_latency_cycles <= min(expected)
    assert planner.best_source in ("seed", "perturbation")


@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros((2, 64)), np.full(64, 3), np.full(64, -1)])
def test_unusable_seed_games_are_errors(program, bad):
    with pytest.raises(ValueError, match="seed game"):
        Planner(program, SMALL).seed_games([bad])


def test_set_program_scores_stored_games_again(program):
    planner = Planner(program, SMALL, seed=0)
    seed_game = _random_actions(program, 0)
    planner.seed_games([seed_game])
    planner.run(iterations=3)
    best, updates = planner.best_actions, planner.stats()["updates"]
    changed = _with_other_costs(program)
    planner.set_program(changed)
    known = min(int(evaluate_actions(changed, actions)[0]) for actions in (best, seed_game))
    assert planner.best_latency_cycles <= known
    assert int(evaluate_actions(changed, planner.best_actions)[0]) == planner.best_latency_cycles
    assert planner.stats()["updates"] == updates  # the network stays
    planner.run(iterations=1)
    assert planner.stats()["updates"] > updates


def test_set_program_refuses_other_shapes(program):
    planner = Planner(program, SMALL)
    with pytest.raises(ValueError, match="set_program"):
        planner.set_program(malloc_game.encode(malloc_game.random_problem(0, num_instructions=120)))


def test_a_planner_without_games_or_limits_says_so(program):
    planner = Planner(program, SMALL)
    with pytest.raises(ValueError, match="no game"):
        _ = planner.best_actions
    with pytest.raises(ValueError, match="seconds or iterations"):
        planner.run()


def test_a_deadline_in_the_past_plays_nothing(program):
    planner = Planner(program, SMALL)
    planner.run(seconds=0.0)
    assert planner.stats()["games"] == 0


def test_evaluate_actions_under_vmap_equals_a_loop(program):
    games = jnp.asarray(np.stack([_random_actions(program, seed) for seed in range(4)]))
    batched = jax.jit(jax.vmap(evaluate_actions, in_axes=(None, 0)))(program, games)[0]
    evaluate = jax.jit(evaluate_actions)
    np.testing.assert_array_equal(batched, [evaluate(program, game)[0] for game in games])
