"""Ctrl-C while a command imports, and what is said of it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import NoReturn

INTERRUPTED = "interrupted; nothing was written"
_STDERR = 2


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Lets Ctrl-C end the program at once while libraries are imported.

    They run code of theirs meanwhile, in callbacks too, where KeyboardInterrupt can be swallowed;
    the command would then go on to its end."""
    # Only the main thread has handlers; and a command in the background of a script is deaf to it.
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def leave(number: int, frame: object) -> NoReturn:
        del number, frame
        os.write(_STDERR, f"mallocgame: error: {INTERRUPTED}\n".encode())
        os._exit(130)

    former = signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)
