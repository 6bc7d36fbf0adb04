"""What a network sees of a game: a flat float32 vector, finite, of one length for all programs.

| part | numbers | content |
|---|---|---|
| decision | 24 | the decision at hand: what is legal, what it would save, sizes, distances, room |
| ahead | 8 x 8 | the decision at hand and the seven after it |
| timeline | 12 x 4 | memory used, bandwidth unused, demand and progress, from now on |
| program | 16 x 2 | memory used and demand over sixteenths of the whole program |
| occupancy | 8 x 8 | occupied share of the memory, by time from now on and by offset |

All entries are within [-1, 1] or close to it; gains are compressed with a signed root.
"""

from __future__ import annotations

import chex
import jax.numpy as jnp

from malloc_game import copies, heap
from malloc_game.encode import encode
from malloc_game.problem import Problem
from malloc_game.state import UNPLACED, GameState, Program

_AHEAD = 8
_DISTANCES = (0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144)
_COARSE = 16
_GRID_DISTANCES = (0, 1, 3, 8, 21, 55, 144, 377)
_GRID_OFFSETS = 8
OBSERVATION_SIZE = 24 + _AHEAD * 8 + len(_DISTANCES) * 4 + _COARSE * 2 + 8 * _GRID_OFFSETS


def _compress(share: chex.Array) -> chex.Array:
    """Signed root of a share of the default latency: 1e-4 becomes 0.01."""
    return jnp.sign(share) * jnp.sqrt(jnp.abs(share))


def _log(x: chex.Array, top: float) -> chex.Array:
    return jnp.log1p(jnp.maximum(x, 0).astype(jnp.float32)) / jnp.log1p(jnp.float32(top))


def used_granules(program: Program, state: GameState) -> chex.Array:
    """Granules occupied at each logical time: int32[T]."""
    placed = state.chunk_offset != UNPLACED
    size = jnp.where(placed, program.size, 0)
    change = jnp.zeros(program.max_times + 1, jnp.int32)
    change = change.at[state.chunk_start].add(size).at[state.chunk_end].add(-size)
    return jnp.cumsum(change[: program.max_times])


def _unused_units(program: Program, state: GameState) -> chex.Array:
    """Transfer units idle and not booked by copies, roughly (bookings counted where they start)."""
    _, started = copies.booked_units(program, state)
    return jnp.cumsum(copies.idle_units(program, state.mask)) - jnp.cumsum(started)


def _decision_part(program: Program, state: GameState, used: chex.Array) -> chex.Array:
    decision = state.decision
    options = state.options
    default = jnp.maximum(program.default_cycles, 1).astype(jnp.float32)
    time, end = program.decision_time[decision], program.end[decision]
    size = program.size[decision] / program.num_granules
    length = program.num_times.astype(jnp.float32)
    alive = heap.overlaps(state, time, end)
    times = jnp.arange(program.max_times)
    inside = (times >= time) & (times < end)
    peak = jnp.max(jnp.where(inside, used, 0)) / program.num_granules
    gain = options.gain / default
    net = gain - program.write_back[decision] / default
    is_parameter = program.is_parameter[decision]
    start = jnp.where(options.copy_start == UNPLACED, 0, options.copy_start)
    next_time = jnp.minimum(program.next_time[decision], program.num_times)
    saved = 1.0 - state.latency / default
    return jnp.stack(
        [
            is_parameter.astype(jnp.float32),
            *options.legal.astype(jnp.float32),
            state.done.astype(jnp.float32),
            state.position / jnp.maximum(program.num_decisions, 1),
            time / length,
            program.time_fraction[time],
            _compress(net),
            _compress(program.static_gain[decision]),
            jnp.clip(net * 100, -1, 1),
            jnp.clip(net / jnp.maximum(size * (end - time), 1e-4), -1, 1),
            size,
            _log(program.size[decision], program.num_granules),
            (end - time) / length,
            _log(end - time, 1000),
            _log(time - start, 1000) * (options.copy_start != UNPLACED),
            _log(next_time - time, 1000) * is_parameter,
            (program.next_time[decision] < program.num_times) * 1.0,
            used[time] / program.num_granules,
            peak,
            _log(jnp.sum(alive), 100),
            saved,
            _compress(program.write_back[decision] / default),
        ]
    )


