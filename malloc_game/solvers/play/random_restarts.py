"""Random legal play with restarts, and greedy: the two rivals that every other must beat."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

import malloc_game as mg
from malloc_game.game.state import GameState, Program
from malloc_game.jitted import jit
from malloc_game.problem.definition import Problem
from malloc_game.solvers.decode import greedy_actions, num_slots, to_assignment
from malloc_game.solvers.result import Progress, Result, Search

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

        noise = jax.random.gumbel(game_key, (num_slots(program), mg.NUM_ACTIONS))
        state, actions = jax.lax.scan(one, mg.init(program), noise)
        return state.latency, actions

    return jax.vmap(game)(jax.random.split(key, num_games))


def random_play(
    problem: Problem,
    seconds: float,
    seed: int = 0,
    *,
    max_iterations: int | None = None,
    progress: Progress | None = None,
    goal: float | None = None,
) -> Result:
    """The best of random legal games, batch after batch. stats: "plays" of the game."""
    search = Search(problem, seconds, max_iterations, progress, goal)
    search.offer(mg.all_default(problem))
    program = mg.encode(problem)
    key = jax.random.key(seed)
    while search.next_round():
        key, round_key = jax.random.split(key)
        cycles, actions = random_games(program, round_key, _BATCH)
        best = int(jnp.argmin(cycles))
        if int(cycles[best]) < search.best_cycles:
            search.offer(to_assignment(problem, program, actions[best], "random"))
    return search.result(plays=search.iterations * _BATCH)


def greedy(
    problem: Problem,
    seconds: float,
    seed: int = 0,
    *,
    max_iterations: int | None = None,
    progress: Progress | None = None,
    goal: float | None = None,
) -> Result:
    """Greedy by benefit (`mg.greedy`): one batch of plays, whatever time there is."""
    del seed
    search = Search(problem, seconds, max_iterations, progress, goal)
    program = mg.encode(problem)
    search.offer(to_assignment(problem, program, greedy_actions(program), "greedy"))
    return search.result()
