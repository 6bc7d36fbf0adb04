"""What a run has: the best of each source, why others are missing, and when it got better."""

from __future__ import annotations

import time
from collections.abc import Iterable

from agent.tuning.outcome import (
    CRASHED,
    FAILED,
    NOT_TRIED,
    REFUSED,
    TIMED_OUT,
    Compiled,
    Improvement,
    Missing,
)  # fmt: skip
from malloc_game.errors import one_line
from workloads.errors import CompileError, CompilerKilled, CompileTimeout, OverrideError
from workloads.progress import Progress

# A kill may be the fault of one mapping, which needs too much memory; so many in a row are not.
_MAX_KILLS = 3


def status_of(error: CompileError) -> str:
    """What a failure of the compiler is called in an outcome."""
    if isinstance(error, OverrideError):
        return REFUSED
    return TIMED_OUT if isinstance(error, CompileTimeout) else CRASHED


class Record:
    """Keeps what was compiled, and what became of tries that came to nothing."""

    def __init__(self, say: Progress):
        self.say = say
        self.candidates: dict[str, Compiled] = {}  # the best of each source
        self.began = time.monotonic()
        self.history: list[Improvement] = []
        self._missing: dict[str, Missing] = {}  # the last failure of each source
        self._kills = 0  # of the compiler, one after the other

    @property
    def xla_default_cycles(self) -> float:
        """Compiled latency of XLA's default."""
        return self.candidates["xla_default"].compiled

    def best(self) -> Compiled:
        """The fastest of all candidates so far."""
        return min(self.candidates.values(), key=lambda c: c.compiled)

    def best_compiled(self) -> float:
        """Its cycles."""
        return self.best().compiled

    def note_failure(self, source: str, found_by: str, error: CompileError) -> None:
        """Remember and say that the compiler would not have what `source` asked for, or died.

        Raises: CompilerKilled: it was killed again and again, so that nothing comes of going on.
        """
        self._kills = self._kills + 1 if isinstance(error, CompilerKilled) else 0
        status = status_of(error)
        self._missing[source] = Missing(status, str(error))
        self.say(f"{source}, {found_by}: {status} ({error})")
        if self._kills >= _MAX_KILLS:
            raise error

    def note_fault(self, source: str, error: BaseException) -> None:
        """Remember and say that planning failed, which is no fault of the compiler."""
        self._missing[source] = Missing(FAILED, f"{type(error).__name__}: {one_line(error)}")
        self.say(f"{source}: {FAILED} ({self._missing[source].reason})")

    def missing(self, sources: Iterable[str]) -> dict[str, Missing]:
        """Of these sources those without a mapping, and why."""
        return {
            source: self._missing.get(source, Missing(NOT_TRIED))
            for source in sources
            if source not in self.candidates
        }

    def _keep(self, candidate: Compiled) -> None:
        """Let `candidate` stand for its source if nothing of that was faster."""
        self._kills = 0
        known = self.candidates.get(candidate.source)
        if known is None or candidate.compiled < known.compiled:
            self.candidates[candidate.source] = candidate
            self._note_time(candidate.compiled, candidate.found_by)

    def _note_time(self, cycles: float, found_by: str) -> None:
        if not self.history or cycles < self.history[-1].cycles:
            seconds = round(time.monotonic() - self.began, 2)
            self.history.append(Improvement(seconds, cycles, found_by))
