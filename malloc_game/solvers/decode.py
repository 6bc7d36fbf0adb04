"""From what is wanted to a legal game: plays that solvers share, batched, with one trace a shape.

A trace is kept for each padded shape of `Program` and each batch size, so that problems of one
bucket share it.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np

import malloc_game as mg
from malloc_game.assignment import Assignment
from malloc_game.problem import Problem
from malloc_game.state import COPY, DROP, NO_COPY, GameState, Program


def prefer_alternate(legal: chex.Array, wanted: chex.Array) -> chex.Array:
    """The action for alternate memory if it is legal and `wanted` (bool[]), else DROP: int32[].

    legal: bool[3].
    """
    action = jnp.where(legal[NO_COPY], NO_COPY, jnp.where(legal[COPY], COPY, DROP))
    return jnp.where(wanted, action, DROP).astype(jnp.int32)


def play_wanted(program: Program, wanted: chex.Array) -> tuple[GameState, chex.Array]:
    """Play so that the decisions in `wanted` (bool[D]) get alternate memory where they may.

    Returns the final state and the actions, int32[D].
    """

    def one(state: GameState, wants: chex.Array) -> tuple[GameState, chex.Array]:
        action = prefer_alternate(mg.legal_actions(program, state), wants)
        return mg.step(program, state, action), action

    return jax.lax.scan(one, mg.init(program), wanted)


@jax.jit
def latencies_of_wanted(program: Program, wanted: chex.Array) -> tuple[chex.Array, chex.Array]:
    """Latencies, int32[B], and actions, int32[B, D], of the plays for `wanted`, bool[B, D]."""

    def one(row: chex.Array) -> tuple[chex.Array, chex.Array]:
        state, actions = play_wanted(program, row)
        return state.latency, actions

    return jax.vmap(one)(wanted)


@jax.jit
def replay(program: Program, actions: chex.Array) -> GameState:
    """The final state after `actions` (int32[D])."""
    return jax.lax.scan(
        lambda state, action: (mg.step(program, state, action), None), mg.init(program), actions
    )[0]


def to_assignment(
    problem: Problem, program: Program, actions: chex.Array, source: str
) -> Assignment:
    """The mapping of the game with `actions` (int32[D])."""
    return mg.to_assignment(problem, replay(program, jnp.asarray(actions)), source)


def greedy_assignment(problem: Problem) -> Assignment:
    """The mapping of `mg.greedy`."""
    state, _ = mg.greedy(mg.encode(problem))
    return mg.to_assignment(problem, state, "greedy")


def greedy_actions(program: Program) -> np.ndarray:
    """The actions of `mg.greedy`: int32[D]."""
    return np.asarray(mg.greedy(program)[1])
