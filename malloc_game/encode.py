"""Problem to padded device arrays: the only place where bytes become granules or transfer units."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from malloc_game.errors import ProblemError
from malloc_game.problem import MAX_PRICED_POSITIONS, Problem
from malloc_game.state import TRANSFER_UNIT_BYTES, UNPLACED, Program

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


def _tables(problem: Problem) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Flat cost tables: for each instruction its first entry, then cycles and idle units."""
    start_of: dict[tuple, int] = {}
    replaceable = {v.copied_at for v in problem.values}
    starts, cycles, idle = [], [], []
    for t, instruction in enumerate(problem.instructions):
        table = problem.cost_tables[instruction.cost_table]
        sizes = tuple(p.size_bytes for p in instruction.positions)
        # A copy that may yet disappear lends its idle bandwidth to nobody.
        key = (instruction.cost_table, instruction.other_bytes, sizes, t in replaceable)
        if key not in start_of:
            start_of[key] = len(cycles)
            cycles.extend(table.cycles)
            units = _idle_units(problem, t)
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


def _decisions(problem: Problem) -> list[dict[str, int | bool]]:
    """All decisions in the game's order: at each time uses of parameters, then definitions."""
    rows = []
    last_of_parameter: dict[int, int] = {}
    defined: set[int] = set()
    for t, instruction in enumerate(problem.instructions):
        uses: dict[int, int] = {}
        definitions: list[int] = []
        for p, position in enumerate(instruction.positions):
            value = problem.values[position.value]
            if not value.may_be_in_alternate:
                continue
            if value.is_parameter and instruction.in_entry:
                bit = 1 << p if p < MAX_PRICED_POSITIONS else 0
                uses[position.value] = uses.get(position.value, 0) | bit
            elif not value.is_parameter and position.value not in defined and t != value.copied_at:
                defined.add(position.value)
                definitions.append(position.value)
        for v, bits in uses.items():
            previous = last_of_parameter.get(v, UNPLACED)
            if previous != UNPLACED:
                rows[previous]["next_time"] = t
            last_of_parameter[v] = len(rows)
            rows.append(
                dict(
                    time=t,
                    value=v,
                    is_parameter=True,
                    may_copy=True,
                    previous=previous,
                    bits=bits,
                    end=t + 1,
                )
            )
        for v in definitions:
            value = problem.values[v]
            by_copy = value.copied_at >= 0
            rows.append(
                dict(
                    time=t if by_copy else value.start,
                    value=v,
                    is_parameter=False,
                    may_copy=by_copy,
                    end=value.end,
                )
            )
    return rows


def _pad(rows: list | np.ndarray, length: int, fill: float | bool, dtype: type) -> np.ndarray:
    out = np.full(length, fill, dtype)
    out[: len(rows)] = rows
    return out


