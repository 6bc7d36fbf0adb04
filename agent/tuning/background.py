"""Planning while the compiler is at work, which is another process."""

from __future__ import annotations

import collections
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import malloc_game
from agent.planner.problem_planner import Best, ProblemPlanner

# Of the planner's threads, the most there is: the compiler, another process, uses more than a core
# at times, and a compile that waits for the planner costs more than the planner gains.
_NICENESS = 19


def _yield_to_the_compiler() -> None:
    """Lowers the priority of this thread and of those that it starts; where that is possible."""
    if sys.platform == "linux":  # elsewhere it would be that of the process
        thread = threading.get_native_id()
        with contextlib.suppress(OSError):
            niceness = os.getpriority(os.PRIO_PROCESS, thread)
            os.setpriority(os.PRIO_PROCESS, thread, niceness + _NICENESS)


class BackgroundPlanner:
    """A planner in a thread of its own, between `start` and `stop`.

    make: called in that thread, when it is started first. on_change: called there, before the
    planner goes on with another problem. Leave the `with` block to end the thread; it finishes the
    iteration that is under way. An exception of planning ends planning and nothing else."""

    def __init__(
        self,
        make: Callable[[], ProblemPlanner],
        on_change: Callable[[ProblemPlanner], None] = lambda planner: None,
    ):
        self._make = make
        self._on_change = on_change
        # One problem at most, the newest, with mappings for it.
        self._next: collections.deque[
            tuple[malloc_game.Problem, Sequence[malloc_game.Assignment]]
        ] = collections.deque(maxlen=1)
        self._planner: ProblemPlanner | None = None
        self._is_over = threading.Event()
        self._thread = ThreadPoolExecutor(1, "planner", initializer=_yield_to_the_compiler)
        self._running: Future | None = None

    def __enter__(self) -> BackgroundPlanner:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_over.set()
        # Who has pressed Ctrl-C does not wait for an iteration, which may take a minute.
        is_interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        self._thread.shutdown(wait=not is_interrupted, cancel_futures=True)

    def start(self, deadline: float) -> None:
        """Plans from now on. deadline: of `time.monotonic()`, after which no iteration begins."""
        self._is_over.clear()
        self._running = self._thread.submit(self._run, deadline)

    def set_problem(
        self, problem: malloc_game.Problem, known: Sequence[malloc_game.Assignment] = ()
    ) -> None:
        """The planner goes on with these costs and mappings once the iteration under way is done.

        It is not waited for: that may take seconds, in which the compiler would have nothing to do.
        """
        self._next.append((problem, known))

    def best(self) -> Best | None:
        """The best mapping so far, while it plans, too, and after a fault of it; None while the
        planner is being made."""
        return None if self._planner is None else self._planner.best

    @property
    def fault(self) -> BaseException | None:
        """What ended planning before it was stopped, if anything did."""
        if self._running is None or not self._running.done():
            return None
        return self._running.exception()

    def stop(self) -> ProblemPlanner | None:
        """Waits for the iteration under way; the planner, which then rests. None: none was made.

        What planning raised is in `fault`."""
        assert self._running is not None, "nothing was started"
        self._is_over.set()
        self._running.exception()
        return self._planner

    def _run(self, deadline: float) -> None:
        if self._planner is None:
            self._planner = self._make()
        while not self._is_over.is_set() and (left := deadline - time.monotonic()) > 0:
            if self._next:
                self._on_change(self._planner)
                self._planner.set_problem(*self._next.pop())
            self._planner.run(seconds=left, iterations=1)
