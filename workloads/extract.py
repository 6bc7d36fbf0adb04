"""From compiled modules to a `Problem`, and from a compile under any mapping to an `Assignment`.

The program's structure comes from one compile with everything kept in default memory: that module
is the schedule as it was before memory-space assignment, with no copies of the compiler's in it.
"""

from __future__ import annotations

import bisect
import dataclasses
import math

from malloc_game import (
    EVICTION,
    PREFETCH,
    TARGETS,
    Assignment,
    Chunk,
    Copy,
    CostTable,
    Position,
    Problem,
    Target,
    Value,
    latency,
)
from malloc_game import Instruction as TimedInstruction
from workloads.buffers import Buffer, DataFlow, MsaDump, Place, parse_dump
from workloads.compile import Compiled
from workloads.costs import CostStore
from workloads.errors import CompileError
from workloads.hlo import Instruction, Module
from workloads.judge import copy_size, is_timed, traffic

Slot = tuple[bool, int, tuple[int, ...]]  # is_output, operand number, tuple index


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
    copied_by: str = (
        ""  # the plain copy of a parameter that defines it, if a prefetch can replace it
    )
    copied_from: Place | None = None  # that parameter


class Extraction:
    """A program on one target, as the game sees it, and the way between it and the compiler.

    Attributes:
      problem: the problem with the costs known so far (`refresh` after `learn`).
      store: the observed costs.
    """

    def __init__(self, all_default: Compiled, name: str, store: CostStore | None = None):
        self.name = name
        self.target: Target = TARGETS[all_default.target]
        self.versions = dict(all_default.versions)
        self.store = store or CostStore()
        self.module = Module(all_default.hlo)
        self.dump = parse_dump(all_default.msa)
        self._flow = DataFlow(self.module)
        self._refused: set[int] = set()
        self._exposures: list[float] = []
        self._build()
        self.learn(self.module)
        self.problem = self.refresh()

    # -- structure ---------------------------------------------------------------------------

    def _build(self) -> None:
        by_name = {i.name: i for i in self.module.instructions.values()}
        self._classes = self._merge_buffers(by_name)
        timed, previous = [], -1
        for instruction, trips in self.module.flattened():
            if is_timed(instruction):
                # Names are those of the schedule; what it lacks comes right after the last.
                previous = max(self.dump.schedule.get(instruction.name, 0), previous + 1)
                timed.append((instruction, previous, trips))
        if not timed:
            raise CompileError(
                f"{self.name}: the compiled program has no instruction that takes time"
            )
        self._times = [time for _, time, _ in timed]
        self._mark_copies()
        order = {place: i for i, place in enumerate(self._classes)}
        self.slots: list[list[Slot]] = []
        self._rows = []
        for instruction, time, trips in timed:
            found, other = self._positions(instruction, order)
            self.slots.append([slot for slot, _ in found])
            self._rows.append((instruction, time, trips, [p for _, p in found], other))
        self._values = self._make_values(order)

    def _merge_buffers(self, by_name: dict[str, Instruction]) -> dict[Place, _Class]:
        """One class for each buffer of the dump, by the representative of its places."""
        flow = self._flow
        places: dict[int, Place] = {}
        for number, buffer in self.dump.buffers.items():
            places[number] = self._unite_buffer(buffer, by_name)
        classes: dict[Place, _Class] = {}
        for number, buffer in self.dump.buffers.items():
            last = max([buffer.definition_time, *self._uses_before_exit(buffer)])
            fresh = _Class(buffer.name, buffer.size_bytes, buffer.definition_time, last)
            merged = classes.setdefault(flow.find(places[number]), fresh)
            merged.last_use = max(merged.last_use, last)
            merged.size_bytes = max(merged.size_bytes, buffer.size_bytes)
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

    def _unite_buffer(self, buffer: Buffer, by_name: dict[str, Instruction]) -> Place:
        flow = self._flow
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
            place = self._flow.source(instruction.operands[0])
            source = self._classes.get(place)
            result = self._classes.get(self._flow.source(instruction))
            if source is None or result is None or not source.is_parameter or result is source:
                continue
            if not result.is_parameter and result.name == instruction.name:
                result.copied_by, result.copied_from = instruction.name, place

    def _positions(
        self, instruction: Instruction, order: dict[Place, int]
    ) -> tuple[list[tuple[Slot, Position]], int]:
        """Positions of buffers that may be assigned, largest first, and all other traffic."""
        if instruction.opcode == "async-done":
            return [], traffic(instruction)[0]
        found, other = [], 0
        result = self._classes.get(self._flow.source(instruction, ()))
        replaceable = result is not None and result.copied_by == instruction.name
        arrays = [
            ((False, number, index), operand, index, leaf)
            for number, operand in enumerate(instruction.operands)
            for index, leaf in operand.leaves.items()
        ]
        arrays += [((True, 0, i), instruction, i, leaf) for i, leaf in instruction.leaves.items()]
        for slot, source, index, leaf in arrays:
            place = self._flow.source(source, index)
            known = self._classes.get(place)
            if replaceable and not slot[0]:
                known = None  # a prefetch reads the parameter in default memory
            if slot[0] and known is not None and known.is_parameter:
                known.is_updated_in_place = True
            if known is not None and 0 < known.size_bytes <= self.target.alternate_memory_bytes:
                found.append((slot, Position(order[place], *slot, leaf.size_bytes)))
            elif leaf.memory_space == 0:
                other += leaf.size_bytes
        found.sort(key=lambda item: -item[1].size_bytes)
        return found, other

    def _make_values(self, order: dict[Place, int]) -> list[Value]:
        covered: dict[int, list[int]] = {}
        for t, (_, _, _, positions, _) in enumerate(self._rows):
            for position in positions:
                covered.setdefault(position.value, []).append(t)
        index = {row[0].name: t for t, row in enumerate(self._rows)}
        values, names = [], set()
        last = len(self._rows) - 1
        for place, number in order.items():
            known = self._classes[place]
            times = covered.get(number, [])
            start, copied_at = 0, -1
            if known.copied_by:
                copied_at = index[known.copied_by]
                later = [t for t in times if t != copied_at]
                if not later or self._rows[later[0]][0].computation != self.module.entry_id:
                    copied_at = -1
            if not known.is_parameter and copied_at < 0:
                start = min([bisect.bisect_left(self._times, known.definition_time), last, *times])
            end = max([bisect.bisect_right(self._times, known.last_use), start + 1])
            end = max([end, *(t + 1 for t in times)])
            name = known.name
            while name in names:
                name += "'"
            names.add(name)
            fits = 0 < known.size_bytes <= self.target.alternate_memory_bytes
            in_place = known.is_parameter and known.is_updated_in_place
            writes_back = known.is_live_out and not known.is_parameter
            cycles = math.ceil(known.size_bytes / self.target.default_bytes_per_cycle)
            values.append(
                Value(
                    name=name,
                    size_bytes=known.size_bytes,
                    start=start,
                    end=min(end, last + 1),
                    is_parameter=known.is_parameter,
                    is_live_out=known.is_live_out,
                    may_be_in_alternate=fits and not in_place and bool(times),
                    write_back_cycles=cycles if writes_back else 0,
                    copied_at=copied_at,
                    copied_from=order[known.copied_from] if copied_at >= 0 else -1,
                )
            )
        return values

    # -- costs -------------------------------------------------------------------------------

    def _keys(self):
        for (instruction, *_), slots in zip(self._rows, self.slots, strict=True):
            yield instruction, slots, (instruction.fingerprint, tuple(slots))

    def learn(self, module: Module) -> int:
        """Record what a compile of this program says of costs; returns how many facts are new."""
        compiled = {i.name: i for i, _ in module.flattened()}
        new = 0
        for instruction, slots, key in self._keys():
            other = compiled.get(instruction.name)
            if other is None or other.opcode != instruction.opcode:
                if instruction.opcode == "copy" and len(slots) == 1:
                    new += self.store.record(key, 1, 0)  # a prefetch has replaced it
                continue
            if instruction.opcode == "copy" and len(slots) == 1 and self._reads_alternate(other):
                continue  # not the copy that the table means: its source was prefetched
            mask = mask_of(other, slots, self.target)
            cycles = other.estimated_cycles
            if cycles is not None:
                new += self.store.record(key, mask, cycles)
        return new

    def _reads_alternate(self, instruction: Instruction) -> bool:
        leaf = instruction.operands[0].leaves.get(())
        return leaf is not None and leaf.memory_space == self.target.alternate_memory_space

    def calibrate(self, compiled_cycles: float, found: Assignment) -> None:
        """Learn from a compile how much of the write-backs of live-outs other work hides.

        compiled_cycles: judged latency of the compile whose mapping is `found`.
        """
        without = self.problem.replace(
            values=tuple(dataclasses.replace(v, write_back_cycles=0) for v in self.problem.values)
        )
        full = latency(self._unhidden(self.problem), found).write_back_cycles
        if full > 0:
            shown = (compiled_cycles - latency(without, found).cycles) / full
            self._exposures.append(min(1.0, max(0.0, shown)))

    @property
    def exposure(self) -> float:
        """Share of the write-backs that nothing hides: mean over the compiles; 1 before any."""
        return sum(self._exposures) / len(self._exposures) if self._exposures else 1.0

    def _unhidden(self, problem: Problem) -> Problem:
        values = tuple(
            dataclasses.replace(v, write_back_cycles=whole.write_back_cycles)
            for v, whole in zip(problem.values, self._values, strict=True)
        )
        return problem.replace(values=values)

    def refuse(self, values: set[int]) -> None:
        """Mark values that the compiler would not put in alternate memory."""
        self._refused |= values

    def refresh(self) -> Problem:
        """Rebuild `problem` with all costs and refusals known so far."""
        # One table for each kind of instruction, in order of appearance: learning keeps the shapes.
        numbers: dict[tuple, int] = {}
        tables: list[CostTable] = []
        instructions = []
        seen: set[str] = set()
        for (instruction, _, key), (_, time, trips, positions, other) in zip(
            self._keys(), self._rows, strict=True
        ):
            sizes = tuple(p.size_bytes for p in positions)
            number = numbers.setdefault((key, sizes, other), len(numbers))
            if number == len(tables) and key in self.store.observed:
                bytes_per_cycle = self.target.default_bytes_per_cycle
                tables.append(self.store.table(key, tuple(positions), bytes_per_cycle))
            elif number == len(tables):
                tables.append(self._stand_in(positions, other))
            name = instruction.name
            while name in seen:
                name += "'"
            seen.add(name)
            instructions.append(
                TimedInstruction(
                    name=name,
                    opcode=instruction.opcode,
                    schedule_time=time,
                    trip_count=trips,
                    in_entry=instruction.computation == self.module.entry_id,
                    other_bytes=other,
                    positions=tuple(positions),
                    cost_table=number,
                )
            )
        values = tuple(
            dataclasses.replace(
                v,
                is_refused=i in self._refused,
                write_back_cycles=round(v.write_back_cycles * self.exposure),
            )
            for i, v in enumerate(self._values)
        )
        provenance = {"program": self.name, "target": self.target.name, "versions": self.versions}
        self.problem = Problem(
            self.name, self.target, tuple(instructions), values, tuple(tables), provenance
        )
        return self.problem

    def _stand_in(self, positions: list[Position], other: int) -> CostTable:
        """Default-memory traffic at full bandwidth, for instructions the compiler never priced."""
        bits = min(len(positions), 8)
        unpriced = other + sum(p.size_bytes for p in positions[bits:])
        cycles = []
        for mask in range(1 << bits):
            size = unpriced + sum(
                p.size_bytes for i, p in enumerate(positions[:bits]) if not mask >> i & 1
            )
            cycles.append(math.ceil(size / self.target.default_bytes_per_cycle))
        return CostTable(tuple(cycles), (False,) * len(cycles))

    # -- assignments -------------------------------------------------------------------------

    def assignment_of(self, compiled: Compiled, source: str) -> Assignment:
        """The mapping under which a compile of this program really runs."""
        module = Module(compiled.hlo)
        by_name = {i.name: i for i, _ in module.flattened()}
        masks = []
        for (instruction, *_), slots in zip(self._rows, self.slots, strict=True):
            other = by_name.get(instruction.name)
            if other is None:  # a copy that became asynchronous: its output is in alternate memory
                masks.append(sum(1 << i for i, slot in enumerate(slots) if slot[0]))
            else:
                masks.append(mask_of(other, slots, self.target))
        dump = parse_dump(compiled.msa) if compiled.msa else None
        return Assignment(
            tuple(masks),
            tuple(self._chunks(dump)) if dump else (),
            tuple(self._copies(module)),
            source,
        )

    def _value_numbers(self) -> dict[Place, int]:
        return {place: i for i, place in enumerate(self._classes)}

    def _chunks(self, dump: MsaDump):
        numbers = self._value_numbers()
        mine = {i.name: i for i in self.module.instructions.values()}
        for buffer_id, size, offset, start, end in dump.allocations:
            buffer = dump.buffers.get(buffer_id)
            instruction = mine.get(buffer.instruction) if buffer else None
            if instruction is None:
                continue
            value = numbers.get(self._flow.source(instruction, buffer.index))
            if value is not None:
                first = bisect.bisect_left(self._times, start)
                yield Chunk(value, offset, size, first, bisect.bisect_right(self._times, end))

    def _copies(self, module: Module):
        """Asynchronous copies of a compiled module, in the problem's times and values."""
        numbers = self._value_numbers()
        mine = {i.name: i for i in self.module.instructions.values()}
        index = {instruction.name: t for t, (instruction, *_) in enumerate(self._rows)}
        theirs = DataFlow(module)
        started: dict[int, tuple[int, int]] = {}
        now = 0
        rows = []
        for instruction, _ in module.flattened():
            if instruction.name in index:
                now = index[instruction.name] + 1
            elif instruction.is_async_start:
                started[instruction.id] = (now, len(started))
            elif instruction.is_async_done:
                start = instruction.operands[0]
                size, is_read = copy_size(start, self.target)
                place = theirs.source(start.operands[0], ())
                origin = mine.get(module.instructions[place[0]].name)
                value = numbers.get(self._flow.source(origin, place[1])) if origin else None
                if size and value is not None and start.id in started:
                    direction = PREFETCH if is_read else EVICTION
                    begin, rank = started[start.id]
                    rows.append((rank, Copy(value, begin, now, size, direction)))
        return [copy for _, copy in sorted(rows, key=lambda row: row[0])]


def mask_of(instruction: Instruction, slots: list[Slot], target: Target) -> int:
    """Placement mask of a compiled instruction: bit i, slot i is in alternate memory."""
    mask = 0
    for i, (is_output, number, index) in enumerate(slots):
        source = instruction if is_output else instruction.operands[number]
        leaf = source.leaves.get(index)
        if leaf is not None and leaf.memory_space == target.alternate_memory_space:
            mask |= 1 << i
    return mask
