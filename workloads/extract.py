"""From compiled modules to a `Problem`, and from a compile under any mapping to an `Assignment`.

`Extraction` is the way between a program in the game and the same program in the compiler: costs
and refusals are learned from every compile, and what a compile did comes back as an assignment.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from malloc_game import (
    EVICTION,
    PREFETCH,
    TARGETS,
    Assignment,
    Chunk,
    Copy,
    CostTable,
    Problem,
    Target,
    latency,
)
from malloc_game import Instruction as TimedInstruction
from malloc_game.problem import MAX_PRICED_POSITIONS
from workloads.buffers import DataFlow, MsaDump, parse_dump
from workloads.compile import Compiled, CompilerSession
from workloads.costs import CostStore
from workloads.hlo import Instruction, Module
from workloads.judge import CompiledLatency, compiled_latency, copy_size
from workloads.overrides import EXACT_OPTIONS, KEEP_EVERYTHING
from workloads.structure import Row, Slot, Structure


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
        dump = parse_dump(all_default.msa)
        self.structure = Structure(self.module, dump, self.target, name)
        self._refused: set[int] = set()
        self._exposures: list[tuple[bool, float]] = []
        self.learn(self.module)
        self.problem = self.refresh()

    # -- costs -------------------------------------------------------------------------------

    def learn(self, module: Module) -> int:
        """Record what a compile of this program says of costs; returns how many facts are new."""
        compiled = {i.name: i for i, _ in module.flattened()}
        new = 0
        for row in self.structure.rows:
            other = compiled.get(row.instruction.name)
            # A copy with one position is one that a prefetch can replace; see `Structure`.
            is_replaceable = row.instruction.opcode == "copy" and len(row.slots) == 1
            if other is None or other.opcode != row.instruction.opcode:
                if is_replaceable:
                    new += self.store.record(row.key, 1, 0)  # a prefetch has replaced it
                continue
            if is_replaceable and self._reads_alternate(other):
                continue  # not the copy that the table means: its source was prefetched
            cycles = other.estimated_cycles
            if cycles is not None:
                mask = mask_of(other, row.slots, self.target)
                new += self.store.record(row.key, mask, cycles)
        return new

    def monotone_latency(self, compiled: Compiled) -> CompiledLatency:
        """The latency of a compile if alternate memory never cost more than default memory.

        No placement then costs more than one of its subsets in alternate memory, as far as compiles
        have shown them. What a speed-up loses by this rests on estimates that call alternate memory
        slower, which may be the truth or an artefact of the estimator.
        """
        rows = {row.instruction.name: row for row in self.structure.rows}

        def clamped(instruction: Instruction) -> int | None:
            cycles, row = instruction.estimated_cycles, rows.get(instruction.name)
            if cycles is None or row is None or instruction.opcode != row.instruction.opcode:
                return cycles
            mask = mask_of(instruction, row.slots, self.target)
            known = self.store.observed.get(row.key, {})
            return min([cycles, *(c for subset, c in known.items() if subset & mask == subset)])

        return compiled_latency(Module(compiled.hlo), self.target, clamped)

    def _reads_alternate(self, instruction: Instruction) -> bool:
        leaf = instruction.operands[0].leaves.get(())
        return leaf is not None and leaf.memory_space == self.target.alternate_memory_space

    def calibrate(self, compiled_cycles: float, found: Assignment, *, is_ours: bool) -> None:
        """Learn from a compile how much of the write-backs of live-outs other work hides.

        compiled_cycles: judged latency of the compile whose mapping is `found`. is_ours: it was
        asked for; XLA's own mapping hides write-backs by other means and counts until one was.
        """
        without = self.problem.replace(
            values=tuple(dataclasses.replace(v, write_back_cycles=0) for v in self.problem.values)
        )
        full = latency(self._unhidden(self.problem), found).write_back_cycles
        if full > 0:
            shown = (compiled_cycles - latency(without, found).cycles) / full
            self._exposures.append((is_ours, min(1.0, max(0.0, shown))))

    @property
    def exposure(self) -> float:
        """Share of the write-backs that nothing hides: mean over the compiles; 1 before any."""
        ours = [shown for is_ours, shown in self._exposures if is_ours]
        known = ours or [shown for _, shown in self._exposures]
        return sum(known) / len(known) if known else 1.0

    def _unhidden(self, problem: Problem) -> Problem:
        values = tuple(
            dataclasses.replace(v, write_back_cycles=whole.write_back_cycles)
            for v, whole in zip(problem.values, self.structure.values, strict=True)
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
        for row in self.structure.rows:
            instruction = row.instruction
            sizes = tuple(p.size_bytes for p in row.positions)
            number = numbers.setdefault((row.key, sizes, row.other_bytes), len(numbers))
            if number == len(tables):
                tables.append(self._table(row))
            name = instruction.name
            while name in seen:
                name += "'"
            seen.add(name)
            instructions.append(
                TimedInstruction(
                    name=name,
                    opcode=instruction.opcode,
                    schedule_time=row.time,
                    trip_count=row.trips,
                    in_entry=instruction.computation == self.module.entry_id,
                    other_bytes=row.other_bytes,
                    positions=row.positions,
                    cost_table=number,
                )
            )
        values = tuple(
            dataclasses.replace(
                v,
                is_refused=i in self._refused,
                write_back_cycles=round(v.write_back_cycles * self.exposure),
            )
            for i, v in enumerate(self.structure.values)
        )
        provenance = {"program": self.name, "target": self.target.name, "versions": self.versions}
        self.problem = Problem(
            self.name, self.target, tuple(instructions), values, tuple(tables), provenance
        )
        return self.problem

    def _table(self, row: Row) -> CostTable:
        bytes_per_cycle = self.target.default_bytes_per_cycle
        if row.key in self.store.observed:
            return self.store.table(row.key, row.positions, bytes_per_cycle)
        # Never priced by the compiler: default-memory traffic at full bandwidth.
        bits = min(len(row.positions), MAX_PRICED_POSITIONS)
        cycles = []
        for mask in range(1 << bits):
            size = row.other_bytes + sum(
                p.size_bytes for i, p in enumerate(row.positions) if i >= bits or not mask >> i & 1
            )
            cycles.append(math.ceil(size / bytes_per_cycle))
        return CostTable(tuple(cycles), (False,) * len(cycles))

    # -- assignments -------------------------------------------------------------------------

    def assignment_of(
        self, compiled: Compiled, source: str, module: Module | None = None
    ) -> Assignment:
        """The mapping under which a compile of this program really runs.

        module: the compile's module, where it is decoded already.
        """
        module = module or Module(compiled.hlo)
        by_name = {i.name: i for i, _ in module.flattened()}
        masks = []
        for row in self.structure.rows:
            other = by_name.get(row.instruction.name)
            if other is None:  # a copy that became asynchronous: its output is in alternate memory
                masks.append(sum(1 << i for i, slot in enumerate(row.slots) if slot[0]))
            else:
                masks.append(mask_of(other, row.slots, self.target))
        dump = parse_dump(compiled.msa) if compiled.msa else None
        return Assignment(
            tuple(masks),
            tuple(self._chunks(dump)) if dump else (),
            tuple(self._copies(module)),
            source,
        )

    def _chunks(self, dump: MsaDump) -> Iterator[Chunk]:
        flow, times = self.structure.flow, self.structure.times
        mine = {i.name: i for i in self.module.instructions.values()}
        for buffer_id, size, offset, start, end in dump.allocations:
            buffer = dump.buffers.get(buffer_id)
            instruction = mine.get(buffer.instruction) if buffer else None
            if instruction is None:
                continue
            value = self.structure.numbers.get(flow.source(instruction, buffer.index))
            if value is not None:
                first = bisect.bisect_left(times, start)
                yield Chunk(value, offset, size, first, bisect.bisect_right(times, end))

    def _copies(self, module: Module) -> list[Copy]:
        """Asynchronous copies of a compiled module, in the problem's times and values."""
        flow, numbers = self.structure.flow, self.structure.numbers
        mine = {i.name: i for i in self.module.instructions.values()}
        index = {row.instruction.name: t for t, row in enumerate(self.structure.rows)}
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
                value = numbers.get(flow.source(origin, place[1])) if origin else None
                if size and value is not None and start.id in started:
                    direction = PREFETCH if is_read else EVICTION
                    begin, rank = started[start.id]
                    rows.append((rank, Copy(value, begin, now, size, direction)))
        return [copy for _, copy in sorted(rows, key=lambda row: row[0])]


