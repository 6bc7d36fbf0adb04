"""Telling people what is going on, a line at a time."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str], None]


def silent(message: str) -> None:
    """Say nothing."""
    del message
