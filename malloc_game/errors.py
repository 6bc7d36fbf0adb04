"""Errors that a user can cause; every message is one line that says what, where and what to do."""


class MallocGameError(Exception):
    """Base of the errors that a command-line user sees as one line (exit code 2)."""


class ProblemError(MallocGameError, ValueError):
    """A problem, or the file that holds it, breaks a rule; the message names the field."""


class AssignmentError(MallocGameError, ValueError):
    """An assignment, or the file that holds it, does not belong to the problem or is malformed."""
