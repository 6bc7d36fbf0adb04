"""The planner of a problem: games and learning on one side, CP-SAT on the other, one best mapping.

`Planner` knows games. Here it is given the problem behind them: the linear relaxation for hints,
mappings from elsewhere as games to begin with, and the stretches of its best mapping that are
solved anew while it plays (see `stretches`). What either finds the other goes on from.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import chex
import numpy as np

import malloc_game
from agent.buckets import relaxed_choices
from agent.config import AgentConfig
from agent.features import simple_plays
from agent.planning import Planner
from agent.stretches import MAX_DECISIONS, SOURCE, StretchSearch
from malloc_game.decisions import list_decisions
from malloc_game.solvers.decode import replay
from malloc_game.state import COMPILER

# Of all the relaxation's plays and greedy's, those that the planner learns from.
_NUM_FIRST_GAMES = 4
# Times the stretches beside the first batch: games and learning are compiled then, which takes
# long.
_FIRST_STRETCHES = 8


def first_games(
    program: malloc_game.Program, relaxed: np.ndarray, count: int = _NUM_FIRST_GAMES
) -> list[np.ndarray]:
    """The best few plays, actions int32[D], of greedy and of the relaxation by thresholds.

    relaxed: float32[D], see `buckets.relaxed_choices`."""
    cycles, actions = map(np.asarray, simple_plays(program, relaxed))
    return [actions[i] for i in np.argsort(cycles, kind="stable")[:count]]


class ProblemPlanner:
    """Plans for one problem from all that is known of it; keeps the best mapping.

    `best_source` says what found it: "stretches", or what `Planner` says of its games."""

    def __init__(
        self,
        problem: malloc_game.Problem,
        config: AgentConfig,
        seed: int = 0,
        params: chex.ArrayTree | None = None,
        known: Sequence[malloc_game.Assignment] = (),
    ):
        """params: as for `Planner`. known: mappings to go on from, whoever made them."""
        self.config = config
        self._problem, self._seed = problem, seed
        self._program = malloc_game.encode(problem, rules=config.rules)
        relaxed = relaxed_choices(problem, self._program)
        self.planner = Planner(self._program, config, seed, params, relaxed)
        self.planner.seed_games(
            first_games(self._program, relaxed) + [self._game_of(mapping) for mapping in known]
        )
        self._search: StretchSearch | None = None
        # Of searches under former costs.
        self._num_stretches, self._search_seconds = 0, 0.0
        self._take_game()

    def set_problem(self, problem: malloc_game.Problem) -> None:
        """Goes on with the same decisions after costs were corrected.

        Raises: ValueError if the problem's shapes differ."""
        former, found_by = self._best, self.best_source
        self._problem = problem
        self._program = malloc_game.encode(problem, rules=self.config.rules)
        self.planner.set_program(self._program)
        if self._search is not None:
            self._search.close()
            self._num_stretches += self._search.num_stretches
            self._search_seconds += self._search.seconds
        self._search = None
        self._take_game()
        cycles = malloc_game.latency(problem, former).cycles
        if cycles < self.best_cycles and not malloc_game.check(problem, former):
            self._take(former, cycles, found_by)

    def run(self, seconds: float | None = None, iterations: int | None = None) -> None:
        """Plans until `seconds` or `iterations` (as of `Planner.run`) are over.

        Raises: ValueError if neither limit is given."""
        if seconds is None and iterations is None:
            raise ValueError("run: give seconds or iterations")
        deadline = None if seconds is None else time.monotonic() + seconds
        number = 0
        while iterations is None or number < iterations:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                break
            self._start_stretches(deadline)
            self.planner.run(seconds=left, iterations=1)
            if self.planner.best_latency_cycles < self.best_cycles:
                self._take_game()
            self._finish_stretches()
            number += 1

    def stats(self) -> dict:
        """As of `Planner`, and what came of the stretches."""
        number, seconds = self._num_stretches, self._search_seconds
        if self._search is not None:
            number, seconds = number + self._search.num_stretches, seconds + self._search.seconds
        return self.planner.stats() | {
            "best_latency_cycles": self.best_cycles,
            "best_source": self.best_source,
            "stretches": number,
            "stretches_seconds": seconds,
        }

    @property
    def problem(self) -> malloc_game.Problem:
        """What is planned for."""
        return self._problem

    @property
    def best_assignment(self) -> malloc_game.Assignment:
        """The best mapping so far."""
        return self._best

    def _game_of(self, mapping: malloc_game.Assignment) -> np.ndarray:
        _, actions = malloc_game.follow(self._problem, mapping, rules=self.config.rules)
        return np.asarray(actions)

    def _take_game(self) -> None:
        """The planner's best game becomes the best mapping."""
        actions = self.planner.best_actions
        state = replay(self._program, actions)
        mapping = malloc_game.to_assignment(self._problem, state, "agent", rules=self.config.rules)
        cycles = malloc_game.latency(self._problem, mapping).cycles
        self._take(mapping, cycles, self.planner.best_source)

    def _take(self, mapping: malloc_game.Assignment, cycles: float, source: str) -> None:
        self._best, self.best_cycles, self.best_source = mapping, cycles, source

    def _start_stretches(self, deadline: float | None) -> None:
        count = self.config.self_play.stretches
        is_first = self._search is None and self._num_stretches == 0
        if self._search is None:
            is_small = int(self._program.num_decisions) <= MAX_DECISIONS
            if not count or not is_small or self.config.rules != COMPILER:
                return
            self._search = StretchSearch(self._problem, self._seed)
        self._search.go_on_from(self._best, self.best_cycles)
        # The policy is asked once it has played: by then that is compiled.
        weights = None if is_first else self._weights()
        self._search.start(count * (_FIRST_STRETCHES if is_first else 1), deadline, weights)

    def _finish_stretches(self) -> None:
        if self._search is None:
            return
        found = self._search.finish()
        if found.cycles < self.best_cycles:
            self._take(found.assignment, found.cycles, SOURCE)
            # As a game it may be slower, since games place by first fit, or even not the best one.
            self.planner.seed_games([self._game_of(found.assignment)])

    def _weights(self) -> np.ndarray:
        """Where the policy would do something else than the best game does: float[T]."""
        surprise = self.planner.surprise()
        decisions = list_decisions(self._problem, self.config.rules)
        weights = np.zeros(len(self._problem.instructions))
        np.add.at(weights, [d.time for d in decisions], surprise[: len(decisions)])
        # Half of the stretches begin anywhere.
        return weights / weights.sum() + 1.0 / len(weights)
