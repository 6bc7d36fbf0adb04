"""Games that follow each other without a pause: self-play for programs of different lengths.

Every game of a batch has its own program and starts anew when it is over, so that short games do
not wait for long ones. What is recorded is a stream of moves; `chunk_moves` at a time go to replay.
Games follow their script as in `self_play`: FREE where search decides, RANDOM, or the moves of a
game that is imitated.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

import malloc_game
from agent.learning.config import AgentConfig
from agent.learning.inference import Model
from agent.learning.self_play import FREE, RANDOM, one_move
from agent.learning.types import Moves

_NOTHING_SAVED = -(1 << 31) + 1  # below what any game saves


@chex.dataclass(frozen=True)
class Stream:
    """Games in progress, and what those that ended since `clear` have shown. `D` as in Program."""

    state: malloc_game.GameState  # [B]
    history: chex.Array  # int8[B, D], moves of the game so far
    script: chex.Array  # int8[B, D], of the game so far: FREE, RANDOM or an action
    num_finished: chex.Array  # int32[B]
    saved_sum: chex.Array  # float32[B], of cycles saved by finished games
    best_saved: chex.Array  # int32[B], cycles saved by the best finished game
    best_history: chex.Array  # int8[B, D], its moves


def start_stream(starts: malloc_game.GameState, script: chex.Array) -> Stream:
    """Games at their first move. starts: [B], from `malloc_game.init`; script: int8[B, D]."""
    nothing = jnp.zeros(script.shape[0], jnp.int32)
    return clear(
        Stream(
            state=starts,
            history=jnp.zeros_like(script),
            script=script,
            num_finished=nothing,
            saved_sum=nothing.astype(jnp.float32),
            best_saved=nothing,
            best_history=jnp.zeros_like(script),
        )
    )


def clear(stream: Stream) -> Stream:
    """The same games; nothing finished yet."""
    return stream.replace(
        num_finished=jnp.zeros_like(stream.num_finished),
        saved_sum=jnp.zeros_like(stream.saved_sum),
        best_saved=jnp.full_like(stream.best_saved, _NOTHING_SAVED),
        best_history=jnp.zeros_like(stream.best_history),
    )


def play_stream(
    config: AgentConfig,
    model: Model,
    starts: malloc_game.GameState,
    stream: Stream,
    next_script: chex.Array,
    gumbel_scale: chex.Array,
    play_key: chex.PRNGKey,
) -> tuple[Stream, Moves]:
    """Plays `config.self_play.chunk_moves` moves of every game; the moves are [B, chunk].

    model: with one program for each game. next_script: int8[B, D], for games that start from now
    on. gumbel_scale: float32[B]. The last move of the chunk is marked as cut, because what replay
    stores after it may be of other games. The key is consumed."""
    num_games = gumbel_scale.shape[0]
    chex.assert_equal_shape([stream.script, next_script])
    game = jnp.arange(num_games)

    def move(stream: Stream, move_key: chex.PRNGKey) -> tuple[Stream, dict]:
        position = stream.state.position
        script = stream.script[game, position].astype(jnp.int32)
        state, row = one_move(config, model, stream.state, script, gumbel_scale, move_key)
        history = stream.history.at[game, position].set(row["action"].astype(jnp.int8))
        row |= {"is_last": state.done, "is_target": script != RANDOM}
        stream = stream.replace(state=state, history=history)
        stream = jax.lax.cond(
            jnp.any(state.done),
            lambda: _finish(model.program, starts, stream, next_script),
            lambda: stream,
        )
        return stream, row

    keys = jax.random.split(play_key, config.self_play.chunk_moves)
    stream, rows = jax.lax.scan(move, clear(stream), keys)
    moves = Moves(
        observation=rows.pop("observation").astype(jnp.float16),
        action=rows.pop("action").astype(jnp.int8),
        is_cut=jnp.zeros_like(rows["is_last"]).at[-1].set(True),
        **rows,
    )
    return stream, jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), moves)


def _finish(
    program: malloc_game.Program,
    starts: malloc_game.GameState,
    stream: Stream,
    next_script: chex.Array,
) -> Stream:
    """Records games that are over, and starts them anew."""
    done = stream.state.done
    saved = program.default_cycles - stream.state.latency
    is_best = done & (saved > stream.best_saved)

    def pick(which: chex.Array, new: chex.ArrayTree, old: chex.ArrayTree) -> chex.ArrayTree:
        def one(new: chex.Array, old: chex.Array) -> chex.Array:
            return jnp.where(which.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        return jax.tree.map(one, new, old)

    return stream.replace(
        state=pick(done, starts, stream.state),
        script=pick(done, next_script, stream.script),
        num_finished=stream.num_finished + done,
        saved_sum=stream.saved_sum + jnp.where(done, saved.astype(jnp.float32), 0.0),
        best_saved=jnp.where(is_best, saved, stream.best_saved),
        best_history=pick(is_best, stream.history, stream.best_history),
    )


def play_out(config: AgentConfig, model: Model, play_key: chex.PRNGKey) -> tuple:
    """One game of each program without noise: latencies int32[B] and actions int32[B, D].

    model: with one program for each game. DROP stands after the last decision."""
    program = model.program
    num_games, num_moves = program.decision_time.shape
    state = jax.vmap(malloc_game.init)(program)
    actions = jnp.full((num_games, num_moves), malloc_game.DROP, jnp.int32)
    is_free = jnp.full(num_games, FREE, jnp.int32)
    no_noise = jnp.zeros(num_games)

    def move(carry: tuple) -> tuple:
        number, state, actions = carry
        move_key = jax.random.fold_in(play_key, number)
        after, row = one_move(config, model, state, is_free, no_noise, move_key)
        action = jnp.where(state.done, malloc_game.DROP, row["action"])
        return number + 1, after, actions.at[:, number].set(action)

    def is_unfinished(carry: tuple) -> chex.Array:
        return (carry[0] < num_moves) & ~jnp.all(carry[1].done)

    _, state, actions = jax.lax.while_loop(is_unfinished, move, (jnp.int32(0), state, actions))
    return state.latency, actions
