"""Where a chunk fits: occupancy of alternate memory over an interval of logical time."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from malloc_game.state import UNPLACED, GameState, Program


def overlaps(state: GameState, start: chex.Array, end: chex.Array) -> chex.Array:
    """Which chunks are alive somewhere in [start, end): bool[D]."""
    placed = state.chunk_offset != UNPLACED
    return placed & (state.chunk_start < end) & (state.chunk_end > start)


def occupied(program: Program, state: GameState, alive: chex.Array) -> chex.Array:
    """Granules that any of the chunks marked in `alive` (bool[D]) holds: bool[G]."""
    num_granules = program.num_granules
    # Boundaries of chunks that are not alive go to a last entry that is cut off.
    low = jnp.where(alive, state.chunk_offset, num_granules)
    high = jnp.where(alive, state.chunk_offset + program.size, num_granules)
    change = jnp.zeros(num_granules + 1, jnp.int32).at[low].add(1).at[high].add(-1)
    return jnp.cumsum(change[:num_granules]) > 0


def first_fit(
    program: Program, state: GameState, size: chex.Array, start: chex.Array, end: chex.Array
) -> chex.Array:
    """Lowest offset at which `size` granules are free over all of [start, end), or UNPLACED."""
    taken = occupied(program, state, overlaps(state, start, end))
    granule = jnp.arange(program.num_granules, dtype=jnp.int32)
    last_taken = jax.lax.cummax(jnp.where(taken, granule, -1))
    fits = granule - last_taken >= size  # a free run of `size` granules ends here
    return jnp.where(
        fits.any() & (size > 0), jnp.argmax(fits).astype(jnp.int32) - size + 1, UNPLACED
    )


def is_free(
    program: Program,
    state: GameState,
    chunk: chex.Array,
    start: chex.Array,
    end: chex.Array,
) -> chex.Array:
    """Whether the chunk made by decision `chunk` could also hold its place over [start, end)."""
    offset = state.chunk_offset[chunk]
    alive = overlaps(state, start, end) & (jnp.arange(program.max_decisions) != chunk)
    touches = (state.chunk_offset < offset + program.size[chunk]) & (
        state.chunk_offset + program.size > offset
    )
    return ~(alive & touches).any()
