"""The planner of a problem: games and learning on one side, CP-SAT on the other, one best mapping.

`SelfPlayPlanner` knows games. Here it is given the problem behind them: the linear relaxation for
hints, mappings from elsewhere as games to begin with, and windows of its best mapping that are
solved anew while it plays (see `lns_windows`). What either finds the other goes on from.

Games and learning take most of a minute of a processor to compile. So the first iteration has
LNS windows only, and what they find can be had at any time (`best`), while the second one compiles.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

import chex
import numpy as np

import malloc_game
from agent.learning.buckets import relaxed_choices
from agent.learning.config import AgentConfig
from agent.learning.features import simple_plays
from agent.planner import finders
from agent.planner.compiled import check_same_shapes
from agent.planner.lns_windows import MAX_DECISIONS, SOURCE, WindowSearch
from agent.planner.self_play_planner import SelfPlayPlanner
from malloc_game.game.decisions import list_decisions
from malloc_game.game.state import COMPILER
from malloc_game.solvers.decode import replay

# Of all the relaxation's plays and greedy's, those that the planner learns from.
_NUM_FIRST_GAMES = 4
# Times the windows of an iteration: so many come before the first games, and beside their first
# batch, while they are compiled.
_FIRST_WINDOWS = 8
# Where time is limited and less than this is left, games are not begun: compiled beside the TPU
# compiler on two cores, which may take 90 s in which no corrected costs are taken up, they would
# come too late.
_GAMES_SECONDS = 150.0


@dataclasses.dataclass(frozen=True)
class GivenGame:
    """A game that the planner begins with, and what found it (`finders`)."""

    actions: np.ndarray  # int32[D]
    found_by: str

    def is_of(self, actions: np.ndarray) -> bool:
        """Whether the actions are its own, but for padding."""
        length = min(len(self.actions), len(actions))
        return np.array_equal(self.actions[:length], actions[:length])


def first_games(
    program: malloc_game.Program, relaxed: np.ndarray, count: int = _NUM_FIRST_GAMES
) -> list[GivenGame]:
    """The best few plays of greedy and of the relaxation by thresholds.

    relaxed: float32[D], see `buckets.relaxed_choices`."""
    cycles, actions = map(np.asarray, simple_plays(program, relaxed))
    of_greedy = len(cycles) // 2  # the relaxation has as many
    return [
        GivenGame(actions[i], finders.GREEDY if i < of_greedy else finders.LP_ROUNDING)
        for i in np.argsort(cycles, kind="stable")[:count]
    ]


@dataclasses.dataclass(frozen=True)
class Best:
    """The best mapping so far, its latency, and what found it, by its name in `finders`."""

    assignment: malloc_game.Assignment
    cycles: float
    source: str


class ProblemPlanner:
    """Plans for one problem from all that is known of it; keeps the best mapping."""

    def __init__(
        self,
        problem: malloc_game.Problem,
        config: AgentConfig,
        seed: int = 0,
        params: chex.ArrayTree | None = None,
        known: Sequence[malloc_game.Assignment] = (),
    ):
        """params: as for `SelfPlayPlanner`. known: mappings to go on from, whoever made them."""
        self.config = config
        self._problem, self._seed, self._params = problem, seed, params
        self._program = malloc_game.encode(problem, rules=config.rules)
        self._relaxed = relaxed_choices(problem, self._program)
        self._first = first_games(self._program, self._relaxed)
        self._known = [self._given(mapping) for mapping in known]
        self._planner: SelfPlayPlanner | None = None
        self._search: WindowSearch | None = None
        # Of searches under former costs.
        self._num_windows, self._search_seconds = 0, 0.0
        self._best = self._best_first()

    def set_problem(
        self, problem: malloc_game.Problem, known: Sequence[malloc_game.Assignment] = ()
    ) -> None:
        """Goes on with the same decisions after costs were corrected.

        known: mappings that may be better than its own.
        Raises: ValueError if the problem's shapes differ."""
        former = self._best
        program = malloc_game.encode(problem, rules=self.config.rules)
        check_same_shapes(self._program, program)
        self._problem, self._program = problem, program
        if self._search is not None:
            self._search.close()
            self._num_windows += self._search.num_windows
            self._search_seconds += self._search.seconds
        self._search = None
        # Greedy and the relaxation judge by the costs: under others they play other games.
        self._relaxed = relaxed_choices(problem, program)
        first = first_games(program, self._relaxed, count=1)
        formerly = [*self._first, *self._known]
        new = [
            game
            for game in [*first, *map(self._given, known)]
            if not any(former.is_of(game.actions) for former in formerly)
        ]
        self._known += new
        if self._planner is None:
            self._best = self._best_first()
        else:
            self._planner.set_program(program, self._relaxed)
            if new:
                self._planner.seed_games([game.actions for game in new])
            self._best = self._best_game()
        cycles = malloc_game.latency(problem, former.assignment).cycles
        if cycles < self._best.cycles and not malloc_game.check(problem, former.assignment):
            self._best = dataclasses.replace(former, cycles=cycles)

    def run(self, seconds: float | None = None, iterations: int | None = None) -> None:
        """Plans until `seconds` or `iterations` are over.

        An iteration is one of `SelfPlayPlanner` with LNS windows beside it, but windows come alone
        first, and as long as there is too little time for games. Without a limit of time, the first
        iteration is that.
        Raises: ValueError if neither limit is given."""
        if seconds is None and iterations is None:
            raise ValueError("run: give seconds or iterations")
        deadline = None if seconds is None else time.monotonic() + seconds
        number = 0
        while iterations is None or number < iterations:
            if deadline is not None and time.monotonic() >= deadline:
                break
            self._iterate(deadline)
            number += 1

    def stats(self) -> dict:
        """As of `SelfPlayPlanner`, if there have been games, and what came of the LNS windows."""
        seconds = self._search_seconds + (0.0 if self._search is None else self._search.seconds)
        of_games = {"games": 0, "updates": 0} if self._planner is None else self._planner.stats()
        return of_games | {
            "best_latency_cycles": self.best_cycles,
            "best_source": self.best_source,
            "lns_windows": self._number_of_windows(),
            "lns_seconds": seconds,
        }

    @property
    def problem(self) -> malloc_game.Problem:
        """What is planned for."""
        return self._problem

    @property
    def planner(self) -> SelfPlayPlanner:
        """The one of games; made, which compiles code, when it is first asked for."""
        if self._planner is None:
            planner = SelfPlayPlanner(
                self._program, self.config, self._seed, self._params, self._relaxed
            )
            self._known.append(self._given(self._best.assignment))
            planner.seed_games([game.actions for game in (*self._first, *self._known)])
            self._planner = planner
        return self._planner

    @property
    def best(self) -> Best:
        """The best so far; may be asked by any thread while another one is in `run`."""
        best, search = self._best, self._search
        found = None if search is None else search.best
        if found is not None and found.cycles < best.cycles:
            return Best(found.assignment, found.cycles, SOURCE)
        return best

    @property
    def best_assignment(self) -> malloc_game.Assignment:
        """The best mapping so far."""
        return self._best.assignment

    @property
    def best_cycles(self) -> float:
        """Its latency."""
        return self._best.cycles

    @property
    def best_source(self) -> str:
        """What found it, see `Best`."""
        return self._best.source

    def _given(self, mapping: malloc_game.Assignment) -> GivenGame:
        _, actions = malloc_game.follow(self._problem, mapping, rules=self.config.rules)
        return GivenGame(np.asarray(actions), mapping.source)

    def _played(self, game: GivenGame) -> Best:
        state = replay(self._program, game.actions)
        mapping = malloc_game.to_assignment(
            self._problem, state, game.found_by, rules=self.config.rules
        )
        cycles = malloc_game.latency(self._problem, mapping).cycles
        return Best(mapping, cycles, game.found_by)

    def _best_first(self) -> Best:
        return min(map(self._played, (*self._first, *self._known)), key=lambda best: best.cycles)

    def _best_game(self) -> Best:
        """Of the games that were played; one that was given is whose it was."""
        actions, source = self.planner.best_actions, self.planner.best_source
        names = [g.found_by for g in (*self._first, *self._known) if g.is_of(actions)]
        found_by = finders.OF_GAMES.get(source) or (names[0] if names else "a given game")
        return self._played(GivenGame(actions, found_by))

    def _iterate(self, deadline: float | None) -> None:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        self._prepare_windows()
        has_games = self._planner is not None or self._search is None
        if not has_games and self._number_of_windows() >= self._num_first:
            has_games = left is None or left >= _GAMES_SECONDS
        self._start_windows(deadline, has_games)
        if has_games:
            self.planner.run(seconds=left, iterations=1)
            if self.planner.best_latency_cycles < self.best_cycles:
                self._best = self._best_game()
        self._finish_windows()

    @property
    def _num_first(self) -> int:
        return self.config.self_play.lns_windows * _FIRST_WINDOWS

    def _number_of_windows(self) -> int:
        current = 0 if self._search is None else self._search.num_windows
        return self._num_windows + current

    def _prepare_windows(self) -> None:
        """A search from the best mapping on, where windows are wanted and can be solved."""
        if self._search is None:
            is_small = int(self._program.num_decisions) <= MAX_DECISIONS
            if not self._num_first or not is_small or self.config.rules != COMPILER:
                return
            self._search = WindowSearch(self._problem, self._seed)
        self._search.go_on_from(self._best.assignment, self._best.cycles)

    def _start_windows(self, deadline: float | None, has_games: bool) -> None:
        if self._search is None:
            return
        wanted: int | None = self.config.self_play.lns_windows
        weights = None
        if self._planner is not None:  # the policy is asked once it has played: it is compiled
            weights = self._weights()
        elif deadline is None:
            wanted = self._num_first
        elif has_games:
            wanted = None  # for as long as games take to compile
        self._search.start(wanted, deadline, weights)

    def _finish_windows(self) -> None:
        if self._search is None:
            return
        self._search.finish()
        best = self.best
        if best is not self._best:
            self._best = best
            if self._planner is not None:
                # As a game it may be slower, since games place by first fit, or not the best one.
                self._known.append(self._given(best.assignment))
                self._planner.seed_games([self._known[-1].actions])

    def _weights(self) -> np.ndarray:
        """Where the policy would do something else than the best game does: float[T]."""
        surprise = self.planner.surprise()
        decisions = list_decisions(self._problem, self.config.rules)
        weights = np.zeros(len(self._problem.instructions))
        np.add.at(weights, [d.time for d in decisions], surprise[: len(decisions)])
        # Half of the windows begin anywhere.
        return weights / weights.sum() + 1.0 / len(weights)
