"""The rules once more, slow and obvious: lists, a grid of time x granule, copies unit by unit.

Shares no code with the game but the sizes of a granule and of a transfer unit.
"""

from __future__ import annotations

import dataclasses
import math

import malloc_game as mg
from malloc_game import COPY, DROP, NO_COPY
from malloc_game.game.encoding import granule_bytes
from malloc_game.game.state import TRANSFER_UNIT_BYTES


@dataclasses.dataclass(frozen=True)
class _Question:
    time: int  # where the chunk is needed from
    value: int
    is_use: bool
    end: int


@dataclasses.dataclass(frozen=True)
class _Chunk:
    value: int
    offset: int
    start: int
    end: int


@dataclasses.dataclass(frozen=True)
class Play:
    """A game in progress; immutable, so that all continuations can be tried."""

    problem: mg.Problem
    number: int = 0  # of the decision at hand
    chunks: tuple[_Chunk, ...] = ()
    held: tuple[tuple[int, int], ...] = ()  # (value, its chunk's number) of parameters in alternate
    bookings: tuple[tuple[int, int, int], ...] = ()  # start, units, use
    inside: frozenset[tuple[int, int]] = frozenset()  # (time, position) in alternate memory
    written_back: int = 0

    @property
    def questions(self) -> list[_Question]:
        """All decisions, in order."""
        problem, found, defined = self.problem, [], set()
        for t, instruction in enumerate(problem.instructions):
            here = [p.value for p in instruction.positions]
            asked = [v for v in dict.fromkeys(here) if problem.values[v].may_be_in_alternate]
            for v in asked:
                if problem.values[v].is_parameter and instruction.in_entry:
                    found.append(_Question(t, v, True, t + 1))
            for v in asked:
                value = problem.values[v]
                if not value.is_parameter and v not in defined and t != value.copied_at:
                    defined.add(v)
                    first = t if value.copied_at >= 0 else value.start
                    found.append(_Question(first, v, False, value.end))
        return found

    @property
    def masks(self) -> tuple[int, ...]:
        """Placement masks so far."""
        times = range(len(self.problem.instructions))
        return tuple(sum(1 << p for time, p in self.inside if time == t) for t in times)

    @property
    def cycles(self) -> int:
        """Latency so far, undecided positions in default memory."""
        return self.written_back + sum(
            i.trip_count * self.problem.instruction_cycles(t, self.masks[t])
            for t, i in enumerate(self.problem.instructions)
        )

    def _idle_units(self, time: int) -> int:
        problem, mask = self.problem, self.masks[time]
        if any(v.copied_at == time for v in problem.values):
            return 0
        moved = problem.default_bytes(time, mask)
        idle = problem.instruction_cycles(time, mask) * problem.target.default_bytes_per_cycle
        return max(0, math.floor((idle - moved) / TRANSFER_UNIT_BYTES))

    def _is_in_time(self, bookings: list[tuple[int, int, int]]) -> bool:
        queue = sorted(bookings, key=lambda b: b[0])
        left = [units for _, units, _ in queue]
        for t in range(max(use for _, _, use in queue) + 1):
            if any(use == t and left[i] for i, (_, _, use) in enumerate(queue)):
                return False
            idle = self._idle_units(t)
            for i, (start, _, _) in enumerate(queue):
                if start <= t:
                    moved = min(idle, left[i])
                    left[i] -= moved
                    idle -= moved
        return True

    def _copy_start(self, question: _Question) -> int | None:
        units = math.ceil(self.problem.values[question.value].size_bytes / TRANSFER_UNIT_BYTES)
        for start in range(question.time - 1, -1, -1):
            booked = [*self.bookings, (start, units, question.time)]
            if self.problem.instructions[start].in_entry and self._is_in_time(booked):
                return start
        return None

    def _granules(self, value: int) -> int:
        return math.ceil(self.problem.values[value].size_bytes / granule_bytes(self.problem))

    def _is_free(self, offset: int, size: int, start: int, end: int, but: int = -1) -> bool:
        return all(
            c.end <= start or c.start >= end or i == but
            or c.offset + self._granules(c.value) <= offset or c.offset >= offset + size
            for i, c in enumerate(self.chunks)
        )  # fmt: skip

    def _offset(self, value: int, start: int, end: int) -> int | None:
        size = self._granules(value)
        capacity = self.problem.target.alternate_memory_bytes // granule_bytes(self.problem)
        for offset in range(capacity - size + 1):
            if self._is_free(offset, size, start, end):
                return offset
        return None

    def _may_be_asked(self, question: _Question) -> bool:
        problem, value = self.problem, self.problem.values[question.value]
        positions = [p for p in problem.instructions[question.time].positions]
        if value.is_refused or any(
            p.is_refused for p in positions if p.value == question.value and question.is_use
        ):
            return False
        used = {
            (problem.instructions[t].positions[p].value, t)
            for t, p in self.inside
            if not problem.instructions[t].positions[p].is_output
        }
        inside = {c.value for c in self.chunks}
        for exclusion in problem.exclusions:
            parameter, time, output = exclusion.parameter, exclusion.time, exclusion.output
            if (parameter, time) in used:
                continue
            if question.value == output and any(v == parameter for v, _ in used):
                return False
            if question.value == parameter and question.time != time and output in inside:
                return False
        return True

    def continuations(self) -> dict[int, Play]:
        """What each legal action leads to; empty after the end."""
        questions = self.questions
        if self.number >= len(questions):
            return {}
        question = questions[self.number]
        v, t = question.value, question.time
        value, after = self.problem.values[v], dataclasses.replace(self, number=self.number + 1)
        without = tuple(pair for pair in self.held if pair[0] != v)
        found = {DROP: dataclasses.replace(after, held=without)}
        if not self._may_be_asked(question):
            return found
        positions = frozenset(
            place
            for place in self.problem.positions_of_value[v]
            if not question.is_use or place[0] == t
        )
        after = dataclasses.replace(after, inside=self.inside | positions)
        held = dict(self.held).get(v)
        if held is not None:
            chunk = self.chunks[held]
            if self._is_free(chunk.offset, self._granules(v), chunk.end, t + 1, but=held):
                chunks = list(self.chunks)
                chunks[held] = dataclasses.replace(chunk, end=t + 1)
                found[NO_COPY] = dataclasses.replace(after, chunks=tuple(chunks))
            return found
        copied = question.is_use or value.copied_at >= 0
        start = self._copy_start(question) if copied else t
        offset = None if start is None else self._offset(v, start, question.end)
        if offset is None:
            return found
        chunks = (*self.chunks, _Chunk(v, offset, start, question.end))
        after = dataclasses.replace(after, chunks=chunks)
        if question.is_use:
            after = dataclasses.replace(after, held=(*without, (v, len(chunks) - 1)))
        if copied:
            units = math.ceil(value.size_bytes / TRANSFER_UNIT_BYTES)
            after = dataclasses.replace(after, bookings=(*self.bookings, (start, units, t)))
        is_output = any(
            self.problem.instructions[time].positions[p].is_output for time, p in positions
        )
        if is_output and not question.is_use:
            charged = self.written_back + value.write_back_cycles
            after = dataclasses.replace(after, written_back=charged)
        found[COPY if copied else NO_COPY] = after
        return found


def best_latency(play: Play) -> int:
    """Least latency that any game reaches from here: all of them are played."""
    after = play.continuations()
    return min(map(best_latency, after.values())) if after else play.cycles
