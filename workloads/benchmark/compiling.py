"""Compile what the solvers found by the real compiler: one session a pair, for all mappings."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import malloc_game as mg
from malloc_game import Assignment, MallocGameError, Position, Problem
from malloc_game.problem.files import sha256_of
from workloads.benchmark import rows, scores
from workloads.benchmark.cases import Case
from workloads.benchmark.farming import packed, unpacked, values_of
from workloads.benchmark.keeping import Keeper, Progress, no_progress
from workloads.benchmark.rows import CompiledRow, JudgedCompiledRow, JudgedRow
from workloads.compiler.session import CompilerSession, check_compiler, versions
from workloads.errors import CompileError, WorkloadError
from workloads.extraction.pipeline import Extracted, extract_session
from workloads.farm import Farm, Task
from workloads.loop.verification import verify


def compile_mappings(
    cases: Sequence[Case],
    out: Path,
    *,
    solvers: Sequence[str] | None = None,
    timeout: float = 600.0,
    farm: Farm | None = None,
    progress: Progress = no_progress,
) -> list[CompiledRow]:
    """Compile the best mapping of every solver on every case that is a pair of the suite.

    Needs the rows that `run` wrote to `out`; adds to `out/compiled.jsonl` and returns the rows of
    these mappings. What is there already is not compiled again, unless it failed. A problem file
    that is not of the suite has no program: its mappings are left out, which `progress` says.

    solvers: only theirs. timeout: seconds for one compile. farm: compiles pairs side by side; by
    default one after the other, here.

    Raises:
      FarmError: pairs were lost; the others are done.
      CompilerUnavailable: libtpu is not installed.
      MallocGameError: `out` cannot be written, or what is there cannot be read.
    """
    check_compiler()
    wanted = {case.name: case for case in cases if case.pair is not None}
    found = scores.best_seeds(
        [
            row
            for row in rows.current(rows.results(out).read())
            if row.pair in wanted
            and row.problem_sha256 == wanted[row.pair].sha256
            and (solvers is None or row.solver in solvers)
        ]
    )
    with rows.compiled_results(out) as journal:
        kept = Keeper(journal, _describe, progress)
        todo: dict[str, list[JudgedRow]] = {}
        for row in found:
            if not isinstance(kept.done.get(row.compiled_key), JudgedCompiledRow):
                todo.setdefault(row.pair, []).append(row)
        kept.begin(len(found) - sum(map(len, todo.values())), len(found), "mappings are compiled")
        for case in cases:
            if case.pair is None:
                kept.say(f"{case.name}: not of the suite, so there is no program")
        if farm is not None:
            _compile_on_farm(farm, wanted, todo, out, timeout, kept.keep)
        else:
            for pair, mappings in todo.items():
                kept.say(f"{pair}: the compiler sets out")
                for compiled in compile_pair(wanted[pair], mappings, out, timeout):
                    kept.keep(compiled)
    return [kept.done[row.compiled_key] for row in found]


def _compile_on_farm(
    farm: Farm,
    cases: Mapping[str, Case],
    todo: Mapping[str, Sequence[JudgedRow]],
    out: Path,
    timeout: float,
    keep: Callable[[CompiledRow], None],
) -> None:
    """Compile mappings by pair. Raises: FarmError: some pairs were lost."""
    tasks = {}
    for pair, mappings in todo.items():
        paths = [rows.assignment_path(out, row) for row in mappings]
        # One that is missing is found to be another than its row's, as any other that is.
        files = [path.read_bytes() if path.is_file() else b"" for path in paths]
        tasks[Task.of(_compile, *packed(cases[pair]), list(mappings), files, timeout)] = pair
    for found in values_of(farm, tasks):
        for compiled in found:
            keep(compiled)


def _compile(
    case: Case, problem_file: bytes, mappings: list[JudgedRow], files: list[bytes], timeout: float
) -> list[CompiledRow]:
    """The compiles of a pair's mappings, for a task of a farm."""
    with tempfile.TemporaryDirectory(prefix="mallocgame-") as name:
        directory = Path(name)
        case = unpacked(case, problem_file, directory)
        (directory / "assignments").mkdir()
        for row, file in zip(mappings, files, strict=True):
            rows.keep_mapping(directory, row, file)
        return list(compile_pair(case, mappings, directory, timeout))


