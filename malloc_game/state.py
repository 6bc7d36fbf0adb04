"""Every array of the game, with its shape, in one place.

Letters: T instructions (logical times), D decisions, U positions of computed values, C entries of
all cost tables, X exclusions. All are padded sizes; granules are the unit of alternate memory,
transfer units (`TRANSFER_UNIT_BYTES`) that of copies.
"""

from __future__ import annotations

import chex
import jax.numpy as jnp

COPY, NO_COPY, DROP = 0, 1, 2
NUM_ACTIONS = 3
ACTION_NAMES = ("COPY", "NO_COPY", "DROP")
UNPLACED = -1  # no chunk, no copy, no earlier decision
TRANSFER_UNIT_BYTES = 1024


@chex.dataclass(frozen=True)
class Program:
    """A problem encoded for the device: static data, an argument of every game function."""

    num_times: chex.Array  # int32[]
    num_decisions: chex.Array  # int32[]
    default_cycles: chex.Array  # int32[], latency with everything in default memory
    # Instructions.
    table_start: chex.Array  # int32[T], first entry of the instruction's cost table
    trip_count: chex.Array  # int32[T], 0 for padding
    may_start_copy: chex.Array  # bool[T]
    time_fraction: chex.Array  # float32[T], default cycles before this time / default cycles
    demand: chex.Array  # float32[T], bytes of all live values that may be in alternate / capacity
    # Cost tables.
    cycles: chex.Array  # int32[C], cycles of one execution
    idle: chex.Array  # int32[C], transfer units of default bandwidth left idle by one execution
    # Decisions, in the order in which the game asks them.
    decision_time: chex.Array  # int32[D]
    decision_value: chex.Array  # int32[D]
    is_parameter: chex.Array  # bool[D], a use of a parameter; else a computed value as a whole
    may_copy: chex.Array  # bool[D], a parameter, or a value that a prefetch can define
    previous: chex.Array  # int32[D], earlier decision on the same parameter or UNPLACED
    next_time: chex.Array  # int32[D], time of the next decision on the same parameter or T
    size: chex.Array  # int32[D], granules
    copy_units: chex.Array  # int32[D], transfer units
    bits: chex.Array  # int32[D], mask bits that a parameter's use sets at decision_time
    end: chex.Array  # int32[D], end of a computed value's live range; decision_time + 1 for uses
    write_back: chex.Array  # int32[D], cycles charged when a computed live-out is in alternate
    is_refused: chex.Array  # bool[D], only DROP can be asked of the compiler
    exclusion_group: chex.Array  # int32[D], the parameter's group of exclusions, 0 for none
    static_gain: chex.Array  # float32[D], cycles saved if only this were in alternate / default
    # Positions of computed values.
    position_value: chex.Array  # int32[U], UNPLACED for padding
    position_time: chex.Array  # int32[U]
    position_bits: chex.Array  # int32[U]
    # Exclusions: see `problem.Exclusion`.
    excluding_group: chex.Array  # int32[X], 1.. in order of parameters, UNPLACED for padding
    excluding_use: chex.Array  # int32[X], decision on the use or UNPLACED if it is never asked
    excluded_output: chex.Array  # int32[X], decision on the output
    # Alternate memory: one entry for each granule, only its length matters.
    granules: chex.Array  # bool[G], all True

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


@chex.dataclass(frozen=True)
class Options:
    """What the decision at hand could do, worked out once when it comes up."""

    legal: chex.Array  # bool[3]
    copy_start: chex.Array  # int32[], latest start of a copy for this use or UNPLACED
    copy_ahead: chex.Array  # int32[], transfer units started with it, itself included
    offset: chex.Array  # int32[], granule of the lowest fit or UNPLACED
    gain: chex.Array  # int32[], cycles saved in alternate memory, before any write-back


@chex.dataclass(frozen=True)
class GameState:
    """A game in progress. A chunk belongs to the decision that made it."""

    position: chex.Array  # int32[], the decision at hand; num_decisions when done
    mask: chex.Array  # int32[T], positions in alternate memory
    chunk_offset: chex.Array  # int32[D], granule or UNPLACED
    chunk_start: chex.Array  # int32[D]
    chunk_end: chex.Array  # int32[D], exclusive
    chunk_of: chex.Array  # int32[D], the chunk that serves this decision or UNPLACED
    copy_start: chex.Array  # int32[D], or UNPLACED where the decision made no copy
    copy_ahead: chex.Array  # int32[D], transfer units started at that time up to this copy
    cycles: chex.Array  # int32[], of all instructions, undecided positions in default memory
    write_back: chex.Array  # int32[], cycles charged for live-outs in alternate memory so far
    reward: chex.Array  # int32[], cycles saved by the last decision
    done: chex.Array  # bool[]
    options: Options

    @property
    def decision(self) -> chex.Array:
        """Index of the decision at hand, the last (padding) one after the end: int32[]."""
        return jnp.minimum(self.position, self.chunk_of.shape[-1] - 1)

    @property
    def latency(self) -> chex.Array:
        """Latency so far in cycles: int32[]."""
        return self.cycles + self.write_back
