"""From what is wanted to a legal game: plays that solvers share, batched, with one trace a shape.

A trace is kept for each padded shape of `Program` and each batch size, so that problems of one
bucket share it.
"""

from __future__ import annotations

import chex
import jax
import numpy as np

import malloc_game as mg
from malloc_game.game import playing
from malloc_game.game.state import GameState, Program
from malloc_game.jitted import jit
from malloc_game.problem.assignment import Assignment
from malloc_game.problem.definition import Problem
from malloc_game.solvers.result import Search


@jit()
def latencies_of_wanted(program: Program, wanted: chex.Array) -> tuple[chex.Array, chex.Array]:
    """Latencies, int32[B], and actions, int32[B, D], of the plays for `wanted`, bool[B, D]."""

    def one(row: chex.Array) -> tuple[chex.Array, chex.Array]:
        state, actions = playing.follow_wanted(program, row)
        return state.latency, actions

    return jax.vmap(one)(wanted)


@jit()
def replay(program: Program, actions: chex.Array) -> GameState:
    """The final state after `actions` (int32[D])."""
    return playing.replay(program, actions)


def to_assignment(
    problem: Problem, program: Program, actions: chex.Array, source: str
) -> Assignment:
    """The mapping of the game with `actions` (int32[D])."""
    return mg.to_assignment(problem, replay(program, actions), source)


def greedy_assignment(problem: Problem) -> Assignment:
    """The mapping of `mg.greedy`."""
    state, _ = mg.greedy(mg.encode(problem))
    return mg.to_assignment(problem, state, "greedy")


def begin_with_greedy(search: Search) -> tuple[Program, np.ndarray]:
    """Offers the game of `mg.greedy`; the problem encoded, and the game's actions, int32[D]."""
    program = mg.encode(search.problem)
    state, actions = mg.greedy(program)
    search.offer(mg.to_assignment(search.problem, state, "greedy"))
    return program, np.asarray(actions)


def offer_best(
    search: Search, program: Program, cycles: chex.Array, actions: chex.Array, source: str
) -> None:
    """Offers the best of some plays, int32[B] and int32[B, D], if it is the best so far."""
    best = int(np.argmin(cycles))
    if int(cycles[best]) < search.best_cycles:
        found = np.asarray(actions)[best]
        search.offer(to_assignment(search.problem, program, found, source))
