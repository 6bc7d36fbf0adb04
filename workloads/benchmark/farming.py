"""A benchmark on a farm: what a task of a case is told, and what becomes of it.

Within a case the order matters: what one solver has proven ends the runs of the others. A task is
told all that it depends on and gives back rows and files, so that it can run on another machine;
only the process that asked for it writes to the directory of results.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from malloc_game import MallocGameError
from workloads.benchmark import rows
from workloads.benchmark.cases import Case
from workloads.farm import Farm, FarmError, Task


def packed(case: Case) -> tuple[Case, bytes]:
    """A case and its problem file, to be sent. Raises: MallocGameError: it cannot be read."""
    try:
        content = case.path.read_bytes()
    except OSError as error:
        raise MallocGameError(f"cannot read {case.path}: {error.strerror or error}") from error
    return dataclasses.replace(case, path=Path(case.path.name)), content


def unpacked(case: Case, problem_file: bytes, directory: Path) -> Case:
    """The case that was sent, with its problem file in `directory`."""
    path = directory / case.path.name
    path.write_bytes(problem_file)
    return dataclasses.replace(case, path=path)


def values_of(farm: Farm, tasks: Mapping[Task, str]) -> Iterator[Any]:
    """The values of tasks as they get done. tasks: the pair of each.

    Raises: FarmError: some were lost; in the end, when the others are done.
    """
    lost = []
    for done in farm.map(tasks):
        if done.error is not None:
            lost.append(f"{tasks[done.task]}: {rows.one_line(done.error)}")
        else:
            yield done.value
    if lost:
        raise FarmError(
            f"{len(lost)} pairs were lost, the first: {lost[0]}; the same command runs them again"
        )
