"""One task in a process of its own, with limits of time and memory that its parent enforces.

The child (`child`) ends itself when its parent is gone, however that ended. What the task prints
goes where the parent's output goes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from malloc_game.errors import MallocGameError
from workloads.farm import child
from workloads.farm.child import LENGTH

_POLL_SECONDS = 0.2
_PACKAGE_ROOT = Path(__file__).resolve().parent.parent.parent


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one task may take, with all processes that it starts. None: as much as there is.

    Memory is resident memory, read from /proc: without that (not Linux) it is not limited."""

    seconds: float | None = None
    memory_bytes: int | None = None


class FarmError(MallocGameError):
    """Tasks of a farm were lost, or there is no farm."""


class TaskLost(FarmError):
    """A task ended without an answer: it crashed, was killed, or went over a limit."""


def run_apart(call: bytes, limits: Limits, is_stopped: Callable[[], bool] = lambda: False) -> bytes:
    """Runs a pickled `(function, arguments)` in a new process; returns the pickled answer.

    The answer is `(value, None)` or `(None, exception)`. is_stopped: whether to give it up.
    Raises: TaskLost."""
    answers_in, answers_out = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", str(child.__file__), str(answers_out)],
            stdin=subprocess.PIPE,
            pass_fds=(answers_out,),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(_python_path())},
            start_new_session=True,  # Ctrl-C is for the parent
        )
    finally:
        os.close(answers_out)
    began = time.monotonic()
    answer = _Reader(answers_in)
    assert process.stdin is not None  # a pipe
    try:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(LENGTH.pack(len(call)) + call)
            process.stdin.flush()
        while not answer.wait(_POLL_SECONDS):
            if is_stopped():
                raise TaskLost("the task was stopped")
            _check(process.pid, limits, time.monotonic() - began)
    finally:
        _kill(process)
    if not answer.data:
        code = process.returncode
        raise TaskLost(f"the task's process ended with {_name(code)}")
    return answer.data


class _Reader(threading.Thread):
    """Reads a pipe to its end."""

    def __init__(self, descriptor: int):
        super().__init__(daemon=True)
        self._descriptor = descriptor
        self.data = b""
        self.start()

    def run(self) -> None:
        """Until every process that holds the other end has closed it, or the answer is whole."""
        with os.fdopen(self._descriptor, "rb") as pipe:
            head = pipe.read(LENGTH.size)
            if len(head) == LENGTH.size:
                (length,) = LENGTH.unpack(head)
                data = pipe.read(length)
                self.data = data if len(data) == length else b""

    def wait(self, seconds: float) -> bool:
        """Whether it has come to the end."""
        self.join(seconds)
        return not self.is_alive()


def _check(pid: int, limits: Limits, seconds: float) -> None:
    if limits.seconds is not None and seconds > limits.seconds:
        raise TaskLost(f"the task took longer than its limit of {limits.seconds:g} s")
    if limits.memory_bytes is not None:
        used = sum(map(_resident_bytes, _with_descendants(pid)))
        if used > limits.memory_bytes:
            raise TaskLost(
                f"the task took {used / 2**30:.2f} GiB, more than its limit of"
                f" {limits.memory_bytes / 2**30:g} GiB"
            )


def _with_descendants(pid: int) -> Iterator[int]:
    """A process and all that it started and that still live, parents first."""
    yield pid
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                yield from _with_descendants(int(child))


def _resident_bytes(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0  # it has just ended
    return pages * os.sysconf("SC_PAGE_SIZE")


def _kill(process: subprocess.Popen) -> None:
    """Ends a process and all that it started (a compiler has a session of its own)."""
    for pid in list(_with_descendants(process.pid)) if process.poll() is None else []:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    process.wait()


def _name(code: int) -> str:
    if code >= 0:
        return f"status {code}"
    hint = " (out of memory?)" if -code == signal.SIGKILL else ""
    return f"{signal.Signals(-code).name}{hint}"


def _python_path() -> list[str]:
    inherited = os.environ.get("PYTHONPATH", "")
    return [str(_PACKAGE_ROOT), *([inherited] if inherited else [])]
