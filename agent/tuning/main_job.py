"""The main job: a program goes in, a better-compiled program comes out.

Extract the problem with the real compiler, let the rivals and the agent play, compile what they
propose, correct the costs with what the compiler says, and go on until the time is up. The best of
everything compiled wins; XLA's default is one of the candidates, so the result is never slower.
"""

from __future__ import annotations

import dataclasses
import math
import time

import malloc_game as mg
from agent.learning.config import AgentConfig
from agent.planner.pretrained_planner import make_planner
from agent.planner.problem_planner import ProblemPlanner
from agent.tuning.background import BackgroundPlanner
from agent.tuning.compiler_loop import CompilerLoop, Progress, probing_seconds
from agent.tuning.outcome import PLANNED, SOURCES, Candidate, Outcome
from agent.tuning.proposing import Proposing, turn_seconds
from agent.tuning.turns import take_turns
from malloc_game.solvers.decode import greedy_assignment
from workloads.compiler.session import OVERRIDES_OPTION, CompilerSession
from workloads.overrides.packing import SORT_ORDER_OPTION as SORT_ORDER_OPTION
from workloads.overrides.text import EXACT_OPTIONS, overrides

# Share of the budget for compiles that only teach costs, before anything is planned with them.
_CALIBRATION_SHARE = 0.1
# Share of it for the rounds of the greedy rival, of which one is made in any case.
_GREEDY_SHARE = 0.2


def _no_progress(message: str) -> None:
    del message


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

    Raises:
      WorkloadError: the program or target cannot be used; CompileError: the compiler failed.
    """
    say = progress or _no_progress
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
        found_by, stats = None, {}
        if decisions == 0:
            say("nothing to decide: the compiler's default is the only mapping")
        else:
            session.deadline = math.inf if deadline is None else deadline
            found_by, stats = _plan(loop, config, seed, budget, is_hard=deadline is not None)
            session.deadline = math.inf
        for source in PLANNED:
            if source not in loop.candidates:
                nothing = loop.candidates["all_default"]
                loop.candidates[source] = dataclasses.replace(nothing, source=source)
        best = min(
            (loop.candidates[s] for s in ("xla_default", "all_default", *PLANNED)),
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
            history=tuple(loop.history),
        )


def _plan(
    loop: CompilerLoop, config: AgentConfig | None, seed: int, budget: float, is_hard: bool
) -> tuple[str | None, dict]:
    """Greedy first, then all others by turns, while the agent plans; but the agent alone where one
    compile is all there is time for. Who found the agent's best, and the planner's statistics.

    is_hard: what is compiled after the deadline is of no use."""
    problem, known = loop.extraction.problem, (loop.xla_default,)
    with BackgroundPlanner(
        lambda: make_planner(problem, seed, config, known=known),
        on_change=lambda planner: _say_how_far(loop, planner),
    ) as background:
        loop.say("the agent sets out")
        background.start(loop.deadline)
        loop.calibrate(budget * _CALIBRATION_SHARE, seed)
        proposing = Proposing(loop, background, problem, seed, budget)
        spare = loop.seconds_before_the_last() if is_hard else None
        if spare is None or not proposing.only_turn(spare):
            loop.correct_greedy(budget * _GREEDY_SHARE)
        proposing.plan_anew()
        take_turns(proposing.turns(), loop.best_compiled, loop.left)
        planner = background.stop()
        _say_how_far(loop, planner)
        is_missing = "agent" not in loop.candidates
        if is_missing or (not is_hard and loop.promises(planner.best.assignment)):
            proposing.propose(planner.best.assignment, planner.best.source)
        return proposing.found_by, planner.stats()


def _say_how_far(loop: CompilerLoop, planner: ProblemPlanner) -> None:
    stats, reference = planner.stats(), loop.candidates["xla_default"].compiled
    loop.say(
        f"agent: {stats['games']} games, {stats['updates']} updates,"
        f" {stats['stretches']} stretches, best predicted"
        f" {planner.best_cycles / reference:.3f} ({planner.best_source})"
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
        assignments["greedy"] = greedy_assignment(problem)
        say("the agent sets out (its first batch of games takes a while to compile)")
        planner = make_planner(problem, seed, config)
        while time.monotonic() < deadline:
            left = deadline - time.monotonic()
            planner.run(seconds=min(left, turn_seconds(budget)))
            stats = planner.stats()
            say(f"agent: {stats['games']} games, best predicted {planner.best_cycles:.0f}")
        assignments["agent"], found_by = planner.best_assignment, planner.best_source
        stats = planner.stats()
    candidates = {}
    for source in SOURCES:
        if source == "guided":  # there is no compiler to place anything
            continue
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
