"""Play without learning: one game of a trained agent, and how well it does on a set of problems."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import chex
import jax
import numpy as np

import malloc_game
from agent.learning.buckets import Bucket, relaxed_choices
from agent.learning.config import AgentConfig
from agent.learning.inference import Model, outlooks_for
from agent.learning.stream import play_out
from agent.learning.weights import Agent
from malloc_game.jitted import jit

_MOST_BUCKETS = 32  # of a set that is played again and again in training


def play_all(
    config: AgentConfig,
    params: chex.ArrayTree,
    programs: malloc_game.Program,
    relaxed: chex.Array | None = None,
) -> tuple[chex.Array, chex.Array]:
    """One noiseless game of each program [P]: latencies int32[P] and actions int32[P, D].

    relaxed: float32[P, D], for hints."""
    outlook = outlooks_for(config, programs, relaxed)
    model = Model(params=params, program=programs, outlook=outlook)
    return play_out(config, model, jax.random.key(0))


_play_one = jit(static_argnames="config")(play_all)
_play_bucket = jit(most_sizes=_MOST_BUCKETS, static_argnames="config")(play_all)


def with_simulations(config: AgentConfig, num_simulations: int) -> AgentConfig:
    """The same agent with another search budget."""
    search = dataclasses.replace(config.search, num_simulations=num_simulations)
    return dataclasses.replace(config, search=search)


# On a program that was never seen, values are wrong by more than two actions differ. With these, of
# the validation families, a game is as fast as the best simple play or faster; with those of
# self-play it is slower on every second problem.
_UNSEEN_HINT_WEIGHT = 4.0
_UNSEEN_VALUE_SCALE = 0.02


def with_caution(config: AgentConfig) -> AgentConfig:
    """The same agent for programs that it has never seen: nearer to its hints, if it has any."""
    if config.network.hint_weight == 0:
        return config
    network = dataclasses.replace(config.network, hint_weight=_UNSEEN_HINT_WEIGHT)
    search = dataclasses.replace(config.search, value_scale=_UNSEEN_VALUE_SCALE)
    return dataclasses.replace(config, network=network, search=search)


def zero_shot(
    problem: malloc_game.Problem | malloc_game.Program,
    agent: Agent,
    num_simulations: int = 32,
    dynamics: str | None = None,
) -> tuple[np.ndarray, int]:
    """One game of the agent, as `load_agent` gives it, without noise or learning, with caution.

    dynamics: "learned" or "env", the agent's own by default. An encoded `Program` has no linear
    relaxation to give a hint; greedy stands in for it. Returns the actions, int32[D], DROP
    after the last decision, and the latency in cycles."""
    config, params = agent
    config = with_caution(with_simulations(config, num_simulations))
    if dynamics is not None:
        search = dataclasses.replace(config.search, dynamics=dynamics)
        config = dataclasses.replace(config, search=search)
    program, relaxed = malloc_game.encode(problem, rules=config.rules), None
    if config.network.features == "hints" and not isinstance(problem, malloc_game.Program):
        relaxed = relaxed_choices(problem, program)
    program, relaxed = jax.tree.map(lambda x: np.asarray(x)[None], (program, relaxed))
    latency, actions = _play_one(config, params, program, relaxed)
    return np.asarray(actions)[0], int(latency[0])


def latencies(config: AgentConfig, params: chex.ArrayTree, buckets: list[Bucket]) -> dict[str, int]:
    """Latency in cycles of one noiseless game of every task, by its name."""
    found: dict[str, int] = {}
    for bucket in buckets:
        programs = jax.device_put(bucket.programs)
        cycles, _ = _play_bucket(config, params, programs, bucket.relaxed)
        names = [task.name for task in bucket.tasks]
        found |= dict(zip(names, np.asarray(cycles).tolist(), strict=True))
    return found


def scores(buckets: list[Bucket], cycles: Mapping[str, float]) -> dict[str, float]:
    """Mean over tasks of the share of the default latency saved; mean and median gap closed.

    The gap is left out where no task has one. Where it is narrow, a mapping that is hardly slower
    than the reference counts as many times the gap: the median says more of them all. NaN while no
    task is in `cycles`, as before the first game has ended."""
    tasks = [task for bucket in buckets for task in bucket.tasks if task.name in cycles]
    if not tasks:
        return {"saved": float("nan")}
    gaps = [task.gap.closed(cycles[task.name]) for task in tasks if task.gap is not None]
    found = {"saved": float(np.mean([task.saved(cycles[task.name]) for task in tasks]))}
    if gaps:
        found |= {"gap_closed": float(np.mean(gaps)), "gap_closed_median": float(np.median(gaps))}
    return found