def compile_pair(
    case: Case, mappings: Sequence[JudgedRow], out: Path, timeout: float
) -> Iterator[CompiledRow]:
    """Yields a `CompiledRow` for each mapping as soon as it is compiled."""
    problem = mg.load_problem(case.path)
    with CompilerSession(case.program, case.target, timeout=timeout) as session:
        began = time.perf_counter()
        try:
            found = extract_session(session)
            monotone = found.extraction.monotone_latency(session.compile({})).cycles
            _check_same(problem, found.extraction.problem)
        except (CompileError, WorkloadError) as error:
            for row in mappings:
                yield _failed(row, began, error)
            return
        for row in mappings:
            yield _compile_one(session, found, monotone, row, problem, out)


def _check_same(shipped: Problem, extracted: Problem) -> None:
    """Raises: CompileError: the compiler at hand makes another problem of the program."""

    def shape(problem: Problem) -> tuple[list[tuple[str, list]], list[tuple[str, int]]]:
        return (
            [
                (i.name, sorted(_place(problem, p) for p in i.positions))
                for i in problem.instructions
            ],
            sorted((v.name, v.size_bytes) for v in problem.values),
        )

    if shape(shipped) != shape(extracted):
        old = shipped.provenance.get("versions", {}).get("libtpu", "another version")
        raise CompileError(
            f"{shipped.name}: the compiler here (libtpu {versions()['libtpu']}) makes another"
            f" problem of it than the one of the suite (libtpu {old}); install that version"
        )


def _place(problem: Problem, position: Position) -> tuple:
    """What a position is, whatever number its value has."""
    name = problem.values[position.value].name
    return name, position.is_output, position.number, position.index


def carried_over(assignment: Assignment, old: Problem, new: Problem) -> Assignment:
    """An assignment of one problem as one of another with the same values and positions.

    An extraction numbers values by size and age; which of two is first may depend on its version.
    """
    numbers = {value.name: v for v, value in enumerate(new.values)}
    masks = []
    for mask, before, after in zip(
        assignment.masks, old.instructions, new.instructions, strict=True
    ):
        bits = {_place(new, position): 1 << p for p, position in enumerate(after.positions)}
        masks.append(
            sum(
                bits[_place(old, position)]
                for p, position in enumerate(before.positions)
                if mask >> p & 1
            )
        )

    def renumbered(records: tuple) -> tuple:
        return tuple(
            dataclasses.replace(record, value=numbers[old.values[record.value].name])
            for record in records
        )

    return dataclasses.replace(
        assignment,
        masks=tuple(masks),
        chunks=renumbered(assignment.chunks),
        copies=renumbered(assignment.copies),
    )


def _compile_one(
    session: CompilerSession,
    found: Extracted,
    monotone_default: float,
    row: JudgedRow,
    problem: Problem,
    out: Path,
) -> CompiledRow:
    began = time.perf_counter()
    path = rows.assignment_path(out, row)
    try:
        if sha256_of(path) != row.mapping_sha256:
            raise WorkloadError(f"{path} is not the mapping of its row; remove the row to run anew")
        assignment = mg.load_assignment(path, problem)
        assignment = carried_over(assignment, problem, found.extraction.problem)
        done = verify(session, found.extraction, assignment)
        monotone = found.extraction.monotone_latency(session.compile(done.options)).cycles
    except (CompileError, WorkloadError, MallocGameError) as error:
        return _failed(row, began, error)
    default = found.xla_default_latency.cycles
    return JudgedCompiledRow(
        **_about(row, began),
        compiled=done.cycles,
        xla_default_compiled=default,
        compiled_speedup=default / done.cycles,
        compiled_speedup_monotone=monotone_default / monotone,
        honoured=done.honoured,
        mode=done.mode,
        error=None,
    )


def _failed(row: JudgedRow, began: float, error: Exception) -> CompiledRow:
    """A row without results."""
    return CompiledRow(
        **_about(row, began),
        compiled=None,
        xla_default_compiled=None,
        compiled_speedup=None,
        compiled_speedup_monotone=None,
        honoured=None,
        mode=None,
        error=rows.one_line(error),
    )


def _about(row: JudgedRow, began: float) -> dict[str, Any]:
    """The fields that the rows of all compiles have."""
    return {
        "program": row.program,
        "target": row.target,
        "solver": row.solver,
        "seed": row.seed,
        "mapping_sha256": row.mapping_sha256,
        "compile_seconds": round(time.perf_counter() - began, 3),
        "versions": versions(),
    }


def _describe(row: CompiledRow) -> str:
    if not isinstance(row, JudgedCompiledRow):
        return f"{row.pair}: {row.solver}: {row.error}"
    return (
        f"{row.pair}: {row.solver}: compiled {row.compiled_speedup:.4f}x XLA's default,"
        f" {row.honoured:.1%} honoured, {row.compile_seconds:.1f} s"
    )
