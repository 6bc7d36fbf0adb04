"""What the pictures of a report show, as plain columns: chunks, copies, bandwidth, cycles.

Times are logical times and cycles; nothing here knows of pages or of matplotlib.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

import malloc_game as mg
from agent.report.run_files import Run
from agent.tuning.outcome import LABELS
from malloc_game.problem.assignment import PREFETCH
from malloc_game.problem.latencies import Profile, profile
from malloc_game.render.layout import copy_lanes, kind_of

KINDS = ("parameter", "computed value", "live-out")


@dataclasses.dataclass(frozen=True)
class Map:
    """One mapping of the program, ready to be drawn. T instructions, N chunks, C copies."""

    label: str
    assignment: mg.Assignment
    profile: Profile
    filled: np.ndarray  # int64[N], logical time at which the copy that fills a chunk is done
    saved: np.ndarray  # float64[N], cycles; see `cycles_saved`
    bytes_per_cycle: float  # default-memory bandwidth
    lanes: tuple[int, ...]  # of the copies, in the order of `copies`
    copies: tuple[mg.Copy, ...]  # by start

    @property
    def bandwidth(self) -> tuple[np.ndarray, np.ndarray]:
        """Share of the default-memory bandwidth that instructions and copies take: float64[T + 1].

        Of an instruction and the wait before it; the last entry is the wait at the end. What
        instructions take is cut off at 1: their operands count whole, also where only a slice is
        read.
        """
        spans = self.profile.wait_cycles + np.append(self.profile.cycles, 0.0)
        own = np.append(self.profile.default_bytes, 0.0)
        peak = np.where(spans > 0, spans, 1.0) * self.bytes_per_cycle
        mine = np.where(spans > 0, np.minimum(own / peak, 1.0), 0.0)
        copied = np.where(spans > 0, self.profile.copied_bytes / peak, 0.0)
        return mine, np.minimum(copied, 1.0 - mine)


def make_map(problem: mg.Problem, assignment: mg.Assignment, label: str) -> Map:
    """Everything that a picture of `assignment` needs."""
    found = profile(problem, assignment)
    arrival: dict[tuple[int, int, int], int] = {
        (c.value, c.start, c.value_offset): c.end
        for c in assignment.copies
        if c.direction == PREFETCH
    }
    filled = [arrival.get((c.value, c.start, c.value_offset), c.start) for c in assignment.chunks]
    copies = tuple(sorted(assignment.copies, key=lambda c: (c.start, c.end)))
    return Map(
        label=label,
        assignment=assignment,
        profile=found,
        filled=np.array(filled, int),
        saved=cycles_saved(problem, assignment, found),
        bytes_per_cycle=problem.target.default_bytes_per_cycle,
        lanes=tuple(copy_lanes(copies)),
        copies=copies,
    )


def cycles_saved(problem: mg.Problem, assignment: mg.Assignment, found: Profile) -> np.ndarray:
    """Cycles that each chunk saves: what its uses would cost more if its value were in default.

    All other placements stay as they are, so that the numbers of chunks do not add up. A live-out's
    write-back is taken off. Slices of one value count as the whole. Returns float64[N].
    """
    saved_at: dict[int, list[tuple[int, float]]] = {}
    defined_at: dict[int, int] = {}
    for t, instruction in enumerate(problem.instructions):
        bits: dict[int, int] = {}
        for p, position in enumerate(instruction.positions):
            if assignment.in_alternate(t, p):
                bits[position.value] = bits.get(position.value, 0) | 1 << p
                if position.is_output:
                    defined_at.setdefault(position.value, t)
        for value, mask in bits.items():
            without = problem.instruction_cycles(t, assignment.masks[t] & ~mask)
            saved = without * instruction.trip_count - found.cycles[t]
            saved_at.setdefault(value, []).append((t, saved))
    evicted = {c.value for c in assignment.copies if c.direction != PREFETCH}
    result = np.zeros(len(assignment.chunks))
    for i, chunk in enumerate(assignment.chunks):
        inside = [s for t, s in saved_at.get(chunk.value, ()) if chunk.start <= t < chunk.end]
        result[i] = sum(inside)
        made = defined_at.get(chunk.value, -1)
        if chunk.start <= made < chunk.end and chunk.value not in evicted:
            result[i] -= problem.values[chunk.value].write_back_cycles
    return result


@dataclasses.dataclass(frozen=True)
class Change:
    """An instruction before and after; cycles of all its executions."""

    time: int
    name: str
    opcode: str
    trip_count: int
    before: float
    after: float
    gained: tuple[str, ...]  # positions that are in alternate memory now, and were not
    lost: tuple[str, ...]
    is_estimated: bool  # a model gave one of the two, not the compiler

    @property
    def difference(self) -> float:
        """Cycles after minus before: negative is faster."""
        return self.after - self.before


def changes(problem: mg.Problem, before: Map, after: Map) -> list[Change]:
    """The instructions whose cycles differ, the greatest gain first."""
    found = []
    for t in np.flatnonzero(before.profile.cycles != after.profile.cycles).tolist():
        instruction = problem.instructions[t]
        table = problem.cost_tables[instruction.cost_table]
        old, new = before.assignment.masks[t], after.assignment.masks[t]
        known = [table.known[mask & (len(table.known) - 1)] for mask in (old, new)]
        gained, lost = (
            tuple(
                f"{problem.values[p.value].name} ({p})"
                for i, p in enumerate(instruction.positions)
                if mask >> i & 1
            )
            for mask in (new & ~old, old & ~new)
        )
        found.append(
            Change(
                t, instruction.name, instruction.opcode, instruction.trip_count,
                float(before.profile.cycles[t]), float(after.profile.cycles[t]),
                gained, lost, not all(known),
            )
        )  # fmt: skip
    return sorted(found, key=lambda change: (change.difference, change.time))


def known_share(problem: mg.Problem, found: Map) -> float:
    """Share of a mapping's cycles that the compiler itself gave for the very placement, 0..1."""
    known = 0.0
    for t, mask in enumerate(found.assignment.masks):
        table = problem.cost_tables[problem.instructions[t].cost_table]
        if table.known[mask & (len(table.known) - 1)]:
            known += float(found.profile.cycles[t])
    total = float(found.profile.cycles.sum())
    return known / total if total else 1.0


