"""The memory-mapping problem of one compiled program on one target: host side, in bytes and cycles.

A `Problem` is complete (names, sizes, schedule, costs, target, provenance) and validated when it is
made. `encode.py` turns it into padded arrays; nothing else converts units.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from malloc_game.errors import ProblemError
from malloc_game.problem.target import Target

SCHEMA_VERSION = 1
# A cost table has 2**k entries; positions past the k-th of an instruction are not priced.
MAX_PRICED_POSITIONS = 10
# Bounds of what a file may say; within them no arithmetic of this package overflows.
MAX_BYTES = 1 << 50
MAX_INT = (1 << 31) - 1
MAX_TRIPS = 1 << 30
_MAX_CYCLES = MAX_INT  # of one execution of an instruction
_MAX_LATENCY = 1 << 53  # cycles of a program: exact as a float
_MAX_POSITIONS = 10_000  # of an instruction


def index_text(index: tuple[int, ...]) -> str:
    """A tuple index as XLA writes it, `{1,0}`; nothing for an array that is no tuple's part."""
    return "{" + ",".join(map(str, index)) + "}" if index else ""


@dataclasses.dataclass(frozen=True)
class Position:
    """One array that an instruction reads (operand) or writes (output), backed by a value."""

    value: int  # index into Problem.values
    is_output: bool
    number: int  # operand number; 0 for outputs
    index: tuple[int, ...]  # tuple index inside that operand or output
    size_bytes: int  # bytes read or written there
    # The compiler will not have a parameter in alternate memory for this use.
    is_refused: bool = False

    def __str__(self) -> str:
        where = "output" if self.is_output else f"operand {self.number}"
        return where + index_text(self.index)


