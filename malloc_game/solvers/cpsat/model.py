"""The memory-mapping problem as a constraint program of OR-tools' CP-SAT.

It holds what the game may do, and finds offsets and starts of copies by itself:

* a computed value is in alternate memory for its whole life, or in default memory;
* a copy of a parameter fills a chunk from the copy's start; the chunk serves any of the uses in the
  entry computation until it ends, right after one that it serves;
* chunks are rectangles, logical time x offset, that do not overlap;
* copies share one first-in-first-out queue in the bandwidth that instructions leave idle, and each
  is done before its use.
"""

from __future__ import annotations

import dataclasses

from ortools.sat.python import cp_model

from malloc_game.problem.assignment import Assignment
from malloc_game.problem.definition import Problem


@dataclasses.dataclass
class Job:
    """A copy that may be made: of `value`, for its use at `deadline`."""

    value: int
    deadline: int
    is_made: cp_model.IntVar
    starts: dict[int, cp_model.IntVar]  # by time: it starts right before that instruction

    def start(self) -> cp_model.LinearExprT:
        """The start as an expression; 0 where the copy is not made."""
        return cp_model.LinearExpr.weighted_sum(list(self.starts.values()), list(self.starts))


@dataclasses.dataclass
class Use:
    """All positions of a parameter at one instruction."""

    time: int
    inside: cp_model.IntVar
    job: Job
    offset: cp_model.IntVar
    stays: cp_model.IntVar | None = None  # its chunk stays until the next use of the parameter


