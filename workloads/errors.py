"""Errors of the compiler loop; every message is one line that says what, where and what to do."""

from __future__ import annotations

from collections.abc import Sequence

from malloc_game.errors import one_line


class WorkloadError(Exception):
    """The user's mistake: a program, target or option that does not exist or cannot be used."""

    exit_code = 2

    def __str__(self) -> str:
        return one_line(super().__str__(), most=2000)


class CompilerUnavailable(WorkloadError):
    """This machine has no TPU compiler."""


class CompileError(Exception):
    """The compiler, or the program inside it, failed: refused, crashed, or could not be traced.

    last_lines: the last useful lines of the exception or of what the compiler printed, in order.
    """

    exit_code = 3

    def __init__(self, message: str, last_lines: Sequence[str] = ()):
        super().__init__(message)
        self.last_lines = list(last_lines)


class CompilerKilled(CompileError):
    """Something outside killed the compiler process: a person, or the system short of memory."""


class CompileTimeout(CompileError):
    """The compiler did not answer within the time limit and was killed."""


class OverrideError(CompileError):
    """The compiler understood the placement overrides and refused to fulfil them.

    A planner repairs the mapping and tries again; the process that compiled is still healthy.
    """
