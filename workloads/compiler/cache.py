"""On-disk cache of compiler results: one checksummed, compressed file per result.

A cache can only save time. A damaged entry is a miss, and a directory that cannot be written (or a
full disk) turns the cache off with one warning.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import os
import struct
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

FORMAT_VERSION = 4
MAX_BYTES = 2 << 30
STALE_SECONDS = 3600  # a temporary file this old belongs to a process that died

_MAGIC = b"mallocgame-cache-1\n"
_SUFFIX = ".entry"
_LENGTH = struct.Struct("!Q")


def cache_directory() -> Path:
    """$MALLOCGAME_CACHE, else mallocgame in $XDG_CACHE_HOME, else in ~/.cache."""
    if chosen := os.environ.get("MALLOCGAME_CACHE"):
        return Path(chosen)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "mallocgame"
    return Path(os.path.expanduser("~")) / ".cache" / "mallocgame"


def content_key(**parts: Any) -> str:
    """Hash of everything the result depends on; parts are JSON values."""
    text = json.dumps({"format": FORMAT_VERSION, **parts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@functools.cache
def warn_once(message: str) -> None:
    """Log a warning, the first time that there is this one."""
    logging.getLogger(__name__).warning(message)


class DiskCache:
    """Entries are `(fields, blob)`: a JSON object and bytes. Safe for concurrent processes."""

    def __init__(self, directory: Path | None = None, max_bytes: int = MAX_BYTES):
        self.directory = cache_directory() if directory is None else Path(directory)
        self.max_bytes = max_bytes
        self._writable = True

    def get(self, key: str) -> tuple[dict[str, Any], bytes] | None:
        """The entry, or None if it is absent, unreadable or damaged."""
        path = self._path(key)
        try:
            entry = _unpack(path.read_bytes())
        except (OSError, ValueError, zlib.error, struct.error):
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # the least recently used are removed first
        return entry

    def put(self, key: str, fields: dict[str, Any], blob: bytes) -> None:
        """Store an entry, whole or not at all; never raises for a disk's sake."""
        if not self._writable:
            return
        temporary = None
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(prefix=".tmp-", dir=self.directory)
            with os.fdopen(handle, "wb") as file:
                file.write(_pack(fields, blob))
            os.replace(temporary, self._path(key))
            self._prune()
        except FileNotFoundError:
            # By a clock that jumped, another process took the temporary file for a dead one's, or
            # someone emptied the cache: this entry is lost, the next one need not be.
            return
        except OSError as error:
            self._writable = False
            if temporary:
                Path(temporary).unlink(missing_ok=True)
            reason = error.strerror or error
            warn_once(f"mallocgame: results are not cached: {self.directory}: {reason}")

    def _path(self, key: str) -> Path:
        return self.directory / (key + _SUFFIX)

    def _prune(self) -> None:
        """Remove dead temporary files, and the least recently used entries beyond max_bytes."""
        now, entries = time.time(), []
        with os.scandir(self.directory) as scan:
            for item in scan:
                try:
                    status = item.stat()
                    if item.name.endswith(_SUFFIX):
                        entries.append((status.st_mtime, status.st_size, item.path))
                    elif item.name.startswith(".tmp-") and now - status.st_mtime > STALE_SECONDS:
                        os.unlink(item.path)
                except OSError:
                    continue  # another process removed it
        excess = sum(size for _, size, _ in entries) - self.max_bytes
        for _, size, path in sorted(entries):
            if excess <= 0:
                break
            Path(path).unlink(missing_ok=True)
            excess -= size


def _pack(fields: dict[str, Any], blob: bytes) -> bytes:
    head = json.dumps(fields).encode()
    body = zlib.compress(_LENGTH.pack(len(head)) + head + blob, level=1)
    return _MAGIC + hashlib.sha256(body).digest() + body


def _unpack(data: bytes) -> tuple[dict[str, Any], bytes]:
    start = len(_MAGIC)
    digest, body = data[start : start + 32], data[start + 32 :]
    if not data.startswith(_MAGIC) or hashlib.sha256(body).digest() != digest:
        raise ValueError("damaged cache entry")
    raw = zlib.decompress(body)
    (length,) = _LENGTH.unpack_from(raw)
    begin = _LENGTH.size
    return json.loads(raw[begin : begin + length]), raw[begin + length :]
