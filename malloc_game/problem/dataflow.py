"""Where the current data of a value is, followed through a program and its loops.

The part of the physical rules (`physical`) that looks at one value at a time.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from malloc_game.problem.assignment import EVICTION, PREFETCH, Assignment, Chunk, Copy
from malloc_game.problem.definition import Position, Problem
from malloc_game.problem.violation import NO_COPY, NO_EVICTION, SIZE, TOO_LATE, UNCOVERED, Violation


def copied_at(problem: Problem, value: int) -> int:
    """The plain copy that defines a value and that a prefetch can replace, -1 for none.

    The game knows those whose first use is in the entry; the compiler replaces others as well.
    """
    first = next(iter(problem.positions_of_value[value]), None)
    if first is not None and problem.values[value].copied_at < 0:
        instruction = problem.instructions[first[0]]
        if instruction.opcode == "copy" and len(instruction.positions) == 1:
            return first[0]
    return problem.values[value].copied_at


@dataclasses.dataclass(frozen=True)
class Loop:
    """A loop over the instructions first..last-1, and the loops inside it."""

    first: int
    last: int
    trip_count: int
    inner: tuple[Loop, ...]

    def holds(self, copy: Copy) -> bool:
        """Whether a copy is started and awaited in every round."""
        if copy.trip_count < self.trip_count:
            return False  # before the first instruction or after the last one, but outside
        if copy.start == copy.end:  # one loop's end may be the next one's beginning
            edge = self.last if copy.direction == PREFETCH else self.first
            return self.first <= copy.start <= self.last and copy.start != edge
        return self.first <= copy.start < copy.end <= self.last


def loops_of(problem: Problem, first: int, last: int, depth: int) -> tuple[Loop, ...]:
    """The loops among the instructions first..last-1, `depth` loops inside others."""

    def number(t: int) -> int:
        return next(iter(problem.instructions[t].loops[depth:]), -1)

    found = []
    for around, times in itertools.groupby(range(first, last), number):
        if around >= 0:
            body = list(times)
            trips = min(problem.instructions[t].trip_count for t in body)
            inner = loops_of(problem, body[0], body[-1] + 1, depth + 1)
            found.append(Loop(body[0], body[-1] + 1, trips, inner))
    return tuple(found)


@dataclasses.dataclass(frozen=True)
class _InFlight:
    """A copy that has started: where it goes, what it carries, and of which definition."""

    place: int | None
    data: np.ndarray
    version: int


# Default memory among the places of a value; alternate memory has its base addresses, from 0 on.
_DEFAULT = -(1 << 62)


class Flow:
    """Where the current data of one value is, followed through one run of the program.

    The value is cut where chunks or copies of it begin or end. A place is default memory or the
    base address of chunks: the address in alternate memory of the value's first byte.
    """

    def __init__(self, problem: Problem, assignment: Assignment, value: int, sliced: set[int]):
        """sliced: see `replaced_slices`."""
        self.problem, self.assignment = problem, assignment
        self.number, self.value = value, problem.values[value]
        self.chunks = [c for c in assignment.chunks if c.value == value]
        self.copies = [c for c in assignment.copies if c.value == value]
        cuts = {0, self.value.size_bytes}
        parts: list[Chunk | Copy] = [*self.chunks, *self.copies]
        for part in parts:
            cuts |= set(self._span(part))
        # Asynchronous slices read it; they follow its own copies.
        self.num_own = len(self.copies)
        self.copies += [
            c
            for c in assignment.copies
            if c.value in sliced and problem.values[c.value].sliced_from == value
        ]
        self.is_sliced = value in sliced
        self.cuts = sorted(c for c in cuts if 0 <= c <= self.value.size_bytes)
        self.copied_at = copied_at(problem, value)
        self.version = 0
        # Per place, which pieces of the value are current there.
        pieces = max(len(self.cuts) - 1, 0)
        self.current = {c.offset - c.value_offset: np.zeros(pieces, bool) for c in self.chunks}
        # What no instruction with a position defines (a parameter, a constant, what another core
        # computes) is in default memory, and what is no parameter also in a chunk from its start.
        places = problem.positions_of_value[value]
        first = [self._position(t, p).is_output for t, p in places if t == places[0][0]]
        is_computed = first[:1] == [True]
        self.current[_DEFAULT] = np.full(pieces, self.value.is_parameter or not is_computed)
        # Only allocated, for the first that touches it to fill (a loop its result): there is
        # nothing yet to be found, wherever it is.
        self.is_empty = not self.value.is_parameter and not is_computed and any(first)
        self.born = [
            chunk
            for chunk in self.chunks
            if chunk.start == self.value.start and not (self.value.is_parameter or is_computed)
        ]
        self.positions: dict[int, list[int]] = {}  # at each time
        self.in_flight: dict[int, _InFlight] = {}
        self.found: list[Violation] = []

    def violations(self, loops: tuple[Loop, ...]) -> list[Violation]:
        """Every use and every copy that does not find its data, each once.

        loops: the program's outermost loops. Each runs twice, to see that a round leaves everything
        where the next one looks for it.
        """
        for t, p in self.problem.positions_of_value[self.number]:
            self.positions.setdefault(t, []).append(p)
        self._play(0, len(self.problem.instructions), set(range(len(self.copies))), loops)
        self._hand_over()
        return list(dict.fromkeys(self.found))

    def _play(self, first: int, last: int, copies: set[int], loops: tuple[Loop, ...]) -> None:
        """Follow the value from before instruction `first` to before instruction `last`."""
        inside = {loop: {i for i in copies if loop.holds(self.copies[i])} for loop in loops}
        events = self._events(copies.difference(*inside.values()))
        first_of = {loop.first: loop for loop in loops}
        ends = {chunk.end for chunk in self.chunks}
        times = {*events, *self.positions, *ends, *first_of, first, last}
        done = first
        for t in sorted(t for t in times if first <= t <= last):
            for _, i, is_start in events.get(t, ()):
                (self._start if is_start else self._finish)(i)
            loop = first_of.get(t)
            if t >= done and loop is not None:
                for _ in range(2):
                    self._forget(t)
                    self._play(t, loop.last, inside[loop], loop.inner)
                done = loop.last
            elif done <= t < last:
                self._forget(t)
                for p in self.positions.get(t, ()):
                    self._use(t, p)

    def _hand_over(self) -> None:
        """A result must be in default memory at the end.

        That of a computed value without any eviction is written back, which `latency` charges.
        """
        evicts = any(copy.direction == EVICTION for copy in self.copies[: self.num_own])
        if self.value.is_live_out and (evicts or self.value.is_parameter):
            self._must_be_whole([_DEFAULT], NO_EVICTION, "default memory at the end")

    def _events(self, copies: set[int]) -> dict[int, list[tuple[tuple[int, int], int, bool]]]:
        """Some copies by the instruction before which they start or are awaited, in order."""
        events: dict[int, list] = {}
        for i in copies:
            copy = self.copies[i]
            # Awaited, then started, then awaited with nothing in between; see `Copy`.
            phase = 2 if copy.start == copy.end else 0
            events.setdefault(copy.start, []).append(((copy.start_order, 1), i, True))
            events.setdefault(copy.end, []).append(((copy.end_order, phase), i, False))
        for each in events.values():
            each.sort()
        return events

    def _blame(self, kind: str, what: str) -> None:
        self.found.append(Violation(kind, f"{self.value.name} {what}"))

    def _span(self, part: Chunk | Copy) -> tuple[int, int]:
        """First and last byte (exclusive) of the value that a chunk or copy holds."""
        is_split = isinstance(part, Chunk) and part.size == self.value.split_bytes
        size = self.value.size_bytes if is_split and not part.value_offset else part.size
        return part.value_offset, part.value_offset + size

    def _pieces(self, part: Chunk | Copy) -> np.ndarray:
        """Which pieces of the value a chunk or copy holds."""
        low, high = self._span(part)
        return np.array([low <= a and b <= high for a, b in itertools.pairwise(self.cuts)], bool)

    def _held(self, place: int, time: int) -> np.ndarray:
        """Which pieces have memory at a base address while instruction `time` runs."""
        held = np.zeros(max(len(self.cuts) - 1, 0), bool)
        for chunk in self.chunks:
            if chunk.offset - chunk.value_offset == place and chunk.start <= time < chunk.end:
                held |= self._pieces(chunk)
        return held

    def _position(self, time: int, number: int) -> Position:
        return self.problem.instructions[time].positions[number]

    def _bases(self) -> list[int]:
        return [place for place in self.current if place != _DEFAULT]

    def _forget(self, time: int) -> None:
        """What has no memory at `time` is lost."""
        for place in self._bases():
            self.current[place] &= self._held(place, time)

    def _stays(self, place: int, copy: Copy, pieces: np.ndarray) -> bool:
        """Whether a base address has memory for all of `pieces` as long as the copy runs."""
        # A prefetch that is awaited at once still needs memory for its use.
        at_least = int(copy.direction == PREFETCH)
        times = range(copy.start, max(copy.end, copy.start + at_least))
        return all((self._held(place, t) >= pieces).all() for t in times)

    def _start_slice(self, i: int) -> None:
        """Begin an asynchronous slice of this value, which reads it in default memory."""
        name = self.problem.values[self.copies[i].value].name
        self._must_be_whole([_DEFAULT], NO_EVICTION, f"default memory for the slice {name}")
        self.in_flight[i] = _InFlight(None, self.current[_DEFAULT], self.version)

    def _finish_slice(self, i: int) -> None:
        flight = self.in_flight.pop(i, None)
        if flight is not None and flight.version != self.version:
            name = self.problem.values[self.copies[i].value].name
            self._blame(TOO_LATE, f"is overwritten under the slice {name}")

    def _start(self, i: int) -> None:
        if i >= self.num_own:
            self._start_slice(i)
            return
        copy = self.copies[i]
        pieces = self._pieces(copy)
        label = f"{copy.direction} at {copy.start}"
        if copy.direction == PREFETCH:
            source = self.current[_DEFAULT]
            # What a copy of a parameter defines is prefetched from that parameter; what it is
            # a slice of, from there.
            if self.copied_at >= 0 or self.is_sliced:
                source = np.ones_like(source)
            elif not source[pieces].all():
                self._blame(NO_EVICTION, f"is not in default memory for its {label}")
            bases = [base for base in self._bases() if self._stays(base, copy, pieces)]
            if not bases:
                self._blame(UNCOVERED, f"has no chunk for its {label}")
            # Of several, the one that nothing has filled yet.
            bases.sort(key=lambda base: (self.current[base] & pieces).any())
            place = bases[0] if bases else None
        else:
            bases = [base for base in self._bases() if self.current[base][pieces].all()]
            source = self.current[bases[0]] if bases else np.zeros_like(pieces)
            if not bases:
                self._blame(NO_COPY, f"is not in alternate memory for its {label}")
            elif not any(self._stays(base, copy, pieces) for base in bases):
                self._blame(UNCOVERED, f"loses its chunk during its {label}")
            place = _DEFAULT
        self.in_flight[i] = _InFlight(place, source & pieces, self.version)

    def _finish(self, i: int) -> None:
        if i >= self.num_own:
            self._finish_slice(i)
            return
        flight = self.in_flight.pop(i, None)
        if flight is None or flight.place is None or flight.version != self.version:
            return  # never started, nowhere to go, or overwritten since: it brings nothing
        self.current[flight.place] = self.current[flight.place] | flight.data

    def _use(self, time: int, number: int) -> None:
        position = self._position(time, number)
        where = f"at {self.problem.instructions[time].name} {position}"
        if not self.assignment.in_alternate(time, number):
            if position.is_output:
                self._define(_DEFAULT)
            else:
                self._must_be_whole([_DEFAULT], NO_EVICTION, f"default memory {where}")
            return
        bases = [base for base in self._bases() if self._held(base, time).all()]
        if self.is_sliced and time == self.value.sliced_at:
            return  # an asynchronous slice does its work, which may also start later
        if time == self.copied_at:
            arrives = self.in_flight or any(self.current[base].any() for base in bases)
            if not bases or arrives:
                return  # the copy has become a prefetch, which may also start later
        if not bases:
            self._blame(UNCOVERED, f"has no chunk {where}")
        elif position.is_output:
            # In place where it was, else in a chunk that begins here.
            begins = {c.offset - c.value_offset for c in self.chunks if c.start == time}
            bases.sort(key=lambda b: (not self.current[b].any(), b not in begins))
            self._define(bases[0])
        elif self.version or not (self.is_empty or self._is_born_inside(time)):
            self._must_be_whole(bases, NO_COPY, f"alternate memory {where}")

    def _is_born_inside(self, time: int) -> bool:
        """Whether the value has been whole in a chunk since its start."""
        return any(c.end > time and self._pieces(c).all() for c in self.born)

    def _must_be_whole(self, places: list[int], kind: str, where: str) -> None:
        most = max((self.current[place] for place in places), key=np.sum)
        if not most.all():
            sizes = np.diff(self.cuts)
            kind = SIZE if most.any() else kind
            self._blame(kind, f"has {sizes[most].sum()} of {sizes.sum()} bytes in {where}")

    def _define(self, place: int) -> None:
        self.version += 1
        for each in self.current:
            self.current[each] = np.full_like(self.current[each], each == place)
