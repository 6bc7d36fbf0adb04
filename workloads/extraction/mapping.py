"""The mapping under which a compile of a program runs, as an `Assignment` of the game.

Placements and copies come from the compiled module, chunks from the compiler's dump; nothing is
guessed. What the two say of each other (slices, prefetches across programs) is put together here.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

from malloc_game import EVICTION, PREFETCH, Assignment, Chunk, Copy, Target, Value
from workloads.compiler.session import Compiled
from workloads.costs.judge import copy_size
from workloads.extraction.buffers import MsaDump, parse_dump
from workloads.extraction.placed import placed_module
from workloads.extraction.structure import Slot, Structure
from workloads.hlo.module import Instruction, Leaf, Module


def mask_of(instruction: Instruction, slots: Sequence[Slot], target: Target) -> int:
    """Placement mask of a compiled instruction: bit i, slot i is in alternate memory."""
    return sum(
        1 << i
        for i, leaf in enumerate(_leaves(instruction, slots))
        if leaf is not None and leaf.memory_space == target.alternate_memory_space
    )


def _leaves(instruction: Instruction, slots: Sequence[Slot]) -> Iterator[Leaf | None]:
    for is_output, number, index in slots:
        source = instruction if is_output else instruction.operands[number]
        yield source.leaves.get(index)


def split_sizes(structure: Structure, module: Module) -> dict[int, int]:
    """Values that a compile splits between the memories of several cores, and bytes in each."""
    by_name = {i.name: i for i, _ in module.flattened()}
    found = {}
    for row in structure.rows:
        other = by_name.get(row.instruction.name)
        if other is None or other.opcode != row.instruction.opcode:
            continue
        for position, leaf in zip(row.positions, _leaves(other, row.slots), strict=True):
            if leaf is not None and leaf.part_bytes < leaf.size_bytes:
                found[position.value] = leaf.part_bytes
    return found


def assignment_of(
    structure: Structure, compiled: Compiled, source: str, module: Module | None = None
) -> Assignment:
    """The mapping under which a compile of the program of `structure` really runs.

    module: its `placed_module`, where that is at hand already.

    Raises:
      CompileError: the compiler's dump cannot be read.
    """
    module = module or placed_module(compiled)
    by_name = {i.name: i for i, _ in module.flattened()}
    masks = []
    for row in structure.rows:
        other = by_name.get(row.instruction.name)
        if other is None:  # it became asynchronous: its output is in alternate memory
            masks.append(sum(1 << i for i, slot in enumerate(row.slots) if slot[0]))
        else:
            masks.append(mask_of(other, row.slots, structure.target))
    replaced = replaced_copies(structure, by_name)
    groups = copy_groups(structure, module, replaced)
    copies = [copy for group in groups for copy in group]
    dump = parse_dump(compiled.msa) if compiled.msa else None
    chunks = []
    if dump:
        chunks = chunks_of(structure, dump, groups, replaced, split_sizes(structure, module))
    return Assignment(tuple(masks), tuple(chunks), _in_order(copies), source)


def replaced_copies(structure: Structure, names: Container[str]) -> dict[int, int]:
    """Values whose defining copy or plain slice is not among `names`: an asynchronous one does it.

    Returns the value that each of them was copied from.
    """
    found = {}
    for row in structure.rows:
        opcode = row.instruction.opcode
        if opcode in ("copy", "slice") and row.instruction.name not in names:
            value = structure.numbers.get(structure.flow.source(row.instruction))
            source = structure.numbers.get(structure.flow.source(row.instruction.operands[0]))
            if value is not None and source is not None:
                found[value] = source
    return found


# -- copies ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Event:
    """A start or an end of a copy: before which instruction, and its number among all events."""

    time: int
    number: int


def copy_groups(
    structure: Structure, module: Module, replaced: Mapping[int, int]
) -> list[list[Copy]]:
    """Asynchronous copies of a compiled module in the problem's times and values.

    Each group is one transfer: a copy alone, or the slices that make up one value, in the order of
    their bytes. `start_order` and `end_order` are numbers of the events of the whole program.
    replaced: see `replaced_copies`.
    """
    times = {row.instruction.name: t for t, row in enumerate(structure.rows)}
    started: dict[int, _Event] = {}
    found: dict[int, list[tuple[tuple[int, ...], Copy]]] = {}
    owners = _Owners(structure, module, replaced)
    now = 0
    for number, (instruction, trips) in enumerate(module.flattened()):
        if instruction.name in times:
            now = times[instruction.name] + 1
        elif instruction.is_async_start:
            started[instruction.id] = _Event(now, number)
        elif instruction.is_async_done:
            start = instruction.operands[0]
            size, is_read = copy_size(start, structure.target)
            value = owners.value(instruction)
            if not size or value is None:
                continue
            begin = started[start.id]
            copy = Copy(
                value=value,
                start=begin.time,
                end=now,
                size=size,
                direction=PREFETCH if is_read else EVICTION,
                trip_count=trips,
                start_order=begin.number,
                end_order=number,
                is_cross_program=start.is_cross_program_prefetch,
            )
            whole = owners.whole_of(instruction)
            found.setdefault(whole, []).append((start.slice_starts, copy))
    groups = []
    for parts in found.values():
        parts.sort(key=lambda part: part[0])
        before = [0, *itertools.accumulate(copy.size for _, copy in parts)]
        groups.append(
            [
                dataclasses.replace(copy, value_offset=offset)
                for (_, copy), offset in zip(parts, before, strict=False)
            ]
        )
    return groups


class _Owners:
    """Which value of the problem a copy of a compiled module carries."""

    def __init__(self, structure: Structure, module: Module, replaced: Mapping[int, int]):
        self._structure = structure
        # Only names of the schedule that memory-space assignment was given mean the same in both.
        self._mine = {
            i.name: i
            for i in structure.module.instructions.values()
            if i.name in structure.dump.schedule
        }
        self._users: dict[int, list[tuple[Instruction, int]]] = {}
        for instruction in module.instructions.values():
            for number, operand in enumerate(instruction.operands):
                self._users.setdefault(operand.id, []).append((instruction, number))
        self._copied = set(replaced.values())

    def value(self, done: Instruction) -> int | None:
        """The value whose chunk a copy fills or empties, None where the problem has none."""
        instruction = done.operands[0].operands[0]
        index: tuple[int, ...] = ()
        # Back through what memory-space assignment has put in, to what the program had before.
        while instruction.name not in self._mine:
            if instruction.opcode == "get-tuple-element":
                index = (instruction.proto.tuple_index, *index)
            elif instruction.opcode == "tuple" and index:
                instruction, index = instruction.operands[index[0]], index[1:]
                continue
            elif instruction.is_async_start:
                index = ()
            if not instruction.operands:
                return None
            instruction = instruction.operands[0]
        value = self._number(instruction.name, index)
        return self._as_used(done, (), value) if value in self._copied else value

    def whole_of(self, done: Instruction) -> int:
        """Id of what names slices as the whole again; of the instruction itself otherwise."""
        for user, _ in self._users.get(done.id, ()):
            if user.is_concat_bitcast:
                return user.id
        return done.id

    def _number(self, name: str, index: tuple[int, ...]) -> int | None:
        return self._structure.numbers.get(self._structure.flow.source(self._mine[name], index))

    def _as_used(self, done: Instruction, index: tuple[int, ...], value: int) -> int:
        """The value that the users of a prefetched parameter read: its own, or that of a copy."""
        for user, number in self._users.get(done.id, ()):
            if user.is_concat_bitcast or user.opcode == "bitcast":
                return self._as_used(user, index, value)
            if user.opcode == "tuple":
                return self._as_used(user, (number, *index), value)
            mine = self._mine.get(user.name)
            if mine is not None and number < len(mine.operands):
                used = self._number(mine.operands[number].name, index)
                return value if used is None else used
        return value


def _in_order(copies: Iterable[Copy]) -> tuple[Copy, ...]:
    """Copies in the order of their starts, with order numbers only where the plain rule differs."""
    ordered = sorted(copies, key=lambda copy: copy.start_order)
    events: dict[int, list[tuple[int, int]]] = {}  # per instruction: number, phase as in `Copy`
    for copy in ordered:
        events.setdefault(copy.start, []).append((copy.start_order, 1))
        phase = 2 if copy.start == copy.end else 0
        events.setdefault(copy.end, []).append((copy.end_order, phase))
    rank: dict[int, int] = {}
    for each in events.values():
        each.sort()
        phases = [phase for _, phase in each]
        is_plain = phases == sorted(phases)
        rank |= {number: 0 if is_plain else i for i, (number, _) in enumerate(each)}
    return tuple(
        dataclasses.replace(
            copy, start_order=rank[copy.start_order], end_order=rank[copy.end_order]
        )
        for copy in ordered
    )


# -- chunks ----------------------------------------------------------------------------------


def allocated_value(structure: Structure, dump: MsaDump, buffer_id: int) -> int | None:
    """The value of the problem that a row of the dump's allocations is about.

    A buffer that is prefetched across programs is not in the dump's own list of buffers; it is in
    that of the all-default compile, which numbers them alike.
    """
    buffer = dump.buffers.get(buffer_id) or structure.dump.buffers.get(buffer_id)
    if buffer is None:
        return None
    return structure.value_of(buffer)


@dataclasses.dataclass(frozen=True)
class _Row:
    """A row of the dump's allocations, in the problem's times and values."""

    value: int
    offset: int
    size: int  # of alternate memory
    first: int
    last: int  # exclusive
    held: int  # bytes of the value; more than `size` where cores hold a part each


def chunks_of(
    structure: Structure,
    dump: MsaDump,
    groups: Sequence[Sequence[Copy]],
    replaced: Mapping[int, int],
    split: Mapping[int, int],
) -> list[Chunk]:
    """The chunks of a dump in the problem's times and values.

    A row of the dump is about a part of a buffer's life: several at one place in a row are one
    chunk. groups: transfers (see `copy_groups`). A chunk begins no later than the copy that fills
    it, which later passes may have moved up; where that is in slices, each slice of the chunk
    begins with its own copy. replaced: see `replaced_copies`. split: see `split_sizes`.
    """
    times, values = structure.times, structure.values
    rows = []
    for buffer_id, size, offset, start, end in dump.allocations:
        value = allocated_value(structure, dump, buffer_id)
        if value is not None:
            first, last = bisect.bisect_left(times, start), bisect.bisect_right(times, end)
            held = values[value].size_bytes if size == split.get(value) else size
            rows.append(_Row(value, offset, size, first, last, held))
    sliced = {value for value in replaced if values[value].sliced_at >= 0}
    for value, source in replaced.items():
        if value not in sliced:
            rows = _handed_over(rows, value, source)
    for group in groups:
        if group[0].value in sliced and group[0].direction == PREFETCH:
            rows = _cut_off(rows, values[group[0].value], group[0])
    filled_by = _filled_by(rows, groups)
    whole: dict[tuple[int, int, int], list[tuple[int, int]]] = {}
    chunks = []
    for i, row in enumerate(rows):
        parts = filled_by.get(i, ())
        if len(parts) > 1:
            chunks += [
                Chunk(row.value, row.offset + c.value_offset, c.size, c.start, row.last,
                      c.value_offset)
                for c in parts
                if c.start < row.last
            ]  # fmt: skip
        else:
            first = min([row.first, *(c.start for c in parts)])
            whole.setdefault((row.value, row.offset, row.size), []).append((first, row.last))
    for (value, offset, size), spans in whole.items():
        chunks += [Chunk(value, offset, size, *span) for span in _merged(spans)]
    return sorted(chunks, key=lambda c: (c.start, c.offset, c.end))


def _filled_by(rows: Sequence[_Row], groups: Iterable[Sequence[Copy]]) -> dict[int, Sequence[Copy]]:
    """The prefetch that fills each row, by the row's number: of the same size, awaited in time."""
    found: dict[int, Sequence[Copy]] = {}
    for group in groups:
        start, end = min(c.start for c in group), max(c.end for c in group)
        size = sum(c.size for c in group)
        fitting = [
            i
            for i, row in enumerate(rows)
            if row.value == group[0].value and row.held == size and row.first <= end < row.last
        ]
        if fitting and group[0].direction == PREFETCH:
            nearest = min(fitting, key=lambda i: abs(rows[i].first - start))
            found[nearest] = group
    return found


