"""From finished games to training windows: n-step returns, policy targets, absorbing end."""

import chex
import jax
import jax.numpy as jnp

from agent.learning.config import AgentConfig
from agent.learning.types import Moves, StreamWindows, Trajectory, Windows

# Where the games' axis B is in each field of a Trajectory.
_GAME_AXES = Trajectory(
    observation=1,
    action=1,
    reward=1,
    policy=1,
    policy_weight=1,
    value=1,
    length=0,
    cycles_saved=0,
)


def n_step_returns(
    reward_t: chex.Array, discount_t: chex.Array, value_tm1: chex.Array, n: int
) -> chex.Array:
    """Returns G[t] = sum_{i<n} (prod of earlier discounts) r[t+i] + (prod of n) v[t+n].

    All arguments and the result: float32[T]. Row t holds the reward and discount of move t, and the
    value of the state before it. The last move of the game has discount 0 and rows after it hold
    zeros, so that the sum stops there: n >= T gives the full return."""
    chex.assert_rank([reward_t, discount_t, value_tm1], 1)
    chex.assert_equal_shape([reward_t, discount_t, value_tm1])

    def one_step_longer(_, return_tm1):
        return_t = jnp.append(return_tm1[1:], 0.0)
        return reward_t + discount_t * return_t

    return jax.lax.fori_loop(0, min(n, reward_t.shape[0]), one_step_longer, value_tm1)


def make_windows(config: AgentConfig, trajectory: Trajectory, td_steps: int) -> Windows:
    """Windows of one game (a `Trajectory` without its batch axis): leading axis T.

    Starts are spread evenly over the game: a game shorter than its padding repeats some starts, so
    that no window is wasted on padding and shapes stay fixed."""
    chex.assert_rank([trajectory.observation, trajectory.action, trajectory.length], [2, 1, 0])
    num_moves, unroll_steps = trajectory.action.shape[0], config.train.unroll_steps
    move = jnp.arange(num_moves)
    is_played = (move < trajectory.length).astype(jnp.float32)
    is_not_last = (move + 1 < trajectory.length).astype(jnp.float32)
    returns = n_step_returns(
        trajectory.reward * is_played,
        config.train.discount * is_not_last,
        trajectory.value * is_played,
        td_steps,
    )
    # As float: the product of two move counts may pass 2^31, and exactness is of no use.
    start = jnp.floor(move * (trajectory.length / num_moves)).astype(jnp.int32)
    index = start[:, None] + jnp.arange(unroll_steps + 1)[None]
    is_inside = (index < trajectory.length).astype(jnp.float32)
    index = jnp.minimum(index, num_moves - 1)
    return Windows(
        observation=trajectory.observation[start],
        action=trajectory.action[index[:, :-1]],
        reward=trajectory.reward[index[:, :-1]] * is_inside[:, :-1],
        policy=trajectory.policy[index],
        policy_weight=trajectory.policy_weight[index] * is_inside,
        value=returns[index] * is_inside,
    )


def self_play_windows(config: AgentConfig, trajectory: Trajectory) -> Windows:
    """Windows of a batch of games, as one axis B * T, with n-step returns."""
    windows = jax.vmap(
        lambda game: make_windows(config, game, config.train.td_steps),
        in_axes=(_GAME_AXES,),
    )(trajectory)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), windows)


def imitation_windows(config: AgentConfig, trajectory: Trajectory, game: chex.Array) -> Windows:
    """Windows [T, ...] of game `game` (int32[]), its actions as policy targets, full returns."""
    picked = jax.tree.map(lambda x, axis: jnp.take(x, game, axis=axis), trajectory, _GAME_AXES)
    num_moves, num_actions = picked.policy.shape
    picked = picked.replace(
        policy=jax.nn.one_hot(picked.action, num_actions),
        policy_weight=jnp.ones((num_moves,), jnp.float32),
    )
    return make_windows(config, picked, td_steps=num_moves)


def stream_windows(config: AgentConfig, moves: Moves) -> StreamWindows:
    """The window at the start of a sequence of moves [L], L = unroll steps + td steps + 1.

    Returns end at the end of a game; where the stream was cut, in the value stored there. What
    comes after a cut, and the value at it, is not known and has weight 0."""
    unroll_steps = config.train.unroll_steps
    chex.assert_shape(moves.action, (unroll_steps + config.train.td_steps + 1,))
    is_cut = moves.is_cut & ~moves.is_last
    goes_on = ~(moves.is_last | is_cut)
    returns = n_step_returns(
        jnp.where(is_cut, moves.value, moves.reward),
        config.train.discount * goes_on,
        moves.value,
        config.train.td_steps,
    )[: unroll_steps + 1]

    is_last, is_cut = moves.is_last[: unroll_steps + 1], is_cut[: unroll_steps + 1]
    is_target = moves.is_target[: unroll_steps + 1]
    is_inside = _none_before(is_last)  # after the end states are absorbing
    is_cut = is_cut & is_inside
    is_known = _none_before(is_cut)
    return StreamWindows(
        observation=moves.observation[0].astype(jnp.float32),
        action=moves.action[:unroll_steps].astype(jnp.int32),
        reward=moves.reward[:unroll_steps] * is_inside[:-1],
        policy=moves.policy[: unroll_steps + 1],
        policy_weight=(is_inside & is_known & is_target).astype(jnp.float32),
        value=returns * is_inside,
        value_weight=(is_known & ~is_cut).astype(jnp.float32),
        reward_weight=is_known[:-1].astype(jnp.float32),
    )


def _none_before(flags: chex.Array) -> chex.Array:
    """Whether no earlier flag of bool[T] is set: bool[T]."""
    count = flags.astype(jnp.int32)
    return jnp.cumsum(count) == count
