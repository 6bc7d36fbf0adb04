"""A linear relaxation of the memory-mapping problem: what every mapping must pay, whoever made it.

Bytes of a value are followed through its positions in schedule order. With x[t, p] the placement of
a position (1: alternate memory), every mapping that memory could do fulfils, byte by byte,

* instruction t runs under one placement of its positions: a distribution over the entries of its
  cost table whose marginals are x, without entries whose values do not fit together;
* an operand in alternate memory finds its bytes there: they stayed there since the position before
  (`stay`), or a copy brought them since (`prefetch`);
* an operand in default memory, of a value that was made in alternate memory, needs an eviction; a
  result made there needs one too, or is written back at the price that the problem names;
* bytes that stay, and values in use, share the alternate memory at every time;
* copies that are awaited before an instruction have moved in the default-memory bandwidth that the
  instructions before it left idle, or while the program waited. A loop's copies and instructions
  count once for bandwidth, as in `latency`.

A loop is followed through its first round: each round does the same to the same places, so after
the last one every byte is where it was after the first.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from malloc_game.problem.dataflow import copied_at
from malloc_game.problem.definition import MAX_PRICED_POSITIONS, Problem
from malloc_game.solvers.relaxation.linear import LinearProgram

# Entries of cost tables in one linear program; wide tables are first cut to fewer positions.
_MAX_ENTRIES = 200_000
_Place = tuple[int, int]  # instruction, position number


@dataclasses.dataclass(frozen=True)
class Relaxed:
    """What the relaxation found."""

    cycles: float  # a proven lower bound on the latency of every mapping
    # Fraction of each (instruction, position) in alternate memory; 0 where it is left out.
    placement: dict[_Place, float]


def relax(problem: Problem, *, expressible: bool, time_limit: float = np.inf) -> Relaxed | None:
    """Solve the relaxation; None if `time_limit` (seconds) was too short.

    expressible: for mappings that the game can make only, which gives a higher bound.
    """
    builder = _Builder(problem, expressible)
    builder.build()
    solved = builder.lp.solve(time_limit)
    if solved is None:
        return None
    cycles, x = solved
    return Relaxed(cycles, {place: float(x[i]) for place, i in builder.x.items()})


class _Builder:
    """Builds the linear program of one problem. Bandwidth is counted in cycles, memory in shares
    of the capacity, so that all numbers are of similar size."""

    def __init__(self, problem: Problem, expressible: bool):
        self.problem, self.expressible = problem, expressible
        self.lp = LinearProgram()
        self.times = len(problem.instructions)
        target = problem.target
        self.bytes_per_cycle = target.default_bytes_per_cycle
        # In the game every chunk begins at a multiple of the alignment; slices of other mappings
        # may fill gaps.
        unit = target.alignment_bytes if expressible else 1
        self.capacity = -(-target.alternate_memory_bytes // unit)
        # The plain copy that defines each value and that a prefetch may replace, -1 for none. A
        # plain slice that an asynchronous one may replace counts, too: that brings the value as a
        # prefetch does. The game leaves slices as they are.
        self.copied_at = [
            copied_at(problem, v) if value.sliced_at < 0 else -1 if expressible else value.sliced_at
            for v, value in enumerate(problem.values)
        ]
        self.size = [-(-v.size_bytes // unit) for v in problem.values]
        if not expressible:  # the game leaves room for all of a value
            self.size = [-(-(v.split_bytes or v.size_bytes) // unit) for v in problem.values]
        self.x: dict[_Place, int] = {}  # variable of each position that may be in alternate memory
        self.idle: list[list[tuple[int, float]]] = []  # by time: idle cycles, as terms
        self.arrivals: list[list[tuple[int, float]]] = [[] for _ in range(self.times + 1)]
        self.prefetches: dict[int, list[int]] = {}  # by value: variables
        # By value: the entries under which a prefetch has replaced the plain copy.
        self.replaced: dict[int, list[int]] = {}
        self.residents: list[tuple[int, int, int, int]] = []  # start, end, variable, value

    def build(self) -> None:
        """Add everything."""
        free = [self._free_positions(t) for t in range(self.times)]
        widest = MAX_PRICED_POSITIONS
        while sum(1 << min(len(f), widest) for f in free) > _MAX_ENTRIES and widest > 1:
            widest -= 1
        for t in range(self.times):
            self._add_instruction(t, free[t], widest)
        for v in range(len(self.problem.values)):
            if any(place in self.x for place in self.problem.positions_of_value[v]):
                self._add_value(v)
        for v, replaced in self.replaced.items():
            terms = [(i, 1.0) for i in replaced]
            self.lp.at_most([*terms, *((i, -1.0) for i in self.prefetches.get(v, ()))], 0.0)
        self._add_memory()
        self._add_bandwidth()

    # --- instructions ---------------------------------------------------------------------------

    def _free_positions(self, t: int) -> list[int]:
        """Positions of instruction t that may be in alternate memory."""
        free = []
        for p, position in enumerate(self.problem.instructions[t].positions):
            value = self.problem.values[position.value]
            fits = 0 < value.size_bytes <= self.problem.target.alternate_memory_bytes
            fits |= self.copied_at[position.value] == t  # may become a prefetch, and need nothing
            is_askable = not self.expressible or (
                value.may_be_in_alternate and not value.is_refused and not position.is_refused
            )
            if fits and is_askable:
                free.append(p)
        return free

    def _add_instruction(self, t: int, free: list[int], widest: int) -> None:
        for p in free:
            self.x[t, p] = self.lp.variable()
        priced = [p for p in free if p < MAX_PRICED_POSITIONS]
        # Of a table that is too wide the largest arrays stay; the others may be where they like.
        by_size = sorted(priced, key=lambda p: -self._position_bytes(t, p))
        joint = sorted(by_size[:widest])
        every_mask, cycles, every_idle = self._entries(t, priced, joint)
        fits = self._fits(t, every_mask, joint)
        trips = self.problem.instructions[t].trip_count
        entries = list(self.lp.variables(trips * cycles[fits]))
        masks, idle = list(every_mask[fits]), list(every_idle[fits])
        for mask, price in self._plain_copies(t, masks, joint):
            entries.append(self.lp.variable(trips * price))
            masks.append(mask)
            idle.append(max(0.0, price - self._least_bytes(t, mask, joint) / self.bytes_per_cycle))
        for v, mask in self._replaced_slices(t, masks[: int(fits.sum())], joint):
            entries.append(self.lp.variable())
            masks.append(mask)
            idle.append(0.0)
            self.replaced.setdefault(v, []).append(entries[-1])
        self.lp.equal([(i, 1.0) for i in entries], 1.0)
        for p in joint:
            inside = [(i, 1.0) for i, m in zip(entries, masks, strict=True) if m >> p & 1]
            self.lp.equal([*inside, (self.x[t, p], -1.0)], 0.0)
        for v in self._copied_here(t):
            self.replaced[v] = [
                i
                for i, m in zip(entries[: int(fits.sum())], masks, strict=False)
                if self._writes(t, m, joint, v)
            ]
        self.idle.append([(i, h) for i, h in zip(entries, idle, strict=True) if h > 0])

    def _position_bytes(self, t: int, p: int) -> int:
        return self.problem.instructions[t].positions[p].size_bytes

    def _least_bytes(self, t: int, mask: int, joint: list[int]) -> int:
        """Default-memory traffic under `mask` if positions that are not priced cause none."""
        instruction = self.problem.instructions[t]
        known = sum(self._position_bytes(t, p) for p in joint if not mask >> p & 1)
        free = {p for p in range(len(instruction.positions)) if (t, p) in self.x}
        fixed = sum(
            self._position_bytes(t, p) for p in range(len(instruction.positions)) if p not in free
        )
        return instruction.other_bytes + known + fixed

    def _entries(
        self, t: int, priced: list[int], joint: list[int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Masks over `joint`, their cycles and their idle cycles; the best over what is not joint.

        Returns int64[M], float64[M], float64[M].
        """
        table = self.problem.cost_tables[self.problem.instructions[t].cost_table]
        cycles = np.array(table.cycles, np.float64)
        number = np.arange(len(cycles))
        allowed = sum(1 << p for p in priced)
        number = number[(number & ~allowed) == 0]
        bits = sum(1 << p for p in joint)
        masks, group = np.unique(number & bits, return_inverse=True)
        least, most = np.full(len(masks), np.inf), np.zeros(len(masks))
        np.minimum.at(least, group, cycles[number])
        np.maximum.at(most, group, cycles[number])
        moved = np.full(len(masks), float(self._least_bytes(t, 0, joint)))
        for p in joint:
            moved -= self._position_bytes(t, p) * (masks >> p & 1)
        return masks, least, np.maximum(0.0, most - moved / self.bytes_per_cycle)

    def _fits(self, t: int, masks: np.ndarray, joint: list[int]) -> np.ndarray:
        """Which masks keep no more in alternate memory at once than it holds: bool[M]."""
        needed = np.zeros(len(masks), np.int64)
        positions = self.problem.instructions[t].positions
        for v in {positions[p].value for p in joint}:
            if self.copied_at[v] == t:
                continue  # the copy may become a prefetch that starts later
            own = sum(1 << p for p in joint if positions[p].value == v)
            needed += self.size[v] * ((masks & own) != 0)
        return needed <= self.capacity

    # --- plain copies that a prefetch can replace ---------------------------------------------

    def _copied_here(self, t: int) -> list[int]:
        positions = self.problem.instructions[t].positions
        values = self.problem.values
        return sorted({p.value for p in positions if values[p.value].copied_at == t})

    def _writes(self, t: int, mask: int, joint: list[int], value: int) -> bool:
        positions = self.problem.instructions[t].positions
        return any(mask >> p & 1 and positions[p].value == value for p in joint)

    def _plain_copies(self, t: int, masks: list, joint: list[int]) -> list[tuple[int, float]]:
        """(mask, cycles) of entries where a plain copy may write alternate memory by itself."""
        positions = self.problem.instructions[t].positions
        # What was cut from the table may be in alternate memory under every mask.
        unknown = {p.value for i, p in enumerate(positions) if (t, i) in self.x and i not in joint}
        found = []
        for mask in masks:
            written = [
                v for v in self._copied_here(t) if v in unknown or self._writes(t, mask, joint, v)
            ]
            prices = [self.problem.values[v].copy_cycles for v in written]
            moved = self._least_bytes(t, mask, joint) / self.bytes_per_cycle
            if prices:
                known = [price if price >= 0 else moved for price in prices]
                found.append((mask, float(min(known))))
        return found

    def _replaced_slices(self, t: int, masks: list, joint: list[int]) -> list[tuple[int, int]]:
        """(value, mask) of entries where an asynchronous slice has replaced a plain one."""
        positions = self.problem.instructions[t].positions
        return [
            (v, mask)
            for v in sorted({p.value for i, p in enumerate(positions) if (t, i) in self.x})
            if self.problem.values[v].sliced_at == self.copied_at[v] == t
            for mask in masks
            if self._writes(t, mask, joint, v) or not any(positions[i].value == v for i in joint)
        ]

    # --- values ---------------------------------------------------------------------------------

    def _add_value(self, v: int) -> None:
        value = self.problem.values[v]
        if self.expressible and not value.is_parameter:
            self._add_whole(v)
            return
        self._add_stays(v)
        if not self.expressible:
            self._add_evictions(v)

    def _copy(self, v: int, deadline: int) -> int:
        """A variable: the share of a value that a copy has moved by `deadline`."""
        copy = self.lp.variable()
        cycles = self.problem.values[v].size_bytes / self.bytes_per_cycle
        self.arrivals[deadline].append((copy, cycles))
        return copy

    def _prefetch(self, v: int, deadline: int) -> int:
        prefetch = self._copy(v, deadline)
        self.prefetches.setdefault(v, []).append(prefetch)
        return prefetch

    def _add_whole(self, v: int) -> None:
        """A computed value of the game: in one memory for its whole life."""
        places = self.problem.positions_of_value[v]
        value = self.problem.values[v]
        whole = self.x.get(places[0])
        if whole is None or any(place not in self.x for place in places):
            for place in places:
                if place in self.x:
                    self.lp.equal([(self.x[place], 1.0)], 0.0)
            return
        for place in places[1:]:
            self.lp.equal([(self.x[place], 1.0), (whole, -1.0)], 0.0)
        start = value.start
        if value.copied_at >= 0:
            later = [t for t, _ in places if t != value.copied_at]
            start = later[0] if later else value.start
            prefetch = self._prefetch(v, start)
            if later:
                self.lp.at_most([(whole, 1.0), (prefetch, -1.0)], 0.0)
        self.residents.append((start, value.end, whole, v))
        if self._outputs(v):
            written = self.lp.variable(value.write_back_cycles)
            self.lp.at_most([(whole, 1.0), (written, -1.0)], 0.0)

    def _outputs(self, v: int) -> list[_Place]:
        return [
            (t, p)
            for t, p in self.problem.positions_of_value[v]
            if self.problem.instructions[t].positions[p].is_output
        ]

    def _add_stays(self, v: int) -> None:
        """Operands in alternate memory find their bytes there; output positions put them there."""
        problem, value = self.problem, self.problem.values[v]
        places = problem.positions_of_value[v]
        outputs = set() if self.expressible else set(self._outputs(v))
        is_computed = not value.is_parameter and places[0] in outputs
        # Allocated only, for the first that touches it to fill: there is nothing to be found yet.
        is_empty = not value.is_parameter and not is_computed
        is_empty &= any(place in outputs for place in places if place[0] == places[0][0])
        inside: list[tuple[int, float]] = []  # terms: bytes in alternate memory before a position
        if not is_computed or self.copied_at[v] >= 0:
            inside = [(self._prefetch(v, places[0][0]), 1.0)]
        if not (value.is_parameter or is_computed) and self.copied_at[v] < 0:
            # Made by what takes no time, wherever it has memory from then on.
            born = self.lp.variable()
            self.residents.append((value.start, places[0][0], born, v))
            inside.append((born, 1.0))
        for place, after in itertools.zip_longest(places, places[1:]):
            t, x = place[0], self.x.get(place)
            is_made = place in outputs or t == self.copied_at[v]
            if is_made:
                inside = [(x, 1.0)] if x is not None else []
                is_empty = False
            elif x is not None and not is_empty:
                self.lp.at_most([(x, 1.0), *_negative(inside)], 0.0)
            if x is not None and t != self.copied_at[v]:
                self.residents.append((t, t + 1, x, v))
            if after is None or after[0] == t:
                continue
            if inside:
                stay = self.lp.variable()
                self.lp.at_most([(stay, 1.0), *_negative(inside)], 0.0)
                self.residents.append((t + 1, after[0], stay, v))
                inside = [(stay, 1.0)]
            inside = [*inside, (self._prefetch(v, after[0]), 1.0)]

    def _add_evictions(self, v: int) -> None:
        """What is made in alternate memory and then read from, or left in, default memory."""
        problem, value = self.problem, self.problem.values[v]
        outputs = self._outputs(v)
        places = problem.positions_of_value[v]
        for made, remade in itertools.zip_longest(outputs, outputs[1:]):
            if made not in self.x:
                continue
            if made[0] == self.copied_at[v] and made != places[0]:
                continue  # if a prefetch takes its place, default memory stays as it was
            last = places.index(remade) if remade is not None else len(places)
            readers = places[places.index(made) + 1 : last]
            is_result = value.is_live_out and remade is None
            if not readers and not is_result:
                continue
            deadline = self.times if is_result else readers[-1][0]
            eviction = self._copy(v, deadline)
            for reader in readers:
                terms = [(self.x[made], 1.0), (eviction, -1.0)]
                if reader in self.x:
                    terms.append((self.x[reader], -1.0))
                self.lp.at_most(terms, 0.0)
            if is_result:
                written = self.lp.variable(value.write_back_cycles)
                terms = [(self.x[made], 1.0), (eviction, -1.0), (written, -1.0)]
                self.lp.at_most(terms, 0.0)

    # --- what they share ------------------------------------------------------------------------

    def _add_memory(self) -> None:
        most = np.zeros(self.times + 1)
        for start, end, _, v in self.residents:
            most[start] += self.size[v]
            most[end] -= self.size[v]
        contended = np.flatnonzero(np.cumsum(most[:-1]) > self.capacity)
        row_of: dict[int, dict] = {int(t): {} for t in contended}
        for start, end, variable, v in self.residents:
            first, last = np.searchsorted(contended, [start, end])
            for t in contended[first:last].tolist():
                # Several positions of one value at one time hold the same memory.
                row_of[t].setdefault(v, (variable, self.size[v] / self.capacity))
        for row in row_of.values():
            self.lp.at_most(row.values(), 1.0)

    def _add_bandwidth(self) -> None:
        """Unused bandwidth so far, in cycles, never becomes negative; waiting adds to it."""
        total = sum(cycles for arrivals in self.arrivals for _, cycles in arrivals)
        before: list[tuple[int, float]] = []
        for t in range(self.times + 1):
            unused = self.lp.variable(upper=total)
            wait = self.lp.variable(1.0, upper=0.0 if self.expressible else total)
            terms = [(unused, 1.0), (wait, -1.0), *_negative(before), *self.arrivals[t]]
            self.lp.at_most(terms, 0.0)
            before = [(unused, 1.0), *(self.idle[t] if t < self.times else ())]


def _negative(terms: list[tuple[int, float]]) -> list[tuple[int, float]]:
    return [(variable, -coefficient) for variable, coefficient in terms]
