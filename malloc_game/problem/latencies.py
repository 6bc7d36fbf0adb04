"""The latency of an assignment: the one function that judges every mapping of a problem."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

from malloc_game.problem.assignment import EVICTION, PREFETCH, Assignment, Copy, replaced_slices
from malloc_game.problem.definition import Problem
from malloc_game.problem.timeline import Timeline


@dataclasses.dataclass(frozen=True)
class Latency:
    """Predicted latency, in cycles: instructions, waits for copies, write-backs of live-outs."""

    instruction_cycles: float
    wait_cycles: float
    write_back_cycles: float

    @property
    def cycles(self) -> float:
        """Total predicted cycles of one run of the program."""
        return self.instruction_cycles + self.wait_cycles + self.write_back_cycles


def latency(problem: Problem, assignment: Assignment) -> Latency:
    """Predicted latency of `assignment`, from the problem's cost tables and the runtime simulator.

    All copies run through the simulator's queues, evictions included. A live-out that is produced
    in alternate memory without any eviction costs the problem's `write_back_cycles` instead. A copy
    inside a loop is awaited as often as the loop runs, but moves its bytes once, as in XLA. A plain
    copy of a parameter into alternate memory (see `Value`) is free if a prefetch, or slices of one,
    bring the whole value in its place; so is a plain slice that an asynchronous one replaces.
    """
    timeline = Timeline(problem.target.default_bytes_per_cycle)
    for _ in _run(problem, assignment, timeline):
        pass
    write_back = _write_back_cycles(problem, assignment)
    return Latency(timeline.elapsed - timeline.waited, timeline.waited, float(write_back))


@dataclasses.dataclass(frozen=True)
class Profile:
    """Where the cycles of `latency` go, instruction by instruction; T instructions.

    All are of one run of the program: executions of loops are added up.
    """

    cycles: np.ndarray  # float64[T], instructions without waits
    wait_cycles: np.ndarray  # float64[T + 1], for copies, before an instruction and at the end
    default_bytes: np.ndarray  # float64[T], moved by instructions to and from default memory
    copied_bytes: np.ndarray  # float64[T + 1], moved by copies in wait and instruction
    write_back_cycles: float  # at the end

    @property
    def total(self) -> float:
        """All cycles: those of `latency`."""
        return float(self.cycles.sum() + self.wait_cycles.sum()) + self.write_back_cycles

    @property
    def start(self) -> np.ndarray:
        """Cycles before each instruction, waits for it included, and at the end: float64[T + 1]."""
        before = np.concatenate([[0.0], np.cumsum(self.wait_cycles[:-1] + self.cycles)])
        return before + self.wait_cycles


def profile(problem: Problem, assignment: Assignment) -> Profile:
    """The predicted latency of `assignment`, by instruction; its parts sum to `latency`'s."""
    timeline = Timeline(problem.target.default_bytes_per_cycle)
    times = len(problem.instructions)
    started = np.zeros(times + 1)
    for copy in assignment.copies:
        started[copy.start] += copy.size
    cycles, moved, waited, queued = (np.zeros(times + 1) for _ in range(4))
    for t, (cycles[t], moved[t]) in enumerate(_run(problem, assignment, timeline)):
        waited[t] = timeline.waited
        queued[t] = sum(timeline.reads.values()) + sum(timeline.writes.values())
    return Profile(
        cycles=cycles[:-1],
        wait_cycles=np.diff(waited, prepend=0.0),
        default_bytes=moved[:-1],
        copied_bytes=np.maximum(np.concatenate([[0.0], queued[:-1]]) + started - queued, 0.0),
        write_back_cycles=float(_write_back_cycles(problem, assignment)),
    )


def _run(
    problem: Problem, assignment: Assignment, timeline: Timeline
) -> Iterator[tuple[float, float]]:
    """Simulate a run; yields what each instruction took, after it, and zeros at the end.

    Of all its executions: cycles, and bytes to and from default memory.
    """
    events = _copy_events(assignment)
    prefetched = _prefetched(problem, assignment)
    copies = {v.copied_at for v in problem.values}
    replaced = replaced_slices(problem, assignment) & prefetched
    gone = {problem.values[v].sliced_at for v in replaced}
    for t, instruction in enumerate(problem.instructions):
        mask = assignment.masks[t]
        _play(timeline, events.get(t, ()))
        cycles: float = problem.instruction_cycles(t, mask)
        if t in copies:
            cycles = _copy_cycles(problem, assignment, t, prefetched, cycles)
        if t in gone:
            yield 0.0, 0.0
            continue
        moved = problem.default_bytes(t, mask)
        timeline.run(cycles, moved, instruction.trip_count)
        yield cycles * instruction.trip_count, moved * instruction.trip_count
    _play(timeline, events.get(len(problem.instructions), ()))
    yield 0.0, 0.0


def _write_back_cycles(problem: Problem, assignment: Assignment) -> int:
    """Of live-outs that are produced in alternate memory and not evicted."""
    evicted = {c.value for c in assignment.copies if c.direction == EVICTION}
    written_back = {
        position.value
        for instruction, mask in zip(problem.instructions, assignment.masks, strict=True)
        for p, position in enumerate(instruction.positions)
        if position.is_output and mask >> p & 1 and position.value not in evicted
    }
    return sum(problem.values[v].write_back_cycles for v in written_back)


def _prefetched(problem: Problem, assignment: Assignment) -> set[int]:
    """Values that prefetches bring as a whole, in one piece or in slices."""
    brought: dict[int, int] = {}
    for copy in assignment.copies:
        if copy.direction == PREFETCH:
            brought[copy.value] = brought.get(copy.value, 0) + copy.size
    return {v for v, size in brought.items() if size >= problem.values[v].size_bytes}


def _copy_cycles(
    problem: Problem, assignment: Assignment, time: int, prefetched: set[int], cycles: float
) -> float:
    """Cycles of a plain copy: `cycles`, unless it writes alternate memory without a prefetch."""
    for p, position in enumerate(problem.instructions[time].positions):
        value = problem.values[position.value]
        is_written = value.copied_at == time and assignment.in_alternate(time, p)
        if is_written and position.value not in prefetched:
            if value.copy_cycles >= 0:
                return value.copy_cycles
            moved = problem.default_bytes(time, assignment.masks[time])
            return moved / problem.target.default_bytes_per_cycle
    return cycles


# Sort key (see `Copy`), number of the copy in the assignment, the copy, whether it starts.
_Event = tuple[tuple[int, int, int], int, Copy, bool]


def _copy_events(assignment: Assignment) -> dict[int, list[_Event]]:
    """Starts and ends of all copies by the instruction that they precede, in their order."""
    events: dict[int, list[_Event]] = {}
    for i, copy in enumerate(assignment.copies):
        events.setdefault(copy.start, []).append(((copy.start_order, 1, i), i, copy, True))
        phase = 2 if copy.end == copy.start else 0
        events.setdefault(copy.end, []).append(((copy.end_order, phase, i), i, copy, False))
    for each in events.values():
        each.sort(key=lambda event: event[0])
    return events


def _play(timeline: Timeline, events: Iterable[_Event]) -> None:
    for _, i, copy, is_start in events:
        if is_start:
            timeline.start_copy(i, copy.size, is_read=copy.direction == PREFETCH)
        else:
            timeline.finish_copy(i, copy.trip_count)
