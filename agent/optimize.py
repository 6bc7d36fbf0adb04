"""The main job: a program goes in, a better-compiled program comes out.

Extract the problem with the real compiler, let the rivals and the agent play, compile what they
propose, correct the costs with what the compiler says, and go on until the time is up. The best of
everything compiled wins; XLA's default is one of the candidates, so the result is never slower.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import jax
import numpy as np

import malloc_game as mg
from agent.config import AgentConfig
from agent.outcome import SOURCES, Candidate, Outcome
from agent.planning import Planner, evaluate_actions
from workloads.calibrate import calibrate
from workloads.compile import OVERRIDES_OPTION, CompilerSession
from workloads.correct import Round, correct
from workloads.errors import CompileError, CompilerKilled
from workloads.extract import extract_session
from workloads.overrides import EXACT_OPTIONS, overrides
from workloads.packing import SORT_ORDER_OPTION as SORT_ORDER_OPTION
from workloads.verify import GUIDED, MODES, Mode, Verification, verify

Progress = Callable[[str], None]
# Rounds of plan, compile, correct for the greedy rival; it converges in two or three.
_GREEDY_ROUNDS = 3
# Share of the budget for compiles that only teach costs, before anything is planned with them.
_CALIBRATION_SHARE = 0.2
_MAX_CALIBRATIONS = 10
# The agent's turns between compiles: long enough for some batches of games, short enough to correct
# costs a few times within a small budget.
_MIN_TURN_SECONDS = 4.0
_TURNS_PER_BUDGET = 6
# A value that this many compiles would not put in alternate memory is taken as refused.
_REFUSALS = 2


def _no_progress(message: str) -> None:
    del message


class _Loop:
    """State of one run with the compiler in the loop."""

    def __init__(self, session: CompilerSession, say: Progress):
        self.session = session
        self.say = say
        self.deadline = float("inf")
        self.num_compiles = 0
        self.seconds_per_compile = 0.0
        self.candidates: dict[str, Candidate] = {}
        self.refusals: dict[int, int] = {}
        self.tried: dict[tuple[int, ...], Candidate | None] = {}  # by masks; None: refused

    def extract(self) -> None:
        """The two compiles that every run needs, and the problem that comes of them."""
        found = extract_session(self.session, self.say)
        self.num_compiles += 2
        self.seconds_per_compile = found.all_default.seconds
        self.extraction, self.xla_default = found.extraction, found.xla_default
        problem = self.extraction.problem
        everything = mg.all_default(problem)
        self.candidates["all_default"] = Candidate(
            "all_default",
            everything,
            mg.latency(problem, everything).cycles,
            found.all_default_latency.cycles,
            1.0,
            options=dict(found.all_default.options),
        )
        self.candidates["xla_default"] = Candidate(
            "xla_default",
            self.xla_default,
            mg.latency(problem, self.xla_default).cycles,
            found.xla_default_latency.cycles,
            1.0,
        )

    def calibrate(self, seconds: float, seed: int) -> None:
        """Teach the cost model with as many compiles as fit the time."""
        each = max(self.seconds_per_compile, 0.5)
        count = min(int(seconds / each), _MAX_CALIBRATIONS)
        if count > 0:
            done = calibrate(
                self.session,
                self.extraction,
                compiles=2 + count,
                seed=seed,
                progress=lambda message: self.say(f"calibration: {message}"),
            )
            self.num_compiles += len(done.steps)

    def correct(self, source: str, plan: Callable[[mg.Problem], mg.Assignment]) -> None:
        """Plan, compile, learn, until prediction and compiler agree; keep the best for `source`."""
        done = correct(
            self.session, self.extraction, plan, rounds=_GREEDY_ROUNDS, progress=self.say
        )
        for one in done.rounds:
            self.num_compiles += 1
            self._note(source, one)

    def propose(
        self, source: str, assignment: mg.Assignment, modes: tuple[Mode, ...] = MODES
    ) -> bool:
        """Compile an assignment and keep it if it is its source's best; False if it is not new."""
        if assignment.masks in self.tried and modes is MODES:
            self._keep(source, self.tried[assignment.masks])
            return False
        predicted = mg.latency(self.extraction.problem, assignment).cycles
        try:
            found = verify(self.session, self.extraction, assignment, modes)
        except CompilerKilled:
            raise
        except CompileError as error:  # refused, or too much for the compiler: the loop goes on
            self._note(source, Round(assignment, predicted, None, str(error)))
            self.say(f"{source}: the compiler would not have the assignment ({error})")
            return False
        finally:
            self.num_compiles += 1
        candidate = self._note(source, Round(assignment, predicted, found))
        reference = self.candidates["xla_default"].compiled
        how = "" if found.mode == MODES[0].name else f" ({found.mode})"
        self.say(
            f"{source}: predicted {predicted / reference:.3f}, compiled"
            f" {candidate.compiled / reference:.3f} of XLA's default,"
            f" {found.honoured:.1%} honoured{how}"
        )
        return True

    def _note(self, source: str, done: Round) -> Candidate | None:
        """Remember what became of a compile, and keep it if it is the best of its source."""
        assignment, found = done.assignment, done.verification
        self.tried.setdefault(assignment.masks, None)
        if found is None:
            return None
        self._note_refusals(assignment, found)
        candidate = Candidate(
            source, self._realised(assignment, found), done.predicted, found.cycles,
            found.honoured, found.not_honoured, found.options,
        )  # fmt: skip
        self.tried[assignment.masks] = candidate
        self._keep(source, candidate)
        return candidate

    def guide(self) -> None:
        """Let XLA do the best mapping with slices and cross-program prefetch; kept if faster."""
        sources = [s for s in ("greedy", "agent") if s in self.candidates]
        best = min(sources, key=lambda s: self.candidates[s].compiled, default=None)
        if best is not None and self.candidates[best].assignment is not None:
            self.propose(best, self.candidates[best].assignment, (GUIDED,))

    def _keep(self, source: str, candidate: Candidate | None) -> None:
        """Let `candidate` stand for `source` if nothing that `source` proposed was faster."""
        known = self.candidates.get(source)
        if candidate and (known is None or candidate.compiled < known.compiled):
            self.candidates[source] = dataclasses.replace(candidate, source=source)

    def _realised(self, wanted: mg.Assignment, found: Verification) -> mg.Assignment:
        """What the compiler made of `wanted`, as a game of the problem; `wanted` if it is none."""
        if wanted.masks == found.assignment.masks:
            return wanted
        problem = self.extraction.problem
        state, _ = mg.follow(problem, found.assignment)
        played = mg.to_assignment(problem, state, wanted.source)
        return played if played.masks == found.assignment.masks else wanted

    def _note_refusals(self, wanted: mg.Assignment, found: Verification) -> None:
        problem = self.extraction.problem
        for v, value in enumerate(problem.values):
            places = problem.positions_of_value[v]
            asked = any(wanted.in_alternate(t, p) for t, p in places)
            given = any(found.assignment.in_alternate(t, p) for t, p in places)
            if asked and not given and not value.is_refused:
                self.refusals[v] = self.refusals.get(v, 0) + 1
        refused = {v for v, count in self.refusals.items() if count >= _REFUSALS}
        if refused:
            self.extraction.refuse(refused)
            self.extraction.refresh()

    def monotone_speedup(self, best: Candidate) -> float:
        """Speed-up of `best` over XLA's default by monotone-clamped cycles."""
        # From the cache: a run that tries hundreds of mappings need not keep their programs.
        default, fastest = (
            self.extraction.monotone_latency(self.session.compile(candidate.options)).cycles
            for candidate in (self.candidates["xla_default"], best)
        )
        return default / fastest if fastest else 1.0

    def left(self) -> float:
        return self.deadline - time.monotonic()


