"""Which decisions the compiler can be asked for at all, found by asking.

Some uses refuse alternate memory whatever is asked (large cache operands on v5e, results of the
program); the compiler's dump does not say so. A few mappings that together ask for everything, each
of a placement dry run, show what comes out in default memory all the same; what does so again when
nothing else is in its way is refused for good.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

import malloc_game as mg
from malloc_game import Assignment, Problem
from malloc_game.game.playing import follow_wanted
from workloads.compiler.session import OVERRIDES_OPTION, CompilerSession
from workloads.errors import CompileError, CompilerKilled, CompileTimeout, OverrideError
from workloads.extraction.dry_run import DryRun, dry_run_of
from workloads.extraction.extraction import Extraction
from workloads.extraction.placed import placed_module
from workloads.overrides.comparison import Difference, compare, keep_only
from workloads.overrides.packing import SORT_ORDER_OPTION, sort_order
from workloads.overrides.refusals import refused_value
from workloads.overrides.text import EXACT_OPTIONS, KEEP_PREFETCHES, overrides
from workloads.progress import Progress, silent

_LABEL = "probe-3"
_LABEL_AFTER_LOOPS = "probe-after-loops-1"
_MAX_MAPPINGS = 12
# Without dry runs every mapping is a full compile, which at least teaches costs as well.
_MAX_SLOW_MAPPINGS = 2
_MAX_REFUSALS = 64
_FINDING_SHARE = 0.5  # of the time, at most, for finding out whether there are placement dry runs
# A program takes about eight checks, of which the first few alone mostly show nothing; each takes
# two to three times as long as that of the all-default program, by which dry runs were found.
# Of some it is five times as long, as the first one shows.
_USUAL_CHECKS = 8
_OF_ALL_DEFAULT = 2.5
_MAX_AFTER_LOOPS = 16


def probe(
    session: CompilerSession,
    extraction: Extraction,
    progress: Progress = silent,
    seconds: float = math.inf,
) -> int:
    """Mark in the extraction's problem what the compiler refuses; returns the number of checks.

    The answer is remembered on disk. seconds: no check begins after so many, nor one of the first
    if the usual number would take longer; then it is not remembered, and what was not asked counts
    as possible.
    Raises: CompileError: the compiler was killed, or hangs.
    """
    deadline = time.monotonic() + seconds
    known = session.remembered(_LABEL)
    if known is None:
        dry_run = dry_run_of(session, seconds * _FINDING_SHARE)
        prober = _Prober(dry_run, extraction, deadline)
        is_complete = prober.has_time() and prober.run()
        problem = extraction.problem
        names = [problem.values[v].name for v in sorted(prober.values)]
        uses = [
            [problem.instructions[t].name, problem.values[v].name] for t, v in sorted(prober.uses)
        ]
        known = {"values": names, "uses": uses, "checks": prober.checks}
        if is_complete:
            session.remember(_LABEL, known)
    after_loops = session.remembered(_LABEL_AFTER_LOOPS)
    if after_loops is None:
        after_loops, is_complete = _probe_after_loops(session, extraction.problem, deadline)
        if is_complete:
            session.remember(_LABEL_AFTER_LOOPS, after_loops)
    known = {
        "values": known["values"],
        "uses": known["uses"] + after_loops["uses"],
        "checks": known["checks"] + after_loops["checks"],
    }
    values = {value.name: v for v, value in enumerate(extraction.problem.values)}
    times = {i.name: t for t, i in enumerate(extraction.problem.instructions)}
    extraction.refuse(
        {values[name] for name in known["values"]},
        {(times[instruction], values[name]) for instruction, name in known["uses"]},
    )
    extraction.refresh()
    progress(
        f"probed with {known['checks']} checks: the compiler refuses alternate memory for"
        f" {len(known['values'])} values and {len(known['uses'])} uses of parameters"
    )
    return known["checks"]


def _probe_after_loops(
    session: CompilerSession, problem: Problem, deadline: float
) -> tuple[dict[str, Any], bool]:
    """Uses of parameters after a loop that carries them, where their prefetch is refused, and
    whether there was time for all.

    To the compiler such a use is of what comes out of the loop: no copy can start before its end,
    and where little is between that and the use, none can be asked for.
    """
    uses: list[list[str]] = []
    checks = 0
    program = mg.encode(problem)
    decided = np.asarray(program.decision_time), np.asarray(program.decision_value)
    for t, value in _uses_after_loops(problem)[:_MAX_AFTER_LOOPS]:
        wanted = (decided[0] == t) & (decided[1] == value)
        state, _ = follow_wanted(program, wanted)
        asked = mg.to_assignment(problem, state, "probe")
        if not asked.copies:
            continue
        if time.monotonic() >= deadline:
            return {"uses": uses, "checks": checks}, False
        if not (dry_run := dry_run_of(session)).is_fast:  # perhaps for want of time
            return {"uses": uses, "checks": checks}, math.isinf(deadline)
        text = overrides(problem, asked)
        checks += 1
        try:
            dry_run.place({**EXACT_OPTIONS, **KEEP_PREFETCHES, OVERRIDES_OPTION: text})
        except OverrideError as error:
            if refused_value(problem, str(error)) == value:
                uses.append([problem.instructions[t].name, problem.values[value].name])
        except (CompilerKilled, CompileTimeout):
            raise
        except CompileError:
            continue
    return {"uses": uses, "checks": checks}, True


def _uses_after_loops(problem: Problem) -> list[tuple[int, int]]:
    """(time, value) of the entry's uses of parameters that come after uses in a loop."""
    found = []
    for v, value in enumerate(problem.values):
        if not (value.is_parameter and value.may_be_in_alternate):
            continue
        is_carried = False
        for t, p in problem.positions_of_value[v]:
            instruction = problem.instructions[t]
            is_use = not instruction.positions[p].is_output
            if not instruction.in_entry:
                is_carried = True
            elif is_carried and is_use and (t, v) not in found:
                found.append((t, v))
    return found


