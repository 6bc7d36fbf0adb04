"""Baselines that play the game itself: random legal play, and greedy by benefit.

A policy is a pure function of (program, state, key) to an action; `play` runs it to the end.
"""

from __future__ import annotations

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from malloc_game.game.decisions import wanted_by
from malloc_game.game.encoding import encode
from malloc_game.game.rules import init, step
from malloc_game.game.state import COMPILER, COPY, DROP, NO_COPY, GameState, Program
from malloc_game.jitted import jit
from malloc_game.problem.assignment import Assignment
from malloc_game.problem.definition import Problem

# Powers of size and lifetime that benefit is divided by: absolute, per byte, per byte x time.
_WEIGHTS = ((0.0, 0.0), (0.5, 0.5), (1.0, 0.0), (1.0, 1.0))

Policy = Callable[[Program, GameState, chex.PRNGKey], chex.Array]


def play(program: Program, policy: Policy, key: chex.PRNGKey) -> tuple[GameState, chex.Array]:
    """Play one game with `policy`: the final state and the actions, int32[D]."""

    def one(state: GameState, step_key: chex.PRNGKey) -> tuple[GameState, chex.Array]:
        action = policy(program, state, step_key)
        return step(program, state, action), action

    keys = jax.random.split(key, program.max_decisions)
    return jax.lax.scan(one, init(program), keys)


def replay(program: Program, actions: chex.Array) -> GameState:
    """The final state after `actions` (int32[D]); illegal ones count as DROP."""

    def one(state: GameState, action: chex.Array) -> tuple[GameState, None]:
        return step(program, state, action), None

    return jax.lax.scan(one, init(program), actions)[0]


def random_policy(program: Program, state: GameState, key: chex.PRNGKey) -> chex.Array:
    """Uniform among the legal actions."""
    del program
    noise = jax.random.gumbel(key, state.options.legal.shape)
    return jnp.argmax(jnp.where(state.options.legal, noise, -jnp.inf)).astype(jnp.int32)


def prefer_alternate(state: GameState, wanted: chex.Array) -> chex.Array:
    """The legal action for alternate memory at the decision at hand; DROP if not `wanted`."""
    legal = state.options.legal
    action = jnp.where(legal[NO_COPY], NO_COPY, jnp.where(legal[COPY], COPY, DROP))
    return jnp.where(wanted, action, DROP).astype(jnp.int32)


def benefit_density(program: Program, size_weight: float, span_weight: float) -> chex.Array:
    """Benefit of each decision per size and lifetime, each to a power of 0..1: float32[D].

    XLA orders buffers by benefit in the same spirit (memory-bound cost over size).
    """
    span = jnp.maximum(program.end - program.decision_time, 1).astype(jnp.float32)
    size = jnp.maximum(program.size, 1).astype(jnp.float32)
    return program.static_gain / (size**size_weight * span**span_weight)


@jit()
def admitting_plays(
    program: Program, admitted: chex.Array, only_gains: chex.Array
) -> tuple[GameState, chex.Array]:
    """Plays for sets of decisions, bool[N, D]: final states [N] and actions, int32[N, D].

    Each play takes what its set admits into alternate memory where that is legal; if `only_gains`
    (bool[N]) is set, only what saves cycles at once.
    """

    def game(allowed: chex.Array, only_gains: chex.Array) -> tuple[GameState, chex.Array]:
        def policy(program: Program, state: GameState, key: chex.PRNGKey) -> chex.Array:
            del key
            decision = state.decision
            saves = state.options.gain > program.write_back[decision]
            return prefer_alternate(state, (saves | ~only_gains) & allowed[decision])

        return play(program, policy, jax.random.key(0))

    return jax.vmap(game)(admitted, only_gains)


NUM_GREEDY_PLAYS = 48


def greedy_plays(program: Program) -> tuple[GameState, chex.Array]:
    """Plays that admit only what is dense enough in benefit: states [N], actions int32[N, D].

    N is `NUM_GREEDY_PLAYS`. Thresholds are quantiles of the positive densities, so that scarce
    memory is kept for what pays most; a play takes only what saves cycles when it is asked.
    """
    return admitting_plays(program, _dense(program), jnp.ones(NUM_GREEDY_PLAYS, bool))


@jit()
def _dense(program: Program) -> chex.Array:
    """What each of greedy's plays admits: bool[N, D]."""
    number = NUM_GREEDY_PLAYS // len(_WEIGHTS)
    quantiles = 1.0 - 0.75 ** jnp.arange(number)  # ever fewer are admitted
    rows = []
    for weights in _WEIGHTS:
        density = benefit_density(program, *weights)
        positive = jnp.where(density > 0, density, jnp.nan)
        cut = jnp.nan_to_num(jnp.nanquantile(positive, quantiles)).at[0].set(-jnp.inf)
        rows.append(density[None, :] >= cut[:, None])
    return jnp.concatenate(rows)


def greedy(program: Program) -> tuple[GameState, chex.Array]:
    """Greedy by benefit: the best of `greedy_plays`. Its final state and actions, int32[D]."""
    states, actions = greedy_plays(program)
    return _best_play(states, actions)


@jit()
def _best_play(states: GameState, actions: chex.Array) -> tuple[GameState, chex.Array]:
    best = jnp.argmin(states.latency)
    return jax.tree.map(lambda x: x[best], (states, actions))


@jit(static_argnames="num_games")
def random_play(
    program: Program, key: chex.PRNGKey, num_games: int = 1
) -> tuple[GameState, chex.Array]:
    """The best of `num_games` random legal games: its final state and actions, int32[D]."""
    states, actions = jax.vmap(lambda k: play(program, random_policy, k))(
        jax.random.split(key, num_games)
    )
    return _best_play(states, actions)


@jit()
def follow_wanted(program: Program, wanted: chex.Array) -> tuple[GameState, chex.Array]:
    """Play so that the decisions marked in `wanted` (bool[D]) get alternate memory if they may.

    Returns the final state and the actions, int32[D].
    """

    def policy(program: Program, state: GameState, key: chex.PRNGKey) -> chex.Array:
        del key
        decision = state.decision
        return prefer_alternate(state, wanted[decision])

    return play(program, policy, jax.random.key(0))


def follow(
    problem: Problem, assignment: Assignment, *, rules: str = COMPILER
) -> tuple[GameState, chex.Array]:
    """Play the game so that placements are those of `assignment`, as far as the rules allow.

    The assignment may come from anywhere, the compiler included; its offsets and copy times are not
    used. rules: as for `encode`. Returns the final state and the actions, int32[D].
    """
    program = encode(problem, rules=rules)
    return follow_wanted(program, wanted_by(problem, assignment, program.max_decisions, rules))