def _play_greedy(problem: mg.Problem) -> mg.Assignment:
    state, _ = mg.greedy(mg.encode(problem))
    return mg.to_assignment(problem, state, "greedy")


def _agent_assignment(planner: Planner, problem: mg.Problem) -> mg.Assignment:
    rules = planner.config.rules
    _, state = _evaluate(mg.encode(problem, rules=rules), planner.best_actions)
    return mg.to_assignment(problem, state, "agent", rules=rules)


_evaluate = jax.jit(evaluate_actions)


def _make_planner(
    problem: mg.Problem, config: AgentConfig, seed: int, known: list[mg.Assignment]
) -> Planner:
    """A planner that starts from known mappings, played under its rules."""
    planner = Planner(mg.encode(problem, rules=config.rules), config, seed)
    games = [mg.follow(problem, assignment, rules=config.rules)[1] for assignment in known]
    planner.seed_games([np.asarray(actions) for actions in games])
    return planner


def optimize(
    program,
    target: str,
    *,
    budget: float = 60.0,
    seed: int = 0,
    config: AgentConfig | None = None,
    progress: Progress | None = None,
    timeout: float = 600.0,
) -> Outcome:
    """Find a better mapping of a program for a target, with the real compiler in the loop.

    program: a suite name, `path/to/file.py:function`, or (fn, args). budget: seconds of planning
    and compiling after the two compiles that every run needs (a little more if a compile is under
    way). timeout: seconds for one compile.

    Raises:
      WorkloadError: the program or target cannot be used; CompileError: the compiler failed.
    """
    say = progress or _no_progress
    config = config or AgentConfig()
    began = time.monotonic()
    with CompilerSession(program, target, timeout=timeout) as session:
        loop = _Loop(session, say)
        loop.extract()
        loop.deadline = time.monotonic() + budget
        problem = loop.extraction.problem
        decisions = int(mg.encode(problem).num_decisions)
        say(f"{decisions} decisions, {len(problem.instructions)} timed instructions")
        found_by, stats = None, {}
        if decisions == 0:
            say("nothing to decide: the compiler's default is the only mapping")
        else:
            found_by, stats = _plan(loop, config, seed, budget)
        for source in ("greedy", "agent"):
            if source not in loop.candidates:
                nothing = loop.candidates["all_default"]
                loop.candidates[source] = dataclasses.replace(nothing, source=source)
        best = min(
            (loop.candidates[s] for s in ("xla_default", "all_default", "greedy", "agent")),
            key=lambda c: c.compiled,
        )
        return Outcome(
            problem=loop.extraction.problem,
            target=loop.extraction.target,
            program=session.name,
            decisions=decisions,
            versions=dict(loop.extraction.versions),
            seed=seed,
            seconds=time.monotonic() - began,
            candidates=loop.candidates,
            best=best,
            agent_found_by=found_by,
            num_compiles=loop.num_compiles,
            agent_stats=stats,
            compiled_speedup_monotone=loop.monotone_speedup(best),
        )


