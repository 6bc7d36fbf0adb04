"""The environment: one game, batches, games that start anew, several problems, specs, jumanji."""

from __future__ import annotations

import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import malloc_game as mg
from malloc_game.environments.environment import FIRST, LAST, MID
from tests.helpers.toy import jit_init, jit_observe, jit_step, toy

THREE_DECISIONS = """
    cycles        9   8   9   8
    w  4  param   .   .   .   u2
    x  4  temp    D1  u   .   .
    y  4  out:2   .   D3  -   -
"""
ONE_DECISION = """
    cycles        9   8   9   8
    x  4  temp    D1  u   .   .
"""
BEST = (mg.NO_COPY, mg.NO_COPY, mg.COPY)  # saves 1, 3 - 2 for the write-back, and 2 cycles
reset, step = jax.jit(mg.MallocGame.reset), jax.jit(mg.MallocGame.step)


@pytest.fixture(scope="module")
def problem() -> mg.Problem:
    return toy(THREE_DECISIONS)


@pytest.fixture(scope="module")
def env(problem) -> mg.MallocGame:
    return mg.MallocGame(problem)


@pytest.fixture(scope="module")
def endless(problem) -> mg.MallocGame:
    return mg.MallocGame(problem, auto_reset=True)


def play(env, actions):
    state, first = reset(env, jax.random.key(0))
    seen = [first]
    for action in actions:
        state, timestep = step(env, state, jnp.int32(action))
        seen.append(timestep)
    return state, seen


def test_a_game_is_first_then_mid_then_last(env):
    _, seen = play(env, BEST)
    assert [int(t.step_type) for t in seen] == [FIRST, MID, MID, LAST]
    assert [float(t.discount) for t in seen] == [1, 1, 1, 0]
    assert [bool(t.last()) for t in seen] == [False, False, False, True]
    assert bool(seen[0].first()) and bool(seen[1].mid())


def test_rewards_sum_to_the_latency_saved(problem, env):
    state, seen = play(env, BEST)
    assert [float(t.reward) for t in seen] == [0, 1, 1, 2]
    default = mg.latency(problem, mg.all_default(problem)).cycles
    assert sum(float(t.reward) for t in seen) == default - int(state.game.latency)
    assert [int(t.extras["latency"]) for t in seen] == [34, 33, 32, 30]


def test_observations_are_those_of_the_game(problem, env):
    program = mg.encode(problem)
    game = jit_init(program)
    _, seen = play(env, BEST)
    for timestep, action in zip(seen, (*BEST, None), strict=True):
        np.testing.assert_array_equal(
            timestep.observation.action_mask, mg.legal_actions(program, game)
        )
        np.testing.assert_allclose(
            timestep.observation.features, jit_observe(program, game), atol=1e-6
        )
        if action is not None:
            game = jit_step(program, game, action)


def test_an_illegal_action_counts_as_drop(env):
    _, (first, after) = play(env, (mg.COPY,))
    assert not first.observation.action_mask[mg.COPY]
    assert float(after.reward) == 0


def test_nothing_changes_after_the_end(env):
    ended, _ = play(env, BEST)
    state, timestep = step(env, ended, jnp.int32(mg.NO_COPY))
    assert (float(timestep.reward), float(timestep.discount)) == (0, 0) and timestep.last()
    assert int(state.game.latency) == int(ended.game.latency)


def test_a_new_game_starts_after_the_end_and_the_last_reward_is_not_lost(endless):
    state, seen = play(endless, (*BEST, mg.DROP))
    assert [int(t.step_type) for t in seen] == [FIRST, MID, MID, LAST, MID]
    assert [float(t.reward) for t in seen] == [0, 1, 1, 2, 0]
    assert float(seen[3].discount) == 0
    assert int(seen[3].extras["latency"]) == 30, "of the game that ended"
    chex.assert_trees_all_equal(seen[3].observation, seen[0].observation)
    assert int(state.game.position) == 1 and int(state.game.latency) == 34


def test_scan_over_a_batch_equals_games_one_by_one(endless):
    actions = jax.random.randint(jax.random.key(1), (11, 4), 0, 3)
    keys = jax.random.split(jax.random.key(0), 4)

    @jax.jit
    def batch(env, keys, actions):
        def one(state, action):
            state, timestep = jax.vmap(env.step)(state, action)
            return state, (timestep.reward, timestep.step_type, timestep.observation)

        return jax.lax.scan(one, jax.vmap(env.reset)(keys)[0], actions)[1]

    rewards, types, observations = batch(endless, keys, actions)
    assert (np.asarray(types) == LAST).sum() == 4 * 3, "three games of three decisions in 11 steps"
    for b in range(4):
        state, _ = reset(endless, keys[b])
        for t in range(11):
            state, timestep = step(endless, state, actions[t, b])
            assert float(timestep.reward) == float(rewards[t, b])
            assert int(timestep.step_type) == int(types[t, b])
            np.testing.assert_allclose(
                timestep.observation.features, observations.features[t, b], atol=1e-6
            )


