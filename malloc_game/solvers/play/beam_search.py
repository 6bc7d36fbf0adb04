"""Beam search over the game.

All states of a beam stand at the same decision, and keep either choice: alternate memory or DROP. A
state's score is its latency so far plus a price for the memory and time that it has taken, without
which a beam would take all it can, and leave nothing for what pays more later. The beam is split in
groups, each with a price of its own.
"""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

import malloc_game as mg
from malloc_game.game.decisions import list_decisions, static_gain
from malloc_game.game.playing import prefer_alternate
from malloc_game.game.state import DROP, UNPLACED, Program
from malloc_game.jitted import jit
from malloc_game.problem.definition import Problem
from malloc_game.solvers.decode import begin_with_greedy, to_assignment
from malloc_game.solvers.result import Search, solver

_GROUPS = 8
_WIDTHS = (4, 16, 32)  # of a group, in the order in which they are tried


def gains_and_memory(problem: Problem, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each decision alone in alternate memory, float64[length]; zeros where there is none.

    Cycles that it saves, and bytes x logical times that it takes.
    """
    gain, memory_time = np.zeros((2, length))
    decisions = list_decisions(problem)
    for d, decision in enumerate(decisions):
        value = problem.values[decision.value]
        gain[d] = static_gain(problem, decision) - value.write_back_cycles
        is_first = decision.previous == UNPLACED
        start = decision.time if is_first else decisions[decision.previous].time + 1
        memory_time[d] = value.size_bytes * max(1, decision.end - start)
    return gain, memory_time


def prices(gain: np.ndarray, memory_time: np.ndarray, num_groups: int) -> np.ndarray:
    """Cycles for each byte and logical time: nothing, then quantiles of the gains: float64[G]."""
    density = gain / np.maximum(memory_time, 1.0)
    paying = density[density > 0]
    if not len(paying):
        return np.zeros(num_groups)
    return np.concatenate([[0.0], np.quantile(paying, np.linspace(0.05, 0.8, num_groups - 1))])


@jit(static_argnames="width")
def search_beams(
    program: Program, price: chex.Array, width: int
) -> tuple[chex.Array, chex.Array, chex.Array]:
    """One beam for each row of `price`, float32[G, D]: cycles for the memory of each decision.

    Returns latencies, int32[G, W], and of every decision the parents, int32[D, G, W], and actions,
    int32[D, G, W].
    """
    slots = program.max_decisions

    def one_group(carry, row_price):
        states, paid, is_alive = carry
        decision = jnp.minimum(states.position[0], slots - 1)
        alternate = jax.vmap(prefer_alternate, in_axes=(0, None))(states, True)
        drop = jnp.full(width, DROP, jnp.int32)
        after = jax.vmap(mg.step, in_axes=(None, 0, 0))
        children = jax.tree.map(
            lambda a, b: jnp.concatenate([a, b]),
            after(program, states, alternate),
            after(program, states, drop),
        )
        cost = row_price[decision]
        paid = jnp.concatenate([jnp.where(alternate == DROP, paid, paid + cost), paid])
        is_alive = jnp.concatenate([is_alive & (alternate != DROP), is_alive])
        score = jnp.where(is_alive, children.latency + paid, jnp.inf)
        kept = jax.lax.top_k(-score, width)[1]
        pick = lambda x: x[kept]  # noqa: E731
        actions = jnp.concatenate([alternate, drop])[kept]
        carry = jax.tree.map(pick, (children, paid, is_alive))
        return carry, (kept % width, actions)

    def one_decision(carry, _):
        return jax.vmap(one_group)(carry, price)

    groups = price.shape[0]
    states = jax.tree.map(
        lambda x: jnp.broadcast_to(x, (groups, width, *x.shape)), mg.init(program)
    )
    is_alive = jnp.zeros((groups, width), bool).at[:, 0].set(True)
    carry = states, jnp.zeros((groups, width)), is_alive
    (states, _, is_alive), (parents, actions) = jax.lax.scan(one_decision, carry, length=slots)
    far = jnp.iinfo(jnp.int32).max
    return jnp.where(is_alive, states.latency, far), parents, actions


def trace_back(parents: np.ndarray, actions: np.ndarray, group: int, slot: int) -> np.ndarray:
    """The actions, int32[D], that led to a state of the last beam."""
    found = np.full(len(actions), DROP, np.int32)
    for d in reversed(range(len(actions))):
        found[d] = actions[d, group, slot]
        slot = parents[d, group, slot]
    return found


@solver
def beam(search: Search, seed: int) -> dict[str, Any]:
    """Beams of growing width while there is time to compile; then with prices disturbed at random.

    Begins with greedy. stats: "width", the largest beam in states.
    """
    program, _ = begin_with_greedy(search)
    gain, memory_time = gains_and_memory(search.problem, program.max_decisions)
    level = prices(gain, memory_time, _GROUPS)[:, None] * memory_time
    rng = np.random.default_rng(seed)
    widths, width, slowest = list(_WIDTHS), 0, 0.0
    while search.next_round():
        began = search.elapsed
        # A new width is compiled anew, and slower by what it is wider.
        is_new = bool(widths) and (
            search.max_iterations is not None or 5 * slowest < search.remaining
        )
        width = widths.pop(0) if is_new else width
        price = level if is_new else level * np.exp(rng.normal(0.0, 0.5, level.shape))
        found = search_beams(program, np.asarray(price, np.float32), width)
        cycles, parents, actions = map(np.asarray, found)
        group, slot = np.unravel_index(np.argmin(cycles), cycles.shape)
        if cycles[group, slot] < search.best_cycles:
            best = trace_back(parents, actions, int(group), int(slot))
            search.offer(to_assignment(search.problem, program, best, "beam"))
        slowest = max(slowest, search.elapsed - began)
    return dict(width=width * _GROUPS)
