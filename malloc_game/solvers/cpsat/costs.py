"""What a placement costs in a constraint program: cycles of instructions, and the copies' queue."""

from __future__ import annotations

from collections.abc import Mapping

from ortools.sat.python import cp_model

from malloc_game.game.state import TRANSFER_UNIT_BYTES
from malloc_game.problem.definition import MAX_PRICED_POSITIONS
from malloc_game.solvers.cpsat.model import Placement

# Up to this many bytes in all copies, bandwidth is counted to the byte.
_MAX_EXACT_BYTES = 1 << 31
_Term = tuple[cp_model.IntVar, int]


class Costs:
    """Adds the objective, and the queue of copies, to the constraint program of a `Placement`.

    Bandwidth is counted in `unit` bytes, copies rounded up and what is idle rounded down.
    """

    def __init__(self, placement: Placement):
        self.placement, self.problem, self.cp = placement, placement.problem, placement.cp
        sizes = [self.problem.values[job.value].size_bytes for job in placement.jobs]
        self.unit = 1 if sum(sizes) <= _MAX_EXACT_BYTES else TRANSFER_UNIT_BYTES
        self.units = [-(-size // self.unit) for size in sizes]  # by job
        # By time: masks that the decisions can choose, and the literal of each (None for the rest).
        self.entries: list[tuple[list[int], list[cp_model.IntVar | None]]] = []
        self.spare: list[tuple[int, list[_Term]]] = []  # by time: idle units
        self.started: list[cp_model.IntVar] = []  # units before each instruction, and at the end
        self.backlog: list[cp_model.IntVar] = []
        self.cost: list[_Term] = []
        self.fixed_cost = 0
        for t in range(len(self.problem.instructions)):
            self._add_instruction(t)
        self._add_write_backs()
        self._add_queue()
        self.cp.minimize(_sum(self.cost) + self.fixed_cost)

    def _moves(self, t: int) -> list[tuple[cp_model.IntVar, int]]:
        """(literal, mask bits) of every decision on priced positions of instruction t."""
        bits: dict[int, tuple[cp_model.IntVar, int]] = {}
        for p in range(min(len(self.problem.instructions[t].positions), MAX_PRICED_POSITIONS)):
            literal = self.placement.literals.get((t, p))
            if literal is not None:
                own = bits[literal.index][1] if literal.index in bits else 0
                bits[literal.index] = literal, own | 1 << p
        return list(bits.values())

    def _add_instruction(self, t: int) -> None:
        """One literal for each entry of the cost table that the decisions can choose."""
        moves = self._moves(t)
        masks = [0]
        for _, own in moves:
            masks += [mask | own for mask in masks]
        if len(moves) < 2:
            entries = [None, *(literal for literal, _ in moves)]
        else:
            entries = [self.cp.new_bool_var(f"entry {m} at {t}") for m in masks]
            self.cp.add_exactly_one(entries)
            for literal, own in moves:
                chosen = [e for e, m in zip(entries, masks, strict=True) if m & own]
                self.cp.add(sum(chosen) == literal)
        self.entries.append((masks, entries))
        trips = self.problem.instructions[t].trip_count
        price = [trips * self.problem.instruction_cycles(t, m) for m in masks]
        spare = [self._spare_units(t, m) for m in masks]
        self.fixed_cost += price[0]
        changes = [(e, i) for i, e in enumerate(entries) if i and e is not None]
        self.cost += [(e, price[i] - price[0]) for e, i in changes]
        self.spare.append((spare[0], [(e, spare[i] - spare[0]) for e, i in changes]))

    def _spare_units(self, t: int, mask: int) -> int:
        """Units that instruction t leaves idle; positions that are not priced cause traffic."""
        cycles = self.problem.instruction_cycles(t, mask)
        carried = cycles * self.problem.target.default_bytes_per_cycle
        idle = max(0.0, carried - self.problem.default_bytes(t, mask))
        return min(int(idle / self.unit), sum(self.units))

    def _add_write_backs(self) -> None:
        for v, inside in self.placement.values.items():
            price = self.problem.values[v].write_back_cycles
            places = self.problem.positions_of_value[v]
            if any(self.problem.instructions[t].positions[p].is_output for t, p in places):
                self.cost.append((inside, price))

    def _add_queue(self) -> None:
        """First in, first out: with what is started and the backlog, what is done is known.

        A backlog larger than the true one only makes copies later, so it need not be exact.
        """
        jobs = self.placement.jobs
        total = sum(self.units)
        starting: dict[int, list[int]] = {}  # jobs by the times at which they may start
        for j, job in enumerate(jobs):
            for t in job.starts:
                starting.setdefault(t, []).append(j)
        started, backlog = [0], [0]  # before each instruction
        for t, (fixed, changes) in enumerate(self.spare):
            new = _sum([(jobs[j].starts[t], self.units[j]) for j in starting.get(t, ())])
            started.append(self.cp.new_int_var(0, total, f"started {t}"))
            backlog.append(self.cp.new_int_var(0, total, f"backlog {t}"))
            self.cp.add(started[-1] == started[-2] + new)
            self.cp.add(backlog[-1] >= backlog[-2] + new - fixed - _sum(changes))
        self.started, self.backlog = started, backlog
        for t, candidates in starting.items():
            # Of those that start together the most urgent goes first.
            candidates.sort(key=lambda j: jobs[j].deadline)
            for j in candidates:
                end = jobs[j].deadline
                ahead = [i for i in candidates if jobs[i].deadline <= end]
                needed = started[t] + _sum([(jobs[i].starts[t], self.units[i]) for i in ahead])
                done = started[end] - backlog[end]
                self.cp.add(needed <= done).only_enforce_if(jobs[j].starts[t])

    def queue_of(self, values: Mapping[int, int]) -> tuple[list[int], list[int]]:
        """`started` and `backlog` where the other variables, by their numbers, have `values`."""
        new = [0] * len(self.spare)
        for job, units in zip(self.placement.jobs, self.units, strict=True):
            for t, is_start in job.starts.items():
                new[t] += units * values[is_start.index]
        started, backlog = [0], [0]
        for more, (fixed, changes) in zip(new, self.spare, strict=True):
            idle = fixed + sum(change * values[literal.index] for literal, change in changes)
            started.append(started[-1] + more)
            backlog.append(max(0, backlog[-1] + more - idle))
        return started, backlog


def _sum(terms: list[_Term]) -> cp_model.LinearExprT:
    return cp_model.LinearExpr.weighted_sum([v for v, _ in terms], [c for _, c in terms])