def _plan(loop: _Loop, config: AgentConfig, seed: int, budget: float) -> tuple[str | None, dict]:
    """Greedy first, then the agent, which starts from greedy's and XLA's games; all compiled."""
    loop.calibrate(budget * _CALIBRATION_SHARE, seed)
    loop.correct("greedy", _play_greedy)
    problem = loop.extraction.problem
    loop.say("the agent sets out (its first batch of games takes a while to compile)")
    known = [_play_greedy(problem), loop.xla_default]
    planner = _make_planner(problem, config, seed, known)
    turn = max(_MIN_TURN_SECONDS, budget / _TURNS_PER_BUDGET)
    found_by, stats = None, {}
    while True:
        if loop.left() > 0:
            planner.run(seconds=min(turn, max(loop.left(), 0.1)))
        stats = planner.stats()
        reference = loop.candidates["xla_default"].compiled
        loop.say(
            f"agent: {stats['games']} games, {stats['updates']} updates, best predicted"
            f" {planner.best_latency_cycles / reference:.3f} ({planner.best_source})"
        )
        before = loop.extraction.problem
        agent = loop.candidates.get("agent")
        is_new = loop.propose("agent", _agent_assignment(planner, before))
        if agent is not loop.candidates.get("agent"):
            found_by = planner.best_source
        if loop.left() <= 0:
            break
        if is_new:
            planner.set_program(mg.encode(loop.extraction.problem, rules=config.rules))
    loop.guide()
    return found_by, stats


def plan_offline(
    problem: mg.Problem,
    reference: mg.Assignment | None,
    *,
    budget: float = 60.0,
    seed: int = 0,
    config: AgentConfig | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Plan for a problem file, without its program and so without the compiler: predicted only."""
    say = progress or _no_progress
    began = time.monotonic()
    deadline = began + budget
    everything = mg.all_default(problem)
    assignments = {"all_default": everything}
    if reference is not None:
        assignments["xla_default"] = reference
    decisions = int(mg.encode(problem).num_decisions)
    found_by, stats = None, {}
    if decisions:
        assignments["greedy"] = _play_greedy(problem)
        say("the agent sets out (its first batch of games takes a while to compile)")
        known = [assignments["greedy"]]
        planner = _make_planner(problem, config or AgentConfig(), seed, known)
        while time.monotonic() < deadline:
            left = deadline - time.monotonic()
            planner.run(seconds=min(left, max(_MIN_TURN_SECONDS, budget / _TURNS_PER_BUDGET)))
            stats = planner.stats()
            say(f"agent: {stats['games']} games, best predicted {planner.best_latency_cycles}")
        assignments["agent"], found_by = _agent_assignment(planner, problem), planner.best_source
        stats = planner.stats()
    candidates = {}
    for source in SOURCES:
        assignment = assignments.get(source)
        if assignment is None and source != "xla_default":
            assignment = everything
        cycles = mg.latency(problem, assignment).cycles if assignment is not None else None
        options = {}
        if assignment is not None and source != "xla_default":
            options = {**EXACT_OPTIONS, OVERRIDES_OPTION: overrides(problem, assignment)}
        candidates[source] = Candidate(source, assignment, cycles, options=options)
    best = min(
        (c for c in candidates.values() if c.predicted is not None), key=lambda c: c.predicted
    )
    return Outcome(
        problem=problem,
        target=problem.target,
        program=problem.name,
        decisions=decisions,
        versions=dict(problem.provenance.get("versions", {})),
        seed=seed,
        seconds=time.monotonic() - began,
        candidates=candidates,
        best=best,
        agent_found_by=found_by,
        num_compiles=0,
        agent_stats=stats,
    )
