"""What training runs on the devices: functions that are compiled once, but for those that play.

These are compiled for each padded shape of programs.
"""

from __future__ import annotations

import functools

import chex
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

import malloc_game
from agent.learning.features import relaxation_plays
from agent.learning.inference import Model, outlooks_for
from agent.learning.mesh import BY_DEVICE, EVERYWHERE, GAMES, HOSTS
from agent.learning.stream import Stream, play_stream
from agent.learning.stream_replay import add_moves, init_replay
from agent.learning.stream_updates import learn_from_stream
from agent.learning.training_config import TrainingConfig
from agent.learning.updates import init_train_state
from malloc_game.game.playing import follow_wanted

_GREEDY_BATCH = 64  # programs that greedy plays at a time


def _static(function, **options):
    return functools.partial(jax.jit, static_argnames=("config", "mesh"), **options)(function)


@_static
def first_states(
    config: TrainingConfig,
    mesh: Mesh,
    programs: malloc_game.Program,
    relaxed: chex.Array | None,
):
    """Outlooks and first states of the programs of a bucket [P]. relaxed: float32[P, D]."""
    del mesh
    return outlooks_for(config.agent, programs, relaxed), jax.vmap(malloc_game.init)(programs)


@functools.partial(_static, donate_argnames=("stream", "replay_state"))
def play_chunk(
    config: TrainingConfig,
    mesh: Mesh,
    model: Model,
    starts: malloc_game.GameState,
    stream: Stream,
    next_script: chex.Array,
    replay_state: chex.ArrayTree,
    play_key: chex.PRNGKey,
) -> tuple[Stream, chex.ArrayTree]:
    """Every device plays its own games; their moves go to the replay of its host."""

    def on_device(params, program, outlook, starts, stream, next_script, gumbel_scale, key):
        model = Model(params=params, program=program, outlook=outlook)
        key = jax.random.fold_in(key, jax.lax.axis_index((HOSTS, GAMES)))
        return play_stream(config.agent, model, starts, stream, next_script, gumbel_scale, key)

    sharded = jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=(EVERYWHERE, *[BY_DEVICE] * 6, EVERYWHERE),
        out_specs=BY_DEVICE,
        check_vma=False,
    )
    # Game 0 is free of noise; noise grows with the number of the game.
    gumbel_scale = jnp.linspace(0.0, config.agent.search.gumbel_scale, next_script.shape[0])
    stream, moves = sharded(
        model.params,
        model.program,
        model.outlook,
        starts,
        stream,
        next_script,
        gumbel_scale,
        play_key,
    )
    return stream, add_moves(config, mesh, replay_state, moves)


learn = functools.partial(_static, donate_argnames=("train_state", "replay_state"))(
    learn_from_stream
)
new_train_state = functools.partial(jax.jit, static_argnames="config")(init_train_state)
new_replay = _static(init_replay)


@jax.jit
def play_greedily(programs: malloc_game.Program) -> tuple[chex.Array, chex.Array]:
    """Greedy's game of each program [P]: cycles int32[P] and actions int32[P, D]."""

    def one(program):
        state, actions = malloc_game.greedy(program)
        return state.latency, actions

    return jax.lax.map(one, programs, batch_size=_GREEDY_BATCH)


@jax.jit
def play_relaxation(
    programs: malloc_game.Program, relaxed: chex.Array
) -> tuple[chex.Array, chex.Array]:
    """The best play of the linear relaxation of each program: as `play_greedily`."""

    def one(row):
        states, actions = relaxation_plays(*row)
        best = jnp.argmin(states.latency)
        return states.latency[best], actions[best]

    return jax.lax.map(one, (programs, relaxed), batch_size=_GREEDY_BATCH)


follow = jax.jit(jax.vmap(follow_wanted))
