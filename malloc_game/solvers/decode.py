"""From what is wanted to a legal game: plays that solvers share, batched, with one trace a shape.

A trace is kept for each padded shape of `Program` and each batch size, so that problems of one
bucket share it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import chex
import jax
import jax.numpy as jnp
import numpy as np

import malloc_game as mg
from malloc_game.game.state import COPY, DROP, NO_COPY, GameState, Program
from malloc_game.jitted import jit
from malloc_game.problem.assignment import Assignment
from malloc_game.problem.definition import Problem


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


@jit()
def latencies_of_wanted(program: Program, wanted: chex.Array) -> tuple[chex.Array, chex.Array]:
    """Latencies, int32[B], and actions, int32[B, D], of the plays for `wanted`, bool[B, D]."""

    def one(row: chex.Array) -> tuple[chex.Array, chex.Array]:
        state, actions = play_wanted(program, row)
        return state.latency, actions

    return jax.vmap(one)(wanted)


@jit()
def replay(program: Program, actions: chex.Array) -> GameState:
    """The final state after `actions` (int32[D])."""
    return jax.lax.scan(
        lambda state, action: (mg.step(program, state, action), None), mg.init(program), actions
    )[0]


def to_assignment(
    problem: Problem, program: Program, actions: chex.Array, source: str
) -> Assignment:
    """The mapping of the game with `actions` (int32[D])."""
    return mg.to_assignment(problem, replay(program, actions), source)


def num_slots(program: Program) -> int:
    """Length of an array of actions: the padded number of decisions D."""
    return program.decision_time.shape[-1]


@dataclasses.dataclass(frozen=True)
class Asked:
    """What each decision is about, on the host; zeros where there is none: [D]."""

    gain: np.ndarray  # float64, cycles saved if this alone is in alternate memory
    memory_time: np.ndarray  # float64, bytes x logical times that it then takes


def asked(problem: Problem, program: Program) -> Asked:
    """Gains and memory of all decisions of `program`, which encodes `problem`."""
    gain, memory_time = np.zeros((2, num_slots(program)))
    last_use: dict[int, int] = {}
    for d, (v, time, places) in enumerate(positions_of_decisions(problem, program)):
        value = problem.values[v]
        masks: dict[int, int] = {}
        for t, p in places:
            masks[t] = masks.get(t, 0) | 1 << p
        for t, mask in masks.items():
            saved = problem.instruction_cycles(t, 0) - problem.instruction_cycles(t, mask)
            gain[d] += problem.instructions[t].trip_count * saved
        gain[d] -= value.write_back_cycles
        start, end = (
            (last_use.get(v, time - 1) + 1, time + 1) if value.is_parameter else (time, value.end)
        )
        last_use[v] = time
        memory_time[d] = value.size_bytes * max(1, end - start)
    return Asked(gain, memory_time)


def positions_of_decisions(
    problem: Problem, program: Program
) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
    """Of each decision in order: its value, its time, and the positions that it moves."""
    values = np.asarray(program.decision_value).tolist()
    times = np.asarray(program.decision_time).tolist()
    for v, time in zip(values[: int(program.num_decisions)], times, strict=False):
        is_parameter = problem.values[v].is_parameter
        places = problem.positions_of_value[v]
        yield v, time, [place for place in places if not is_parameter or place[0] == time]


def greedy_assignment(problem: Problem) -> Assignment:
    """The mapping of `mg.greedy`."""
    state, _ = mg.greedy(mg.encode(problem))
    return mg.to_assignment(problem, state, "greedy")


def greedy_actions(program: Program) -> np.ndarray:
    """The actions of `mg.greedy`: int32[D]."""
    return np.asarray(mg.greedy(program)[1])
