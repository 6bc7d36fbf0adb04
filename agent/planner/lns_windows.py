"""Large neighbourhood search led by the policy: CP-SAT solves windows of the schedule anew.

Games place chunks by first fit, each copy as late as it can start. CP-SAT chooses offsets and
starts freely, but only within a window that is short enough to be solved; where those begin is
drawn by how much the policy disagrees with the best mapping there.
"""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

import malloc_game
from agent.planner import finders
from malloc_game.solvers.cpsat.mapping import stated
from malloc_game.solvers.cpsat.neighbourhood import Neighbourhoods

_NO_LIMIT = 1e6  # seconds of one window, which has a limit of its own effort
# Larger problems are left alone: to state one to CP-SAT takes seconds, every time.
MAX_DECISIONS = 4000
SOURCE = finders.CPSAT_LNS


@dataclasses.dataclass(frozen=True)
class Found:
    """The best mapping so far and its latency."""

    assignment: malloc_game.Assignment
    cycles: float


class WindowSearch:
    """The search for one problem, in a thread of its own beside games and learning.

    Without deadlines, what it finds depends on the seed, on the mappings and the weights that it is
    given only: one `start` is followed by one `finish`."""

    def __init__(self, problem: malloc_game.Problem, seed: int):
        self._problem, self._seed = problem, seed
        self._best: Found | None = None
        self._near: Neighbourhoods | None = None  # None: to begin at the best mapping
        self._num_begun = 0
        self._thread = ThreadPoolExecutor(1, "lns-windows")
        self._running: Future | None = None
        self._is_over = threading.Event()  # for a start without a count
        self.num_windows = 0
        self.seconds = 0.0  # of the thread

    def go_on_from(self, assignment: malloc_game.Assignment, cycles: float) -> None:
        """Begins anew at a mapping that is faster than the best one so far."""
        if self._best is None or cycles < self._best.cycles:
            self._best = Found(assignment, cycles)
            self._near = None

    @property
    def best(self) -> Found | None:
        """The best mapping so far; may be asked by any thread."""
        return self._best

    def start(self, count: int | None, deadline: float | None, weights: np.ndarray | None) -> None:
        """Begins so many windows; None: until `finish` is called.

        deadline: of `time.monotonic()`, after which none begins.
        weights: float[T], how likely a window lies around each instruction; alike if None."""
        self._is_over.clear()
        self._running = self._thread.submit(self._run, count, deadline, weights)

    def finish(self) -> Found:
        """Waits for what `start` began; the best mapping so far."""
        assert self._running is not None and self._best is not None, "nothing was started"
        self._is_over.set()
        running, self._running = self._running, None
        running.result()
        return self._best

    def close(self) -> None:
        """Ends the thread once it is done with what was started."""
        self._thread.shutdown(wait=True)

    def _run(self, count: int | None, deadline: float | None, weights: np.ndarray | None) -> None:
        began = time.monotonic()
        for _ in itertools.count() if count is None else range(count):
            if count is None and self._is_over.is_set():
                break
            left = _NO_LIMIT if deadline is None else deadline - time.monotonic()
            if left <= 0:
                break
            if self._near is None:
                self._near = self._begin()
            better = self._near.improve(left, weights)
            self.num_windows += 1
            if better is not None:
                self._offer(better)
        self.seconds += time.monotonic() - began

    def _begin(self) -> Neighbourhoods:
        assert self._best is not None, "no mapping to begin with"
        self._num_begun += 1
        placement, _, solution = stated(self._problem, self._best.assignment)
        seed = np.random.SeedSequence([self._seed, self._num_begun]).generate_state(1)[0]
        return Neighbourhoods(placement, solution, int(seed))

    def _offer(self, assignment: malloc_game.Assignment) -> None:
        cycles = malloc_game.latency(self._problem, assignment).cycles
        assert self._best is not None
        if cycles < self._best.cycles and not malloc_game.check(self._problem, assignment):
            self._best = Found(dataclasses.replace(assignment, source=SOURCE), cycles)
