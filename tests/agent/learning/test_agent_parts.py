"""The agent's pieces: value support, targets, search."""

import functools

import jax
import jax.numpy as jnp
import mctx
import numpy as np
import pytest

import malloc_game
from agent.learning.inference import Model, initial_inference, observe, scaled_reward
from agent.learning.search import plan
from agent.learning.targets import make_windows, n_step_returns
from agent.learning.types import Trajectory, Windows
from agent.learning.updates import init_train_state, update
from agent.learning.value_support import scalar_to_two_hot, two_hot_to_scalar
from tests.helpers import training_for_tests
from tests.helpers.toy import RANDOM_PADDING, pad
from tests.helpers.training_for_tests import changed

# What is seen is the game's own observation; rewards are shares of the default latency.
SMALL = changed(
    training_for_tests.SMALL.agent,
    network={"features": "game"},
    search={"num_simulations": 8},
    train={"discount": 1.0, "reward_unit": "default"},
)


@pytest.mark.parametrize(("bound", "num_bins"), [(30.0, 61), (10.0, 61), (2.0, 21)])
def test_two_hot_round_trips_at_the_bin_widths_in_use(bound, num_bins):
    scalar = jnp.linspace(-bound, bound, 257)
    probabilities = scalar_to_two_hot(scalar, bound, num_bins)
    assert probabilities.shape == (257, num_bins)
    np.testing.assert_allclose(probabilities.sum(-1), 1.0, atol=1e-5)
    assert int((probabilities > 0).sum(-1).max()) <= 2
    # float32 and rlax's 1e-5 in the bin width; the inverse squashing multiplies both.
    np.testing.assert_allclose(two_hot_to_scalar(probabilities, bound), scalar, atol=2e-3 * bound)


def test_two_hot_clips_to_its_bound():
    probabilities = scalar_to_two_hot(jnp.array([1e6, -1e6]), 5.0, 11)
    np.testing.assert_allclose(two_hot_to_scalar(probabilities, 5.0), [5.0, -5.0], rtol=1e-3)


# A game of four moves, padded to five.
REWARD = np.array([1.0, 2.0, 3.0, 4.0, 0.0], np.float32)
VALUE = np.array([50.0, 60.0, 70.0, 80.0, 0.0], np.float32)
NOT_LAST = np.array([1.0, 1.0, 1.0, 0.0, 0.0], np.float32)


@pytest.mark.parametrize(
    ("n", "discount", "expected"),
    [
        (1, 1.0, [61.0, 72.0, 83.0, 4.0, 0.0]),
        (2, 1.0, [73.0, 85.0, 7.0, 4.0, 0.0]),
        (2, 0.5, [1 + 1 + 17.5, 2 + 1.5 + 20, 3 + 2, 4.0, 0.0]),
        (4, 1.0, [10.0, 9.0, 7.0, 4.0, 0.0]),
        (1000, 1.0, [10.0, 9.0, 7.0, 4.0, 0.0]),
    ],
)
def test_n_step_returns_equal_the_hand_worked_ones(n, discount, expected):
    returns = n_step_returns(jnp.array(REWARD), jnp.array(discount * NOT_LAST), jnp.array(VALUE), n)
    np.testing.assert_allclose(returns, expected, rtol=1e-6)


def _trajectory(length: int) -> Trajectory:
    """One game whose rows after `length` hold rubbish that must not be used."""
    moves = jnp.arange(5)
    rubbish = jnp.where(moves < length, 0.0, 1e3)
    return Trajectory(
        observation=moves[:, None].astype(jnp.float32),
        action=moves % 3,
        reward=jnp.array(REWARD) + rubbish,
        policy=jax.nn.one_hot(moves % 3, 3),
        policy_weight=jnp.ones(5),
        value=jnp.array(VALUE) + rubbish,
        length=jnp.int32(length),
        cycles_saved=jnp.int32(0),
    )


def test_windows_are_absorbing_after_the_end():
    windows = make_windows(SMALL, _trajectory(4), td_steps=1000)
    # Five windows from four moves: starts are spread over the game.
    np.testing.assert_array_equal(windows.observation[:, 0], [0, 0, 1, 2, 3])
    np.testing.assert_allclose(windows.value[0], [10, 9, 7])
    np.testing.assert_allclose(windows.value[4], [4, 0, 0])
    np.testing.assert_allclose(windows.reward[3], [3, 4])
    np.testing.assert_allclose(windows.reward[4], [4, 0])
    np.testing.assert_allclose(windows.policy_weight[4], [1, 0, 0])


