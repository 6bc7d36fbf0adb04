"""From compiled modules to a `Problem`, and from a compile under any mapping to an `Assignment`.

`Extraction` is the way between a program in the game and the same program in the compiler: costs
and refusals are learned from every compile, and what a compile did comes back as an assignment.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence, Set

import numpy as np

from malloc_game import (
    PREFETCH,
    TARGETS,
    Assignment,
    CostTable,
    Problem,
    Target,
    Value,
    latency,
)
from malloc_game import Instruction as TimedInstruction
from workloads.compiler.session import Compiled
from workloads.costs.judge import CompiledLatency, compiled_latency, traffic
from workloads.costs.model import Traffic, mask_bits
from workloads.costs.store import CostStore, roofline
from workloads.extraction.buffers import parse_dump
from workloads.extraction.mapping import assignment_of, mask_of, split_sizes
from workloads.extraction.placed import placed_module
from workloads.extraction.structure import Row, Structure
from workloads.hlo.module import Instruction, Module
from workloads.overrides.text import exclusions


class Extraction:
    """A program on one target, as the game sees it, and the way between it and the compiler.

    Attributes:
      problem: the problem with the costs known so far (`refresh` after `learn`).
      store: the observed costs.
      uncertainty: for each cost table of `problem`, the standard deviation of its entries in
        cycles, float64[2**num_bits]; 0 where the compiler has spoken.
    """

    def __init__(self, all_default: Compiled, name: str, store: CostStore | None = None):
        """all_default: the compile with everything in default memory.

        store: where costs are remembered, of this target and compiler; by default the one on disk,
        which all programs share. `CostStore()` remembers nothing of other runs.
        """
        self.name = name
        self.target: Target = TARGETS[all_default.target]
        self.versions = dict(all_default.versions)
        if store is None:
            store = CostStore.on_disk(self.target.name, self.versions["libtpu"])
        self.store = store
        self.module = placed_module(all_default)
        dump = parse_dump(all_default.msa)
        self.structure = Structure(self.module, dump, self.target, name)
        self.store.load(row.key for row in self.structure.rows)
        self._refused: set[int] = set()
        self._refused_uses: set[tuple[int, int]] = set()
        self._split: dict[int, int] = {}
        self._exposures: list[tuple[bool, float]] = []
        self.learn(self.module)
        self.problem = self.refresh()

    # -- costs -------------------------------------------------------------------------------

    def learn(self, module: Module) -> int:
        """Record what a compile of this program says of costs; returns how many facts are new.

        And which values it splits between the memories of several cores.
        """
        compiled = {i.name: i for i, _ in module.flattened()}
        rows = self.structure.rows
        asked = {
            rows[v.copied_at].instruction.name for v in self.structure.values if v.copied_at >= 0
        }
        new = 0
        for row in self.structure.rows:
            mine, other = row.instruction, compiled.get(row.instruction.name)
            if other is None or other.opcode != mine.opcode:
                if _is_replaceable(row) and mine.name not in asked:
                    new += self.store.record(row.key, 1, 0)  # a prefetch has replaced it
                continue
            if other.fingerprint != mine.fingerprint:
                continue  # another instruction, of the same name
            if _is_replaceable(row) and self._reads_alternate(other):
                continue  # not the copy that the table means: its source was prefetched
            cycles = other.estimated_cycles
            if cycles is None and row.key in self.store.observed:
                # Priced under other placements, but not here (a copy done by the DMA engine, say):
                # what the judge charges stands in, not the model.
                in_default, _ = traffic(other)
                cycles = round(in_default / self.target.default_bytes_per_cycle)
            if cycles is not None:
                mask = mask_of(other, row.slots, self.target)
                new += self.store.record(row.key, mask, cycles)
        self.store.save()
        self._split |= split_sizes(self.structure, module)
        return new

    @property
    def num_facts(self) -> int:
        """Placements of this program's instructions whose cycles the compiler has given."""
        keys = {row.key for row in self.structure.rows}
        return sum(len(self.store.observed.get(key, ())) for key in keys)

    def monotone_latency(self, compiled: Compiled) -> CompiledLatency:
        """The latency of a compile if alternate memory never cost more than default memory.

        No placement then costs more than one of its subsets in alternate memory, as far as compiles
        have shown them. What a speed-up loses by this rests on estimates that call alternate memory
        slower, which may be the truth or an artefact of the estimator.
        """
        rows = {row.instruction.name: row for row in self.structure.rows}

        def clamped(instruction: Instruction) -> int | None:
            cycles, row = instruction.estimated_cycles, rows.get(instruction.name)
            if (
                cycles is None
                or row is None
                or row.instruction.fingerprint != (instruction.fingerprint)
            ):
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

        Takes effect in `problem` at once, whose costs should be those of the compile (`refresh`).
        compiled_cycles: judged latency of the compile whose mapping is `found`. is_ours: it was
        asked for; XLA's own mapping hides write-backs by other means and counts until one was.
        """
        # Charged, not replayed: what the game does with them is what is measured.
        prefetches = tuple(c for c in found.copies if c.direction == PREFETCH)
        shown = latency(
            self._charging(self.structure.values), dataclasses.replace(found, copies=prefetches)
        )
        if (full := shown.write_back_cycles) > 0:
            share = (compiled_cycles - shown.cycles + full) / full
            self._exposures.append((is_ours, min(1.0, max(0.0, share))))
            self.problem = self._charging(self._values())

    @property
    def exposure(self) -> float:
        """Share of the write-backs that nothing hides: mean over the compiles; 1 before any."""
        ours = [shown for is_ours, shown in self._exposures if is_ours]
        known = ours or [shown for _, shown in self._exposures]
        return sum(known) / len(known) if known else 1.0

    def _charging(self, like: Sequence[Value]) -> Problem:
        """The problem as it is, its live-outs' write-backs charged like those of `like`."""
        values = tuple(
            dataclasses.replace(v, write_back_cycles=other.write_back_cycles)
            for v, other in zip(self.problem.values, like, strict=True)
        )
        return self.problem.replace(values=values)

    def refuse(self, values: Set[int], uses: Set[tuple[int, int]] = frozenset()) -> None:
        """Mark values, and uses of parameters, that the compiler will not have in alternate memory.

        uses: (time, value). Takes effect with `refresh`.
        """
        self._refused |= values
        self._refused_uses |= uses

    def refresh(self) -> Problem:
        """Rebuild `problem` with all costs and refusals known so far."""
        # One table for each kind of instruction, in order of appearance: learning keeps the shapes.
        numbers: dict[tuple, int] = {}
        tables: list[CostTable] = []
        uncertainty: list[np.ndarray] = []
        self._table_rows: list[Row] = []
        instructions = []
        seen: set[str] = set()
        asked_copies = {value.copied_at for value in self.structure.values}
        for t, row in enumerate(self.structure.rows):
            instruction = row.instruction
            sizes = tuple(p.size_bytes for p in row.positions)
            kind = (row.key, sizes, row.other_bytes, t in asked_copies)
            number = numbers.setdefault(kind, len(numbers))
            if number == len(tables):
                table, deviation = self._table(row, t in asked_copies)
                tables.append(table)
                uncertainty.append(deviation)
                self._table_rows.append(row)
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
                    positions=tuple(
                        dataclasses.replace(p, is_refused=(t, p.value) in self._refused_uses)
                        for p in row.positions
                    ),
                    cost_table=number,
                    loops=row.loops,
                )
            )
        self.uncertainty = tuple(uncertainty)
        provenance = {"program": self.name, "target": self.target.name, "versions": self.versions}
        problem = Problem(
            self.name,
            self.target,
            tuple(instructions),
            self._values(),
            tuple(tables),
            provenance=provenance,
        )
        self.problem = problem.replace(exclusions=exclusions(problem))
        return self.problem

    def _values(self) -> tuple[Value, ...]:
        return tuple(
            dataclasses.replace(
                v,
                is_refused=i in self._refused,
                write_back_cycles=round(v.write_back_cycles * self.exposure),
                copy_cycles=self._copy_cycles(v),
                split_bytes=self._split.get(i, 0),
            )
            for i, v in enumerate(self.structure.values)
        )

    def _copy_cycles(self, value: Value) -> int:
        """Cycles of a value's plain copy that writes alternate memory itself, -1 if not known."""
        if value.copied_at < 0:
            return -1
        known = self.store.observed.get(self.structure.rows[value.copied_at].key, {})
        return known.get(1) or -1

    def _traffic(self, row: Row) -> Traffic:
        return Traffic.of(row.positions, row.other_bytes, self.target.default_bytes_per_cycle)

    def _table(self, row: Row, is_asked_copy: bool) -> tuple[CostTable, np.ndarray]:
        traffic = self._traffic(row)
        if row.key not in self.store.observed:  # judged without an estimate, so nothing is unsure
            table = roofline(traffic)
            return table, np.zeros(len(table.cycles))
        table, deviation = self.store.table(row.key, traffic)
        if is_asked_copy:  # in alternate memory a prefetch does its work: that is the decision
            table = CostTable((table.cycles[0], 0), (table.known[0], True))
            deviation = deviation * (1, 0)
        return table, deviation

    def covariance(self, table: int, masks: Sequence[int]) -> np.ndarray:
        """Covariance between unknown entries of a cost table, cycles squared: float64[n, n].

        Raises: KeyError for a table whose instructions the compiler gives no estimates for.
        """
        row = self._table_rows[table]
        prediction = self.store.prediction(row.key, self._traffic(row))
        return prediction.covariance(mask_bits(masks, len(row.positions)))

    # -- whole compiles ----------------------------------------------------------------------

    def take_in(
        self,
        compiled: Compiled,
        source: str,
        *,
        is_ours: bool | None = None,
        judged: CompiledLatency | None = None,
    ) -> tuple[CompiledLatency, Assignment]:
        """Learn all that a compile says, `problem` refreshed; how fast it is, and what it does.

        source: of the assignment. is_ours: as for `calibrate`; None: it says nothing of that.
        judged: its latency, where that is known.
        """
        module = placed_module(compiled)
        self.learn(module)
        self.refresh()
        judged = judged or compiled_latency(Module(compiled.hlo), self.target)
        found = self.assignment_of(compiled, source, module)
        if is_ours is not None:
            self.calibrate(judged.cycles, found, is_ours=is_ours)
        return judged, found

    def assignment_of(
        self, compiled: Compiled, source: str, module: Module | None = None
    ) -> Assignment:
        """The mapping under which a compile of this program really runs.

        module: the compile's module, where it is decoded already.
        """
        return assignment_of(self.structure, compiled, source, module)


def _is_replaceable(row: Row) -> bool:
    """Whether it is a plain copy of a parameter, which a prefetch can do without; `Structure`."""
    is_output_only = len(row.slots) == 1 and row.slots[0][0]
    return row.instruction.opcode == "copy" and is_output_only and row.instruction.keeps_layout
