"""One run with the compiler in the loop: what was compiled, and the best of each source.

Whoever plans, plans for `CompilerLoop.extraction.problem`, whose costs every compile corrects.
"""

from __future__ import annotations

import dataclasses
import time

import numpy as np

import malloc_game as mg
from agent.planner import finders
from agent.tuning.guided import VARIANTS, GuidedSearch, State
from agent.tuning.outcome import (
    REFUSED,
    Compiled,
    Missing,
)
from agent.tuning.record import Record, status_of
from malloc_game.solvers.decode import greedy_assignment
from workloads.baselines.greedy_plans import plan, with_costs_sampled, with_refusals
from workloads.compiler.session import Compiled as CompiledModule
from workloads.compiler.session import CompilerSession
from workloads.errors import CompileError
from workloads.extraction.all_default import compiled_on_the_way
from workloads.extraction.dry_run import dry_run_of
from workloads.extraction.pipeline import extract_session
from workloads.loop.calibration import calibrate, latency_deviation
from workloads.loop.correction import Round, correct
from workloads.loop.verification import MODES, Repairs, Verification, verify
from workloads.progress import Progress

# Share of the time for asking the compiler what it refuses: seconds for most programs, but minutes
# where every question is a full compile. What was not asked comes to light when it is proposed.
_PROBING_SHARE, _MIN_PROBING_SECONDS = 0.1, 10.0
# Rounds of plan, compile, correct for the greedy baseline; it converges in two or three.
_GREEDY_ROUNDS = 3
_MIN_CALIBRATIONS, _MAX_CALIBRATIONS = 3, 10
# A random mapping takes about so much longer to compile than XLA's: it has more copies.
_OF_FIRST = 2.5
# And one of ours, which may be refused a few times before it is.
RESERVE = 1.5
# A value that this many compiles would not put in alternate memory is taken as refused.
_REFUSALS = 2
# Before the search has something to compile: variants, what is worth having, the best so far.
_FIRST_CHECKS = 20
# A state of the search is compiled if it is predicted so much below the best so far.
_WORTH_A_COMPILE = 0.999
_MAX_DRAWS = 4  # of costs, for a plan that is worth a compile


def probing_seconds(seconds: float) -> float:
    """How long a run of so many seconds may ask the compiler what it refuses."""
    return max(seconds * _PROBING_SHARE, _MIN_PROBING_SECONDS)


