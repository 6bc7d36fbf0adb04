"""What the commands share: targets as arguments, lines of progress, and the end with one line."""

from __future__ import annotations

import sys
import time
from typing import NoReturn

import click

from malloc_game.errors import one_line, printable

MAX_MESSAGE = 2000  # characters of the one line


def fail(message: object, code: int) -> NoReturn:
    """Ends the program with one line on stderr."""
    print(f"mallocgame: error: {one_line(message, MAX_MESSAGE)}", file=sys.stderr)
    sys.exit(code)


def check_target(context: click.Context, parameter: click.Parameter, value: str | None):
    """Callback of an option --target: a known target, or none."""
    from malloc_game.target import TARGETS

    del context, parameter
    if value is not None and value not in TARGETS:
        raise click.BadParameter(f"unknown target {value!r}; known: {', '.join(TARGETS)}")
    return value


def check_targets(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]):
    """The same for an option that may be given several times."""
    return tuple(check_target(context, parameter, one) for one in value)


def need_target(program: str, target: str | None) -> str:
    """The target. Raises: click.UsageError: there is none."""
    from malloc_game.target import TARGETS

    if target is None:
        raise click.UsageError(f"{program} needs --target, one of: {', '.join(TARGETS)}")
    return target


def say(began: float, message: str) -> None:
    """A line of progress: seconds since `began`, and the message."""
    line = printable(f"[{time.monotonic() - began:6.1f} s] {message}")
    print(line, file=sys.stderr, flush=True)
