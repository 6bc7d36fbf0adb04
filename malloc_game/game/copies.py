"""When a copy must start: a first-in-first-out queue kept in a form that costs one pass a copy.

Copies run one after the other, in the order of their starts, in the bandwidth that instructions
leave idle. Decisions come in schedule order, so every copy booked before the decision at hand must
be done before now, and the idle bandwidth before now is known. Two sequences over time say all:

    unused[x]   transfer units that pass unused before time x. A copy of u units that starts at s
                takes the first u that are unused from s on, whatever its place in the queue.
    limit[x]    a copy that starts at x delays those that start later, by what is not yet done of it
                then. Each can bear some delay, so `unused[x] + units` has a greatest value for
                which none of them is late.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from malloc_game.game.state import NEVER, UNPLACED, Program, Queue

_WINDOW = 8  # instructions that `advance` passes at once


def empty_queue(length: int) -> Queue:
    """A queue of no copies before time 0 of a program of `length` padded instructions."""
    return Queue(unused=jnp.zeros(length, jnp.int32), limit=jnp.full(length, NEVER, jnp.int32))


def placement_masks(program: Program, chunk_of: chex.Array, times: chex.Array) -> chex.Array:
    """Placement masks of the instructions at `times` (int32[N]) by what is decided: int32[N]."""
    in_alternate = chunk_of[program.position_decision[times]] != UNPLACED  # bool[N, P]
    bit = jnp.arange(in_alternate.shape[-1], dtype=jnp.int32)
    return jnp.sum(in_alternate.astype(jnp.int32) << bit[None], axis=-1)


def advance(
    program: Program, chunk_of: chex.Array, queue: Queue, start: chex.Array, end: chex.Array
) -> Queue:
    """Pass the instructions [start, end), which are decided: what they leave idle is unused.

    chunk_of: int32[D]. start, end: int32[], times; no copy that is booked ends after `start`.
    """
    index = jnp.arange(queue.unused.shape[-1], dtype=jnp.int32)

    def window(carry: tuple[chex.Array, chex.Array]) -> tuple[chex.Array, chex.Array]:
        now, unused = carry
        times = now + jnp.arange(_WINDOW, dtype=jnp.int32)
        at = jnp.minimum(times, program.max_times - 1)
        mask = placement_masks(program, chunk_of, at)
        idle = jnp.where(times < end, program.idle[program.table_start[at] + mask], 0)
        until = unused[now] + jnp.cumsum(idle)
        # One pass that writes the window; a scatter of so few entries is slower.
        for i in range(_WINDOW):
            unused = jnp.where(index == now + i + 1, until[i], unused)
        return jnp.minimum(now + _WINDOW, end), unused

    # Nearly always one window is enough, and a loop copies what it carries.
    carry = window((start, queue.unused))
    _, unused = jax.lax.while_loop(lambda carry: carry[0] < end, window, carry)
    return queue.replace(unused=unused)


def latest_start(
    queue: Queue, units: chex.Array, use: chex.Array, allowed: chex.Array
) -> chex.Array:
    """Latest start at which a copy is done before its use, and all booked before still are.

    units: int32[], transfer units to copy. use: int32[], time of the use, not after now. allowed:
    bool[T], times at which the copy may start. Returns int32[], UNPLACED if there is none.
    """
    times = jnp.arange(queue.unused.shape[-1], dtype=jnp.int32)
    # By its use all copies are done exactly if as much was unused since its start as it takes.
    most = jnp.minimum(queue.limit, queue.unused[use])
    in_time = (queue.unused + units <= most) & (times < use)
    return jnp.max(jnp.where(in_time & allowed, times, UNPLACED))


def book(
    queue: Queue, units: chex.Array, start: chex.Array, use: chex.Array, later_units: chex.Array
) -> Queue:
    """Put a copy that `latest_start` allows into the queue; none if `start` is UNPLACED.

    later_units: int32[], transfer units of all copies booked so far that start after `start`.
    """
    times = jnp.arange(queue.unused.shape[-1], dtype=jnp.int32)
    units = jnp.where(start == UNPLACED, 0, units)
    at = jnp.maximum(start, 0)
    unused = jnp.where(
        times > start, jnp.maximum(queue.unused[at], queue.unused - units), queue.unused
    )
    # Those that start later can bear less delay by all of it. It may itself be delayed by as much
    # as is left unused before its use, and what it overtakes comes after it.
    later = queue.limit - units
    own = queue.unused[use] - units + later_units
    earlier = jnp.minimum(queue.limit, jnp.minimum(later[at], own))
    return Queue(unused=unused, limit=jnp.where(times < start, earlier, later))
