"""Who proposes what to the compiler: planner, permissions, Thompson sampling, guided search.

Each has turns, of one compile or none. The planner works in the background, beside the compiler.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import numpy as np

import malloc_game as mg
from agent.planner import finders
from agent.tuning.background import BackgroundPlanner
from agent.tuning.compiler_loop import CompilerLoop
from agent.tuning.permitting import Permitting
from workloads.errors import CompileError

_POLL_SECONDS = 0.05
# Between compiles: long enough for some batches of games, short enough to correct costs a few times
# within a small budget.
_MIN_TURN_SECONDS = 4.0
_TURNS_PER_BUDGET = 6
# Share of the budget that the first turn of the guided search may take: a dozen checks for each
# compile.
_GUIDED_SHARE = 0.1


def turn_seconds(budget: float) -> float:
    """What a turn may take of `budget` seconds."""
    return max(_MIN_TURN_SECONDS, budget / _TURNS_PER_BUDGET)


class Proposing:
    """The turns of a run."""

    def __init__(
        self,
        loop: CompilerLoop,
        background: BackgroundPlanner,
        planned: mg.Problem,
        seed: int,
        budget: float,
    ):
        """planned: what the planner in the background plans for. budget: seconds, of the run."""
        self._loop = loop
        self._background = background
        self._planned = planned
        self._seed = seed
        self._rng = np.random.default_rng(seed)
        self._seconds = turn_seconds(budget)
        self._is_guided = loop.seconds_of_guided() <= budget * _GUIDED_SHARE
        self._permitting = Permitting(loop, seed, self._best_plan)

    def turns(self) -> list[Callable[[], None]]:
        """For `take_turns`. After each the planner goes on with what the compiler has taught."""
        turns = [
            self._guarded(self.planner_turn, "planner", finders.CPSAT_LNS),
            self._guarded(self._permitting.take_turn, "guided", finders.PERMISSIONS),
            self._guarded(self.thompson_turn, "planner", finders.THOMPSON),
        ]
        if self._is_guided:
            turns.append(self._guarded(self.guided_turn, "guided", finders.GUIDED))
        return turns

    def only_turn(self, seconds: float) -> bool:
        """What the planner thinks best after `seconds`, where one compile is all there is.

        Its plan at that time is better than what greedy has at once. False if it has none."""
        time.sleep(seconds)
        if (found := self._background.best()) is None:
            return False
        self._loop.propose(found.assignment, found.source)
        return True

    def plan_anew(self) -> None:
        """The planner goes on with the costs of now, and from the best of all."""
        if (now := self._loop.problem_to_plan()) is not self._planned:
            self._planned = now
            best = self._loop.best()
            known = dataclasses.replace(best.assignment, source=best.found_by)
            self._background.set_problem(now, [known])

    def planner_turn(self) -> None:
        """What the planner thinks best, if that may be worth a compile."""
        end = time.monotonic() + min(self._seconds, self._loop.left())
        # The first mapping is waited for; later, if there is nothing new, others have the time.
        while (found := self._background.best()) is None and time.monotonic() < end:
            if self._background.fault is not None:
                return
            time.sleep(_POLL_SECONDS)
        if found is None:
            return
        if self._loop.may_be_best(found.assignment):
            self._loop.propose(found.assignment, found.source)
        else:
            self._loop.give_up_missed(found.assignment)

    def thompson_turn(self) -> None:
        """The planner's, but for a plan under sampled costs where it has nothing new."""
        compiles = self._loop.num_compiles
        self.planner_turn()
        if self._loop.num_compiles > compiles:
            return
        if (sampled := self._loop.plan_sampled(self._rng)) is not None:
            self._loop.propose(sampled, finders.THOMPSON)
        elif self._permitting.is_checking and not self._is_guided:
            self.guided_turn()  # nothing comes to mind any more

    def guided_turn(self) -> None:
        """What a search over what XLA may place thinks best."""
        if self._loop.guided is None:
            self._loop.start_guided(self._seed)
        # As long as the compile that it leads to: checks are cheap, but so are predictions.
        seconds = max(_MIN_TURN_SECONDS, self._loop.seconds_per_compile)
        self._loop.guide(min(self._seconds, seconds))
        self._loop.compile_guided()

    def _best_plan(self) -> mg.Assignment | None:
        found = self._background.best()
        return None if found is None else found.assignment

    def _guarded(self, turn: Callable[[], None], source: str, found_by: str) -> Callable[[], None]:
        """The turn, after which the planner goes on; what the compiler fails at is a failed try."""

        def guarded() -> None:
            compiles = self._loop.num_compiles
            try:
                turn()
            except CompileError as error:
                self._loop.note_failure(source, found_by, error)
            self.plan_anew()
            if self._loop.num_compiles == compiles:  # nothing came to mind; the planner thinks on
                time.sleep(_POLL_SECONDS)

        return guarded
