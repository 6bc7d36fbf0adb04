"""A benchmark on a farm: one task a case, which has all its runs, in their order.

Within a case the order matters: what one solver has proven ends the runs of the others. A task is
told all that it depends on and gives back rows and files, so that it can run on another machine;
only the process that asked for it writes to the directory of results.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from malloc_game import MallocGameError
from malloc_game.fileio import write_bytes
from malloc_game.solvers import Solver
from workloads.contest import rows, runner
from workloads.contest.cases import Case
from workloads.contest.compiling import compile_pair
from workloads.contest.rows import CompiledRow, Row
from workloads.farm import Task


def solving_task(
    case: Case,
    known: Sequence[Row],
    solvers: Mapping[str, Solver],
    seconds: float,
    seeds: Sequence[int],
) -> Task:
    """All runs of a case but those of `known`; its value are new rows and their mapping files."""
    elsewhere = dataclasses.replace(case, path=Path(case.path.name))
    told = (elsewhere, _problem_file(case), list(known), dict(solvers), seconds, list(seeds))
    return Task.of(_solve, *told)


def _solve(
    case: Case,
    problem_file: bytes,
    known: list[Row],
    solvers: dict[str, Solver],
    seconds: float,
    seeds: list[int],
) -> list[tuple[Row, bytes | None]]:
    with tempfile.TemporaryDirectory(prefix="mallocgame-") as name:
        directory = Path(name)
        case = _put(case, problem_file, directory)
        with rows.results(directory) as journal:
            for row in known:
                journal.append(row)
        runner.run([case], solvers, seconds, seeds, directory)
        new = rows.results(directory).read()[len(known) :]
        return [
            (row, rows.assignment_path(directory, row).read_bytes() if row.mapping_sha256 else None)
            for row in new
        ]


def keep_mapping(out: Path, row: Row, mapping: bytes | None) -> None:
    """Writes the mapping file of a row. Raises: MallocGameError: it cannot be written."""
    if mapping is not None:
        write_bytes(rows.assignment_path(out, row), mapping)


def compiling_task(case: Case, mappings: Sequence[Row], out: Path, timeout: float) -> Task:
    """The compiles of a pair's mappings; its value is a `CompiledRow` for each."""
    elsewhere = dataclasses.replace(case, path=Path(case.path.name))
    paths = [rows.assignment_path(out, row) for row in mappings]
    # One that is missing is found to be another than its row's, as any other that is.
    files = [path.read_bytes() if path.is_file() else b"" for path in paths]
    told = (elsewhere, _problem_file(case), list(mappings), files, timeout)
    return Task.of(_compile, *told)


def _compile(
    case: Case, problem_file: bytes, mappings: list[Row], files: list[bytes], timeout: float
) -> list[CompiledRow]:
    with tempfile.TemporaryDirectory(prefix="mallocgame-") as name:
        directory = Path(name)
        case = _put(case, problem_file, directory)
        (directory / "assignments").mkdir()
        for row, file in zip(mappings, files, strict=True):
            keep_mapping(directory, row, file)
        return list(compile_pair(case, mappings, directory, timeout))


def _problem_file(case: Case) -> bytes:
    try:
        return case.path.read_bytes()
    except OSError as error:
        raise MallocGameError(f"cannot read {case.path}: {error.strerror or error}") from error


def _put(case: Case, problem_file: bytes, directory: Path) -> Case:
    """The case with its problem file in `directory`."""
    path = directory / case.path.name
    path.write_bytes(problem_file)
    return dataclasses.replace(case, path=path)