def maps_of(run: Run) -> tuple[Map, Map]:
    """The mapping to compare with, and the best; labelled."""
    before = LABELS["xla_default"] if run.reference else "everything in default memory"
    after = f"best ({run.found_by})"
    return (
        make_map(run.problem, run.before, before),
        make_map(run.problem, run.assignment, after),
    )


def page_data(problem: mg.Problem, maps: tuple[Map, ...]) -> dict[str, Any]:
    """What the page's script draws, as JSON: columns of numbers, and the names they point to."""
    used = sorted(
        {c.value for one in maps for c in one.assignment.chunks}
        | {c.value for one in maps for c in one.copies}
    )
    number = {value: i for i, value in enumerate(used)}
    reserved = [i.reserved_bytes for i in problem.instructions]
    return {
        "capacity": problem.target.alternate_memory_bytes,
        "clockHz": problem.target.clock_hz,
        "bytesPerSecond": problem.target.default_bandwidth_bytes_per_second,
        "instructions": {
            "name": [i.name for i in problem.instructions],
            "opcode": [i.opcode for i in problem.instructions],
            "trips": [i.trip_count for i in problem.instructions],
        },
        "values": {
            "name": [problem.values[v].name for v in used],
            "shape": [problem.values[v].shape for v in used],
            "size": [problem.values[v].size_bytes for v in used],
            "kind": [KINDS.index(kind_of(problem, v)) for v in used],
        },
        "reserved": reserved if any(reserved) else [],
        "maps": [_map_data(one, number) for one in maps],
    }


def _map_data(one: Map, number: dict[int, int]) -> dict[str, Any]:
    chunks, copies = one.assignment.chunks, one.copies
    instructions, copied = one.bandwidth
    return {
        "label": one.label,
        "start": _rounded(one.profile.start, 1),
        "wait": _rounded(one.profile.wait_cycles, 1),
        "cycles": _rounded(one.profile.cycles, 1),
        "ownShare": _rounded(instructions, 4),
        "copyShare": _rounded(copied, 4),
        "chunks": {
            "value": [number[c.value] for c in chunks],
            "start": [c.start for c in chunks],
            "end": [c.end for c in chunks],
            "offset": [c.offset for c in chunks],
            "size": [c.size for c in chunks],
            "filled": one.filled.tolist(),
            "saved": _rounded(one.saved, 1),
        },
        "copies": {
            "value": [number[c.value] for c in copies],
            "start": [c.start for c in copies],
            "end": [c.end for c in copies],
            "size": [c.size for c in copies],
            "prefetch": [int(c.direction == PREFETCH) for c in copies],
            "lane": list(one.lanes),
        },
    }


def _rounded(numbers: np.ndarray, digits: int) -> list[float]:
    """Plain numbers with few digits; whole ones without a fraction, which keeps the page small."""
    return [int(x) if x == int(x) else x for x in np.round(numbers, digits).tolist()]
