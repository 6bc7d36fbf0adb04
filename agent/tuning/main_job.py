"""The main job: a program goes in, a program compiled under another mapping comes out.

Extract the problem with the real compiler, plan, compile what is planned, correct the costs with
what the compiler says, and go on until the time is up. The best of everything compiled wins; XLA's
default is one of the candidates.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import malloc_game as mg
from agent.learning.config import AgentConfig
from agent.planner import finders
from agent.planner.pretrained_planner import make_planner
from agent.planner.problem_planner import ProblemPlanner
from agent.tuning.background import BackgroundPlanner
from agent.tuning.compiler_loop import CompilerLoop, probing_seconds
from agent.tuning.outcome import FAILED, NOT_TRIED, PLANNED, Missing, Outcome, Planned
from agent.tuning.proposing import Proposing, turn_seconds
from agent.tuning.turns import take_turns
from malloc_game.errors import one_line
from malloc_game.solvers.decode import greedy_assignment
from workloads.compiler.session import OVERRIDES_OPTION, CompilerSession
from workloads.errors import CompileError
from workloads.overrides.text import EXACT_OPTIONS, overrides
from workloads.progress import Progress, silent

# Share of the budget for compiles that only teach costs, before anything is planned with them.
_CALIBRATION_SHARE = 0.1
# Share of it for the rounds of greedy, of which one is made in any case.
_GREEDY_SHARE = 0.2
INTERRUPTED = "interrupted"


def optimize(
    program,
    target: str,
    *,
    budget: float = 60.0,
    seed: int = 0,
    config: AgentConfig | None = None,
    progress: Progress | None = None,
    timeout: float = 600.0,
    deadline: float | None = None,
) -> Outcome:
    """Find a better mapping of a program for a target, with the real compiler in the loop.

    program: a suite name, `path/to/file.py:function`, or (fn, args). budget: seconds of planning
    and compiling after the two compiles that every run needs (a little more if a compile is under
    way). config: of an agent that learns from nothing; by default the pretrained one goes on.
    timeout: seconds for one compile. deadline: of `time.monotonic()`, in place of a budget; but
    for these two, a compile that is under way then is stopped.

    Once those two are there, nothing loses what was found: a fault of the compiler or of planning,
    or Ctrl-C, ends the run early, and `Outcome.stopped` says why.

    Raises:
      WorkloadError: the program or target cannot be used; CompileError: the compiler failed at one
        of the first two compiles.
    """
    say = progress or silent
    began = time.monotonic()
    with CompilerSession(program, target, timeout=timeout) as session:
        loop = CompilerLoop(session, say)
        total = budget if deadline is None else deadline - time.monotonic()
        loop.extract(probing_seconds(total))
        if deadline is not None:
            budget = max(0.0, deadline - time.monotonic())
        loop.deadline = time.monotonic() + budget
        problem = loop.extraction.problem
        decisions = int(mg.encode(problem).num_decisions)
        say(f"{decisions} decisions, {len(problem.instructions)} timed instructions")
        stats: dict = {}
        stopped, is_interrupted = None, False
        if decisions == 0:
            say("nothing to decide: the compiler's default is the only mapping")
        else:
            session.deadline = math.inf if deadline is None else deadline
            try:
                _plan(loop, config, seed, budget, stats, is_hard=deadline is not None)
            except KeyboardInterrupt:
                stopped, is_interrupted = INTERRUPTED, True
            except Exception as error:  # whatever it is, what was found stands
                stopped = f"{type(error).__name__}: {one_line(error)}"
            session.deadline = math.inf
        if stopped is not None:
            say(f"stopped early ({stopped}); what was found until now stands")
        best = loop.best()
        return Outcome(
            problem=loop.extraction.problem,
            program=session.name,
            decisions=decisions,
            versions=dict(loop.extraction.versions),
            seed=seed,
            seconds=time.monotonic() - began,
            candidates=dict(loop.candidates),
            missing=loop.missing(PLANNED),
            best=best,
            num_compiles=loop.num_compiles,
            planner_stats=stats,
            compiled_speedup_monotone=None if stopped else loop.monotone_speedup(best),
            history=tuple(loop.history),
            stopped=stopped,
            is_interrupted=is_interrupted,
        )


def _plan(
    loop: CompilerLoop,
    config: AgentConfig | None,
    seed: int,
    budget: float,
    stats: dict,
    is_hard: bool,
) -> None:
    """Greedy first, then all others by turns, while the planner plans; but the planner alone where
    one compile is all there is time for.

    stats: gets the planner's statistics. is_hard: what is compiled after the deadline is of no use.
    """
    problem, known = loop.extraction.problem, (loop.xla_default,)
    with BackgroundPlanner(
        lambda: make_planner(problem, seed, config, known=known),
        on_change=lambda planner: _say_how_far(loop, planner),
    ) as background:
        loop.say("the planner sets out")
        background.start(loop.deadline)
        try:
            loop.calibrate(budget * _CALIBRATION_SHARE, seed)
        except CompileError as error:
            loop.note_failure("greedy", "calibration", error)
        proposing = Proposing(loop, background, problem, seed, budget)
        spare = loop.seconds_before_the_last() if is_hard else None
        if spare is None or not proposing.only_turn(spare):
            try:
                loop.correct_greedy(budget * _GREEDY_SHARE)
            except CompileError as error:
                loop.note_failure("greedy", finders.GREEDY, error)
        proposing.plan_anew()
        take_turns(proposing.turns(), loop.best_compiled, loop.left)
        planner = background.stop()
        if background.fault is not None:
            loop.note_fault("planner", background.fault)
        if planner is None:
            return
        stats |= planner.stats()
        _say_how_far(loop, planner)
        best = planner.best
        is_missing = "planner" not in loop.candidates
        if is_missing or (not is_hard and loop.may_be_best(best.assignment)):
            loop.propose(best.assignment, best.source)


def _say_how_far(loop: CompilerLoop, planner: ProblemPlanner) -> None:
    stats, best = planner.stats(), planner.best
    loop.say(
        f"planner: {stats['games']} games, {stats['updates']} updates,"
        f" {stats['lns_windows']} LNS windows, best predicted"
        f" {best.cycles / loop.xla_default_cycles:.3f} ({best.source})"
    )


def plan_offline(
    problem: mg.Problem,
    reference: mg.Assignment | None,
    *,
    budget: float = 60.0,
    seed: int = 0,
    config: AgentConfig | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Plan for a problem file, without its program and so without the compiler: predicted only.

    A fault of planning, or Ctrl-C, ends it early: see `optimize`.
    """
    say = progress or silent
    began = time.monotonic()
    decisions = int(mg.encode(problem).num_decisions)
    found: dict[str, tuple[mg.Assignment, str]] = {
        "all_default": (mg.all_default(problem), finders.ALL_DEFAULT)
    }
    if reference is not None:
        found["xla_default"] = reference, finders.XLA_DEFAULT
    stats: dict = {}
    stopped, is_interrupted = None, False
    failure = Missing(NOT_TRIED)
    planner: ProblemPlanner | None = None
    try:
        if decisions:
            found["greedy"] = greedy_assignment(problem), finders.GREEDY
            say("the planner sets out (its first batch of games takes a while to compile)")
            planner = make_planner(problem, seed, config)
            _run(planner, began + budget, turn_seconds(budget), say)
    except KeyboardInterrupt:
        stopped, is_interrupted = INTERRUPTED, True
    except Exception as error:
        stopped = f"{type(error).__name__}: {one_line(error)}"
        failure = Missing(FAILED, stopped)
    if planner is not None:
        best = planner.best
        found["planner"] = best.assignment, best.source
        stats = planner.stats()
    candidates = {
        source: Planned(
            source,
            found_by,
            assignment,
            mg.latency(problem, assignment).cycles,
            _options(problem, assignment) if source != "xla_default" else {},
        )
        for source, (assignment, found_by) in found.items()
    }
    # What XLA places by itself needs the compiler.
    missing = {s: failure for s in PLANNED if s not in candidates and s != "guided"}
    return Outcome(
        problem=problem,
        program=problem.name,
        decisions=decisions,
        versions=dict(problem.provenance.get("versions", {})),
        seed=seed,
        seconds=time.monotonic() - began,
        candidates=candidates,
        missing=missing,
        best=min(candidates.values(), key=lambda c: c.predicted),
        num_compiles=0,
        planner_stats=stats,
        stopped=stopped,
        is_interrupted=is_interrupted,
    )


def _run(planner: ProblemPlanner, deadline: float, turn: float, say: Progress) -> None:
    while (left := deadline - time.monotonic()) > 0:
        planner.run(seconds=min(left, turn))
        games, best = planner.stats()["games"], planner.best
        say(f"planner: {games} games, best predicted {best.cycles:.0f} ({best.source})")


def _options(problem: mg.Problem, assignment: mg.Assignment) -> Mapping[str, str]:
    return {**EXACT_OPTIONS, OVERRIDES_OPTION: overrides(problem, assignment)}
