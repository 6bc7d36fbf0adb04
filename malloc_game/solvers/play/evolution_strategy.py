"""An evolution strategy over one number for each decision: above 0, alternate memory is wanted.

Separable natural evolution strategy (SNES) of `evosax`; plays of the game are the fitness.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from evosax.algorithms import SNES

import malloc_game as mg
from malloc_game.game.state import DROP
from malloc_game.problem.definition import Problem
from malloc_game.solvers.decode import (
    greedy_actions,
    latencies_of_wanted,
    num_slots,
    to_assignment,
)
from malloc_game.solvers.result import Progress, Result, Search

_POPULATION = 128
# Greedy's choices are 1 away from the border: about one in forty is changed at first.
_SPREAD = 0.5


@functools.cache
def _strategy(slots: int) -> SNES:
    """One object for each number of decisions, so that traces are shared."""
    return SNES(population_size=_POPULATION, solution=jnp.zeros(slots))


def evolution(
    problem: Problem,
    seconds: float,
    seed: int = 0,
    *,
    max_iterations: int | None = None,
    progress: Progress | None = None,
    goal: float | None = None,
) -> Result:
    """Evolve from greedy's game until the time is up. stats: "plays" of the game."""
    search = Search(problem, seconds, max_iterations, progress, goal)
    program = mg.encode(problem)
    greedy = greedy_actions(program)
    search.offer(to_assignment(problem, program, greedy, "greedy"))
    strategy = _strategy(num_slots(program))
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
        best = int(jnp.argmin(cycles))
        if int(cycles[best]) < search.best_cycles:
            search.offer(to_assignment(problem, program, np.asarray(actions)[best], "evolution"))
    return search.result(plays=search.iterations * _POPULATION)
