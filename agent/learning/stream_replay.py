"""Replay of moves: flashbax's prioritised buffer, one for each host of the mesh.

A state has the hosts as its first axis. What a host plays goes to its own replay, and its part of a
learning batch comes from there, so no move travels between hosts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import chex
import flashbax
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

import malloc_game
from agent.learning.inference import observation_size
from agent.learning.mesh import BY_HOST, EVERYWHERE, HOSTS
from agent.learning.training_config import TrainingConfig
from agent.learning.types import Moves


def _buffer(config: TrainingConfig, mesh: Mesh):
    """The buffer of one host: a row for each of its games."""
    num_hosts = mesh.shape[HOSTS]
    return flashbax.make_prioritised_trajectory_buffer(
        add_batch_size=config.agent.self_play.num_games // num_hosts,
        max_length_time_axis=config.row_moves,
        min_length_time_axis=config.sequence_moves,
        sample_batch_size=config.agent.train.batch_size // num_hosts,
        sample_sequence_length=config.sequence_moves,
        period=1,
        priority_exponent=config.replay.priority_exponent,
        device=jax.default_backend(),
    )


def init_replay(config: TrainingConfig, mesh: Mesh) -> chex.ArrayTree:
    """The state of an empty replay [hosts, ...]."""
    actions = malloc_game.NUM_ACTIONS
    move = Moves(
        observation=jnp.zeros(observation_size(config.agent), jnp.float16),
        legal=jnp.zeros(actions, bool),
        action=jnp.int8(0),
        reward=jnp.float32(0),
        policy=jnp.zeros(actions, jnp.float32),
        is_searched=jnp.bool_(False),
        is_target=jnp.bool_(False),
        value=jnp.float32(0),
        is_last=jnp.bool_(False),
        is_cut=jnp.bool_(False),
    )

    def for_hosts(x: chex.Array) -> chex.Array:
        # Without weak types, which would be gone after one update and cost a trace.
        x = x.astype(x.dtype)
        return jax.lax.with_sharding_constraint(
            jnp.broadcast_to(x, (mesh.shape[HOSTS], *x.shape)), NamedSharding(mesh, BY_HOST)
        )

    return jax.tree.map(for_hosts, _buffer(config, mesh).init(move))


def add_moves(
    config: TrainingConfig, mesh: Mesh, replay_state: chex.ArrayTree, moves: Moves
) -> chex.ArrayTree:
    """Replay with a chunk of moves [B, chunk] more."""
    moves = jax.lax.with_sharding_constraint(moves, NamedSharding(mesh, BY_HOST))

    def add(state, moves):
        return _stack(_buffer(config, mesh).add(_own(state), moves))

    return _on_hosts(mesh, add, (BY_HOST, BY_HOST))(replay_state, moves)


def sample_moves(
    config: TrainingConfig, mesh: Mesh, replay_state: chex.ArrayTree, sample_key: chex.PRNGKey
):
    """A learning batch: `experience` [B, sequence], `indices` and `probabilities` [B].

    The last two are those within the host's own replay. The key is consumed."""

    def sample(state, key):
        if mesh.shape[HOSTS] > 1:
            key = jax.random.fold_in(key, jax.lax.axis_index(HOSTS))
        return _buffer(config, mesh).sample(_own(state), key)

    return _on_hosts(mesh, sample, (BY_HOST, EVERYWHERE))(replay_state, sample_key)


def set_priorities(
    config: TrainingConfig,
    mesh: Mesh,
    replay_state: chex.ArrayTree,
    indices: chex.Array,
    priorities: chex.Array,
) -> chex.ArrayTree:
    """Replay with other priorities of what was sampled, both [B]."""

    def change(state, indices, priorities):
        return _stack(_buffer(config, mesh).set_priorities(_own(state), indices, priorities))

    return _on_hosts(mesh, change, (BY_HOST,) * 3)(replay_state, indices, priorities)


def _on_hosts(mesh: Mesh, function: Callable, in_specs: tuple) -> Callable:
    """`function` of each host's part of its arguments, on all devices of the host alike."""

    @functools.wraps(function)
    def on_device(*parts):
        with jax.numpy_rank_promotion("allow"):  # flashbax broadcasts arrays of different ranks
            return function(*parts)

    return jax.shard_map(
        on_device, mesh=mesh, in_specs=in_specs, out_specs=BY_HOST, check_vma=False
    )


def _own(part: chex.ArrayTree) -> chex.ArrayTree:
    return jax.tree.map(lambda x: x[0], part)


def _stack(own: chex.ArrayTree) -> chex.ArrayTree:
    return jax.tree.map(lambda x: x[None], own)
