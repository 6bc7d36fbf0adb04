"""Random legal play with restarts, and greedy: the baselines that all others must beat."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp

import malloc_game as mg
from malloc_game.game.state import GameState, Program
from malloc_game.jitted import jit
from malloc_game.solvers.decode import begin_with_greedy, offer_best
from malloc_game.solvers.result import Search, solver

_BATCH = 64


@jit(static_argnames="num_games")
def random_games(
    program: Program, key: chex.PRNGKey, num_games: int
) -> tuple[chex.Array, chex.Array]:
    """Games of uniformly random legal actions: latencies, int32[B], and actions, int32[B, D]."""

    def game(game_key: chex.PRNGKey) -> tuple[chex.Array, chex.Array]:
        def one(state: GameState, noise: chex.Array) -> tuple[GameState, chex.Array]:
            legal = mg.legal_actions(program, state)
            action = jnp.argmax(jnp.where(legal, noise, -jnp.inf)).astype(jnp.int32)
            return mg.step(program, state, action), action

        noise = jax.random.gumbel(game_key, (program.max_decisions, mg.NUM_ACTIONS))
        state, actions = jax.lax.scan(one, mg.init(program), noise)
        return state.latency, actions

    return jax.vmap(game)(jax.random.split(key, num_games))


@solver
def random_play(search: Search, seed: int) -> dict[str, Any]:
    """The best of random legal games, batch after batch. stats: "plays" of the game."""
    search.offer(mg.all_default(search.problem))
    program = mg.encode(search.problem)
    key = jax.random.key(seed)
    while search.next_round():
        key, round_key = jax.random.split(key)
        cycles, actions = random_games(program, round_key, _BATCH)
        offer_best(search, program, cycles, actions, "random")
    return dict(plays=search.iterations * _BATCH)


@solver
def greedy(search: Search, seed: int) -> dict[str, Any]:
    """Greedy by benefit (`mg.greedy`): one batch of plays, whatever time there is."""
    del seed
    begin_with_greedy(search)
    return {}
