"""Problem to padded device arrays: the only place where bytes become granules or transfer units."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from malloc_game.errors import ProblemError
from malloc_game.game.decisions import Decision, list_decisions, list_exclusions, static_gain
from malloc_game.game.state import COMPILER, MOVES, NEVER, TRANSFER_UNIT_BYTES, UNPLACED, Program
from malloc_game.problem.definition import MAX_PRICED_POSITIONS, Problem

NUM_GRANULES = 2048
_INT32_MAX = (1 << 31) - 1
_MAX_IDLE_UNITS = 1 << 30  # of a whole program: sums of two such numbers are never formed


def bucket(size: int, smallest: int = 64) -> int:
    """Padded size: the next of 64, 96, 128, 192, 256, ... so that programs share traces."""
    padded = smallest
    while padded < size:
        padded = padded * 3 // 2 if padded & (padded - 1) == 0 else padded * 4 // 3
    return padded


def granule_bytes(problem: Problem, num_granules: int = NUM_GRANULES) -> int:
    """Bytes of one granule: the capacity split in `num_granules`, rounded up to the alignment."""
    alignment = problem.target.alignment_bytes
    return max(1, math.ceil(problem.target.alternate_memory_bytes / num_granules / alignment)) * (
        alignment
    )


def _idle_units(problem: Problem, time: int) -> np.ndarray:
    """Transfer units of default bandwidth that an instruction leaves idle, by mask: int64[2**k]."""
    instruction = problem.instructions[time]
    cycles = np.array(problem.cost_tables[instruction.cost_table].cycles, np.float64)
    moved = np.full(len(cycles), float(problem.default_bytes(time, 0)))
    every = np.arange(len(cycles))
    for p, position in enumerate(instruction.positions[:MAX_PRICED_POSITIONS]):
        moved -= position.size_bytes * (every >> p & 1)
    idle_bytes = cycles * problem.target.default_bytes_per_cycle - moved
    # Rounded down, while copies are rounded up: a copy that is on time here is on time in bytes.
    # At most an equal share of what 32 bits can sum up: far more than any copy needs.
    most = _MAX_IDLE_UNITS // len(problem.instructions)
    return np.clip(np.floor(idle_bytes / TRANSFER_UNIT_BYTES), 0, most).astype(np.int64)


def _tables(problem: Problem, shares: int) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Flat cost tables: for each instruction its first entry, then cycles and idle units."""
    start_of: dict[tuple, int] = {}
    replaceable = {v.copied_at for v in problem.values}
    starts: list[int] = []
    cycles: list[int] = []
    idle: list[int] = []
    for t, instruction in enumerate(problem.instructions):
        table = problem.cost_tables[instruction.cost_table]
        sizes = tuple(p.size_bytes for p in instruction.positions)
        # A copy that may yet disappear lends its idle bandwidth to nobody.
        key = (instruction.cost_table, instruction.other_bytes, sizes, t in replaceable)
        if key not in start_of:
            start_of[key] = len(cycles)
            cycles.extend(table.cycles)
            units = _idle_units(problem, t) // shares
            idle.extend(np.zeros_like(units) if t in replaceable else units)
        starts.append(start_of[key])
    return starts, np.array(cycles, np.int64), np.array(idle, np.int64)


def _check_ranges(problem: Problem) -> None:
    worst = sum(
        i.trip_count * max(problem.cost_tables[i.cost_table].cycles) for i in problem.instructions
    )
    worst += sum(v.write_back_cycles for v in problem.values)
    if worst > _INT32_MAX:
        raise ProblemError(
            f"{problem.name}: worst-case latency of {worst} cycles exceeds 2**31 - 1;"
            " the game counts in 32-bit cycles"
        )
    largest = max((v.size_bytes for v in problem.values if v.may_be_in_alternate), default=0)
    if largest > _MAX_IDLE_UNITS * TRANSFER_UNIT_BYTES:
        raise ProblemError(
            f"{problem.name}: a value of {largest} bytes may be in alternate memory; the game"
            f" copies at most {_MAX_IDLE_UNITS * TRANSFER_UNIT_BYTES}"
        )