def _handed_over(rows: list[_Row], value: int, source: int) -> list[_Row]:
    """`rows` with those of `source` that it hands over, in place, to `value` as that value's."""
    mine = {(row.offset, row.size, row.first) for row in rows if row.value == value}
    return [
        dataclasses.replace(row, value=value)
        if row.value == source
        and any((row.offset, row.size, t) in mine for t in range(row.first, row.last + 1))
        else row
        for row in rows
    ]


def _cut_off(rows: list[_Row], value: Value, copy: Copy) -> list[_Row]:
    """`rows` with what an asynchronous slice of another value fills as `value`'s, its result.

    The dump has such rows under what is sliced, at the slice's size.
    """
    of_source = [r for r in rows if r.value == value.sliced_from and r.size == value.size_bytes]
    fitting = [row for row in of_source if row.first <= copy.end < row.last]
    if not fitting:
        return rows
    first = min(fitting, key=lambda row: abs(row.first - copy.start))
    mine, last = [], first.last
    for row in sorted(of_source, key=lambda row: row.first):
        # The rest of its life at that place follows without a gap.
        if row.offset == first.offset and first.first <= row.first <= min(last, value.end - 1):
            mine.append(row)
            last = max(last, row.last)
    return [dataclasses.replace(r, value=copy.value) if r in mine else r for r in rows]


def _merged(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Half-open spans, those that touch or overlap put together; empty ones are left out."""
    held: tuple[int, int] | None = None
    for start, end in sorted(span for span in spans if span[0] < span[1]):
        if held and start <= held[1]:
            held = held[0], max(held[1], end)
        else:
            if held:
                yield held
            held = start, end
    if held:
        yield held
