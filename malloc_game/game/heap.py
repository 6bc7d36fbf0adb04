"""Where a chunk fits: alternate memory as the time from which each granule is free for good.

Decisions come in schedule order, so every chunk so far begins before now and the one to be placed
ends after now. Whether a granule is free over all of [start, end) then depends on `start` alone: it
is if the last chunk that has it ends by then.
"""

from __future__ import annotations

import math

import chex
import jax
import jax.numpy as jnp

from malloc_game.game.state import UNPLACED

_WORD_BITS = 32


def claim(
    free_from: chex.Array, offset: chex.Array, size: chex.Array, end: chex.Array
) -> chex.Array:
    """`free_from` (int32[G]) when granules [offset, offset + size) are held until `end`."""
    granule = jnp.arange(free_from.shape[-1], dtype=jnp.int32)
    return jnp.where((granule >= offset) & (granule < offset + size), end, free_from)


def reserve(free_from: chex.Array, reserved: chex.Array, end: chex.Array) -> chex.Array:
    """`free_from` (int32[G]) when instructions before `end` need the lowest `reserved` granules."""
    granule = jnp.arange(free_from.shape[-1], dtype=jnp.int32)
    return jnp.where(granule < reserved, jnp.maximum(free_from, end), free_from)


def is_free(
    free_from: chex.Array,
    offset: chex.Array,
    size: chex.Array,
    time: chex.Array,
    reserved: chex.Array,
) -> chex.Array:
    """Whether granules [offset, offset + size) are free from `time` on, none reserved: bool[]."""
    granule = jnp.arange(free_from.shape[-1], dtype=jnp.int32)
    is_own = (granule >= offset) & (granule < offset + size)
    return ~jnp.any(is_own & (free_from > time)) & (offset >= reserved)


def first_fit(
    free_from: chex.Array, size: chex.Array, start: chex.Array, reserved: chex.Array
) -> chex.Array:
    """Lowest offset at which `size` granules are free from `start` on, or UNPLACED: int32[].

    free_from: int32[G]. The lowest `reserved` granules may not be used.
    """
    num_granules = free_from.shape[-1]
    granule = jnp.arange(num_granules, dtype=jnp.int32)
    is_free_ = (free_from <= start) & (granule >= reserved)
    words = _pack(is_free_)
    fits = _run_starts(words, size)
    return jnp.where(size > 0, _lowest(fits), UNPLACED)


# --- sets of granules as bits ---------------------------------------------------------------------
#
# Granule b * W + w is bit b of word w, so that packing adds up whole rows, and a shift by less than
# W granules moves words, those that wrap around by one bit more.


def _pack(marked: chex.Array) -> chex.Array:
    """bool[G] as uint32[W], padded with False."""
    num_words = math.ceil(marked.shape[-1] / _WORD_BITS)
    rows = jnp.zeros(num_words * _WORD_BITS, bool).at[: marked.shape[-1]].set(marked)
    rows = rows.reshape(_WORD_BITS, num_words).astype(jnp.uint32)
    bit = jnp.arange(_WORD_BITS, dtype=jnp.uint32)[:, None]
    return jnp.sum(rows << bit, axis=0, dtype=jnp.uint32)


def _shifted(words: chex.Array, distance: chex.Array | int) -> chex.Array:
    """The set of granules g for which granule g + distance is in the set: uint32[W].

    distance: 0 <= distance < 32 W.
    """
    num_words = words.shape[-1]
    if isinstance(distance, int):  # at most half of all: bits + 1 < 32
        bits, turn = divmod(distance, num_words)
        return jnp.concatenate([words[turn:] >> bits, words[:turn] >> (bits + 1)])
    bits, turn = distance // num_words, distance % num_words
    source = jnp.arange(num_words, dtype=jnp.int32) + turn
    wraps = source >= num_words
    moved = words[jnp.where(wraps, source - num_words, source)]
    return jnp.right_shift(moved, (bits + wraps).astype(jnp.uint32)) * (bits + wraps < _WORD_BITS)


def _run_starts(words: chex.Array, size: chex.Array) -> chex.Array:
    """Granules at which a run of at least `size` (int32[], > 0) marked ones begins: uint32[W]."""
    # Runs of 1, 2, 4, ... as long as they are not longer than wanted; then two that overlap.
    length = jnp.int32(1)
    step = 1
    while step * 2 <= words.shape[-1] * _WORD_BITS:
        doubled = words & _shifted(words, step)
        is_short = step * 2 <= size
        words = jnp.where(is_short, doubled, words)
        length = jnp.where(is_short, step * 2, length)
        step *= 2
    return words & _shifted(words, jnp.maximum(size - length, 0))


def _lowest(words: chex.Array) -> chex.Array:
    """The lowest marked granule, or UNPLACED: int32[]."""
    num_words = words.shape[-1]
    lowest_bit = words & (~words + jnp.uint32(1))
    bit = jnp.int32(_WORD_BITS - 1) - jax.lax.clz(lowest_bit).astype(jnp.int32)
    granule = jnp.where(
        words == 0, num_words * _WORD_BITS, bit * num_words + jnp.arange(num_words, dtype=jnp.int32)
    )
    lowest = jnp.min(granule)
    return jnp.where(lowest < num_words * _WORD_BITS, lowest, UNPLACED)
