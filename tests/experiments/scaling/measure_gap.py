"""What first fit and latest start cost: the best game against the best mapping there is.

    python -m tests.measure_gap [number of problems]

Both by trying everything, on tiny random problems whose memory is too small for what they want.
"""

from __future__ import annotations

import dataclasses
import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np

import malloc_game as mg
from tests.helpers.exhaustive import optimum
from tests.helpers.toy import pad

MAX_DECISIONS = 7
_PADDING = {"T": 64, "D": 64, "C": 1024, "E": 64, "X": 64}
_NUM_GAMES = 3**MAX_DECISIONS
_replay = jax.jit(jax.vmap(mg.replay, in_axes=(None, 0)))


def contended(seed: int, num_instructions: int, share: float) -> mg.Problem:
    """A random problem with `share` of the alternate memory that it was made for."""
    problem = mg.random_problem(seed, num_instructions)
    capacity = int(problem.target.alternate_memory_bytes * share)
    target = dataclasses.replace(problem.target, alternate_memory_bytes=capacity)
    values = tuple(
        dataclasses.replace(
            v, may_be_in_alternate=v.may_be_in_alternate and v.size_bytes <= capacity
        )
        for v in problem.values
    )
    return problem.replace(target=target, values=values)


def best_game(problem: mg.Problem) -> int:
    """The least latency of all games of at most `MAX_DECISIONS` decisions, in cycles."""
    program = pad(mg.encode(problem), _PADDING)
    n = int(program.num_decisions)
    games = np.array(list(itertools.product(range(mg.NUM_ACTIONS), repeat=n)), np.int32)
    script = np.full((_NUM_GAMES, program.max_decisions), mg.DROP, np.int32)
    script[: len(games), :n] = games
    return int(_replay(program, jnp.asarray(script)).latency.min())


def gaps(num_problems: int, share: float) -> tuple[list[float], float]:
    """(best game / optimum - 1) of each problem, and the mean gain of the optimum over default."""
    found: list[float] = []
    gains: list[float] = []
    for seed in itertools.count():
        problem = contended(seed, 7, share)
        num_decisions = int(mg.encode(problem).num_decisions)
        if not 4 <= num_decisions <= MAX_DECISIONS:
            continue
        least, _ = optimum(problem)
        found.append(best_game(problem) / least - 1.0)
        gains.append(mg.latency(problem, mg.all_default(problem)).cycles / least - 1.0)
        if len(found) == num_problems:
            return found, float(np.mean(gains))
    raise AssertionError


def main() -> None:
    """Print one line for each share of memory."""
    num_problems = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    print("memory  problems  mean gap  95th  greatest  optimal games  all-default above optimum")
    for share in (1.0, 0.5, 0.25):
        found, gain = gaps(num_problems, share)
        print(
            f"{share:6.2f} {len(found):9d} {np.mean(found):9.3%} {np.quantile(found, 0.95):6.2%}"
            f" {max(found):8.2%} {np.mean(np.array(found) < 1e-9):14.1%} {gain:26.2%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
