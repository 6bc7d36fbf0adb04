"""Errors that a user can act on: each is one line that says what, where and what to do."""

_MOST = 400  # characters of a message: what is in a file can be of any length


def printable(text: str) -> str:
    """`text` with everything that a terminal might act on, or cannot show, as a backslash escape.

    Names come from files and from programs, and may hold line ends, control sequences and halves of
    characters.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def one_line(text: object, most: int = _MOST) -> str:
    """A message as one printable line of at most `most` characters, shortened in the middle."""
    line = printable(" ".join(str(text).split()))
    if len(line) <= most:
        return line
    half = (most - 5) // 2
    return f"{line[:half]} ... {line[-half:]}"


class MallocGameError(Exception):
    """Base of the errors that a command-line user sees as one line (exit code 2)."""

    def __str__(self) -> str:
        return one_line(super().__str__())


class ProblemError(MallocGameError, ValueError):
    """A problem, or the file that holds it, breaks a rule; the message names the field."""


class AssignmentError(MallocGameError, ValueError):
    """An assignment, or the file that holds it, does not belong to the problem or is malformed."""