def test_environments_of_one_shape_share_one_compilation(problem, env):
    step(env, reset(env, jax.random.key(0))[0], jnp.int32(0))
    before = step._cache_size()
    other = mg.MallocGame(toy(THREE_DECISIONS.replace("u2", "u1")))
    step(other, reset(other, jax.random.key(0))[0], jnp.int32(0))
    assert step._cache_size() == before


def test_reset_draws_among_several_problems(problem):
    env = mg.MallocGame([problem, toy(ONE_DECISION)], auto_reset=True, reward_unit="share")
    assert env.num_problems == 2
    keys = jax.random.split(jax.random.key(0), 32)
    state, timestep = jax.jit(jax.vmap(env.reset))(keys)
    drawn = np.asarray(state.problem)
    assert set(drawn.tolist()) == {0, 1}
    state, timestep = jax.jit(jax.vmap(env.step))(state, jnp.full(32, mg.NO_COPY))
    ended = np.asarray(timestep.last())
    np.testing.assert_array_equal(ended, drawn == 1)
    np.testing.assert_array_equal(timestep.extras["problem"], drawn)
    np.testing.assert_allclose(timestep.reward, 1 / 34, rtol=1e-6)  # x saves one of 34 cycles
    after = np.asarray(state.problem)
    assert set(after[ended].tolist()) == {0, 1}, "a new game draws a problem anew"
    np.testing.assert_array_equal(after[~ended], 0)


def test_a_problem_file_can_be_given(problem, tmp_path):
    mg.save_problem(problem, tmp_path / "problem.json")
    _, seen = play(mg.MallocGame(tmp_path / "problem.json"), BEST)
    assert sum(float(t.reward) for t in seen) == 4


def test_mistakes_are_named(problem, tmp_path):
    with pytest.raises(mg.ProblemError, match="problem 1 is padded differently .* shape"):
        mg.MallocGame([problem, mg.random_problem(0, 100)])
    with pytest.raises(mg.ProblemError, match="at least one problem"):
        mg.MallocGame([])
    with pytest.raises(mg.MallocGameError, match="reward_unit is 'seconds'.*cycles, share"):
        mg.MallocGame(problem, reward_unit="seconds")
    with pytest.raises(mg.MallocGameError, match="none.json"):
        mg.MallocGame(tmp_path / "none.json")


def test_what_is_returned_fits_the_specs(endless):
    env = endless
    state, timestep = reset(env, jax.random.key(0))
    for i in range(5):
        jax.tree.map(
            lambda spec, x: spec.validate(np.asarray(x)), env.observation_spec, timestep.observation
        )
        env.reward_spec.validate(np.asarray(timestep.reward))
        env.discount_spec.validate(np.asarray(timestep.discount))
        action = env.action_spec.validate(np.int32(i % 3))
        state, timestep = step(env, state, action)
    with pytest.raises(ValueError):
        env.action_spec.validate(np.int32(3))


def test_the_package_imports_no_optional_dependency():
    code = (
        "import sys, malloc_game; print([m for m in ('gymnasium', 'matplotlib', 'jumanji', 'pgx')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_jumanjis_wrappers_take_the_plain_environment(problem, env):
    wrappers = pytest.importorskip("jumanji.wrappers")
    batch = wrappers.VmapWrapper(wrappers.AutoResetWrapper(env))
    state, _ = jax.jit(batch.reset)(jax.random.split(jax.random.key(0), 2))
    move = jax.jit(batch.step)
    rewards = []
    for action in (*BEST, mg.NO_COPY):
        state, timestep = move(state, jnp.full(2, action))
        rewards.append(timestep.reward[0])
    np.testing.assert_array_equal(rewards, [1, 1, 2, 1])


def test_the_jumanji_environment_has_jumanjis_specs_and_types(problem):
    jumanji = pytest.importorskip("jumanji")
    from jumanji.types import TimeStep
    from jumanji.wrappers import JumanjiToGymWrapper

    from malloc_game.environments.jumanji import JumanjiMallocGame

    env = JumanjiMallocGame(problem)
    assert isinstance(env, jumanji.env.Environment)
    state, timestep = jax.jit(env.reset)(jax.random.key(0))
    assert isinstance(timestep, TimeStep)
    env.observation_spec.validate(timestep.observation)
    state, timestep = jax.jit(env.step)(state, env.action_spec.generate_value())
    env.observation_spec.validate(timestep.observation)
    env.reward_spec.validate(timestep.reward)
    env.discount_spec.validate(timestep.discount)
    gym = JumanjiToGymWrapper(env)
    observation, _ = gym.reset()
    assert gym.observation_space.contains(observation)
    assert sum(gym.step(np.int32(a))[1] for a in BEST) == 4