def _ahead_part(program: Program, state: GameState) -> chex.Array:
    index = state.position + jnp.arange(_AHEAD)
    exists = index < program.num_decisions
    index = jnp.minimum(index, program.max_decisions - 1)
    now = program.decision_time[state.decision]
    time, size = program.decision_time[index], program.size[index]
    span = program.end[index] - time
    next_time = jnp.minimum(program.next_time[index], program.num_times)
    columns = [
        jnp.ones(_AHEAD),
        program.is_parameter[index].astype(jnp.float32),
        _log(time - now, 1000),
        _log(size, program.num_granules),
        size / program.num_granules,
        _log(span, 1000),
        _compress(program.static_gain[index]),
        _log(next_time - time, 1000) * program.is_parameter[index],
    ]
    return (jnp.stack(columns, axis=1) * exists[:, None]).ravel()


def _timeline_part(program: Program, state: GameState, used: chex.Array) -> chex.Array:
    now = program.decision_time[state.decision]
    at = jnp.minimum(now + jnp.array(_DISTANCES), program.max_times - 1)
    before = jnp.maximum(now - jnp.array(_DISTANCES), 0)
    unused = _unused_units(program, state)
    window = (unused[now] - unused[before]).astype(jnp.float32)
    columns = [
        used[at] / program.num_granules,
        _log(window, 1e6),
        jnp.clip(program.demand[at] / 4, 0, 1),
        program.time_fraction[at] - program.time_fraction[now],
    ]
    return jnp.stack(columns, axis=1).ravel()


def _program_part(program: Program, used: chex.Array) -> chex.Array:
    times = jnp.arange(program.max_times)
    part = jnp.minimum(times * _COARSE // jnp.maximum(program.num_times, 1), _COARSE)
    zeros = jnp.zeros(_COARSE + 1)
    count = jnp.maximum(zeros.at[part].add(1.0), 1.0)
    mean_used = zeros.at[part].add(used / program.num_granules) / count
    mean_demand = zeros.at[part].add(jnp.clip(program.demand / 4, 0, 1)) / count
    return jnp.concatenate([mean_used[:-1], mean_demand[:-1]])


def _occupancy_part(program: Program, state: GameState) -> chex.Array:
    now = program.decision_time[state.decision]
    at = now + jnp.array(_GRID_DISTANCES)
    placed = state.chunk_offset != UNPLACED
    started, ended = state.chunk_start[None] <= at[:, None], state.chunk_end[None] <= at[:, None]
    alive = placed[None] & started & ~ended
    low = jnp.arange(_GRID_OFFSETS)[None] * program.num_granules // _GRID_OFFSETS
    high = low + program.num_granules // _GRID_OFFSETS
    offset, end = state.chunk_offset[:, None], (state.chunk_offset + program.size)[:, None]
    shared = jnp.clip(jnp.minimum(end, high) - jnp.maximum(offset, low), 0)  # [D, offsets]
    share = alive.astype(jnp.float32) @ shared.astype(jnp.float32)
    return (share * (_GRID_OFFSETS / program.num_granules)).ravel()


def observe(problem: Problem | Program, state: GameState) -> chex.Array:
    """Features of the decision at hand and of the game around it: float32[OBSERVATION_SIZE]."""
    program = encode(problem)
    used = used_granules(program, state)
    parts = [
        _decision_part(program, state, used),
        _ahead_part(program, state),
        _timeline_part(program, state, used),
        _program_part(program, used),
        _occupancy_part(program, state),
    ]
    return jnp.clip(jnp.concatenate(parts), -2.0, 2.0).astype(jnp.float32)
