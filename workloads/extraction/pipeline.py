"""A program compiled twice, extracted and probed: what every use of the compiler begins with."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from malloc_game import TARGETS, Assignment, Problem
from workloads.compiler.session import Compiled, CompilerSession
from workloads.costs.judge import CompiledLatency, compiled_latency
from workloads.costs.store import CostStore
from workloads.extraction.all_default import all_default_options, compiled_on_the_way
from workloads.extraction.extraction import Extraction
from workloads.extraction.probing import probe
from workloads.hlo.module import Module
from workloads.progress import Progress, silent


@dataclasses.dataclass(frozen=True)
class Extracted:
    """A program extracted by the two compiles that every use of it needs."""

    extraction: Extraction
    xla_default: Assignment
    xla_default_latency: CompiledLatency
    all_default: Compiled
    all_default_latency: CompiledLatency
    num_checks: int  # placement dry runs that the probing took
    seconds_per_compile: float  # the longer of the two


def extract_session(
    session: CompilerSession,
    progress: Progress = silent,
    store: CostStore | None = None,
    probe_seconds: float = math.inf,
    meanwhile: Callable[[Problem], object] = lambda problem: None,
    on_compiled: Callable[[str, CompiledLatency], None] = lambda source, judged: None,
) -> Extracted:
    """Compile the all-default program and XLA's default; build the problem from both, and probe it.

    store: as for `Extraction`; by default the one on disk, if the session caches at all.
    probe_seconds: as for `probe`. meanwhile: called with the problem of the first compile while
    the second is under way, in another thread, which may outlast it; for JAX code that planning
    needs and that takes seconds to compile. What it returns or raises is lost. on_compiled: called
    after each compile with what it came to, as soon as that is known; of "all_default",
    "xla_default", or "guided" where the way to the first led over one that XLA placed.

    Raises:
      WorkloadError: the program cannot be loaded. CompileError: it cannot be compiled.
    """

    def judge(compiled: Compiled, source: str) -> CompiledLatency:
        judged = compiled_latency(Module(compiled.hlo), TARGETS[session.target])
        on_compiled(source, judged)
        return judged

    progress(f"compiling {session.name} for {session.target} with everything in default memory")
    options = all_default_options(session)
    if (on_the_way := compiled_on_the_way(session)) is not None:
        judge(on_the_way, "guided")
    all_default = session.compile(options)
    all_default_latency = judge(all_default, "all_default")
    if store is None and not session.uses_cache:
        store = CostStore()
    extraction = Extraction(all_default, session.name, store)
    progress("compiling it as XLA maps it")
    thread = ThreadPoolExecutor(1, "meanwhile")
    thread.submit(meanwhile, extraction.problem)
    thread.shutdown(wait=False)  # what it begins is waited for by those who need it
    default = session.compile({})
    judged, xla_default = extraction.take_in(
        default, "xla_default", is_ours=False, judged=judge(default, "xla_default")
    )
    num_checks = probe(session, extraction, progress, probe_seconds)
    return Extracted(
        extraction,
        xla_default,
        judged,
        all_default,
        all_default_latency,
        num_checks,
        max(default.seconds, all_default.seconds),
    )


def extract(fn: Any, *args: Any, target: str, timeout: float = 600.0) -> tuple[Problem, Assignment]:
    """A program's problem on a target, and XLA's default mapping of it.

    fn: a JAX function, with args its (abstract) arguments; or a suite name or
    `path/to/file.py:function` without args. timeout: seconds for one compile.

    Raises:
      WorkloadError: the program or target cannot be used. CompileError: the compiler failed.
    """
    program = (fn, args) if callable(fn) else fn
    with CompilerSession(program, target, timeout=timeout) as session:
        found = extract_session(session)
    return found.extraction.problem, found.xla_default
