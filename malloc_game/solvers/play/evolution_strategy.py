"""An evolution strategy over one number for each decision: above 0, alternate memory is wanted.

Separable natural evolution strategy (SNES) of `evosax`; plays of the game are the fitness.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from evosax.algorithms import SNES

from malloc_game.game.state import DROP
from malloc_game.solvers.decode import begin_with_greedy, latencies_of_wanted, offer_best
from malloc_game.solvers.result import Search, solver

_POPULATION = 128
# Greedy's choices are 1 away from the border: about one in forty is changed at first.
_SPREAD = 0.5


@functools.cache
def _strategy(slots: int) -> SNES:
    """One object for each number of decisions, so that traces are shared."""
    return SNES(population_size=_POPULATION, solution=jnp.zeros(slots))


@solver
def evolution(search: Search, seed: int) -> dict[str, Any]:
    """Evolve from greedy's game until the time is up. stats: "plays" of the game."""
    program, greedy = begin_with_greedy(search)
    strategy = _strategy(program.max_decisions)
    params = strategy.default_params.replace(std_init=_SPREAD)
    key, init_key = jax.random.split(jax.random.key(seed))
    mean = np.where(greedy != DROP, np.float32(1.0), np.float32(-1.0))
    with jax.numpy_rank_promotion("allow"):  # evosax relies on it
        state = strategy.init(init_key, mean, params)
    while search.next_round():
        key, ask_key, tell_key = jax.random.split(key, 3)
        with jax.numpy_rank_promotion("allow"):
            population, state = strategy.ask(ask_key, state, params)
        cycles, actions = latencies_of_wanted(program, population > 0)
        fitness = cycles.astype(jnp.float32)  # ranked by the strategy, so its scale is free
        with jax.numpy_rank_promotion("allow"):
            state, _ = strategy.tell(tell_key, population, fitness, state, params)
        offer_best(search, program, cycles, actions, "evolution")
    return dict(plays=search.iterations * _POPULATION)
