"""When a copy must start: the first-in-first-out read queue in closed form.

Copies run one after the other, in the order of their starts, in the bandwidth that instructions
leave idle. With A[t] the transfer units started right before instruction t and idle[t] what it
leaves, the backlog after t is W[t] = max(0, W[t-1] + A[t] - idle[t]), a prefix sum minus its
running minimum, so everything here is a handful of prefix operations over T.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from malloc_game.state import UNPLACED, GameState, Program

_FAR = jnp.iinfo(jnp.int32).max  # only compared, never added to


def exclusive_cumsum(x: chex.Array) -> chex.Array:
    """Sum of all entries before each one; one entry longer than `x`: int32[T + 1]."""
    return jnp.concatenate([jnp.zeros(1, x.dtype), jnp.cumsum(x)])


def idle_units(program: Program, mask: chex.Array) -> chex.Array:
    """Transfer units that each instruction leaves idle under `mask`: int32[T]."""
    return program.idle[program.table_start + mask]


def booked_units(program: Program, state: GameState) -> tuple[chex.Array, chex.Array]:
    """Starts of the booked copies, int32[D] (T where a decision made none), and what starts when.

    The second is in transfer units, int32[T].
    """
    # What is not booked is added to a last entry that is cut off.
    slot = jnp.where(state.copy_start != UNPLACED, state.copy_start, program.max_times)
    started = jnp.zeros(program.max_times + 1, jnp.int32).at[slot].add(program.copy_units)[:-1]
    return slot, started


def latest_start(
    program: Program, state: GameState, units: chex.Array, use: chex.Array
) -> tuple[chex.Array, chex.Array]:
    """Latest start at which a copy is done before its use, and all earlier bookings still are.

    units: int32[], transfer units to copy. use: int32[], time of the use.
    Returns (start, ahead), int32[] each: UNPLACED if there is none; transfer units that start
    there, this copy included.
    """
    times = jnp.arange(program.max_times, dtype=jnp.int32)
    idle = jnp.where(times < program.num_times, idle_units(program, state.mask), 0)
    slot, started = booked_units(program, state)
    booked = slot < program.max_times
    balance = jnp.cumsum(started - idle)
    backlog = balance - jnp.minimum(0, jax.lax.cummin(balance))
    backlog_before = jnp.concatenate([jnp.zeros(1, jnp.int32), backlog[:-1]])
    unused = exclusive_cumsum(jnp.maximum(0, idle - backlog_before - started))
    supply = exclusive_cumsum(idle)

    # How much later each booked copy could finish, and the most unused bandwidth that may be gone
    # before a new copy of this size starts (see `limit`), as a function of the new copy's start.
    slack = supply[program.decision_time] - supply[slot] - backlog_before[slot] - state.copy_ahead
    limit_at = jnp.full(program.max_times + 1, _FAR, jnp.int32)
    limit_at = limit_at.at[slot].min(jnp.where(booked, unused[slot] + slack, _FAR))[:-1]
    # A new copy delays only those that start strictly later.
    limit = jax.lax.cummin(limit_at, reverse=True)
    limit = jnp.concatenate([limit[1:], jnp.full(1, _FAR, jnp.int32)])

    in_time = backlog_before + started + units <= supply[use] - supply[:-1]
    harmless = unused[:-1] + units <= limit
    allowed = program.may_start_copy & (times < use) & in_time & harmless
    start = jnp.max(jnp.where(allowed, times, UNPLACED))
    return start, jnp.where(start == UNPLACED, 0, started[start] + units)
