"""The structure of a program as the game sees it: timed instructions, positions, values.

It comes from one compile with everything kept in default memory: that module is the schedule as it
was before memory-space assignment, with no copies of the compiler's in it.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import math
from collections.abc import Iterator

from malloc_game import Position, Target, Value
from malloc_game.problem.definition import index_text
from workloads.costs.judge import is_timed, traffic
from workloads.errors import CompileError
from workloads.extraction.buffers import Buffer, DataFlow, MsaDump, Place, asynchronous_names
from workloads.hlo.module import Instruction, Module

Slot = tuple[bool, int, tuple[int, ...]]  # is_output, operand number, tuple index


@dataclasses.dataclass(frozen=True)
class _Made:
    """How a buffer comes of another: by which instruction, and of what is defined where."""

    by: str
    of: Place


@dataclasses.dataclass
class _Class:
    """A buffer under construction: everything that shares one placement."""

    name: str
    size_bytes: int
    definition_time: int
    last_use: int
    is_parameter: bool = False
    is_live_out: bool = False
    is_updated_in_place: bool = False  # a parameter's buffer that instructions also write
    # Not ours to place: of asynchronous calls, which need some of their buffers in alternate
    # memory, or in alternate memory though all was to be kept out.
    is_fixed: bool = False
    # The plain copy that defines it, if a prefetch can replace it, and the parameter it copies.
    copied: _Made | None = None
    sliced: _Made | None = None  # the same of a plain slice, and what that is a slice of
    loop_names: tuple[str, ...] = ()  # by which the bodies of loops know it

    @property
    def is_in_place(self) -> bool:
        """Whether it is a parameter that must stay where it is, being updated there."""
        return self.is_parameter and self.is_updated_in_place


@dataclasses.dataclass(frozen=True)
class Row:
    """One timed instruction."""

    instruction: Instruction
    time: int  # the compiler's logical time
    trips: int
    slots: tuple[Slot, ...]  # where its positions are, in the order of `positions`
    positions: tuple[Position, ...]
    other_bytes: int  # default-memory traffic of everything else
    loops: tuple[int, ...] = ()  # numbers of the loops around it, outermost first

    @property
    def key(self) -> tuple:
        """What its cost depends on, placement aside; the same in every program."""
        return self.instruction.fingerprint, self.slots


class Structure:
    """Timed instructions and values of a program, and where they come from in its module.

    Attributes:
      rows: the timed instructions, in schedule order.
      values: the values of the problem; costs and refusals are not in it.
      numbers: for each place that defines a value, the value's index.
    """

    def __init__(
        self,
        module: Module,
        dump: MsaDump,
        target: Target,
        name: str,
        flow: DataFlow | None = None,
    ):
        """flow: the data flow that `dump` goes by, where it knows more than the module's own."""
        self.module, self.dump, self.target = module, dump, target
        self.flow = DataFlow(module) if flow is None else flow
        self._by_name = {i.name: i for i in module.instructions.values()}
        self._classes = self._merge_buffers()
        self.numbers = {place: i for i, place in enumerate(self._classes)}
        self._mark_copies()
        self._mark_slices()
        self._mark_outputs()
        self._mark_loops()
        timed, previous = [], -1
        for instruction, trips in module.flattened():
            if is_timed(instruction):
                # Names are those of the schedule; what it lacks comes right after the last.
                previous = max(dump.schedule.get(instruction.name, 0), previous + 1)
                timed.append((instruction, previous, trips))
        if not timed:
            raise CompileError(f"{name}: the program has no instruction that takes time")
        self.times = [time for _, time, _ in timed]
        loops = _loops(module)
        self.rows = tuple(
            Row(*head, *self._positions(head[0]), loops.get(head[0].computation, ()))
            for head in timed
        )
        self.values = tuple(self._make_values())

    def value_of(self, buffer: Buffer) -> int | None:
        """The value that a buffer of any dump of this program is part of, None for none."""
        instruction = self._by_name.get(buffer.instruction)
        if instruction is None:
            return None
        return self.numbers.get(self.flow.source(instruction, buffer.index))

    def _merge_buffers(self) -> dict[Place, _Class]:
        """One class for each buffer of the dump, by the representative of its places."""
        flow = self.flow
        places: dict[int, Place] = {}
        for number, buffer in self.dump.buffers.items():
            places[number] = self._unite_buffer(buffer)
        classes: dict[Place, _Class] = {}
        asynchronous = asynchronous_names(self.module)
        for number, buffer in self.dump.buffers.items():
            last = max([buffer.definition_time, *self._uses_before_exit(buffer)])
            fresh = _Class(buffer.name, buffer.size_bytes, buffer.definition_time, last)
            merged = classes.setdefault(flow.find(places[number]), fresh)
            merged.last_use = max(merged.last_use, last)
            merged.size_bytes = max(merged.size_bytes, buffer.size_bytes)
            merged.is_fixed |= not asynchronous.isdisjoint(buffer.instructions)
            if buffer.definition_time < merged.definition_time:
                merged.name, merged.definition_time = buffer.name, buffer.definition_time
        for parameter in self.module.parameters(self.module.entry_id):
            for index in parameter.leaves:
                found = classes.get(flow.source(parameter, index))
                if found:
                    found.is_parameter = True
        root = self.module.root(self.module.entry_id)
        for index in root.leaves:
            found = classes.get(flow.source(root, index))
            if found:
                found.is_live_out = True
        return classes

    def _uses_before_exit(self, buffer: Buffer) -> list[int]:
        """Times of a buffer's uses, being handed to the caller left out."""
        root = self.module.root(self.module.entry_id)
        return [
            time
            for (name, _, _), time in buffer.uses.items()
            if not (name == root.name and root.opcode == "tuple")
        ]

    def _unite_buffer(self, buffer: Buffer) -> Place:
        flow, by_name = self.flow, self._by_name
        if buffer.instruction not in by_name:
            raise CompileError(f"the dump names an unknown instruction {buffer.instruction!r}")
        place = flow.source(by_name[buffer.instruction], buffer.index)
        for name, operand, index in buffer.uses:
            user = by_name.get(name)
            if user is not None and operand < len(user.operands):
                flow.unite(place, flow.source(user.operands[operand], index))
        return place

    def _mark_copies(self) -> None:
        """Find copies of parameters, layout unchanged, that asynchronous copies can replace.

        XLA does that by itself (`replace sync copies`), where the result is in alternate memory.
        """
        for instruction in self.module.sequence(self.module.entry_id):
            if instruction.opcode != "copy" or not instruction.keeps_layout:
                continue
            place = self.flow.source(instruction.operands[0])
            source = self._classes.get(place)
            result = self._classes.get(self.flow.source(instruction))
            if source is None or result is None or not source.is_parameter or result is source:
                continue
            if not result.is_parameter and result.name == instruction.name:
                result.copied = _Made(instruction.name, place)

    def _mark_slices(self) -> None:
        """Find slices that asynchronous ones can replace; XLA does that as it does with copies."""
        for instruction in self.module.instructions.values():
            if instruction.opcode != "slice" or instruction.name not in self.dump.schedule:
                continue
            place = self.flow.source(instruction.operands[0])
            source = self._classes.get(place)
            result = self._classes.get(self.flow.source(instruction))
            if source is None or result is None or result is source or result.is_parameter:
                continue
            if result.name == instruction.name:
                result.sliced = _Made(instruction.name, place)

    def _mark_outputs(self) -> None:
        """Find parameters that are written, and what is in alternate memory all the same."""
        for instruction, _ in self.module.flattened():
            for index, leaf in instruction.leaves.items():
                known = self._classes.get(self.flow.source(instruction, index))
                if known is None:
                    continue
                known.is_updated_in_place |= known.is_parameter and is_timed(instruction)
                known.is_fixed |= leaf.memory_space == self.target.alternate_memory_space

    def _mark_loops(self) -> None:
        """Find the names by which the bodies of loops know what they carry."""
        for instruction in self.module.instructions.values():
            if instruction.opcode != "while":
                continue
            carried = self.module.parameters(instruction.proto.called_computation_ids[0])[0]
            for index in carried.leaves:
                known = self._classes.get(self.flow.source(carried, index))
                if known is not None:
                    known.loop_names += (carried.name + index_text(index),)

    def _positions(
        self, instruction: Instruction
    ) -> tuple[tuple[Slot, ...], tuple[Position, ...], int]:
        """Slots and positions of buffers that may be assigned, largest first; other traffic."""
        if instruction.opcode == "async-done":
            return (), (), traffic(instruction)[0]
        found, other = [], 0
        result = self._classes.get(self.flow.source(instruction, ()))
        copied = result.copied if result is not None else None
        replaceable = copied is not None and copied.by == instruction.name
        arrays = [
            ((False, number, index), operand, index, leaf)
            for number, operand in enumerate(instruction.operands)
            for index, leaf in operand.leaves.items()
        ]
        arrays += [((True, 0, i), instruction, i, leaf) for i, leaf in instruction.leaves.items()]
        for slot, source, index, leaf in arrays:
            place = self.flow.source(source, index)
            known = self._classes.get(place)
            if replaceable and not slot[0]:
                known = None  # a prefetch reads the parameter in default memory
            if known is not None and known.is_fixed:
                known = None
            if known is not None and 0 < known.size_bytes <= self.target.alternate_memory_bytes:
                position = Position(self.numbers[place], *slot, leaf.size_bytes)
                found.append((slot, position, not known.is_in_place))
            elif leaf.memory_space == 0:
                other += leaf.size_bytes
        # Only the first few are priced: those that may be in alternate memory, the largest first.
        found.sort(key=lambda item: (not item[2], -item[1].size_bytes))
        return tuple(slot for slot, _, _ in found), tuple(p for _, p, _ in found), other

    def _make_values(self) -> Iterator[Value]:
        covered: dict[int, list[int]] = {}
        for t, row in enumerate(self.rows):
            for position in row.positions:
                covered.setdefault(position.value, []).append(t)
        index = {row.instruction.name: t for t, row in enumerate(self.rows)}
        names: set[str] = set()
        last = len(self.rows) - 1
        for place, number in self.numbers.items():
            known = self._classes[place]
            times = covered.get(number, [])
            start, copied_at, copied_from, sliced_at, sliced_from = 0, -1, -1, -1, -1
            if known.copied is not None:
                made_at = index[known.copied.by]
                later = [t for t in times if t != made_at]
                if later and self.rows[later[0]].instruction.computation == self.module.entry_id:
                    copied_at, copied_from = made_at, self.numbers[known.copied.of]
            if known.sliced is not None:
                made_at = index.get(known.sliced.by, -1)
                if made_at in times and made_at != times[-1]:
                    sliced_at, sliced_from = made_at, self.numbers[known.sliced.of]
            if not known.is_parameter and copied_at < 0:
                start = min([bisect.bisect_left(self.times, known.definition_time), last, *times])
            end = max([bisect.bisect_right(self.times, known.last_use), start + 1])
            end = max([end, *(t + 1 for t in times)])
            name = known.name
            while name in names:
                name += "'"
            names.add(name)
            fits = 0 < known.size_bytes <= self.target.alternate_memory_bytes
            writes_back = known.is_live_out and not known.is_parameter
            cycles = math.ceil(known.size_bytes / self.target.default_bytes_per_cycle)
            yield Value(
                name=name,
                size_bytes=known.size_bytes,
                start=start,
                end=min(end, last + 1),
                is_parameter=known.is_parameter,
                is_live_out=known.is_live_out,
                may_be_in_alternate=fits and not known.is_in_place and bool(times),
                write_back_cycles=cycles if writes_back else 0,
                copied_at=copied_at,
                copied_from=copied_from,
                loop_names=known.loop_names,
                sliced_at=sliced_at,
                sliced_from=sliced_from,
                shape=self._shape(place),
            )

    def _shape(self, place: Place) -> str:
        """Shape of the array that is defined at `place`."""
        leaf = self.module.instructions[place[0]].leaves.get(place[1])
        return leaf.shape if leaf is not None else ""


def _loops(module: Module) -> dict[int, tuple[int, ...]]:
    """Numbers of the loops around each computation, outermost first."""
    found: dict[int, tuple[int, ...]] = {}
    count = itertools.count()

    def visit(computation: int, around: tuple[int, ...]) -> None:
        found.setdefault(computation, around)
        for instruction in module.sequence(computation):
            inside = around
            if instruction.opcode == "while":
                inside = (*around, next(count))
            elif instruction.opcode not in ("call", "conditional"):
                continue
            for called in instruction.proto.called_computation_ids:
                visit(called, inside)

    visit(module.entry_id, ())
    return found
