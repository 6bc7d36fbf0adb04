"""Every array of the game, with its shape, in one place.

Letters: T instructions (logical times), P priced positions of an instruction, D decisions,
E effects (what decisions do to instructions), C entries of all cost tables, X exclusions,
G granules. All are padded sizes; granules are the unit of alternate memory, transfer units
(`TRANSFER_UNIT_BYTES`) that of copies.
"""

from __future__ import annotations

import chex
import jax.numpy as jnp

COPY, NO_COPY, DROP = 0, 1, 2
NUM_ACTIONS = 3
ACTION_NAMES = ("COPY", "NO_COPY", "DROP")
# What is asked of computed values; see `encode`.
COMPILER, MOVES, PIECEMEAL = RULES = ("compiler", "moves", "piecemeal")
UNPLACED = -1  # no chunk, no copy, no earlier decision
TRANSFER_UNIT_BYTES = 1024
NEVER = (1 << 31) - 1  # only compared with, or lowered by all that the queues can carry


@chex.dataclass(frozen=True)
class Program:
    """A problem encoded for the device: static data, an argument of every game function."""

    num_times: chex.Array  # int32[]
    num_decisions: chex.Array  # int32[]
    default_cycles: chex.Array  # int32[], latency with everything in default memory
    max_outstanding: chex.Array  # int32[], copies that may be under way at one time
    # Instructions.
    table_start: chex.Array  # int32[T], first entry of the instruction's cost table
    trip_count: chex.Array  # int32[T], 0 for padding
    may_start_copy: chex.Array  # bool[T]
    time_fraction: chex.Array  # float32[T], default cycles before this time / default cycles
    demand: chex.Array  # float32[T], bytes of all live values that may be in alternate / capacity
    position_decision: chex.Array  # int32[T, P], the decision that places it, D - 1 for none
    # Cost tables.
    cycles: chex.Array  # int32[C], cycles of one execution
    idle: chex.Array  # int32[C], transfer units of default bandwidth left idle by one execution
    # Decisions, in the order in which the game asks them.
    asked_at: chex.Array  # int32[D], the instruction it is asked at: those before it are decided
    decision_time: chex.Array  # int32[D], where its chunk is needed from
    decision_value: chex.Array  # int32[D]
    is_parameter: chex.Array  # bool[D], a use of a parameter
    is_use: chex.Array  # bool[D], a use, served by a chunk of an earlier decision or a copy
    may_copy: chex.Array  # bool[D], a use, or a value that a prefetch can define
    must_stay: chex.Array  # bool[D], a use that must be where its value was produced
    previous: chex.Array  # int32[D], earlier decision on the same value or UNPLACED
    next_time: chex.Array  # int32[D], time of the next decision on the same value or T
    size: chex.Array  # int32[D], granules
    copy_units: chex.Array  # int32[D], transfer units
    end: chex.Array  # int32[D], end of the chunk that it makes
    reserved: chex.Array  # int32[D], granules at offset 0 that instructions in between need
    reserved_before: chex.Array  # int32[D], the same from the decision before to this one
    write_back: chex.Array  # int32[D], cycles charged when a computed live-out is in alternate
    is_refused: chex.Array  # bool[D], only DROP can be asked of the compiler
    exclusion_group: chex.Array  # int32[D], the parameter's group of exclusions, 0 for none
    static_gain: chex.Array  # float32[D], cycles saved if only this were in alternate / default
    first_effect: chex.Array  # int32[D], its effects are [first_effect, first_effect + num_effects)
    num_effects: chex.Array  # int32[D]
    # Effects: instructions whose placement mask a decision changes.
    effect_time: chex.Array  # int32[E]
    effect_bits: chex.Array  # int32[E]
    # Exclusions: see `problem.Exclusion`.
    excluding_group: chex.Array  # int32[X], 1.. in order of parameters, UNPLACED for padding
    excluding_use: chex.Array  # int32[X], decision on the use or UNPLACED if it is never asked
    excluded_output: chex.Array  # int32[X], decision on the output
    # Alternate memory: one entry for each granule, only its length matters.
    granules: chex.Array  # bool[G], all True
    # True where computed values may move in the middle of their lives: bool[]. None otherwise, so
    # that a game without evictions carries nothing of them.
    moves: chex.Array | None

    @property
    def max_decisions(self) -> int:
        """Padded number of decisions D."""
        return self.decision_time.shape[-1]

    @property
    def max_times(self) -> int:
        """Padded number of logical times T."""
        return self.table_start.shape[-1]

    @property
    def num_granules(self) -> int:
        """Granules of alternate memory."""
        return self.granules.shape[-1]

    @property
    def has_moves(self) -> bool:
        """Whether computed values may be evicted and prefetched."""
        return self.moves is not None


@chex.dataclass(frozen=True)
class Options:
    """What the decision at hand could do, worked out once when it comes up."""

    legal: chex.Array  # bool[3]
    copy_start: chex.Array  # int32[], latest start of a copy for this use or UNPLACED
    offset: chex.Array  # int32[], granule of the lowest fit or UNPLACED
    gain: chex.Array  # int32[], cycles saved in alternate memory, before any write-back
    evict_start: chex.Array  # int32[], latest start of the eviction that DROP needs or UNPLACED


@chex.dataclass(frozen=True)
class Queue:
    """Copies in one direction, in a form that needs no look at each of them (see `copies`)."""

    unused: chex.Array  # int32[T], transfer units that nobody used before this time; up to now
    limit: chex.Array  # int32[T], most units unused before a new copy starts at this time, its own
    # size included, for which all that start later are still done in time


@chex.dataclass(frozen=True)
class Evictions:
    """What a game keeps of evictions, where computed values may move."""

    queue: Queue
    start: chex.Array  # int32[D], of the eviction that it booked or UNPLACED
    default_from: chex.Array  # int32[D], time from which the value is in default, or NEVER


@chex.dataclass(frozen=True)
class GameState:
    """A game in progress. A chunk belongs to the decision that made it."""

    position: chex.Array  # int32[], the decision at hand; num_decisions when done
    chunk_of: chex.Array  # int32[D], the chunk that serves this decision or UNPLACED
    chunk_offset: chex.Array  # int32[D], granule or UNPLACED
    chunk_end: chex.Array  # int32[D], exclusive
    copy_start: chex.Array  # int32[D], or UNPLACED where the decision made no copy
    free_from: chex.Array  # int32[G], time from which each granule is free for good
    reads: Queue  # prefetches
    outstanding: chex.Array  # int32[T], copies under way before now
    holds: chex.Array  # bool[X + 1], exclusion groups whose parameter is in alternate somewhere
    cycles: chex.Array  # int32[], of all instructions, undecided positions in default memory
    write_back: chex.Array  # int32[], cycles charged for live-outs in alternate memory so far
    reward: chex.Array  # int32[], cycles saved by the last decision
    done: chex.Array  # bool[]
    options: Options
    evictions: Evictions | None  # with moves only

    @property
    def decision(self) -> chex.Array:
        """Index of the decision at hand, the last (padding) one after the end: int32[]."""
        return jnp.minimum(self.position, self.chunk_of.shape[-1] - 1)

    @property
    def is_stuck(self) -> chex.Array:
        """Whether nothing is legal, which only piecemeal rules allow: bool[]."""
        return ~jnp.any(self.options.legal, axis=-1)

    @property
    def latency(self) -> chex.Array:
        """Latency so far in cycles: int32[]."""
        return self.cycles + self.write_back
