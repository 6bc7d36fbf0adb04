"""Planning while the compiler is at work, which is another process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from agent.problem_planner import ProblemPlanner


class BackgroundPlanner:
    """A planner in a thread of its own, between `start` and `stop`.

    make: called in that thread, when it is started first. Leave the `with` block to end the
    thread; it finishes the iteration that is under way."""

    def __init__(self, make: Callable[[], ProblemPlanner]):
        self._make = make
        self._planner: ProblemPlanner | None = None
        self._is_over = threading.Event()
        self._thread = ThreadPoolExecutor(1, "planner")
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

    def stop(self, at_least: float = 0.0) -> ProblemPlanner:
        """Waits so many seconds and for the iteration under way; the planner, which then rests.

        Whatever planning raised is raised here."""
        assert self._running is not None, "nothing was started"
        running, self._running = self._running, None
        end = time.monotonic() + at_least
        while not running.done() and (left := end - time.monotonic()) > 0:
            self._is_over.wait(min(left, 0.1))
        self._is_over.set()
        running.result()
        assert self._planner is not None
        return self._planner

    def _run(self, deadline: float) -> None:
        if self._planner is None:
            self._planner = self._make()
        while not self._is_over.is_set() and (left := deadline - time.monotonic()) > 0:
            self._planner.run(seconds=left, iterations=1)