class Placement:
    """Decisions, offsets and starts of one problem in a constraint program, and how they fit.

    most_starts: so many a copy can choose from, the latest and some before. With None it is every
    start, and the optimum is that of all mappings that the game's rules allow.
    hint: a mapping to begin with; its starts can always be chosen.
    """

    def __init__(
        self, problem: Problem, most_starts: int | None = None, hint: Assignment | None = None
    ):
        self.problem = problem
        self.cp = cp_model.CpModel()
        self.most_starts, self.hint = most_starts, hint
        self.is_exact = True  # whether every start can be chosen
        self.entry = [t for t, x in enumerate(problem.instructions) if x.in_entry]
        self.alignment = problem.target.alignment_bytes
        self.jobs: list[Job] = []
        self.uses: dict[int, list[Use]] = {}  # by parameter
        self.values: dict[int, cp_model.IntVar] = {}  # by computed value: in alternate memory
        self.value_jobs: dict[int, Job] = {}  # by computed value: the prefetch that fills it
        self.value_offsets: dict[int, cp_model.IntVar] = {}
        self.literals: dict[tuple[int, int], cp_model.IntVar] = {}  # by (instruction, position)
        self.rectangles: list[tuple[cp_model.IntervalVar, cp_model.IntervalVar, int]] = []
        # Of each copy: where its chunk starts, its length, and the end that makes that.
        self.spans: list[tuple[Job, cp_model.IntVar, cp_model.IntVar, int]] = []
        self._add_decisions()
        self._add_exclusions()
        self._add_packing()

    # --- decisions ------------------------------------------------------------------------------

    def _add_decisions(self) -> None:
        for v, value in enumerate(self.problem.values):
            places = self.problem.positions_of_value[v]
            if not value.may_be_in_alternate or value.is_refused or not places:
                continue
            if value.is_parameter:
                self._add_parameter(v)
            elif any(t != value.copied_at for t, _ in places):
                self._add_value(v)

    def _offset(self, v: int) -> cp_model.IntVar:
        room = self.problem.target.alternate_memory_bytes - self.problem.values[v].size_bytes
        return self.cp.new_int_var(0, room // self.alignment, f"offset {v}")

    def _add_job(self, v: int, deadline: int, is_made: cp_model.IntVar) -> Job:
        first = self.problem.values[v].start
        times = [t for t in self.entry if first <= t < deadline]
        chosen = self._starts_to_choose(v, deadline, times)
        self.is_exact &= len(chosen) == len(times)
        starts = {t: self.cp.new_bool_var(f"copy {v} at {t}") for t in chosen}
        self.cp.add(sum(starts.values()) == is_made)
        job = Job(v, deadline, is_made, starts)
        self.jobs.append(job)
        return job

    def _starts_to_choose(self, v: int, deadline: int, times: list[int]) -> list[int]:
        """The starts to choose from: half of them the latest, the others spread over the rest."""
        if self.most_starts is None or len(times) <= self.most_starts:
            return times
        late = times[-(self.most_starts // 2) :]
        early = times[: -len(late)]
        number = self.most_starts - len(late)
        spread = {early[i * len(early) // number] for i in range(number)}
        hinted = {
            c.start
            for c in (self.hint.copies if self.hint else ())
            if c.value == v and c.end == deadline
        }
        return sorted({*late, *spread, *(hinted & set(times))})

    def _add_value(self, v: int) -> None:
        value = self.problem.values[v]
        inside = self.cp.new_bool_var(f"value {v}")
        self.values[v] = inside
        self.value_offsets[v] = self._offset(v)
        places = self.problem.positions_of_value[v]
        for place in places:
            self.literals[place] = inside
        if value.copied_at >= 0:
            first = next(t for t, _ in places if t != value.copied_at)
            self.value_jobs[v] = self._add_job(v, first, inside)

    def _add_parameter(self, v: int) -> None:
        by_time: dict[int, list[int]] = {}
        for t, p in self.problem.positions_of_value[v]:
            if self.problem.instructions[t].in_entry:
                by_time.setdefault(t, []).append(p)
        uses: list[Use] = []
        stays: list[cp_model.IntVar] = []  # from each use until the next
        for t, numbers in by_time.items():
            inside = self.cp.new_bool_var(f"use of {v} at {t}")
            positions = self.problem.instructions[t].positions
            if any(positions[p].is_refused for p in numbers):
                self.cp.add(inside == 0)
            for p in numbers:
                self.literals[t, p] = inside
            job = self._add_job(v, t, self.cp.new_bool_var(f"copy {v} for {t}"))
            self.cp.add_implication(job.is_made, inside)
            use = Use(t, inside, job, self._offset(v))
            served = [job.is_made]
            if uses:
                before = uses[-1]
                before.stays = here = self.cp.new_bool_var(f"{v} stays until {t}")
                # There is a chunk to stay, and no copy is made while it does.
                held = [before.job.is_made, *stays[-1:]]
                self.cp.add(sum(held) >= here)
                self.cp.add(here + job.is_made <= 1)
                self.cp.add(use.offset == before.offset).only_enforce_if(here)
                served.append(here)
                stays.append(here)
            self.cp.add(sum(served) >= inside)
            uses.append(use)
        for here, after in zip(stays, uses[1:], strict=True):
            # A chunk ends right after a use that it serves.
            goes_on = [after.inside, *([] if after.stays is None else [after.stays])]
            self.cp.add_bool_or(here.negated(), *goes_on)
        if uses:
            self.uses[v] = uses

    def _add_exclusions(self) -> None:
        for exclusion in self.problem.exclusions:
            output = self.values.get(exclusion.output)
            if output is None:
                continue
            uses = self.uses.get(exclusion.parameter, [])
            here = next((u.inside for u in uses if u.time == exclusion.time), 0)
            for use in uses:
                if use.time != exclusion.time:
                    self.cp.add(use.inside + output - here <= 1)

    # --- alternate memory -----------------------------------------------------------------------

    def _add_packing(self) -> None:
        for v, inside in self.values.items():
            end = self.problem.values[v].end
            if v in self.value_jobs:
                start, length = self._start_of(self.value_jobs[v], end)
            else:
                start, length = self.problem.values[v].start, end - self.problem.values[v].start
            self._add_rectangle(v, start, length, end, inside, self.value_offsets[v])
        for v, uses in self.uses.items():
            for use, after in zip(uses, [*uses[1:], None], strict=True):
                end = use.time + 1
                start, length = self._start_of(use.job, end)
                self._add_rectangle(v, start, length, end, use.job.is_made, use.offset)
                if after is not None:
                    length = after.time - use.time
                    self._add_rectangle(v, end, length, end + length, use.stays, use.offset)
        times, offsets, sizes = zip(*self.rectangles, strict=True) if self.rectangles else ((),) * 3
        self.cp.add_no_overlap_2d(times, offsets)
        capacity = -(-self.problem.target.alternate_memory_bytes // self.alignment)
        self.cp.add_cumulative(times, sizes, capacity)  # follows, and propagates more

    def _start_of(self, job: Job, end: int) -> tuple[cp_model.IntVar, cp_model.IntVar]:
        """Start of a copy's chunk, and its length up to `end`."""
        if not job.starts:
            return self.cp.new_constant(0), self.cp.new_constant(end)
        start = self.cp.new_int_var(0, max(job.starts), "start")
        length = self.cp.new_int_var(0, end, "length")
        self.cp.add(start == job.start())
        self.cp.add(length == end - start)
        self.spans.append((job, start, length, end))
        return start, length

    def _add_rectangle(
        self,
        v: int,
        start: cp_model.LinearExprT,
        length: cp_model.LinearExprT,
        end: int,
        is_present: cp_model.IntVar,
        offset: cp_model.IntVar,
    ) -> None:
        """A chunk of value v over logical times [start, end), length = end - start."""
        size = -(-self.problem.values[v].size_bytes // self.alignment)
        time = self.cp.new_optional_interval_var(start, length, end, is_present, "")
        place = self.cp.new_optional_fixed_size_interval_var(offset, size, is_present, "")
        self.rectangles.append((time, place, size))
