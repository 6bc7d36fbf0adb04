"""The correction loop: plan, compile the plan, learn its true costs, plan again, until both agree.

A planner that looks for the fastest mapping finds the errors of a cost model too: it plans where
the model promises too much. Compiling what it plans corrects the model exactly there.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable

from malloc_game import Assignment, Problem, latency
from workloads.compiler.session import CompilerSession
from workloads.errors import CompileError, CompilerKilled
from workloads.extraction.extraction import Extraction
from workloads.loop.verification import Repairs, Verification, verify
from workloads.progress import Progress, silent

DEFAULT_ROUNDS = 6
DEFAULT_TOLERANCE = 0.005


@dataclasses.dataclass(frozen=True)
class Round:
    """One plan and what the compiler made of it."""

    assignment: Assignment
    predicted: float  # cycles, by the costs as they were before this plan was compiled
    verification: Verification | None  # None: the compiler would not have it
    failure: str = ""  # then, why
    cause: CompileError | None = None  # and what was raised

    @property
    def compiled(self) -> float | None:
        """Compiled latency in cycles; None where there is none."""
        return self.verification.cycles if self.verification else None

    @property
    def honoured(self) -> float | None:
        """Fraction of the plan's decisions that hold; None where it was not compiled."""
        return self.verification.honoured if self.verification else None

    @property
    def error(self) -> float | None:
        """Predicted / compiled - 1; None where it was not compiled."""
        return self.predicted / self.compiled - 1.0 if self.compiled else None


@dataclasses.dataclass(frozen=True)
class Correction:
    """What a correction loop did.

    `final` is the last plan against the costs as they are now: when the planner comes back to a
    plan that was compiled, its prediction is a new one, its compile the old one.
    """

    rounds: tuple[Round, ...]  # one for each compile
    final: Round | None
    agreed: bool  # the last plan was predicted within the tolerance, and all of it held

    @property
    def best(self) -> Round | None:
        """The fastest compiled round; None if nothing was compiled."""
        best = None
        for number, done in enumerate(self.rounds):
            if done.compiled and (best is None or (done.compiled, number) < best):
                best = done.compiled, number
        return None if best is None else self.rounds[best[1]]


def correct(
    session: CompilerSession,
    extraction: Extraction,
    plan: Callable[[Problem], Assignment],
    *,
    rounds: int = DEFAULT_ROUNDS,
    seconds: float = math.inf,
    tolerance: float = DEFAULT_TOLERANCE,
    progress: Progress = silent,
    on_round: Callable[[Round], None] = lambda done: None,
    repairs: Repairs | None = None,
) -> Correction:
    """Plan and compile until the prediction for a plan is what the compiler says of it.

    plan: called with the problem under the costs known so far. rounds: most compiles. seconds: no
    round but the first begins that would not end within so many if it took as long as the longest.
    tolerance: greatest |predicted / compiled - 1| that counts as agreement, of a plan all of whose
    decisions held. The loop also ends when the planner repeats itself: another compile would say
    nothing new. on_round: called with every round as soon as it is compiled. repairs: as for
    `verify`.

    Raises:
      CompilerKilled: the compiler was killed. What it merely refuses is a round without a result.
    """
    done: dict[Assignment, Round] = {}
    final = None
    deadline, longest = time.monotonic() + seconds, 0.0
    while len(done) < rounds:
        began = time.monotonic()
        if done and began + longest > deadline:
            break
        problem = extraction.problem
        assignment = plan(problem)
        predicted = latency(problem, assignment).cycles
        key = dataclasses.replace(assignment, source="")
        if key in done:
            final = dataclasses.replace(done[key], predicted=predicted)
            break
        final = done[key] = _compile(session, extraction, assignment, predicted, repairs)
        progress(_describe(final, len(done)))
        on_round(final)
        if _agrees(final, tolerance):
            break
        longest = max(longest, time.monotonic() - began)
    agreed = final is not None and _agrees(final, tolerance)
    return Correction(tuple(done.values()), final, agreed)


def _agrees(round_: Round, tolerance: float) -> bool:
    error = round_.error
    return error is not None and round_.honoured == 1.0 and abs(error) <= tolerance


def _compile(
    session: CompilerSession,
    extraction: Extraction,
    assignment: Assignment,
    predicted: float,
    repairs: Repairs | None,
) -> Round:
    try:
        found = verify(session, extraction, assignment, repairs=repairs)
    except CompilerKilled:
        raise
    except CompileError as error:
        return Round(assignment, predicted, None, str(error), error)
    return Round(assignment, predicted, found)


def _describe(round_: Round, number: int) -> str:
    head = f"round {number}: {round_.assignment.source}"
    if round_.compiled is None:
        return f"{head}: the compiler would not have it ({round_.failure})"
    return (
        f"{head}: predicted {round_.predicted:,.0f}, compiled {round_.compiled:,.0f} cycles"
        f" ({round_.error:+.2%}), {round_.honoured:.1%} honoured"
    )
