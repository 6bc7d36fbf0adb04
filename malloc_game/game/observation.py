"""What a network sees of a game: a flat float32 vector, finite, of one length for all programs.

| part | numbers | content |
|---|---|---|
| decision | 24 | the decision at hand: what is legal, what it would save, sizes, distances, room |
| ahead | 8 x 8 | the decision at hand and the seven after it |
| timeline | 12 x 4 | memory taken from now on, bandwidth unused up to now, demand and progress |
| program | 16 x 2 | memory taken and demand at sixteen times of the whole program |
| occupancy | 8 x 8 | taken share of the memory, by time from now on and by offset |

All entries are within [-1, 1] or close to it; gains are compressed with a signed root. What is
taken is looked up at 256 offsets. README.md beside this file has each number with its range.
"""

from __future__ import annotations

import chex
import jax.numpy as jnp
import numpy as np

from malloc_game.game.encoding import encode
from malloc_game.game.state import UNPLACED, GameState, Program
from malloc_game.problem.definition import Problem

_AHEAD = 8
_DISTANCES = (0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 144, 377)
_GRID = (0, 1, 3, 5, 7, 9, 10, 11)  # distances that the occupancy has, by their numbers
_COARSE = 16
_GRID_OFFSETS = 8
_SAMPLES = 256  # granules that are looked at
OBSERVATION_SIZE = 24 + _AHEAD * 8 + len(_DISTANCES) * 4 + _COARSE * 2 + len(_GRID) * _GRID_OFFSETS


def _compress(share: chex.Array) -> chex.Array:
    """Signed root of a share of the default latency: 1e-4 becomes 0.01."""
    return jnp.sign(share) * jnp.sqrt(jnp.abs(share))


def _log(x: chex.Array, top: float) -> chex.Array:
    return jnp.log1p(jnp.maximum(x, 0).astype(jnp.float32)) / jnp.log1p(jnp.float32(top))


def _taken(program: Program, state: GameState, times: chex.Array) -> chex.Array:
    """Taken share of each eighth of the memory at `times` (int32[N], from now on): float32[N, 8].

    It is looked up at `_SAMPLES` granules.
    """
    stride = -(-program.num_granules // _SAMPLES)
    free_from = state.free_from[::stride]
    if free_from.shape[-1] != _SAMPLES:
        free_from = free_from[np.arange(_SAMPLES) * free_from.shape[-1] // _SAMPLES]
    is_taken = free_from.reshape(1, _GRID_OFFSETS, -1) > times[:, None, None]
    return jnp.sum(is_taken, axis=-1, dtype=jnp.int32) * (_GRID_OFFSETS / _SAMPLES)


def _decision_part(program: Program, state: GameState, taken_now: chex.Array) -> chex.Array:
    decision = state.decision
    options = state.options
    default = jnp.maximum(program.default_cycles, 1).astype(jnp.float32)
    time, end = program.decision_time[decision], program.end[decision]
    size = program.size[decision] / program.num_granules
    length = program.num_times.astype(jnp.float32)
    previous = program.previous[decision]
    is_held = (previous != UNPLACED) & (state.chunk_of[previous] != UNPLACED)
    gain = options.gain / default
    net = gain - program.write_back[decision] / default
    is_use = program.is_use[decision]
    start = jnp.where(options.copy_start == UNPLACED, 0, options.copy_start)
    next_time = jnp.minimum(program.next_time[decision], program.num_times)
    saved = 1.0 - state.latency / default
    return jnp.stack(
        [
            is_use.astype(jnp.float32),
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
            _log(next_time - time, 1000) * is_use,
            (program.next_time[decision] < program.num_times) * 1.0,
            taken_now,
            program.reserved[decision] / program.num_granules,
            is_held * 1.0,
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
        program.is_use[index].astype(jnp.float32),
        _log(time - now, 1000),
        _log(size, program.num_granules),
        size / program.num_granules,
        _log(span, 1000),
        _compress(program.static_gain[index]),
        _log(next_time - time, 1000) * program.is_use[index],
    ]
    return (jnp.stack(columns, axis=1) * exists[:, None]).ravel()


def _timeline_part(program: Program, state: GameState, taken: chex.Array) -> chex.Array:
    now = program.asked_at[state.decision]
    at = jnp.minimum(now + jnp.array(_DISTANCES), program.max_times - 1)
    before = jnp.maximum(now - jnp.array(_DISTANCES), 0)
    window = state.reads.unused[now] - state.reads.unused[before]
    columns = [
        jnp.mean(taken, axis=1),
        _log(window, 1e6),
        jnp.clip(program.demand[at] / 4, 0, 1),
        program.time_fraction[at] - program.time_fraction[now],
    ]
    return jnp.stack(columns, axis=1).ravel()


def _program_part(program: Program, state: GameState) -> chex.Array:
    at = (jnp.arange(_COARSE) * program.num_times) // _COARSE
    is_to_come = at >= program.asked_at[state.decision]
    taken = jnp.mean(_taken(program, state, at), axis=1) * is_to_come
    return jnp.concatenate([taken, jnp.clip(program.demand[at] / 4, 0, 1)])


def observe(problem: Problem | Program, state: GameState) -> chex.Array:
    """Features of the decision at hand and of the game around it: float32[OBSERVATION_SIZE]."""
    program = encode(problem)
    now = program.asked_at[state.decision]
    taken = _taken(program, state, now + jnp.array(_DISTANCES))
    parts = [
        _decision_part(program, state, jnp.mean(taken[0])),
        _ahead_part(program, state),
        _timeline_part(program, state, taken),
        _program_part(program, state),
        taken[jnp.array(_GRID)].ravel(),
    ]
    return jnp.clip(jnp.concatenate(parts), -2.0, 2.0).astype(jnp.float32)