def _program(seed):
    """Of 16 instructions; all in one shape, for which searches are compiled once."""
    problem = malloc_game.random_problem(seed, num_instructions=16)
    return pad(malloc_game.encode(problem), RANDOM_PADDING)


def _three_of(x):
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (3, *x.shape)), x)


@functools.partial(jax.jit, static_argnums=0)
def _plan_at(config, params, program, state, legal, gumbel_scale):
    """Search from a batch of game states; compiled, since searches are slow op by op."""
    output, value = initial_inference(config, params, observe(program, state))
    embedding = {"learned": output.hidden, "env": state}[config.search.dynamics]
    root = mctx.RootFnOutput(prior_logits=output.policy_logits, value=value, embedding=embedding)
    model = Model(params=params, program=program)
    return plan(config, model, root, legal, gumbel_scale, jax.random.key(0))


@jax.jit
def _at_last_move(program):
    """The state after DROP for every decision but the last, its legality, and each reward."""
    state = jax.lax.fori_loop(
        0,
        program.num_decisions - 1,
        lambda _, state: malloc_game.step(program, state, malloc_game.DROP),
        malloc_game.init(program),
    )
    rewards = jax.vmap(lambda action: malloc_game.step(program, state, action).reward)(
        jnp.arange(malloc_game.NUM_ACTIONS)
    )
    return state, malloc_game.legal_actions(program, state), rewards


@pytest.mark.parametrize("dynamics", ["learned", "env"])
def test_one_legal_action_gets_all_the_policy_weight(dynamics):
    config = changed(SMALL, search={"dynamics": dynamics})
    program = _program(1)
    state = _three_of(malloc_game.init(program))
    params = init_train_state(config, jax.random.key(1)).params
    result = _plan_at(config, params, program, state, jnp.eye(3, dtype=bool), jnp.ones(3))
    np.testing.assert_array_equal(result.action, [0, 1, 2])
    np.testing.assert_allclose(result.policy, jnp.eye(3), atol=1e-6)


def test_search_in_the_true_game_finds_the_better_of_two_last_moves():
    """With one move left, values are 0 and search in the game must take the best reward."""
    config = changed(SMALL, search={"dynamics": "env"})
    params = init_train_state(config, jax.random.key(0)).params
    num_checked = 0
    for seed in range(3):
        program = _program(seed)
        state, legal, rewards = _at_last_move(program)
        legal, rewards = np.asarray(legal), np.asarray(rewards)
        roots, is_legal = _three_of((state, jnp.asarray(legal)))
        result = _plan_at(config, params, program, roots, is_legal, jnp.zeros(3))
        assert (rewards[np.asarray(result.action)] == rewards[legal].max()).all()
        num_checked += len(set(rewards[legal].tolist())) > 1
    assert num_checked > 0


def test_scaled_rewards_are_shares_of_the_default_latency():
    program = malloc_game.encode(malloc_game.random_problem(0, num_instructions=16))
    share = scaled_reward(program, program.default_cycles, return_scale=20.0)
    np.testing.assert_allclose(share, 20.0, rtol=1e-6)


def test_updates_fit_a_fixed_batch():
    key = jax.random.key(0)
    batch = Windows(
        observation=jax.random.normal(key, (16, malloc_game.OBSERVATION_SIZE)),
        action=jnp.zeros((16, 2), jnp.int32),
        reward=jnp.tile(jnp.linspace(0, 1, 16)[:, None], (1, 2)),
        policy=jnp.tile(jax.nn.one_hot(jnp.arange(16) % 3, 3)[:, None], (1, 3, 1)),
        policy_weight=jnp.ones((16, 3)),
        value=jnp.tile(jnp.linspace(-2, 2, 16)[:, None], (1, 3)),
    )
    state = init_train_state(SMALL, key)
    one_update = jax.jit(lambda state: update(SMALL, state, batch))
    state, first = one_update(state)
    for _ in range(100):
        state, last = one_update(state)
    assert float(last["total"]) < 0.5 * float(first["total"])
    assert float(last["policy"]) < 0.3 * float(first["policy"])
    assert int(state.num_updates) == 101
