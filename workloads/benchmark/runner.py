"""Run solvers on problems, one row a run, and go on where an earlier run ended."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import jax

import malloc_game as mg
from malloc_game import Assignment, MallocGameError
from malloc_game.solvers import SOLVERS, Result, Solver, SolverError, get_solver, is_optimal
from workloads.benchmark import rows
from workloads.benchmark.cases import Case, Opened, check_distinct
from workloads.benchmark.farming import packed, unpacked, values_of
from workloads.benchmark.keeping import Keeper, Progress, no_progress
from workloads.benchmark.rows import JudgedRow, Row
from workloads.farm import Farm, Task

# The solver that goes first.
_PROVER = "cpsat"
# Improvements of less than this share of the latency are not kept on record.
_THIN = 1e-4
# A latency below the bound by more than this share says that one of the two is wrong.
_ROUNDING = 1e-9


class Failed(MallocGameError):
    """A solver returned what it must not."""


def choose_solvers(
    names: Sequence[str] = (), extra_solvers: Mapping[str, Solver] | None = None
) -> dict[str, Solver]:
    """Solvers by name: those named, or all that there are.

    extra_solvers: solvers that are not in `malloc_game.solvers.SOLVERS`, as callables.

    Raises: SolverError: there is none of that name, or a package that it needs is missing.
    """
    extra = dict(extra_solvers or {})
    there = [*SOLVERS, *(name for name in extra if name not in SOLVERS)]
    for name in names:
        if name not in there:
            raise SolverError(f"no solver {name!r}; there are {', '.join(there)}")
    return {name: extra.get(name) or get_solver(name) for name in dict.fromkeys(names or there)}


def run(
    cases: Sequence[Case],
    solvers: Mapping[str, Solver],
    seconds: float,
    seeds: Sequence[int],
    out: Path,
    *,
    farm: Farm | None = None,
    progress: Progress = no_progress,
) -> list[Row]:
    """Run every solver on every case with every seed, and return all these rows.

    A row is in `out/results.jsonl` as soon as it is there, and its mapping in `out/assignments`.
    What is there already (same problem, solver, seed and time) is not run again, unless it failed.
    Every run begins without compiled code, so that no row depends on what ran before it, but for
    one thing: what one solver has proven to be the least ends the runs of others that get there.
    CP-SAT, which proves most, goes first.

    farm: runs cases side by side, those of each in the same order; by default all run here, one
    after the other.

    Raises:
      FarmError: cases were lost; the others are done.
      WorkloadError: two cases have one name, or a pair's problem file is not the suite's.
      MallocGameError: `out` cannot be written, or what is there cannot be read.
    """
    check_distinct(cases)
    (out / "assignments").mkdir(parents=True, exist_ok=True)
    with rows.results(out) as journal:
        kept = Keeper(journal, _describe, progress)
        done = kept.done

        def is_done(case: Case, solver: str, seed: int) -> bool:
            row = done.get((case.name, solver, seed))
            return (
                row is not None
                and row.error is None
                and (row.problem_sha256, row.seconds_limit) == (case.sha256, seconds)
            )

        in_order = sorted(solvers, key=lambda name: name != _PROVER)
        tasks = [(case, solver, seed) for case in cases for seed in seeds for solver in in_order]
        todo = [task for task in tasks if not is_done(*task)]
        kept.begin(len(tasks) - len(todo), len(tasks), "runs are there")
        by_case = {
            case: list(runs) for case, runs in itertools.groupby(todo, key=lambda task: task[0])
        }
        if farm is not None:
            _run_on_farm(farm, by_case, done, solvers, seconds, seeds, out, kept.keep)
        else:
            for case, runs in by_case.items():
                opened = case.open()
                for _, solver, seed in runs:
                    kept.say(f"{case.name}: {solver}, seed {seed}")
                    goal = _least(case, opened, done.values())
                    kept.keep(
                        run_one(case, opened, solver, solvers[solver], seconds, seed, out, goal)
                    )
        return [
            done[case.name, solver, seed] for case in cases for seed in seeds for solver in solvers
        ]


def _run_on_farm(
    farm: Farm,
    cases: Iterable[Case],
    done: Mapping[Hashable, Row],
    solvers: Mapping[str, Solver],
    seconds: float,
    seeds: Sequence[int],
    out: Path,
    keep: Callable[[Row], None],
) -> None:
    """Run what is not done of some cases. Raises: FarmError: some were lost."""
    tasks = {}
    for case in cases:
        known = [row for row in done.values() if row.pair == case.name]
        told = (*packed(case), known, dict(solvers), seconds, list(seeds))
        tasks[Task.of(_solve, *told)] = case.name
    for found in values_of(farm, tasks):
        for row, mapping in found:
            rows.keep_mapping(out, row, mapping)
            keep(row)


def _solve(
    case: Case,
    problem_file: bytes,
    known: list[Row],
    solvers: dict[str, Solver],
    seconds: float,
    seeds: list[int],
) -> list[tuple[Row, bytes | None]]:
    """The runs of a case but those known: new rows and their mapping files."""
    with tempfile.TemporaryDirectory(prefix="mallocgame-") as name:
        directory = Path(name)
        case = unpacked(case, problem_file, directory)
        with rows.results(directory) as journal:
            for row in known:
                journal.append(row)
        run([case], solvers, seconds, seeds, directory)
        new = rows.results(directory).read()[len(known) :]
        return [
            (row, rows.assignment_path(directory, row).read_bytes() if row.mapping_sha256 else None)
            for row in new
        ]


def _least(case: Case, opened: Opened, known: Iterable[Row]) -> float:
    """Cycles below which no mapping that the game could make is, by all that is proven so far."""
    proven = [opened.bound]
    for row in known:
        if row.pair == case.name and row.problem_sha256 == case.sha256:
            proven.append(row.solver_bound or 0.0)
    return max(proven)


def run_one(
    case: Case,
    opened: Opened,
    name: str,
    solver: Solver,
    seconds: float,
    seed: int,
    out: Path,
    goal: float,
) -> Row:
    """Run a solver once and write its mapping; whatever it raises becomes the row's `error`.

    goal: cycles below which nothing is possible: the run ends there."""
    pair = case.pair
    known: dict[str, Any] = {
        "program": case.program,
        "target": case.target,
        "family": pair.family if pair else None,
        "split": pair.split if pair else None,
        "solver": name,
        "seed": seed,
        "seconds_limit": seconds,
        "decisions": opened.decisions,
        "instructions": len(opened.problem.instructions),
        "problem_sha256": case.sha256,
        "xla_default": opened.xla_default,
        "all_default": opened.all_default,
        "bound": opened.bound,
        "headroom": opened.headroom,
        "contended": opened.contended,
        "versions": _versions(opened),
    }
    nothing: dict[str, Any] = dict.fromkeys(("predicted", "speedup", "gap_closed", "solver_bound"))
    nothing |= {"is_optimal": False, "improvements": (), "mapping_sha256": None}
    jax.clear_caches()
    stopwatch = _Stopwatch()
    try:
        result = solver(opened.problem, seconds, seed, goal=goal)
        took = stopwatch.read()
        predicted = judge(opened, result.assignment)
    except Exception as error:
        return Row(**known, **nothing, **stopwatch.read(), error=rows.one_line(error))
    path = rows.mapping_path(out, case.name, name, seed)
    mg.save_assignment(result.assignment, opened.problem, path)
    return JudgedRow(
        **known,
        **took,
        predicted=predicted,
        speedup=rows.ratio(opened.xla_default, predicted),
        gap_closed=rows.gap_closed(opened.xla_default, opened.bound, predicted),
        solver_bound=result.bound,
        is_optimal=is_optimal(predicted, max(goal, result.bound or 0.0)),
        improvements=_improvements(result),
        mapping_sha256=sha256(path.read_bytes()).hexdigest(),
        error=None,
    )


class _Stopwatch:
    """Wall time and processor time since it was made."""

    def __init__(self):
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, Any]:
        """The two as fields of a row."""
        wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        return {"seconds": round(wall, 3), "cpu_seconds": round(cpu, 3)}


def judge(opened: Opened, assignment: Assignment) -> float:
    """Predicted cycles of what a solver found, whatever the solver says of it.

    Raises: Failed: it breaks a rule, or is faster than the proven bound.
    """
    violations = mg.check(opened.problem, assignment)
    if violations:
        raise Failed(f"{len(violations)} violations, the first: {violations[0]}")
    cycles = mg.latency(opened.problem, assignment).cycles
    if cycles < opened.bound * (1 - _ROUNDING):
        raise Failed(f"{cycles:.1f} cycles are fewer than the proven bound {opened.bound:.1f}")
    return cycles


def _versions(opened: Opened) -> dict[str, str]:
    """Of this machine's packages, and of the compiler that the problem came from."""
    of_problem = opened.problem.provenance.get("versions", {})
    compiler = of_problem.get("libtpu") if isinstance(of_problem, dict) else None
    return rows.versions() | ({"libtpu": str(compiler)} if compiler else {})


def _improvements(result: Result) -> tuple[tuple[float, float], ...]:
    """The improvements on the way without the smallest ones, the last one in any case."""
    found = [(float(at), float(cycles)) for at, cycles in result.stats.get("improvements", ())]
    kept = found[:1]
    for at, cycles in found[1:-1]:
        if cycles < kept[-1][1] * (1 - _THIN):
            kept.append((at, cycles))
    return tuple(kept + found[1:][-1:])


def _describe(row: Row) -> str:
    what = f"{row.pair}: {row.solver}, seed {row.seed}: "
    if not isinstance(row, JudgedRow):
        return f"{what}{row.error}"
    if row.speedup is None:
        return what + f"{row.predicted:,.0f} cycles in {row.seconds:.1f} s"
    return what + f"{row.speedup:.4f}x XLA's default in {row.seconds:.1f} s"