@dataclasses.dataclass(frozen=True)
class CostTable:
    """Cycles of an instruction for every placement of its first `num_bits` positions.

    Bit `i` of the entry's number is set when position `i` is in alternate memory. `known[m]` tells
    whether the compiler itself gave `cycles[m]` or a model did. No monotonicity is assumed.
    """

    cycles: tuple[int, ...]  # length 2**num_bits, cycles of one execution
    known: tuple[bool, ...]  # same length

    @property
    def num_bits(self) -> int:
        """Number of positions that the table prices."""
        return len(self.cycles).bit_length() - 1


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One scheduled instruction that takes time; its index in the problem is the logical time."""

    name: str
    opcode: str
    schedule_time: (
        int  # the compiler's own logical time, before zero-cost instructions are left out
    )
    trip_count: int  # executions in one run of the program (> 1 inside loops)
    in_entry: bool  # asynchronous copies may start right before instructions of the entry only
    other_bytes: int  # default-memory traffic of arrays that are not positions
    positions: tuple[Position, ...]
    cost_table: int  # index into Problem.cost_tables
    loops: tuple[int, ...] = ()  # numbers of the loops around it, outermost first
    # Alternate memory at offset 0 that it needs for itself (XLA's scoped memory), beyond what the
    # target's capacity leaves out already.
    reserved_bytes: int = 0


@dataclasses.dataclass(frozen=True)
class Value:
    """A buffer (XLA's HloBuffer: everything that must share one placement, loop carries included).

    It occupies memory over logical times [start, end), half-open. A parameter lives in default
    memory before the program and can be copied for each use; a computed value is in one memory for
    its whole life. A value that a plain copy of a parameter defines can do without that copy: a
    prefetch fills it straight from the parameter, in time for its first use, and instruction
    `copied_at` disappears. `write_back_cycles` is charged for a live-out in alternate memory.

    XLA does the like with a plain slice of another value, `sliced_at`: an asynchronous slice reads
    that value in default memory and fills this one's chunk. The game cannot ask for it; mappings
    from elsewhere may have it (see `replaced_slices`).
    """

    name: str
    size_bytes: int  # as padded by the layout
    start: int
    end: int
    is_parameter: bool
    is_live_out: bool
    may_be_in_alternate: (
        bool  # False: never asked about (size 0 or too large, updated in place ...)
    )
    is_refused: bool = False  # asked about, but the compiler will not have it in alternate memory
    write_back_cycles: int = 0
    copied_at: int = -1  # the copy instruction that a prefetch can replace, -1 for none
    copied_from: int = -1  # the parameter that it copies (index into Problem.values), -1 for none
    # Cycles of `copied_at` where no prefetch replaces it and it writes alternate memory itself;
    # -1 where that is not known.
    copy_cycles: int = -1
    # By what names the bodies of loops that carry it know it (`arg_tuple.3{2}`).
    loop_names: tuple[str, ...] = ()
    sliced_at: int = -1  # the plain slice that an asynchronous one can replace, -1 for none
    sliced_from: int = -1  # what it is a slice of (index into Problem.values), -1 for none
    # What it takes of alternate memory where the compiler splits it between the memories of several
    # cores, at the same offset in each; 0 where it does not. The game leaves room for all of it.
    split_bytes: int = 0
    shape: str = ""  # for people: as XLA writes it, `bf16[512,4096]`; empty where not known


@dataclasses.dataclass(frozen=True)
class Exclusion:
    """Two placements that the compiler cannot be asked for together.

    While `parameter` is in alternate memory for some use, but in default memory for its use at
    `time`, the value `output`, which that instruction defines, must be in default memory.
    """

    parameter: int  # index into Problem.values
    time: int
    output: int  # index into Problem.values


@dataclasses.dataclass(frozen=True)
class Problem:
    """A program's memory-mapping problem.

    Raises:
      ProblemError: a rule is broken; the message names the field, the value and the rule.
    """

    name: str
    target: Target
    instructions: tuple[Instruction, ...]
    values: tuple[Value, ...]
    cost_tables: tuple[CostTable, ...]
    exclusions: tuple[Exclusion, ...] = ()
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        validate(self)

    @functools.cached_property
    def positions_of_value(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """For each value, its (instruction, position number) pairs in schedule order."""
        found: list[list[tuple[int, int]]] = [[] for _ in self.values]
        for t, instruction in enumerate(self.instructions):
            for p, position in enumerate(instruction.positions):
                found[position.value].append((t, p))
        return tuple(map(tuple, found))

    def instruction_cycles(self, time: int, mask: int) -> int:
        """Cycles of one execution of instruction `time`; bit p of `mask`: p is in alternate."""
        table = self.cost_tables[self.instructions[time].cost_table]
        return table.cycles[mask & (len(table.cycles) - 1)]

    def default_bytes(self, time: int, mask: int) -> int:
        """Bytes that instruction `time` moves to and from default memory under `mask`."""
        instruction = self.instructions[time]
        return instruction.other_bytes + sum(
            p.size_bytes for i, p in enumerate(instruction.positions) if not mask >> i & 1
        )

    def replace(self, **changes: Any) -> Problem:
        """A copy with some fields changed, validated again."""
        return dataclasses.replace(self, **changes)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ProblemError(message)


def _check_target(target: Target) -> None:
    for field in ("alternate_memory_bytes", "alignment_bytes"):
        value = getattr(target, field)
        _require(0 < value <= MAX_BYTES, f"target.{field} is {value}; need 1..2**50")
    _require(
        target.alignment_bytes <= target.alternate_memory_bytes,
        f"target.alignment_bytes is {target.alignment_bytes}, more than all of alternate memory",
    )
    for field in ("max_outstanding_copies", "alternate_memory_space"):
        value = getattr(target, field)
        _require(0 <= value <= MAX_INT, f"target.{field} is {value}; need 0..{MAX_INT}")
    for field in ("default_bandwidth_bytes_per_second", "clock_hz"):
        value = getattr(target, field)
        _require(1e-3 <= value < 1e18, f"target.{field} is {value}; need 0.001 to 1e18")


def _check_table(i: int, table: CostTable) -> None:
    size = len(table.cycles)
    _require(
        size & (size - 1) == 0 and 1 <= size <= 1 << MAX_PRICED_POSITIONS,
        f"cost_tables[{i}].cycles has {size} entries; need 1, 2, 4 .. {1 << MAX_PRICED_POSITIONS}",
    )
    _require(len(table.known) == size, f"cost_tables[{i}].known must have {size} entries")
    for mask, cycles in enumerate(table.cycles):
        _require(
            0 <= cycles <= _MAX_CYCLES,
            f"cost_tables[{i}].cycles[{mask}] is {cycles}; need 0..{_MAX_CYCLES}",
        )


def _check_value(i: int, value: Value, num_times: int, target: Target) -> None:
    name = f"values[{i}] ({value.name})"
    _require(0 <= value.size_bytes <= MAX_BYTES, f"{name}: size_bytes is {value.size_bytes}")
    _require(
        0 <= value.start < value.end <= num_times,
        f"{name}: live range [{value.start}, {value.end}) must be non-empty within 0..{num_times}",
    )
    _require(
        0 <= value.write_back_cycles <= _MAX_CYCLES,
        f"{name}: write_back_cycles is {value.write_back_cycles}; need 0..{_MAX_CYCLES}",
    )
    _require(
        value.copied_at == -1
        or (not value.is_parameter and value.start <= value.copied_at < value.end),
        f"{name}: copied_at is {value.copied_at}; need -1 or a time in the value's live range",
    )
    _require(
        value.sliced_at == -1
        or (not value.is_parameter and value.start <= value.sliced_at < value.end),
        f"{name}: sliced_at is {value.sliced_at}; need -1 or a time in the value's live range",
    )
    _require(
        0 <= value.split_bytes <= value.size_bytes,
        f"{name}: split_bytes is {value.split_bytes}; need 0..{value.size_bytes}",
    )
    _require(
        -1 <= value.copy_cycles <= _MAX_CYCLES,
        f"{name}: copy_cycles is {value.copy_cycles}; need -1..{_MAX_CYCLES}",
    )
    fits = 0 < value.size_bytes <= target.alternate_memory_bytes
    _require(
        fits or not value.may_be_in_alternate,
        f"{name}: may_be_in_alternate needs a size of 1..{target.alternate_memory_bytes} bytes,"
        f" it has {value.size_bytes}",
    )


def _check_instruction(problem: Problem, t: int, instruction: Instruction) -> None:
    name = f"instructions[{t}] ({instruction.name})"
    trips = instruction.trip_count
    _require(1 <= trips <= MAX_TRIPS, f"{name}: trip_count {trips}")
    _require(
        len(instruction.positions) <= _MAX_POSITIONS,
        f"{name}: {len(instruction.positions)} positions; need at most {_MAX_POSITIONS}",
    )
    _require(0 <= instruction.other_bytes <= MAX_BYTES, f"{name}: other_bytes is out of range")
    _require(
        0 <= instruction.reserved_bytes <= problem.target.alternate_memory_bytes,
        f"{name}: reserved_bytes is {instruction.reserved_bytes};"
        f" need 0..{problem.target.alternate_memory_bytes}",
    )
    _require(
        0 <= min(instruction.loops, default=0) <= max(instruction.loops, default=0) <= MAX_INT,
        f"{name}: loops has a number outside 0..{MAX_INT}",
    )
    _require(
        0 <= instruction.cost_table < len(problem.cost_tables),
        f"{name}: cost_table {instruction.cost_table} does not exist",
    )
    table = problem.cost_tables[instruction.cost_table]
    _require(
        table.num_bits == min(len(instruction.positions), MAX_PRICED_POSITIONS),
        f"{name}: cost table {instruction.cost_table} prices {table.num_bits} positions,"
        f" the instruction has {len(instruction.positions)}",
    )
    for p, position in enumerate(instruction.positions):
        where = f"{name}: positions[{p}]"
        _require(0 <= position.value < len(problem.values), f"{where}: no value {position.value}")
        _require(0 <= position.size_bytes <= MAX_BYTES, f"{where}: size_bytes out of range")
        numbers = (position.number, *position.index)
        _require(
            0 <= min(numbers) <= max(numbers) <= MAX_INT,
            f"{where}: number {position.number} or index is outside 0..{MAX_INT}",
        )
        value = problem.values[position.value]
        _require(
            value.start <= t < value.end,
            f"{where}: value {value.name} lives over [{value.start}, {value.end}), not at {t}",
        )
        _require(
            t >= value.copied_at,
            f"{where}: value {value.name} is used at {t}, before the copy at {value.copied_at}",
        )
        _require(
            value.is_parameter or not position.is_refused,
            f"{where}: is_refused is for parameters; value {value.name} is computed",
        )


def _check_exclusion(problem: Problem, name: str, exclusion: Exclusion) -> None:
    numbers = range(len(problem.values))
    _require(
        exclusion.parameter in numbers and exclusion.output in numbers,
        f"{name}: no values {exclusion.parameter} and {exclusion.output}",
    )
    _require(
        problem.values[exclusion.parameter].is_parameter
        and not problem.values[exclusion.output].is_parameter,
        f"{name}: needs a parameter and a computed value",
    )
    _require(
        0 <= exclusion.time < len(problem.instructions),
        f"{name}: time is {exclusion.time}; need a logical time of the problem",
    )
    at = problem.instructions[exclusion.time].positions
    _require(
        any(p.value == exclusion.parameter and not p.is_output for p in at)
        and any(p.value == exclusion.output and p.is_output for p in at),
        f"{name}: {problem.instructions[exclusion.time].name} does not read the parameter"
        " and define the output",
    )


def validate(problem: Problem) -> None:
    """Check every rule a problem must meet.

    Raises:
      ProblemError: one line with the field, the value and the rule.
    """
    _check_target(problem.target)
    _require(len(problem.instructions) > 0, "instructions is empty; need at least one")
    times = [i.schedule_time for i in problem.instructions]
    _require(
        all(a < b for a, b in zip([-1, *times[:-1]], times, strict=True)) and times[-1] <= MAX_INT,
        f"instructions: schedule_time must grow strictly, within 0..{MAX_INT}",
    )
    for i, table in enumerate(problem.cost_tables):
        _check_table(i, table)
    for i, value in enumerate(problem.values):
        _check_value(i, value, len(problem.instructions), problem.target)
    for t, instruction in enumerate(problem.instructions):
        _check_instruction(problem, t, instruction)
    for i, value in enumerate(problem.values):
        source = value.copied_from
        _require(
            source == -1 or (0 <= source < len(problem.values) and value.copied_at >= 0),
            f"values[{i}] ({value.name}): copied_from is {source}; need -1, or a value",
        )
        _require(
            source == -1 or problem.values[source].is_parameter,
            f"values[{i}] ({value.name}): copied_from is {source}, which is no parameter",
        )
        source = value.sliced_from
        _require(
            (0 <= source < len(problem.values) and source != i) == (value.sliced_at >= 0)
            and source >= -1,
            f"values[{i}] ({value.name}): sliced_from is {source}; need another value if sliced_at"
            " is a time, -1 if not",
        )
    for i, exclusion in enumerate(problem.exclusions):
        _check_exclusion(problem, f"exclusions[{i}]", exclusion)
    worst = sum(
        i.trip_count * max(problem.cost_tables[i.cost_table].cycles) for i in problem.instructions
    )
    worst += sum(v.write_back_cycles for v in problem.values)
    _require(worst <= _MAX_LATENCY, f"the program may take {worst} cycles; need at most 2**53")
    names = [v.name for v in problem.values]
    _require(len(set(names)) == len(names), "values: names must be unique")
    names = [i.name for i in problem.instructions]
    _require(len(set(names)) == len(names), "instructions: names must be unique")
