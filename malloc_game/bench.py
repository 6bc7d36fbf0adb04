"""Speed of the game: `python -m malloc_game.bench` prints a table in about a minute.

Each number is the median of timed runs of `STEPS` steps under one `lax.scan`, random actions
(illegal ones count as DROP), after a run that compiles.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np

import malloc_game as mg

NUM_DECISIONS = (64, 512, 2048)
BATCH_SIZES = (1, 64)
STEPS = 64
RUNS = 3


def problem_with(num_decisions: int) -> mg.Problem:
    """A random problem cut to exactly `num_decisions` decisions."""
    problem = mg.random_problem(0, num_decisions)  # more decisions than instructions
    program = mg.encode(problem)
    asked = np.asarray(program.decision_value[: int(program.num_decisions)])
    last = np.asarray(
        [np.flatnonzero(asked == v).max(initial=-1) for v in range(len(problem.values))]
    )
    # Keep a set of values with as many decisions as wanted, earliest finished first.
    count = np.bincount(asked, minlength=len(problem.values))
    kept, total = set(), 0
    for v in np.argsort(last, kind="stable"):
        if total + count[v] <= num_decisions:
            kept.add(int(v))
            total += count[v]
    values = tuple(
        dataclasses.replace(value, may_be_in_alternate=value.may_be_in_alternate and v in kept)
        for v, value in enumerate(problem.values)
    )
    return problem.replace(values=values)


def run_steps(
    program: mg.Program, actions: chex.Array, *, observe: bool
) -> tuple[mg.GameState, chex.Array]:
    """Play `actions` (int32[STEPS]) from the start; sums observations so that they are computed."""

    def one(carry, action):
        state, total = carry
        state = mg.step(program, state, action)
        if observe:
            total += mg.observe(program, state).sum()
        return (state, total), None

    return jax.lax.scan(one, (mg.init(program), jnp.float32(0)), actions)[0]


def seconds_of(function: Callable[[], object]) -> float:
    """Wall time of one call, until its results are there."""
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


def measure(program: mg.Program, batch_size: int, *, observe: bool) -> tuple[float, float]:
    """(steps per second over the whole batch, compile seconds)."""
    shape = (batch_size, STEPS)
    actions = jax.random.randint(jax.random.key(0), shape, 0, mg.NUM_ACTIONS)
    play = jax.vmap(functools.partial(run_steps, observe=observe), in_axes=(None, 0))
    start = time.perf_counter()
    compiled = jax.jit(play).lower(program, actions).compile()
    compile_seconds = time.perf_counter() - start
    compiled(program, actions)  # warm up
    runs = [seconds_of(lambda: compiled(program, actions)) for _ in range(RUNS)]
    return batch_size * STEPS / statistics.median(runs), compile_seconds


def state_bytes(program: mg.Program) -> int:
    """Bytes of one game's state; a search stores one for each node when it plans with the game."""
    state = jax.eval_shape(mg.init, program)
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))


def main() -> None:
    """Print the table."""
    device = jax.devices()[0]
    print(f"mallocGame on {device.platform} ({device.device_kind}), JAX {jax.__version__}")
    header = f"{'decisions':>9} {'batch':>5} {'step/s':>10} {'step+observe/s':>14}"
    print(f"{header} {'state bytes':>11} {'compile s':>9}")
    for num_decisions in NUM_DECISIONS:
        program = mg.encode(problem_with(num_decisions))
        for batch_size in BATCH_SIZES:
            rate, compile_seconds = measure(program, batch_size, observe=False)
            observed, more_seconds = measure(program, batch_size, observe=True)
            print(
                f"{int(program.num_decisions):>9} {batch_size:>5} {rate:>10,.0f} {observed:>14,.0f}"
                f" {state_bytes(program):>11,} {compile_seconds + more_seconds:>9.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
