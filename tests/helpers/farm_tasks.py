"""Tasks for tests of the farm: they import next to nothing, so that their processes start fast."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time


def double(number: int) -> int:
    """A value."""
    return 2 * number


def fail(message: str) -> None:
    """An exception of a kind that cannot be built from its message alone."""
    raise UnicodeDecodeError("utf-8", b"", 0, 1, message)


def die() -> None:
    """The end of its process."""
    os.kill(os.getpid(), signal.SIGKILL)


def take(mebibytes: int, pids: str) -> None:
    """Memory, in a process of its own session, whose id it writes to a file; then it waits."""
    script = f"x = bytearray({mebibytes} << 20); x[::4096] = bytes(len(x[::4096])); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, start_new_session=True
    )
    pathlib.Path(pids).write_text(str(process.pid))
    time.sleep(600)


def wait_for(file: str, name: str) -> str:
    """Says that it has begun (a line in `file`), and waits until `file`.go is there."""
    with open(file, "a") as log:
        log.write(name + "\n")
    while not os.path.exists(file + ".go"):
        time.sleep(0.05)
    return name
