"""Processes that belong to one run of a command, found by a mark in their environment (Linux)."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import time
import uuid
from collections.abc import Callable

_MARK = "MALLOCGAME_TEST_MARK"


def new_mark() -> dict[str, str]:
    """An environment variable that a command and all that it starts will have, and nobody else."""
    return {_MARK: uuid.uuid4().hex}


def own_mark() -> dict[str, str] | None:
    """The mark of this very process; None if it began without one."""
    value = os.environ.get(_MARK)
    return {_MARK: value} if value else None


def marked(mark: dict[str, str]) -> list[int]:
    """Process ids of all that live with this mark, whoever their parent is; zombies left out."""
    wanted = f"{_MARK}={mark[_MARK]}".encode()
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        # A zombie's environment is empty; a process that just ended has none.
        with contextlib.suppress(OSError):
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def kill(pids: list[int]) -> None:
    """SIGKILL to each that still lives."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