def _pad(
    rows: Sequence | np.ndarray, length: int, fill: float | bool, dtype: type = np.int32
) -> np.ndarray:
    out: np.ndarray = np.full(length, fill, dtype)
    out[: len(rows)] = rows
    return out


def encode(
    problem: Problem | Program, num_granules: int = NUM_GRANULES, *, rules: str = COMPILER
) -> Program:
    """Encode a problem as padded arrays for the device; an encoded `Program` is returned as it is.

    num_granules: the alternate memory is divided in about so many.
    rules: "compiler": what XLA:TPU can be told. A computed value is asked once, and is in one
      memory for its whole life. Of values that are written once, outside loops, other rules ask
      each use as well. "moves" (for research): such values are evicted and prefetched, and neither
      refusals nor exclusions hold. "piecemeal" (as in the paper): they stay where they were
      produced, but get room only up to the use that is asked; a game is stuck where there is none.

    Raises:
      ProblemError: the problem does not fit 32-bit arithmetic. ValueError: there are no such rules.
    """
    if isinstance(problem, Program):
        return problem
    _check_ranges(problem)
    decisions = list_decisions(problem, rules)
    exclusions = [] if rules == MOVES else list_exclusions(problem, decisions)
    max_decisions = bucket(len(decisions) + 1)
    granule = granule_bytes(problem, num_granules)
    over_time = _instruction_columns(
        problem, decisions, max_decisions, shares=2 if rules == MOVES else 1
    )
    default = max(1, int(over_time["default_cycles"]))
    columns = (
        over_time
        | _decision_columns(problem, decisions, max_decisions, granule, default)
        | _effect_columns(decisions, max_decisions)
        | _exclusion_columns(exclusions)
    )
    program = Program(
        num_times=np.int32(len(problem.instructions)),
        num_decisions=np.int32(len(decisions)),
        max_outstanding=np.int32(problem.target.max_outstanding_copies or NEVER),
        granules=np.ones(problem.target.alternate_memory_bytes // granule, bool),
        moves=np.bool_(True) if rules == MOVES else None,
        **columns,
    )
    return jax.device_put(program)


def _instruction_columns(
    problem: Problem, decisions: list[Decision], max_decisions: int, shares: int
) -> dict[str, Any]:
    """Everything over T and C. shares: among so many queues idle bandwidth is divided."""
    starts, cycles, idle = _tables(problem, shares)
    times = len(problem.instructions)
    max_times = bucket(times + 1)  # at least one entry stands for what lies beyond the end
    trips = np.array([i.trip_count for i in problem.instructions], np.int64)
    by_time = trips * cycles[starts]
    before = np.cumsum(by_time) - by_time
    placed_by = np.full((max_times, MAX_PRICED_POSITIONS), max_decisions - 1, np.int32)
    for i, decision in enumerate(decisions):
        for t, p in decision.positions:
            if p < MAX_PRICED_POSITIONS:
                placed_by[t, p] = i
    return dict(
        default_cycles=np.int32(by_time.sum()),
        table_start=_pad(starts, max_times, 0),
        trip_count=_pad(trips, max_times, 0),
        may_start_copy=_pad([i.in_entry for i in problem.instructions], max_times, False, bool),
        time_fraction=_pad(before / max(1, by_time.sum()), max_times, 1.0, np.float32),
        demand=_pad(_demand(problem), max_times, 0.0, np.float32),
        position_decision=placed_by,
        cycles=_pad(cycles, bucket(len(cycles)), 0),
        idle=_pad(idle, bucket(len(cycles)), 0),
    )


def _decision_columns(
    problem: Problem, decisions: list[Decision], length: int, granule: int, default: int
) -> dict[str, np.ndarray]:
    """Everything over D but the effects. default: cycles with everything in default memory."""
    max_times = bucket(len(problem.instructions) + 1)
    values = [problem.values[d.value] for d in decisions]
    write_backs = [0 if d.is_parameter else _write_back(problem, d.value) for d in decisions]
    # A use in the middle of a value's life only gives its write-back back, when it is evicted.
    charged = [0 if d.is_use else w for d, w in zip(decisions, write_backs, strict=True)]
    gains = [static_gain(problem, d) - c for d, c in zip(decisions, charged, strict=True)]
    reserved = [math.ceil(i.reserved_bytes / granule) for i in problem.instructions]
    reserves = any(reserved)  # mostly not, and then there is nothing to look through
    inside = [max(reserved[d.time : d.end], default=0) if reserves else 0 for d in decisions]
    # What instructions between two decisions reserve counts until the second of them.
    asked = [0, *(d.asked_at for d in decisions)]
    before = [max(reserved[a:b], default=0) for a, b in itertools.pairwise(asked)]

    def column(name: str, fill: int | bool, dtype: type = np.int32) -> np.ndarray:
        return _pad([getattr(d, name) for d in decisions], length, fill, dtype)

    next_times = [max_times if d.next_time is None else d.next_time for d in decisions]
    return dict(
        asked_at=column("asked_at", decisions[-1].asked_at if decisions else 0),
        decision_time=column("time", 0),
        decision_value=column("value", UNPLACED),
        is_parameter=column("is_parameter", False, bool),
        is_use=column("is_use", False, bool),
        may_copy=column("may_copy", False, bool),
        must_stay=column("must_stay", False, bool),
        previous=column("previous", UNPLACED),
        next_time=_pad(next_times, length, max_times),
        size=_pad([math.ceil(v.size_bytes / granule) for v in values], length, 0),
        copy_units=_pad([math.ceil(v.size_bytes / TRANSFER_UNIT_BYTES) for v in values], length, 0),
        end=column("end", 1),
        reserved=_pad(inside, length, 0),
        reserved_before=_pad(before, length, 0),
        write_back=_pad(write_backs, length, 0),
        # What the compiler refuses is asked about all the same: the shapes stay.
        is_refused=column("is_refused", True, bool),
        exclusion_group=column("exclusion_group", 0),
        static_gain=_pad([g / default for g in gains], length, 0.0, np.float32),
    )


def _effect_columns(decisions: list[Decision], length: int) -> dict[str, np.ndarray]:
    """What each decision does to the masks of instructions, one decision after the other."""
    effects = [sorted(d.effects.items()) for d in decisions]
    counts = [len(each) for each in effects]
    flat = [pair for each in effects for pair in each]
    size = bucket(len(flat))
    return dict(
        first_effect=_pad(np.cumsum([0, *counts])[:-1], length, 0),
        num_effects=_pad(counts, length, 0),
        effect_time=_pad([t for t, _ in flat], size, 0),
        effect_bits=_pad([b for _, b in flat], size, 0),
    )


def _exclusion_columns(exclusions: list[tuple[int, int, int]]) -> dict[str, np.ndarray]:
    size = bucket(len(exclusions), smallest=8)
    names = ("excluding_group", "excluding_use", "excluded_output")
    return {
        name: _pad([row[i] for row in exclusions], size, UNPLACED) for i, name in enumerate(names)
    }


def _demand(problem: Problem) -> np.ndarray:
    """Bytes of all live values that may be in alternate memory over its capacity: float64[T]."""
    change = np.zeros(len(problem.instructions) + 1)
    for value in problem.values:
        if value.may_be_in_alternate:
            change[value.start] += value.size_bytes
            change[value.end] -= value.size_bytes
    return np.cumsum(change)[:-1] / problem.target.alternate_memory_bytes


def _write_back(problem: Problem, value: int) -> int:
    has_output = any(
        problem.instructions[t].positions[p].is_output for t, p in problem.positions_of_value[value]
    )
    return problem.values[value].write_back_cycles if has_output else 0
