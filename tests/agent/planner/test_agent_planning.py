"""The planner on small random programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import malloc_game
from agent.learning.updates import init_train_state
from agent.planner.self_play_planner import SelfPlayPlanner
from tests.helpers import training_for_tests
from tests.helpers.training_for_tests import changed

SMALL = training_for_tests.SMALL.agent


@pytest.fixture(scope="module")
def program():
    return malloc_game.encode(malloc_game.random_problem(3, num_instructions=24))


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


def _latency(program, actions):
    return malloc_game.replay(program, jnp.asarray(actions)).latency


def _with_other_costs(program):
    """The same program after a correction of its cost tables."""
    cycles = program.cycles // 2 + 7
    in_default = jnp.sum(program.trip_count * cycles[program.table_start])
    return program.replace(cycles=cycles, default_cycles=in_default.astype(jnp.int32))


def test_learning_beats_random_play_and_its_own_start(program):
    planner = SelfPlayPlanner(program, SMALL, seed=0)
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
    planner = SelfPlayPlanner(program, SMALL, seed=1)
    planner.run(iterations=3)
    state = malloc_game.replay(program, jnp.asarray(planner.best_actions))
    assert int(state.latency) == planner.best_latency_cycles
    assert bool(state.done)
    actions, latency = planner.greedy_play()
    assert int(_latency(program, actions)) == latency == (planner.network_play_latencies[-1])


def test_the_same_seed_and_iterations_give_the_same_result(program):
    def result(seed):
        planner = SelfPlayPlanner(program, SMALL, seed=seed)
        planner.seed_games([_random_actions(program, 0)])
        planner.run(iterations=4)
        return (
            planner.best_actions.tolist(),
            planner.network_play_latencies,
            planner.stats()["loss"],
        )

    assert result(3) == result(3)
    assert result(3) != result(4)


def test_nothing_is_compiled_anew_for_another_seed_or_other_costs(program, caplog):
    def plan(seed):
        planner = SelfPlayPlanner(program, SMALL, seed=seed)
        planner.seed_games([_random_actions(program, 0)])
        planner.run(iterations=4)
        planner.greedy_play()
        planner.set_program(_with_other_costs(program))
        planner.run(iterations=1)

    plan(0)
    with jax.log_compiles():
        plan(1)
        assert "Compiling" not in caplog.text
        jax.jit(lambda x: x + 1)(1)
        assert "Compiling" in caplog.text


def test_a_planner_starts_from_given_parameters_and_leaves_them_alone(program):
    params = init_train_state(SMALL, jax.random.key(3)).params
    # A network that wants everything in default memory.
    head = dict(params["params"]["policy_head"])
    bias = head["Dense_1"]["bias"] + jnp.array([0.0, 0.0, 100.0])
    head["Dense_1"] = head["Dense_1"] | {"bias": bias}
    params = {"params": params["params"] | {"policy_head": head}}
    count = int(program.num_decisions)
    planner = SelfPlayPlanner(program, SMALL, params=params)
    assert set(planner.greedy_play()[0][:count].tolist()) == {malloc_game.DROP}
    planner.run(iterations=1)
    np.testing.assert_array_equal(bias, [0.0, 0.0, 100.0])  # not donated
    assert set(SelfPlayPlanner(program, SMALL).greedy_play()[0][:count].tolist()) != {
        malloc_game.DROP
    }


@pytest.mark.slow
def test_planning_in_the_true_game_works(program):
    config = changed(SMALL, search={"dynamics": "env"})
    planner = SelfPlayPlanner(program, config, seed=0)
    planner.run(iterations=2)
    assert planner.stats()["searched_moves"] > 0
    assert int(_latency(program, planner.best_actions)) == planner.best_latency_cycles
    assert planner.best_latency_cycles < _random_play_latencies(program, 64).mean()


def test_seed_games_are_recorded_with_their_latencies(program):
    planner = SelfPlayPlanner(program, SMALL, seed=0)
    games = [_random_actions(program, seed) for seed in range(10)]  # more than one batch
    latency = jax.jit(_latency)
    expected = [int(latency(program, game)) for game in games]
    assert planner.seed_games(games) == expected
    assert planner.best_latency_cycles <= min(expected)
    assert planner.best_source in ("seed", "perturbation")


@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros((2, 64)), np.full(64, 3), np.full(64, -1)])
def test_unusable_seed_games_are_errors(program, bad):
    with pytest.raises(ValueError, match="seed game"):
        SelfPlayPlanner(program, SMALL).seed_games([bad])


def test_set_program_scores_stored_games_again(program):
    planner = SelfPlayPlanner(program, SMALL, seed=0)
    seed_game = _random_actions(program, 0)
    planner.seed_games([seed_game])
    planner.run(iterations=3)
    best, updates = planner.best_actions, planner.stats()["updates"]
    changed = _with_other_costs(program)
    planner.set_program(changed)
    known = min(int(_latency(changed, actions)) for actions in (best, seed_game))
    assert planner.best_latency_cycles <= known
    assert int(_latency(changed, planner.best_actions)) == planner.best_latency_cycles
    assert planner.stats()["updates"] == updates  # the network stays
    planner.run(iterations=1)
    assert planner.stats()["updates"] > updates


def test_set_program_refuses_other_shapes(program):
    planner = SelfPlayPlanner(program, SMALL)
    with pytest.raises(ValueError, match="set_program"):
        planner.set_program(malloc_game.encode(malloc_game.random_problem(0, num_instructions=120)))


def test_a_planner_without_games_or_limits_says_so(program):
    planner = SelfPlayPlanner(program, SMALL)
    with pytest.raises(ValueError, match="no game"):
        _ = planner.best_actions
    with pytest.raises(ValueError, match="seconds or iterations"):
        planner.run()


def test_a_deadline_in_the_past_plays_nothing(program):
    planner = SelfPlayPlanner(program, SMALL)
    planner.run(seconds=0.0)
    assert planner.stats()["games"] == 0


def test_replay_under_vmap_equals_a_loop(program):
    games = jnp.asarray(np.stack([_random_actions(program, seed) for seed in range(4)]))
    batched = jax.jit(jax.vmap(_latency, in_axes=(None, 0)))(program, games)
    latency = jax.jit(_latency)
    np.testing.assert_array_equal(batched, [latency(program, game) for game in games])