class CompilerLoop(Record):
    """State of one run with the compiler in the loop."""

    def __init__(self, session: CompilerSession, say: Progress):
        super().__init__(say)
        self.session = session
        self.deadline = float("inf")
        self.refusals: dict[int, int] = {}
        self.repairs = Repairs()
        # What became of mappings, whoever made them: of those that were asked for, and of those
        # that the compiler made of them. None: refused.
        self.tried: dict[mg.Assignment, Compiled | None] = {}
        # What of it should have been in alternate memory, and was not: (value, time), as of a
        # `Difference`. And of that what is not planned with any more.
        self._missed: dict[mg.Assignment, frozenset[tuple[int, int | None]]] = {}
        self._given_up: frozenset[tuple[int, int | None]] = frozenset()
        self._to_plan: tuple[mg.Problem, frozenset, mg.Problem] | None = None
        self.guided: GuidedSearch | None = None

    def extract(self, probe_seconds: float) -> None:
        """The two compiles that every run needs, and the problem that comes of them.

        probe_seconds: for asking the compiler what it refuses (`workloads.extraction.probing`).
        Greedy's code is compiled beside the second, so that it has its plan as soon as there are
        costs."""
        found = extract_session(
            self.session,
            self.say,
            probe_seconds=probe_seconds,
            meanwhile=greedy_assignment,
            on_compiled=lambda source, judged: self._note_time(
                judged.cycles, finders.OF_SOURCES[source]
            ),
        )
        self.extraction, self.xla_default = found.extraction, found.xla_default
        self.seconds_of_first = found.seconds_per_compile
        self.repairs.patience = self.seconds_of_first
        problem = self.extraction.problem
        everything = mg.all_default(problem)
        self.candidates["all_default"] = Compiled(
            "all_default",
            finders.ALL_DEFAULT,
            everything,
            mg.latency(problem, everything).cycles,
            dict(found.all_default.options),
            compiled=found.all_default_latency.cycles,
            honoured=1.0,
        )
        self.candidates["xla_default"] = Compiled(
            "xla_default",
            finders.XLA_DEFAULT,
            self.xla_default,
            mg.latency(problem, self.xla_default).cycles,
            compiled=found.xla_default_latency.cycles,
            honoured=1.0,
        )
        if (compiled := compiled_on_the_way(self.session)) is not None:
            self.take_in(compiled, "guided", finders.GUIDED)

    @property
    def num_compiles(self) -> int:
        """See `Outcome.num_compiles`."""
        return self.session.num_compiles

    def take_in(
        self, compiled: CompiledModule, source: str, found_by: str
    ) -> tuple[float, mg.Assignment]:
        """Learn from a compile in which XLA placed what it might; a candidate of `source`.

        Returns its cycles, and what it does."""
        problem = self.extraction.problem
        judged, found = self.extraction.take_in(compiled, found_by, is_ours=True)
        candidate = Compiled(
            source, found_by, found, mg.latency(problem, found).cycles, dict(compiled.options),
            compiled=judged.cycles, honoured=1.0,
        )  # fmt: skip
        self.tried[_anonymous(found)] = candidate
        self._keep(candidate)
        share = judged.cycles / self.xla_default_cycles
        self.say(f"{found_by}: compiled {share:.3f} of XLA's default")
        return judged.cycles, found

    @property
    def seconds_per_compile(self) -> float:
        """What a compile takes, by the last one; what comes from the cache took that once."""
        return self.session.seconds_per_compile

    def calibrate(self, seconds: float, seed: int) -> None:
        """Teach the cost model with as many compiles as fit the time, if that is some.

        One alone tells less than a compile of what is planned, which corrects what matters."""
        each = max(self.seconds_of_first * _OF_FIRST, 0.5)
        count = min(int(seconds / each), _MAX_CALIBRATIONS)
        if count >= _MIN_CALIBRATIONS:
            calibrate(
                self.session,
                self.extraction,
                compiles=2 + count,
                seed=seed,
                seconds=seconds,
                progress=lambda message: self.say(f"calibration: {message}"),
            )

    def correct_greedy(self, seconds: float) -> None:
        """Greedy plans, is compiled, learns, until prediction and compiler agree.

        As often as fits the time, once in any case."""

        def note(done: Round) -> None:
            self._note("greedy", finders.GREEDY, done)

        correct(
            self.session,
            self.extraction,
            greedy_assignment,
            rounds=_GREEDY_ROUNDS,
            seconds=seconds,
            progress=self.say,
            on_round=note,
            repairs=self.repairs,
        )

    def problem_to_plan(self) -> mg.Problem:
        """The problem with its costs of now, without what was given up; one object as long as it
        is the same."""
        known, problem = self._to_plan, self.extraction.problem
        if known is None or known[0] is not problem or known[1] != self._given_up:
            planned = with_refusals(problem, self._given_up) if self._given_up else problem
            self._to_plan = known = problem, self._given_up, planned
        return known[2]

    def give_up_missed(self, assignment: mg.Assignment) -> None:
        """Plan no more with what this assignment wanted in alternate memory and did not get.

        A planner whose best mapping cannot be had would propose nothing else: as long as no cost is
        corrected and nothing is refused for good, it is the best."""
        self._given_up |= self._missed.get(_anonymous(assignment), frozenset())

    def may_be_best(self, assignment: mg.Assignment, deviations: float = 1.0) -> bool:
        """The lower-confidence-bound test: whether a mapping is new and may well be the fastest.

        That is, if costs that no compile has shown turn out so many standard deviations better."""
        if _anonymous(assignment) in self.tried:
            return False
        predicted = mg.latency(self.extraction.problem, assignment).cycles
        deviation = float(latency_deviation(self.extraction, np.array([assignment.masks]))[0])
        predicted *= 1.0 - deviations * deviation
        return predicted < self.best_compiled() * _WORTH_A_COMPILE

    def plan_sampled(self, rng: np.random.Generator) -> mg.Assignment | None:
        """Thompson sampling: a plan that is new and would be the fastest if costs that no compile
        has shown were what is sampled for them; None if no sample leads to one.

        Whoever plans under the costs as they are expected has nothing new once all that it uses is
        known. Compiled, such a plan shows what would have to be known for a better one."""
        problem, best = self.problem_to_plan(), self.best()
        deviations = self.extraction.uncertainty
        if not best.compiled or not any(map(np.any, deviations)):
            return None
        for _ in range(_MAX_DRAWS):
            drawn = with_costs_sampled(problem, deviations, rng)
            found = plan(drawn, [best.assignment], rng)
            is_better = mg.latency(drawn, found).cycles < best.compiled * _WORTH_A_COMPILE
            if is_better and _anonymous(found) not in self.tried:
                return found
        return None

    def propose(self, assignment: mg.Assignment, found_by: str) -> bool:
        """Compile a plan and keep it if it is the planner's best; False if it is not new.

        found_by: what found it, as in `finders`, or a solver's name."""
        if _anonymous(assignment) in self.tried:
            known = self.tried[_anonymous(assignment)]
            if known is not None:
                self._keep(dataclasses.replace(known, source="planner"))
            return False
        predicted = mg.latency(self.extraction.problem, assignment).cycles
        try:
            found = verify(self.session, self.extraction, assignment, repairs=self.repairs)
        except CompileError as error:  # refused, or too much for the compiler: the loop goes on
            self.tried[_anonymous(assignment)] = None
            self.note_failure("planner", found_by, error)
            return False
        candidate = self._take_note("planner", found_by, assignment, predicted, found)
        default = self.xla_default_cycles
        how = "" if found.mode == MODES[0].name else f" ({found.mode})"
        self.say(
            f"planner, {found_by}: predicted {predicted / default:.3f}, compiled"
            f" {candidate.compiled / default:.3f} of XLA's default,"
            f" {found.honoured:.1%} honoured{how}"
        )
        return True

    def _note(self, source: str, found_by: str, done: Round) -> None:
        """Remember what became of a compile, and keep it if it is the best of its source."""
        if done.verification is None:
            self.tried.setdefault(_anonymous(done.assignment), None)
            status = REFUSED if done.cause is None else status_of(done.cause)
            self._missing[source] = Missing(status, done.failure)
        else:
            self._take_note(source, found_by, done.assignment, done.predicted, done.verification)

    def _take_note(
        self,
        source: str,
        found_by: str,
        assignment: mg.Assignment,
        predicted: float,
        found: Verification,
    ) -> Compiled:
        self._note_refusals(assignment, found)
        self._missed[_anonymous(assignment)] = found.missed
        candidate = Compiled(
            source, found_by, self._realised(assignment, found), predicted, dict(found.options),
            compiled=found.cycles, honoured=found.honoured, not_honoured=found.not_honoured,
        )  # fmt: skip
        self.tried[_anonymous(assignment)] = candidate
        self.tried.setdefault(_anonymous(found.assignment), candidate)
        self._keep(candidate)
        return candidate

    def seconds_of_guided(self) -> float:
        """What the first turn of the search over what XLA may place takes, about."""
        dry_run = dry_run_of(self.session)
        each = dry_run.seconds_per_dry_run if dry_run.is_fast else self.seconds_per_compile
        return _FIRST_CHECKS * each + self.seconds_per_compile

    def start_guided(self, seed: int) -> None:
        """Set up the search over what XLA may place by itself; see `guided`."""
        self.guided = GuidedSearch(self.session, self.extraction, self.xla_default, seed)
        for variant in range(1, len(VARIANTS)):
            if self.left() > 0:
                self.guided.consider(State(variant=variant))

    def guide(self, seconds: float) -> None:
        """Search for a while, from the best mappings so far too."""
        assert self.guided is not None
        end = time.monotonic() + min(seconds, max(self.left(), 0.0))
        self.guided.rank()
        for source in ("greedy", "planner"):
            known = self.candidates.get(source)
            if known is not None:
                self.guided.consider(self.guided.guided_by(known.assignment))
        while time.monotonic() < end and self.guided.step():
            pass

    def compile_guided(self) -> None:
        """Compile what the search thinks most of, if it may well be the best of all."""
        assert self.guided is not None
        try:
            found = self.guided.compile_best(below=self.best_compiled() * _WORTH_A_COMPILE)
        except CompileError as error:
            self.note_failure("guided", finders.GUIDED, error)
            return
        if found is None:
            return
        self._keep(
            Compiled(
                "guided",
                finders.GUIDED,
                found.assignment,
                found.predicted,
                dict(found.options),
                compiled=found.cycles,
                honoured=1.0,  # nothing was asked that could be lost
            )  # fmt: skip
        )
        default = self.xla_default_cycles
        self.say(
            f"{finders.GUIDED}: predicted {found.predicted / default:.3f}, compiled"
            f" {found.cycles / default:.3f} of XLA's default after {self.guided.checks} dry runs"
        )

    def _realised(self, wanted: mg.Assignment, found: Verification) -> mg.Assignment:
        """What the compiler made of `wanted`, as a game of the problem; `wanted` if it is none."""
        if wanted.masks == found.assignment.masks:
            return wanted
        problem = self.extraction.problem
        state, _ = mg.follow(problem, found.assignment)
        played = mg.to_assignment(problem, state, wanted.source)
        return played if played.masks == found.assignment.masks else wanted

    def _note_refusals(self, wanted: mg.Assignment, found: Verification) -> None:
        """Take what was refused in so many words as refused for good, and what was so twice."""
        problem = self.extraction.problem
        values = {v for v, t in found.refused if t is None}
        for v, value in enumerate(problem.values):
            places = problem.positions_of_value[v]
            asked = any(wanted.in_alternate(t, p) for t, p in places)
            given = any(found.assignment.in_alternate(t, p) for t, p in places)
            if asked and not given and not value.is_refused:
                self.refusals[v] = self.refusals.get(v, 0) + 1
                if self.refusals[v] >= _REFUSALS:
                    values.add(v)
        uses = {(t, v) for v, t in found.refused if t is not None}
        if values or uses:
            self.extraction.refuse(values, uses)
            self.extraction.refresh()

    def monotone_speedup(self, best: Compiled) -> float | None:
        """XLA's default over `best` by monotone-clamped cycles; None if the compiler fails."""
        # From the cache: a run that tries hundreds of mappings need not keep their programs.
        try:
            default, fastest = (
                self.extraction.monotone_latency(self.session.compile(candidate.options)).cycles
                for candidate in (self.candidates["xla_default"], best)
            )
        except CompileError:
            return None
        return default / fastest if fastest else 1.0

    def left(self) -> float:
        """Seconds until the deadline; negative after it."""
        return self.deadline - time.monotonic()

    def seconds_before_the_last(self) -> float | None:
        """How long the last compile can wait, at least 0; None if there is time for more."""
        each = RESERVE * self.seconds_of_first
        return max(self.left() - each, 0.0) if self.left() < 2 * each else None


def _anonymous(assignment: mg.Assignment) -> mg.Assignment:
    return dataclasses.replace(assignment, source="")
