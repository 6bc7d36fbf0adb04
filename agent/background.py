"""Planning while the compiler is at work, which is another process."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType

from agent.problem_planner import Best, ProblemPlanner

_MOMENT_SECONDS = 0.01

# Of the planner's threads: the compiler, another process, gets its core when it wants one.
_NICENESS = 5


def _yield_to_the_compiler() -> None:
    """Lowers the priority of this thread and of those that it starts; where that is possible."""
    if sys.platform == "linux":  # elsewhere it would be that of the process
        thread = threading.get_native_id()
        with contextlib.suppress(OSError):
            niceness = os.getpriority(os.PRIO_PROCESS, thread)
            os.setpriority(os.PRIO_PROCESS, thread, niceness + _NICENESS)


class BackgroundPlanner:
    """A planner in a thread of its own, between `start` and `stop`.

    make: called in that thread, when it is started first. Leave the `with` block to end the
    thread; it finishes the iteration that is under way."""

    def __init__(self, make: Callable[[], ProblemPlanner]):
        self._make = make
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
        self._thread.shutdown(wait=True, cancel_futures=True)

    def start(self, deadline: float) -> None:
        """Plans from now on. deadline: of `time.monotonic()`, after which no iteration begins."""
        self._is_over.clear()
        self._running = self._thread.submit(self._run, deadline)

    def best(self) -> Best | None:
        """The best mapping so far, while it plans, too; None while the planner is being made."""
        return None if self._planner is None else self._planner.best

    def stop(self, at_most: float | None = None) -> ProblemPlanner | None:
        """Waits for the iteration under way; the planner, which then rests.

        None if that takes more than `at_most` seconds: it goes on planning then. Whatever planning
        raised is raised here."""
        assert self._running is not None, "nothing was started"
        self._is_over.set()
        done, _ = wait([self._running], at_most)
        if not done:
            self._is_over.clear()
            # It may just have seen that it is over.
            done, _ = wait([self._running], _MOMENT_SECONDS)
        if not done:
            return None
        running, self._running = self._running, None
        running.result()
        assert self._planner is not None
        return self._planner

    def _run(self, deadline: float) -> None:
        if self._planner is None:
            self._planner = self._make()
        while not self._is_over.is_set() and (left := deadline - time.monotonic()) > 0:
            self._planner.run(seconds=left, iterations=1)
