"""The suite's problem files made anew: each pair extracted, its costs learned, its bound proven."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import malloc_game as mg
from malloc_game.problem.files import sha256_of, write_bytes
from malloc_game.solvers import lower_bound
from workloads.compiler.session import CompilerSession, check_compiler, versions
from workloads.costs.store import CostStore
from workloads.errors import CompileError, WorkloadError
from workloads.extraction.all_default import all_default_options
from workloads.farm import Farm, Task, TaskLost
from workloads.loop.learned_costs import learn_costs
from workloads.programs.families import suite
from workloads.programs.suite_problems import CONTENDED, DATA, Pair, write_index
from workloads.progress import Progress, silent

# Compiles for a problem: half of what a measurement of fidelity takes, so that `make suite` takes
# hours, not a day.
NUM_COMPILES = 6
# Seconds of linear programming for one bound; after them it is that of `best_entries`.
BOUND_SECONDS = 600.0


def build(
    program: str,
    target: str,
    directory: Path = DATA,
    *,
    compiles: int = NUM_COMPILES,
    timeout: float = 600.0,
    progress: Progress = silent,
) -> None:
    """Extract a program, learn its costs, and write its problem file.

    Costs that other programs taught are not used, so that the file depends on nothing else.

    Raises:
      WorkloadError: the program or target cannot be used. CompileError: the compiler failed.
    """
    began = time.monotonic()
    with CompilerSession(program, target, timeout=timeout) as session:
        learned = learn_costs(session, compiles=compiles, store=CostStore(), progress=progress)
        options = all_default_options(session)
    found = learned.found
    problem = found.extraction.problem
    progress("computing the bound")
    bound = lower_bound(problem, time_limit=BOUND_SECONDS)
    provenance = {
        **problem.provenance,
        "options": options,
        "hlo_sha256": hashlib.sha256(found.all_default.hlo).hexdigest(),
        "compiles": learned.compiles,
        "checks": found.num_checks,
        "deviation": learned.calibration.deviation,
        "xla_default_compiled_cycles": found.xla_default_latency.cycles,
        "all_default_compiled_cycles": found.all_default_latency.cycles,
        "bound_cycles": bound.cycles,
        "bound_is_relaxed": bound.relaxed_cycles is not None,
        "bound_seconds": round(bound.seconds, 1),
        "seconds": round(time.monotonic() - began, 1),
    }
    problem = problem.replace(provenance=provenance)
    directory.mkdir(parents=True, exist_ok=True)
    mg.save_problem(problem, directory / f"{program}-{target}.json.gz", found.xla_default)


def describe(path: Path) -> Pair:
    """The index's entry for a problem file that `build` wrote.

    Raises: WorkloadError: it was not written by `build`, or its program is not of the suite.
    """
    problem = mg.load_problem(path)
    reference = mg.load_reference(path, problem)
    provenance = problem.provenance
    entry = suite().get(str(provenance.get("program", "")))
    if entry is None or reference is None or "bound_cycles" not in provenance:
        raise WorkloadError(f"{path}: not a problem file of the suite; move it elsewhere")
    default = mg.latency(problem, reference).cycles
    bound = provenance["bound_cycles"]
    headroom = max(0.0, 1.0 - bound / default)
    return Pair(
        program=entry.program,
        family=entry.family,
        split=entry.split,
        target=problem.target.name,
        decisions=int(mg.encode(problem).num_decisions),
        contended=headroom >= CONTENDED,
        headroom=round(headroom, 6),
        xla_default=default,
        xla_default_compiled=provenance["xla_default_compiled_cycles"],
        all_default=mg.latency(problem, mg.all_default(problem)).cycles,
        bound=bound,
        instructions=len(problem.instructions),
        values=len(problem.values),
        sha256=sha256_of(path) or "",
    )


def build_all(
    pairs_wanted: Iterable[tuple[str, str]],
    directory: Path = DATA,
    *,
    timeout: float = 600.0,
    farm: Farm | None = None,
    progress: Progress = silent,
) -> dict[str, str]:
    """Build the problem files of pairs (program, target) that are missing, then the index.

    A file made by the installed compiler is not made again, so that a stopped run goes on where it
    was. farm: builds pairs side by side; by default one after the other, here. Returns the reasons
    of pairs that failed.

    Raises:
      CompilerUnavailable: there is no compiler. WorkloadError: an unknown program or target.
    """
    check_compiler()
    failures: dict[str, str] = {}
    todo = []
    for program, target in dict.fromkeys(pairs_wanted):
        path = directory / f"{program}-{target}.json.gz"
        if path.is_file() and mg.load_problem(path).provenance.get("versions") == versions():
            continue
        todo.append((program, target))

    def fail(name: str, error: Exception) -> None:
        failures[name] = str(error)
        progress(f"{name} failed: {error}")

    if farm is not None:
        tasks = {Task.of(_build_file, *pair, timeout): pair for pair in todo}
        for number, done in enumerate(farm.map(tasks), 1):
            program, target = tasks[done.task]
            if isinstance(done.error, (CompileError, TaskLost)):
                fail(f"{program} on {target}", done.error)
            elif done.error is not None:
                raise done.error
            else:
                directory.mkdir(parents=True, exist_ok=True)
                write_bytes(directory / f"{program}-{target}.json.gz", done.value)
                progress(f"{number} of {len(tasks)}: {program} on {target}")
    else:
        for program, target in todo:
            progress(f"{program} on {target}")
            try:
                build(program, target, directory, timeout=timeout, progress=progress)
            except CompileError as error:
                fail(f"{program} on {target}", error)
    index_all(directory)
    return failures


def _build_file(program: str, target: str, timeout: float) -> bytes:
    """The problem file that `build` makes, for a task of a farm."""
    with tempfile.TemporaryDirectory(prefix="mallocgame-") as name:
        build(program, target, Path(name), timeout=timeout)
        return (Path(name) / f"{program}-{target}.json.gz").read_bytes()


def index_all(directory: Path = DATA) -> None:
    """Write the index of all problem files of a directory."""
    write_index([describe(path) for path in sorted(directory.glob("*.json.gz"))], directory)
