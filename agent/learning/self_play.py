"""Batches of whole games on the device, in lockstep, with search where a game is free to choose.

Every game of a batch follows its script: for each move an action it must play, or FREE (search
decides), or RANDOM (any legal action). Free play, games near the best one, and replays of stored
games are thus one function and one trace. Moves that no game of the batch searches only step.
"""

import chex
import jax
import jax.numpy as jnp
import mctx

import malloc_game
from agent.learning.config import AgentConfig
from agent.learning.inference import (
    Model,
    initial_inference,
    legal_actions,
    observation_size,
    observe_for,
    reward_for,
    step,
)
from agent.learning.search import Plan, plan
from agent.learning.types import Trajectory

FREE = -1  # scripted action: search decides
RANDOM = -2  # scripted action: a legal action, uniformly


@chex.dataclass(frozen=True)
class Games:
    """A batch of games in progress and what was recorded of them."""

    state: malloc_game.GameState  # [B]
    trajectory: Trajectory  # rows before `move` are filled
    move: chex.Array  # int32[], moves played


def start_games(config: AgentConfig, program: malloc_game.Program) -> Games:
    """A batch of `config.self_play.num_games` games of one program at their first move."""
    num_games, num_moves = config.self_play.num_games, program.max_decisions
    state = malloc_game.init(program)
    state = jax.tree.map(lambda x: jnp.broadcast_to(x, (num_games, *x.shape)), state)

    def zeros(*shape, dtype=jnp.float32):
        return jnp.zeros((num_moves, num_games, *shape), dtype)

    trajectory = Trajectory(
        observation=zeros(observation_size(config)),
        action=zeros(dtype=jnp.int32),
        reward=zeros(),
        policy=zeros(malloc_game.NUM_ACTIONS),
        policy_weight=zeros(),
        value=zeros(),
        length=jnp.zeros((num_games,), jnp.int32),
        cycles_saved=jnp.zeros((num_games,), jnp.int32),
    )
    return Games(state=state, trajectory=trajectory, move=jnp.int32(0))


def play(
    config: AgentConfig,
    model: Model,
    games: Games,
    script: chex.Array,
    gumbel_scale: chex.Array,
    play_key: chex.PRNGKey,
) -> Games:
    """Plays up to `config.self_play.chunk_moves` more moves of each game that is not over.

    script: int32[T, B] of actions, FREE or RANDOM. An illegal scripted action is played as DROP.
    gumbel_scale: float32[B]. Calls that continue a batch of games get the same `play_key`: moves
    draw from it by their number."""
    num_moves, num_games = script.shape
    chex.assert_shape(games.trajectory.action, (num_moves, num_games))
    chex.assert_shape(gumbel_scale, (num_games,))
    end = jnp.minimum(games.move + config.self_play.chunk_moves, num_moves)

    def is_unfinished(games):
        return (games.move < end) & ~jnp.all(games.state.done)

    def move(games):
        move_key = jax.random.fold_in(play_key, games.move)
        return _move(config, model, games, script[games.move], gumbel_scale, move_key)

    return jax.lax.while_loop(is_unfinished, move, games)


def _move(config, model, games, script, gumbel_scale, move_key) -> Games:
    """One move of every game. script: int32[B]; the key is consumed."""
    next_state, row = one_move(config, model, games.state, script, gumbel_scale, move_key)
    is_played = ~games.state.done
    old = games.trajectory
    trajectory = old.replace(
        length=old.length + is_played,
        cycles_saved=old.cycles_saved + next_state.reward,
        policy_weight=old.policy_weight.at[games.move].set(row["is_searched"].astype(jnp.float32)),
        **{
            name: getattr(old, name).at[games.move].set(row[name])
            for name in ("observation", "action", "reward", "policy", "value")
        },
    )
    return Games(state=next_state, trajectory=trajectory, move=games.move + 1)


def one_move(
    config: AgentConfig,
    model: Model,
    state: malloc_game.GameState,
    script: chex.Array,
    gumbel_scale: chex.Array,
    move_key: chex.PRNGKey,
) -> tuple[malloc_game.GameState, dict[str, chex.Array]]:
    """One move of every game: the next states, and what is to be recorded by name.

    script: int32[B]; the key is consumed. Names and shapes are those of `types.Moves`, without
    what only a stream knows."""
    search_key, random_key = jax.random.split(move_key)
    program = model.program
    observation, legal = observe_for(config, model, state), legal_actions(program, state)
    output, value = initial_inference(config, model.params, observation)
    is_free = (script == FREE) & ~state.done

    def search():
        embedding = {"learned": output.hidden, "env": state}[config.search.dynamics]
        root = mctx.RootFnOutput(
            prior_logits=output.policy_logits, value=value, embedding=embedding
        )
        return plan(config, model, root, legal, gumbel_scale, search_key)

    def no_search():
        return Plan(action=script, policy=jnp.zeros_like(output.policy_logits), value=value)

    planned = jax.lax.cond(jnp.any(is_free), search, no_search)

    random_logits = jnp.where(legal, 0.0, -jnp.inf)
    random_action = jax.random.categorical(random_key, random_logits).astype(jnp.int32)
    action = jnp.where(script == RANDOM, random_action, script)
    action = jnp.where(is_free, planned.action, action)
    is_legal = jnp.take_along_axis(legal, jnp.maximum(action, 0)[:, None], axis=1)[:, 0]
    action = jnp.where(is_legal, action, malloc_game.DROP)

    next_state = step(program, state, action)
    one_hot = jax.nn.one_hot(action, malloc_game.NUM_ACTIONS)
    return next_state, {
        "observation": observation,
        "legal": legal,
        "action": action,
        "reward": reward_for(config, model, next_state.reward),
        "policy": jnp.where(is_free[:, None], planned.policy, one_hot),
        "is_searched": is_free,
        "value": jnp.where(is_free, planned.value, value),
    }
