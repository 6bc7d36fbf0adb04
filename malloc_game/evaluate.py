"""The latency of an assignment: the one function that judges every mapping of a problem."""

from __future__ import annotations

import dataclasses

from malloc_game.assignment import EVICTION, PREFETCH, Assignment
from malloc_game.problem import Problem
from malloc_game.timeline import Timeline


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

    Write-backs of live-outs are charged from the problem's `write_back_cycles` (as if nothing hid
    them), so eviction copies of the assignment do not enter the queues here.
    """
    timeline = Timeline(problem.target.default_bytes_per_cycle)
    starts: dict[int, list[int]] = {}
    ends: dict[int, list[int]] = {}
    for i, copy in enumerate(assignment.copies):
        if copy.direction == PREFETCH:
            starts.setdefault(copy.start, []).append(i)
            ends.setdefault(copy.end, []).append(i)
    written_back = {c.value for c in assignment.copies if c.direction == EVICTION}
    for t, instruction in enumerate(problem.instructions):
        mask = assignment.masks[t]
        for i in ends.get(t, ()):
            if assignment.copies[i].start < t:
                timeline.finish_copy(i)
        for i in starts.get(t, ()):
            timeline.start_copy(i, assignment.copies[i].size, is_read=True)
        for i in starts.get(t, ()):
            if assignment.copies[i].end == t:  # nothing runs in between: all of it is waited for
                timeline.finish_copy(i)
        cycles = problem.instruction_cycles(t, mask)
        timeline.run(cycles, problem.default_bytes(t, mask), instruction.trip_count)
        for p, position in enumerate(instruction.positions):
            if position.is_output and mask >> p & 1:
                written_back.add(position.value)
    for i in ends.get(len(problem.instructions), ()):
        timeline.finish_copy(i)
    write_back = sum(problem.values[v].write_back_cycles for v in written_back)
    return Latency(timeline.elapsed - timeline.waited, timeline.waited, float(write_back))
