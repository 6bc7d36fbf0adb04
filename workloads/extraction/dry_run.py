"""The placement dry run: what the compiler makes of a mapping, without the time of code generation.

Memory-space assignment takes a fraction of a second, code generation the rest. With hardly any
default memory allowed, the compiler gives up between the two, its module dumped already.
"""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Mapping

from malloc_game import Assignment
from workloads.compiler.session import Compiled, CompilerSession
from workloads.costs.judge import ZERO_COST
from workloads.errors import CompileError, CompilerKilled
from workloads.extraction.all_default import all_default_options
from workloads.extraction.extraction import Extraction
from workloads.hlo.module import Module

_MEMORY_OPTION = "xla_tpu_max_hbm_size_mib"
# Passes before memory-space assignment look at the memory size too, training steps' most of all:
# this keeps them from recomputing what would not fit.
_NO_REMATERIALIZATION = {
    "xla_jf_rematerialization_percent_shared_memory_limit": "10000000",
}
_MIB = 1 << 20


class DryRun:
    """Places one program without compiling it, with a memory size found to change nothing else.

    There may be none. Where code generation fails (a fusion needs more scoped memory than there
    is), the compiler changes the program and begins again, and only the last program counts; what
    one stops early is the first. Every dry run is a full compile then.
    """

    def __init__(self, session: CompilerSession, seconds: float = math.inf):
        """Compiles the all-default program, if it is not in the cache, and compares.

        seconds: no further memory size is tried if it would take longer, by the last one's time;
        then every dry run is a full compile.

        Raises:
          CompileError: the program cannot be compiled at all.
        """
        # Not kept alive by what `dry_run_of` keeps for as long as the session lives.
        self.session: CompilerSession = weakref.proxy(session)
        self._stop: dict[str, str] = {}
        self.seconds_per_dry_run = 0.0  # of the last one tried
        everything = all_default_options(session)
        wanted = _signature(session.compile(everything))
        stop = {_MEMORY_OPTION: "1"}
        end = time.monotonic() + seconds
        for share in (0.5, 0.9, 0.0):  # of what is needed, to be tried next
            began = time.monotonic()
            try:
                placed, needed = session.place({**everything, **stop})
            except CompileError:
                break
            finally:
                self.seconds_per_dry_run = time.monotonic() - began
            if needed and placed.hlo and _signature(placed) == wanted:
                self._stop = stop
                break
            if not needed or time.monotonic() + self.seconds_per_dry_run > end:
                break
            size = max(int(share * needed / _MIB), 1)
            stop = {_MEMORY_OPTION: str(size), **_NO_REMATERIALIZATION}

    @property
    def is_fast(self) -> bool:
        """Whether it stops before code generation."""
        return bool(self._stop)

    def place(self, options: Mapping[str, str]) -> Compiled:
        """The program as placed under compiler options; its instructions may have no cycles.

        Raises:
          OverrideError: an override cannot be fulfilled. CompileError: any other failure.
        """
        if not self._stop:
            return self.session.compile(options)
        return self.session.place({**options, **self._stop})[0]


def placed_by(
    dry_run: DryRun, extraction: Extraction, options: Mapping[str, str], source: str
) -> Assignment | None:
    """The mapping that the compiler makes under these options; None if it will not have them.

    source: of the mapping. Raises: CompilerKilled.
    """
    try:
        return extraction.assignment_of(dry_run.place(options), source)
    except CompilerKilled:
        raise
    except CompileError:
        return None


_dry_runs: weakref.WeakKeyDictionary[CompilerSession, DryRun] = weakref.WeakKeyDictionary()


def dry_run_of(session: CompilerSession, seconds: float = math.inf) -> DryRun:
    """The session's `DryRun`, made on first use, within `seconds` then. Raises: as `DryRun`."""
    if session not in _dry_runs:
        _dry_runs[session] = DryRun(session, seconds)
    return _dry_runs[session]


def _signature(compiled: Compiled) -> list[tuple]:
    """What must be equal for two modules to be the same program under the same mapping.

    Parameters and other things without cost may yet move before code generation.
    """
    return [
        (i.name, i.opcode, trips, tuple(i.leaves.items()))
        for i, trips in Module(compiled.placed or compiled.hlo).flattened()
        if i.opcode not in ZERO_COST
    ]
