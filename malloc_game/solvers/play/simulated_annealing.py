"""Simulated annealing over which decisions are wanted in alternate memory.

A chain's point is a set of wanted decisions; a play of the game turns it into a legal mapping. Many
chains run side by side, each at a temperature of its own that falls with the time used.
"""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

import malloc_game as mg
from malloc_game.game.playing import follow_wanted
from malloc_game.game.state import DROP, Program
from malloc_game.jitted import jit
from malloc_game.problem.latencies import latency
from malloc_game.solvers.decode import begin_with_greedy, offer_best
from malloc_game.solvers.result import Search, solver

_CHAINS = 32
_MOVES = 4  # of every chain in one call
# Temperatures at the start and at the end, as shares of the default latency.
_HOT, _COLD = 1e-3, 1e-6


@chex.dataclass(frozen=True)
class Chains:
    """B chains of D decisions."""

    wanted: chex.Array  # bool[B, D]
    cycles: chex.Array  # int32[B], latency of the play for `wanted`
    best_cycles: chex.Array  # int32[], of all so far
    best_actions: chex.Array  # int32[D]


def _propose(
    program: Program, wanted: chex.Array, key: chex.PRNGKey, weights: chex.Array | None
) -> chex.Array:
    """A neighbour: a few decisions flipped, all near each other in the schedule: bool[D].

    weights: float32[D], how likely each is flipped, alike if None.
    """
    where_key, number_key, width_key, pick_key = jax.random.split(key, 4)
    numbers = jnp.arange(wanted.shape[-1])
    if weights is None:
        weights = jnp.ones(wanted.shape[-1])
        centre = jax.random.randint(where_key, (), 0, jnp.maximum(program.num_decisions, 1))
    else:
        centre = jax.random.categorical(where_key, jnp.log(weights))
    # Few decisions far apart have to do with each other.
    width = 4.0 * 2.0 ** jax.random.uniform(width_key, maxval=6.0)
    is_near = (jnp.abs(numbers - centre) < width) & (numbers < program.num_decisions)
    number = 1.0 + jax.random.exponential(number_key)
    share = weights / jnp.maximum(jnp.sum(weights * is_near), 1e-9)
    flips = is_near & (jax.random.uniform(pick_key, wanted.shape) < number * share)
    return wanted ^ flips.at[centre].set(True)


@jit(static_argnames="number")
def neighbours(program: Program, wanted: chex.Array, key: chex.PRNGKey, number: int) -> chex.Array:
    """So many neighbours of one set of wanted decisions, bool[D]: bool[number, D]."""
    keys = jax.random.split(key, number)
    return jax.vmap(_propose, in_axes=(None, None, 0, None))(program, wanted, keys, None)


@jit(static_argnames="moves")
def anneal(
    program: Program,
    chains: Chains,
    temperature: chex.Array,
    key: chex.PRNGKey,
    moves: int,
    weights: chex.Array | None = None,
) -> Chains:
    """`moves` proposals for every chain; temperature: float32[B], cycles.

    weights: float32[D], 0 for padding, how likely a decision is to be flipped; alike if None.
    """

    def move(chains: Chains, move_key: chex.PRNGKey) -> tuple[Chains, None]:
        propose_key, accept_key = jax.random.split(move_key)
        keys = jax.random.split(propose_key, chains.cycles.shape[0])
        propose = jax.vmap(_propose, in_axes=(None, 0, 0, None))
        wanted = propose(program, chains.wanted, keys, weights)
        states, actions = jax.vmap(follow_wanted, in_axes=(None, 0))(program, wanted)
        cycles = states.latency
        worse = (cycles - chains.cycles).astype(jnp.float32)
        dice = jax.random.uniform(accept_key, cycles.shape, minval=1e-9)
        accepted = worse <= -temperature * jnp.log(dice)
        first = jnp.argmin(cycles)
        is_best = cycles[first] < chains.best_cycles
        return Chains(
            wanted=jnp.where(accepted[:, None], wanted, chains.wanted),
            cycles=jnp.where(accepted, cycles, chains.cycles),
            best_cycles=jnp.minimum(cycles[first], chains.best_cycles),
            best_actions=jnp.where(is_best, actions[first], chains.best_actions),
        ), None

    return jax.lax.scan(move, chains, jax.random.split(key, moves))[0]


def start_chains(actions: np.ndarray, cycles: int, num_chains: int = _CHAINS) -> Chains:
    """Chains that all begin at one game: its actions, int32[D], and its latency."""
    return Chains(
        wanted=np.broadcast_to(actions != DROP, (num_chains, len(actions))),
        cycles=np.full(num_chains, cycles, np.int32),
        # Beyond any sum that 32 bits could hold: the first play counts as the better one.
        best_cycles=np.int32(np.iinfo(np.int32).max),
        best_actions=np.asarray(actions, np.int32),
    )


@solver
def annealing(search: Search, seed: int) -> dict[str, Any]:
    """Anneal from greedy's game until the time is up. stats: "plays" of the game."""
    program, greedy = begin_with_greedy(search)
    chains = start_chains(greedy, int(search.best_cycles))
    default = latency(search.problem, mg.all_default(search.problem)).cycles
    spread = 4.0 ** np.linspace(-1.0, 1.0, _CHAINS)
    key = jax.random.key(seed)
    while search.next_round():
        key, round_key = jax.random.split(key)
        level = _HOT * (_COLD / _HOT) ** search.fraction * default
        temperature = jnp.asarray(level * spread, jnp.float32)
        chains = anneal(program, chains, temperature, round_key, _MOVES)
        found = chains.best_cycles[None], chains.best_actions[None]
        offer_best(search, program, *found, "annealing")
        chains = share_best(chains)
    return dict(plays=search.iterations * _CHAINS * _MOVES)


@jit()
def replace_worst(chains: Chains, wanted: chex.Array, cycles: chex.Array) -> Chains:
    """The worst chain goes on from another game: wanted bool[D], cycles int32[]."""
    worst = jnp.argmax(chains.cycles)
    return chains.replace(
        wanted=chains.wanted.at[worst].set(wanted), cycles=chains.cycles.at[worst].set(cycles)
    )


@jit()
def share_best(chains: Chains) -> Chains:
    """The worst chain goes on from where the best one is."""
    best = jnp.argmin(chains.cycles)
    return replace_worst(chains, chains.wanted[best], chains.cycles[best])
