"""Bounded replay of training windows: a flashbax item buffer, filled a batch of games at a time."""

import chex
import flashbax
import jax
import jax.numpy as jnp

from agent.learning.config import AgentConfig
from agent.learning.types import Windows


def make_replay(config: AgentConfig, num_moves: int) -> flashbax.trajectory_buffer.TrajectoryBuffer:
    """The buffer's pure functions (`init`, `add`, `sample`) for games padded to `num_moves`.

    It always has room for the windows of one batch of games, whatever `config.replay.capacity`."""
    num_added = config.self_play.num_games * num_moves
    return flashbax.make_item_buffer(
        max_length=max(config.replay.capacity, num_added),
        min_length=1,
        sample_batch_size=max(1, config.train.batch_size - config.num_imitated),
        add_batches=True,
    )


def example_window(config: AgentConfig, observation_size: int, num_actions: int) -> Windows:
    """One window of zeros, for `init`."""
    unroll_steps = config.train.unroll_steps
    return Windows(
        observation=jnp.zeros((observation_size,), jnp.float32),
        action=jnp.zeros((unroll_steps,), jnp.int32),
        reward=jnp.zeros((unroll_steps,), jnp.float32),
        policy=jnp.zeros((unroll_steps + 1, num_actions), jnp.float32),
        policy_weight=jnp.zeros((unroll_steps + 1,), jnp.float32),
        value=jnp.zeros((unroll_steps + 1,), jnp.float32),
    )


def sample_mixed(
    config: AgentConfig,
    replay: flashbax.trajectory_buffer.TrajectoryBuffer,
    replay_state: chex.ArrayTree,
    best: Windows,
    sample_key: chex.PRNGKey,
) -> Windows:
    """A learning batch: `config.num_imitated` windows of the best game [T, ...], then replay."""
    replay_key, best_key = jax.random.split(sample_key)
    # flashbax broadcasts arrays of different ranks, which a strict caller may have forbidden.
    with jax.numpy_rank_promotion("allow"):
        batch = replay.sample(replay_state, replay_key).experience
    if config.num_imitated == 0:
        return batch
    rows = jax.random.randint(best_key, (config.num_imitated,), 0, best.action.shape[0])
    return jax.tree.map(lambda b, x: jnp.concatenate([b[rows], x]), best, batch)
