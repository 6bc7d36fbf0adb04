"""What the planner of games runs on the device: compiled once for each shape of program."""

from __future__ import annotations

import functools

import chex
import jax
import jax.numpy as jnp

import malloc_game
from agent.learning.config import AgentConfig
from agent.learning.inference import observation_size
from agent.learning.replay import example_window, make_replay
from agent.learning.self_play import Games, play, start_games
from agent.learning.targets import imitation_windows, self_play_windows
from agent.learning.types import Windows
from agent.learning.updates import init_train_state, learn
from malloc_game.jitted import jit

_static_config = functools.partial(jit, static_argnames="config")
new_train_state = _static_config()(init_train_state)
begin_games = _static_config()(start_games)
play_chunk = _static_config(donate_argnames="games")(play)
learn_from_replay = _static_config(donate_argnames="train_state")(learn)


@_static_config(donate_argnames="replay_state")
def record(
    config: AgentConfig, games: Games, replay_state: chex.ArrayTree
) -> tuple[chex.ArrayTree, Windows]:
    """Adds finished games to the replay; also the imitation windows [T, ...] of the best one."""
    trajectory = games.trajectory
    replay = make_replay(config, num_moves=trajectory.action.shape[0])
    replay_state = replay.add(replay_state, self_play_windows(config, trajectory))
    best = imitation_windows(config, trajectory, jnp.argmax(trajectory.cycles_saved))
    return replay_state, best


@jit(static_argnames=("config", "num_moves"))
def new_replay(config: AgentConfig, num_moves: int) -> chex.ArrayTree:
    """An empty replay of games of one program of so many moves, padded."""
    window = example_window(config, observation_size(config), malloc_game.NUM_ACTIONS)
    return make_replay(config, num_moves).init(window)


def check_same_shapes(old: malloc_game.Program, new: malloc_game.Program) -> None:
    """Raises: ValueError if an array's shape or dtype differs."""
    old, new = map(jax.device_put, (old, new))
    if jax.tree.structure(old) != jax.tree.structure(new):
        raise ValueError("set_program: the new program has other fields")
    for (path, a), b in zip(
        jax.tree_util.tree_flatten_with_path(old)[0], jax.tree.leaves(new), strict=True
    ):
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            raise ValueError(
                f"set_program: {jax.tree_util.keystr(path)} is {b.dtype}{list(b.shape)}; this "
                f"planner was made for {a.dtype}{list(a.shape)}"
            )