def encode(problem: Problem | Program, num_granules: int = NUM_GRANULES) -> Program:
    """Encode a problem as padded arrays for the device; an encoded `Program` is returned as it is.

    Raises:
      ProblemError: the problem does not fit 32-bit arithmetic.
    """
    if isinstance(problem, Program):
        return problem
    starts, cycles, idle = _tables(problem)
    times = len(problem.instructions)
    max_times = bucket(times + 1)  # at least one entry stands for what lies beyond the end
    trips = np.array([i.trip_count for i in problem.instructions], np.int64)
    default_by_time = trips * cycles[starts]
    _check_ranges(problem)
    rows = _decisions(problem)
    max_decisions = bucket(len(rows) + 1)
    granule = granule_bytes(problem, num_granules)
    capacity = problem.target.alternate_memory_bytes // granule
    exclusions = _exclusions(problem, rows)
    max_exclusions = bucket(len(exclusions), smallest=8)
    decided = [problem.values[r["value"]] for r in rows]
    size = [math.ceil(v.size_bytes / granule) for v in decided]
    units = [math.ceil(v.size_bytes / TRANSFER_UNIT_BYTES) for v in decided]
    positions = _computed_positions(problem, rows)
    max_positions = bucket(len(positions))
    before = np.cumsum(default_by_time) - default_by_time
    default = max(1, int(default_by_time.sum()))
    i32 = np.int32
    column = lambda name, fill: _pad([r.get(name, fill) for r in rows], max_decisions, fill, i32)  # noqa: E731
    program = Program(
        num_times=i32(times),
        num_decisions=i32(len(rows)),
        default_cycles=i32(default_by_time.sum()),
        table_start=_pad(starts, max_times, 0, i32),
        trip_count=_pad(trips, max_times, 0, i32),
        may_start_copy=_pad([i.in_entry for i in problem.instructions], max_times, False, bool),
        time_fraction=_pad(before / default, max_times, 1.0, np.float32),
        demand=_pad(_demand(problem), max_times, 0.0, np.float32),
        cycles=_pad(cycles, bucket(len(cycles)), 0, i32),
        idle=_pad(idle, bucket(len(cycles)), 0, i32),
        decision_time=column("time", 0),
        decision_value=column("value", UNPLACED),
        is_parameter=column("is_parameter", 0).astype(bool),
        may_copy=column("may_copy", 0).astype(bool),
        previous=column("previous", UNPLACED),
        next_time=column("next_time", max_times),
        size=_pad(size, max_decisions, 0, i32),
        copy_units=_pad(units, max_decisions, 0, i32),
        bits=column("bits", 0),
        end=column("end", 1),
        write_back=_pad(
            [0 if r["is_parameter"] else _write_back(problem, r["value"]) for r in rows],
            max_decisions, 0, i32),
        # What the compiler refuses is asked about all the same: the shapes stay.
        is_refused=_pad([_is_refused(problem, r) for r in rows], max_decisions, True, bool),
        exclusion_group=column("exclusion_group", 0),
        static_gain=_pad(
            [_static_gain(problem, r) / default for r in rows], max_decisions, 0.0, np.float32),
        position_value=_pad([p[0] for p in positions], max_positions, UNPLACED, i32),
        position_time=_pad([p[1] for p in positions], max_positions, 0, i32),
        position_bits=_pad([p[2] for p in positions], max_positions, 0, i32),
        excluding_group=_pad([e[0] for e in exclusions], max_exclusions, UNPLACED, i32),
        excluding_use=_pad([e[1] for e in exclusions], max_exclusions, UNPLACED, i32),
        excluded_output=_pad([e[2] for e in exclusions], max_exclusions, UNPLACED, i32),
        granules=np.ones(capacity, bool),
    )  # fmt: skip
    return jax.tree.map(jnp.asarray, program)


def _is_refused(problem: Problem, row: dict) -> bool:
    if problem.values[row["value"]].is_refused:
        return True
    return row["is_parameter"] and any(
        position.is_refused
        for position in problem.instructions[row["time"]].positions
        if position.value == row["value"]
    )


def _exclusions(problem: Problem, rows: list[dict]) -> list[tuple[int, int, int]]:
    """(group, decision on the use, decision on the output) of every exclusion that can matter.

    Marks the decisions of each group's parameter with the group's number.
    """
    uses = {(r["value"], r["time"]): d for d, r in enumerate(rows) if r["is_parameter"]}
    outputs = {r["value"]: d for d, r in enumerate(rows) if not r["is_parameter"]}
    asked = {value for value, _ in uses}
    groups: dict[int, int] = {}
    found = []
    for exclusion in problem.exclusions:
        parameter, output = exclusion.parameter, exclusion.output
        if parameter in asked and output in outputs:
            group = groups.setdefault(parameter, len(groups) + 1)
            use = uses.get((parameter, exclusion.time), UNPLACED)
            found.append((group, use, outputs[output]))
    for row in rows:
        if row["is_parameter"]:
            row["exclusion_group"] = groups.get(row["value"], 0)
    return found


def _computed_positions(problem: Problem, rows: list[dict]) -> list[tuple[int, int, int]]:
    """(value, time, mask bit) of every priced position of the computed values that are asked about.

    Positions past the priced ones have no cost; the host's masks hold them.
    """
    return [
        (v, t, 1 << p)
        for v in sorted({r["value"] for r in rows if not r["is_parameter"]})
        for t, p in problem.positions_of_value[v]
        if p < MAX_PRICED_POSITIONS
    ]


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


def _static_gain(problem: Problem, row: dict) -> int:
    """Cycles saved when this decision alone puts its positions in alternate memory."""
    if row["is_parameter"]:
        masks = {row["time"]: row["bits"]}
    else:
        masks: dict[int, int] = {}
        for t, p in problem.positions_of_value[row["value"]]:
            masks[t] = masks.get(t, 0) | 1 << p
    saved = sum(
        problem.instructions[t].trip_count
        * (problem.instruction_cycles(t, 0) - problem.instruction_cycles(t, mask))
        for t, mask in masks.items()
    )
    return saved - (0 if row["is_parameter"] else _write_back(problem, row["value"]))