def mask_of(instruction: Instruction, slots: Sequence[Slot], target: Target) -> int:
    """Placement mask of a compiled instruction: bit i, slot i is in alternate memory."""
    mask = 0
    for i, (is_output, number, index) in enumerate(slots):
        source = instruction if is_output else instruction.operands[number]
        leaf = source.leaves.get(index)
        if leaf is not None and leaf.memory_space == target.alternate_memory_space:
            mask |= 1 << i
    return mask


@dataclasses.dataclass(frozen=True)
class Extracted:
    """A program extracted by the two compiles that every use of it needs."""

    extraction: Extraction
    xla_default: Assignment
    xla_default_latency: CompiledLatency
    all_default: Compiled
    all_default_latency: CompiledLatency


def extract_session(
    session: CompilerSession, progress: Callable[[str], None] = lambda message: None
) -> Extracted:
    """Compile XLA's default and the all-default program; build the problem from both.

    Raises:
      WorkloadError: the program cannot be loaded. CompileError: it cannot be compiled.
    """
    progress(f"compiling {session.name} for {session.target} as XLA maps it")
    default = session.compile({})
    progress("compiling it with everything in default memory")
    all_default = session.compile(EXACT_OPTIONS, overrides=KEEP_EVERYTHING)
    extraction = Extraction(all_default, session.name)
    module = Module(default.hlo)
    extraction.learn(module)
    extraction.refresh()
    xla_default = extraction.assignment_of(default, "xla_default", module)
    judged = compiled_latency(module, extraction.target)
    extraction.calibrate(judged.cycles, xla_default, is_ours=False)
    extraction.refresh()
    return Extracted(
        extraction,
        xla_default,
        judged,
        all_default,
        compiled_latency(extraction.module, extraction.target),
    )


def extract(fn: Any, *args: Any, target: str, timeout: float = 600.0) -> tuple[Problem, Assignment]:
    """A program's problem on a target, and XLA's default mapping of it.

    fn: a JAX function, with args its (abstract) arguments; or a suite name or
    `path/to/file.py:function` without args. timeout: seconds for one compile.

    Raises:
      WorkloadError: the program or target cannot be used. CompileError: the compiler failed.
    """
    program = (fn, args) if callable(fn) else fn
    with CompilerSession(program, target, timeout=timeout) as session:
        found = extract_session(session)
    return found.extraction.problem, found.xla_default