class _Prober:
    """State of one probing."""

    def __init__(self, dry_run: DryRun, extraction: Extraction, deadline: float):
        self.dry_run = dry_run
        self.deadline = deadline
        self.extraction = extraction
        self.checks = 0
        self.seconds = 0.0  # that they took
        self.was_cut = False  # for want of time
        self.values: set[int] = set()
        self.uses: set[tuple[int, int]] = set()  # (time, value)

    def has_time(self) -> bool:
        """Whether it is to be expected that `run` will come to its end."""
        number = _USUAL_CHECKS if self.dry_run.is_fast else _MAX_SLOW_MAPPINGS
        each = self.dry_run.seconds_per_dry_run * (_OF_ALL_DEFAULT if self.dry_run.is_fast else 1.0)
        if self.checks:
            each = self.seconds / self.checks
        return time.monotonic() + max(number - self.checks, 0) * each < self.deadline

    def run(self) -> bool:
        """Ask for everything, a mapping at a time; whether there was time for all."""
        problem = self.extraction.problem
        program = mg.encode(problem)
        asked = np.zeros(program.max_decisions, bool)
        asked[int(program.num_decisions) :] = True
        for _ in range(_MAX_MAPPINGS if self.dry_run.is_fast else _MAX_SLOW_MAPPINGS):
            if not self.has_time():
                self.was_cut = True
                break
            state, _ = follow_wanted(program, ~asked)
            placed = np.asarray(state.chunk_of) != mg.UNPLACED
            if not (placed & ~asked).any():
                break
            asked |= placed
            wanted = mg.to_assignment(problem, state, "probe")
            suspects = self._not_given(problem, wanted)
            if suspects and self.dry_run.is_fast:
                alone = keep_only(problem, wanted, {d.value for d in suspects})
                again = {(d.value, d.time) for d in self._not_given(problem, alone)}
                suspects = [d for d in suspects if (d.value, d.time) in again]
            for difference in suspects:
                if difference.time is None:
                    self.values.add(difference.value)
                else:
                    self.uses.add((difference.time, difference.value))
        return not self.was_cut

    def _not_given(self, problem: Problem, wanted: Assignment) -> list[Difference]:
        """What is in default memory though asked for; what refuses by name is left out of it.

        A refusal by name is one of many reasons together, so that it proves nothing here.
        """
        left_out: set[int] = set()
        for _ in range(_MAX_REFUSALS):
            if not self.has_time():
                self.was_cut = True
                break
            held = {c.value for c in wanted.chunks} - left_out
            asked = keep_only(problem, wanted, held)
            text = overrides(problem, asked, strict=False)
            options = {
                **EXACT_OPTIONS,
                **KEEP_PREFETCHES,
                OVERRIDES_OPTION: text,
                SORT_ORDER_OPTION: sort_order(problem, asked),
            }
            self.checks += 1
            began = time.monotonic()
            try:
                placed = self.dry_run.place(options)
            except OverrideError as error:
                value = refused_value(problem, str(error))
                if value is None or value in left_out:
                    return []
                left_out.add(value)
                continue
            except (CompilerKilled, CompileTimeout):
                raise
            except CompileError:
                return []
            finally:
                self.seconds += time.monotonic() - began
            module = placed_module(placed)
            if not self.dry_run.is_fast:  # otherwise no instruction has cycles
                self.extraction.learn(module)
            found = self.extraction.assignment_of(placed, "probe", module)
            _, differences = compare(problem, asked, found)
            return [d for d in differences if d.wanted_in_alternate]
        return []
