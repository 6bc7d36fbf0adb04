"""Messages between the compiler session and its child: a JSON object and bytes, length-prefixed.

Frame: two big-endian uint64 lengths, the JSON text, the bytes. They travel over pipes of their own,
because the compiler prints on stdout and stderr. Standard library only: the child imports this
before anything that could crash.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from typing import Any

_HEADER = struct.Struct("!QQ")
_CHUNK = 1 << 20


def pack(message: dict[str, Any], blob: bytes = b"") -> bytes:
    """One frame as bytes."""
    text = json.dumps(message).encode()
    return _HEADER.pack(len(text), len(blob)) + text + blob


def read(
    descriptor: int, wait: Callable[[], None] = lambda: None
) -> tuple[dict[str, Any], bytes] | None:
    """Read one frame; None at the end of the pipe, also in the middle of a frame.

    wait: called before every read; it returns when there is something to read, or raises.
    """

    def exactly(count: int) -> bytes | None:
        parts = bytearray()
        while len(parts) < count:
            wait()
            part = os.read(descriptor, min(_CHUNK, count - len(parts)))
            if not part:
                return None
            parts += part
        return bytes(parts)

    header = exactly(_HEADER.size)
    if header is None:
        return None
    text_length, blob_length = _HEADER.unpack(header)
    text = exactly(text_length)
    if text is None:
        return None
    blob = exactly(blob_length)
    return None if blob is None else (json.loads(text), blob)
