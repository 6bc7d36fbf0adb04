"""What all baselines share: the clock, the compiler behind it, and the best compile so far.

Whatever is compiled through a `Race` is judged and counts, so that a baseline is no more than a way
of choosing what to compile next.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from malloc_game import TARGETS, Assignment, Problem
from workloads.compiler.session import OVERRIDES_OPTION, Compiled, CompilerSession
from workloads.costs.judge import CompiledLatency, compiled_latency
from workloads.costs.store import CostStore
from workloads.errors import CompileError, CompilerKilled, CompileTimeout, OverrideError
from workloads.extraction.all_default import all_default_options
from workloads.extraction.extraction import Extraction
from workloads.hlo.module import Module
from workloads.progress import Progress, silent

_MAX_KILLED = 2  # times that the compiler may be killed before the first two compiles are done


class TimeIsUp(Exception):
    """No further compile counts: the time, or the number of compiles, is spent."""


@dataclasses.dataclass(frozen=True)
class BaselineResult:
    """The fastest program that a baseline had the compiler make in its time."""

    baseline: str
    assignment: Assignment  # what the fastest compiled program really does
    problem: Problem  # with the costs that the baseline's compiles have shown
    compiled_cycles: float
    xla_default_cycles: float  # compiled, too
    options: dict[str, str]  # compiler options that give the program
    seconds: float  # wall time, everything included
    compiles: int  # begun, failures included
    failures: int  # of them, those that failed or that the compiler did not survive
    refusals: int  # besides: refused for their overrides, before code generation
    # For each compile that counts: when it ended, and the fewest cycles so far.
    history: tuple[tuple[float, float], ...]


class Race:
    """One run of one baseline on one program.

    Attributes:
      extraction: the program as the game sees it, once started; `learn` brings costs in.
      best_cycles: judged latency of the fastest compile so far.
    """

    def __init__(
        self,
        session: CompilerSession,
        seconds: float,
        max_compiles: int | None = None,
        progress: Progress = silent,
    ):
        """The clock starts here. max_compiles: most compiles, XLA's default among them."""
        self._began = time.monotonic()
        self._session, self._seconds, self._max_compiles = session, seconds, max_compiles
        self._progress = progress
        self._known: dict[tuple, tuple[Compiled, CompiledLatency]] = {}
        self._notes: dict[str, dict[str, Any]] = {}
        self._is_started = False
        self.compiles = self.failures = self.refusals = 0
        self.best_cycles = self.xla_default_cycles = float("inf")
        self.history: list[tuple[float, float]] = []

    # -- the compiler, as `CompilerSession` has it -------------------------------------------

    name = property(lambda self: self._session.name)
    target = property(lambda self: self._session.target)
    uses_cache = property(lambda self: self._session.uses_cache)

    def compile(
        self, options: Mapping[str, str] | None = None, *, overrides: str | None = None
    ) -> Compiled:
        """As `CompilerSession.compile`, judged; what this race has compiled costs nothing again.

        Raises:
          TimeIsUp: it may not begin, or was stopped, too late to count. Else as
            `CompilerSession.compile`.
        """
        chosen = dict(options or {})
        if overrides is not None:
            chosen[OVERRIDES_OPTION] = overrides
        key = _key(chosen)
        if key in self._known:
            return self._known[key][0]
        self.check_time()
        left = self._seconds - self.elapsed if self._is_started else math.inf
        try:
            compiled = self._session.compile(chosen, timeout=min(self._session.timeout, left))
        except OverrideError:  # before code generation, mostly within a second
            self.refusals += 1
            raise
        except CompileError as error:
            self.compiles += 1
            if isinstance(error, CompileTimeout) and self.elapsed >= self._seconds:
                raise TimeIsUp from None
            self.failures += 1
            raise
        self.compiles += 1
        judged = compiled_latency(Module(compiled.hlo), TARGETS[self.target])
        cycles = judged.cycles
        if self._is_started and self.elapsed > self._seconds:
            raise TimeIsUp
        self._known[key] = compiled, judged
        if not chosen:
            self.xla_default_cycles = cycles
        self.best_cycles = min(self.best_cycles, cycles)
        self.history.append((round(self.elapsed, 2), self.best_cycles))
        self._progress(
            f"{self.elapsed:.0f} s, compile {self.compiles}: {cycles:,.0f} cycles,"
            f" best {self.best_cycles:,.0f}"
        )
        return compiled

    def remembered(self, label: str) -> dict[str, Any] | None:
        """As `CompilerSession.remembered`, if only for this race where nothing is cached."""
        return self._notes.get(label) or self._session.remembered(label)

    def remember(self, label: str, fields: dict[str, Any]) -> None:
        """As `CompilerSession.remember`."""
        self._notes[label] = fields
        self._session.remember(label, fields)

    # -- the race ----------------------------------------------------------------------------

    @property
    def best(self) -> Compiled:
        """The fastest compile so far, once there is one."""
        return min(self._known.values(), key=lambda known: known[1].cycles)[0]

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    def check_time(self) -> None:
        """Raises: TimeIsUp if no other compile may begin. The first two always may."""
        if not self._is_started:
            return
        is_spent = self._max_compiles is not None and self.compiles >= self._max_compiles
        if is_spent or self.elapsed >= self._seconds:
            raise TimeIsUp

    def start(self, meanwhile: Callable[[Problem], Any] = lambda problem: None) -> None:
        """Compile the program with everything in default memory, and as XLA maps it.

        meanwhile: run on the problem while the compiler is busy with the second; its result, and
        what it raises, are lost.

        Raises:
          WorkloadError: the program cannot be loaded. CompileError: it cannot be compiled.
        """
        all_default = self._insist(lambda: self.compile(all_default_options(self)))
        store = None if self.uses_cache else CostStore()
        self.extraction = Extraction(all_default, self.name, store)

        def work() -> None:
            with contextlib.suppress(Exception):
                meanwhile(self.extraction.problem)

        helper = threading.Thread(target=work, daemon=True)
        helper.start()
        default = self._insist(lambda: self.compile({}))
        helper.join()
        self.xla_default = self.learn(default)[1]
        self._is_started = True

    def _insist(self, work: Callable[[], Compiled]) -> Compiled:
        """What `work` returns, though the compiler may be killed a few times meanwhile."""
        for _ in range(_MAX_KILLED):
            try:
                return work()
            except CompilerKilled:  # says nothing about the program; the session starts anew
                continue
        return work()

    def try_options(self, options: Mapping[str, str]) -> tuple[float, Assignment] | None:
        """Compile, learn, and say how fast the program is, in cycles, and what it does.

        None if the compiler fails. The problem is refreshed. Raises: TimeIsUp.
        """
        try:
            compiled = self.compile(options)
        except CompileError as error:
            self._progress(f"{self.elapsed:.0f} s: failed ({error})")
            return None
        return self.learn(compiled)

    def learn(self, compiled: Compiled) -> tuple[float, Assignment]:
        """Learn from a compile of this race; how fast it is, in cycles, and what it does."""
        is_ours, judged = bool(compiled.options), self._known[_key(compiled.options)][1]
        judged, found = self.extraction.take_in(
            compiled, "candidate", is_ours=is_ours, judged=judged
        )
        return judged.cycles, found

    def result(self, baseline: str) -> BaselineResult:
        """The result as it stands, of a race that was started."""
        seconds = self.elapsed
        best = self.best
        found = self.extraction.assignment_of(best, f"{baseline}, compiled")
        return BaselineResult(
            baseline,
            found,
            self.extraction.refresh(),
            self.best_cycles,
            self.xla_default_cycles,
            dict(best.options),
            seconds,
            self.compiles,
            self.failures,
            self.refusals,
            tuple(self.history),
        )


def _key(options: Mapping[str, str]) -> tuple:
    return tuple(sorted(options.items()))
