"""Beam search over the game.

All states of a beam stand at the same decision, and keep either choice: alternate memory or DROP. A
state's score is its latency so far plus a price for the memory and time that it has taken, without
which a beam would take all it can, and leave nothing for what pays more later. The beam is split in
groups, each with a price of its own.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np

import malloc_game as mg
from malloc_game.game.state import DROP, Program
from malloc_game.jitted import jit
from malloc_game.problem.definition import Problem
from malloc_game.solvers.decode import (
    Asked,
    asked,
    greedy_actions,
    num_slots,
    prefer_alternate,
    to_assignment,
)
from malloc_game.solvers.result import Progress, Result, Search

_GROUPS = 8
_WIDTHS = (4, 16, 32)  # of a group, in the order in which they are tried


def prices(about: Asked, num_groups: int) -> np.ndarray:
    """Cycles for each byte and logical time: nothing, then quantiles of the gains: float64[G]."""
    density = about.gain / np.maximum(about.memory_time, 1.0)
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
    slots = num_slots(program)

    def one_group(carry, row_price):
        states, paid, is_alive = carry
        decision = jnp.minimum(states.position[0], slots - 1)
        legal = jax.vmap(mg.legal_actions, in_axes=(None, 0))(program, states)
        alternate = jax.vmap(prefer_alternate, in_axes=(0, None))(legal, True)
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


def beam(
    problem: Problem,
    seconds: float,
    seed: int = 0,
    *,
    max_iterations: int | None = None,
    progress: Progress | None = None,
    goal: float | None = None,
) -> Result:
    """Beams of growing width while there is time to compile; then with prices disturbed at random.

    Begins with greedy. stats: "width", the largest beam in states.
    """
    search = Search(problem, seconds, max_iterations, progress, goal)
    program = mg.encode(problem)
    search.offer(to_assignment(problem, program, greedy_actions(program), "greedy"))
    about = asked(problem, program)
    level = prices(about, _GROUPS)[:, None] * about.memory_time
    rng = np.random.default_rng(seed)
    widths, width, slowest = list(_WIDTHS), 0, 0.0
    while search.next_round():
        began = search.elapsed
        # A new width is compiled anew, and slower by what it is wider.
        is_new = bool(widths) and (max_iterations is not None or 5 * slowest < search.remaining)
        width = widths.pop(0) if is_new else width
        price = level if is_new else level * np.exp(rng.normal(0.0, 0.5, level.shape))
        found = search_beams(program, np.asarray(price, np.float32), width)
        cycles, parents, actions = map(np.asarray, found)
        group, slot = np.unravel_index(np.argmin(cycles), cycles.shape)
        if cycles[group, slot] < search.best_cycles:
            best = trace_back(parents, actions, int(group), int(slot))
            search.offer(to_assignment(problem, program, best, "beam"))
        slowest = max(slowest, search.elapsed - began)
    return search.result(width=width * _GROUPS)
