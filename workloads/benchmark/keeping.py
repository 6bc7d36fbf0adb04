"""Rows kept one by one as they come about, and how far it has got."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic

from workloads.benchmark.rows import AnyRow, Journal

# What is done, of how many, and what is going on.
Progress = Callable[[int, int, str], None]


def no_progress(done: int, total: int, message: str) -> None:
    """Say nothing."""
    del done, total, message


class Keeper(Generic[AnyRow]):
    """Appends rows to an open journal and counts them.

    Attributes:
      done: the last row of each key, those that were in the journal included.
    """

    def __init__(
        self,
        journal: Journal[AnyRow],
        describe: Callable[[AnyRow], str],
        progress: Progress,
    ):
        """describe: what to say of a row that is done."""
        self.done: dict[Hashable, AnyRow] = {row.key: row for row in journal.read()}
        self._journal: Journal[AnyRow] = journal
        self._describe: Callable[[AnyRow], str] = describe
        self._progress = progress
        self._number = self._total = 0

    def begin(self, number: int, total: int, what: str) -> None:
        """So many of all that is wanted are there already. what: it is called, "runs"."""
        self._number, self._total = number, total
        self.say(f"{number} of {total} {what} already")

    def say(self, message: str) -> None:
        """Say what is going on."""
        self._progress(self._number, self._total, message)

    def keep(self, row: AnyRow) -> None:
        """Write a row that is done. Raises: MallocGameError: it cannot be written."""
        self._journal.append(row)
        self.done[row.key] = row
        self._number += 1
        self.say(self._describe(row))
