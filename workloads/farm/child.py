"""The process of one task, run as a script: it imports nothing but what the task does.

Standard input is the length of the call and the call, pickled; the answer goes to a pipe of its own
whose number is the argument, in the same form. When the input ends, the process ends itself: its
parent is gone.
"""

from __future__ import annotations

import os
import pickle
import struct
import sys
import threading
from typing import IO

import cloudpickle

LENGTH = struct.Struct("!Q")


def _end_with_parent(stdin: IO[bytes]) -> None:
    """Ends this process when its input ends; what it started ends by its own pipes."""
    stdin.read()
    os._exit(1)


def main(answers: int) -> None:
    """The child: one call from standard input, one answer."""
    stdin = sys.stdin.buffer
    (length,) = LENGTH.unpack(stdin.read(LENGTH.size))
    call = stdin.read(length)
    threading.Thread(target=_end_with_parent, args=(stdin,), daemon=True).start()
    try:
        function, arguments = pickle.loads(call)
        answer = cloudpickle.dumps((function(*arguments), None))
    except Exception as error:
        try:
            answer = cloudpickle.dumps((None, error))
            pickle.loads(answer)  # exceptions with other arguments than their message fail here
        except Exception:
            answer = cloudpickle.dumps((None, RuntimeError(f"{type(error).__name__}: {error}")))
    with os.fdopen(answers, "wb") as pipe:
        pipe.write(LENGTH.pack(len(answer)) + answer)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # native threads of a solver may not end by themselves


if __name__ == "__main__":
    main(int(sys.argv[1]))
