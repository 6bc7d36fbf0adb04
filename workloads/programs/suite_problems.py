"""The suite's problems as data: extracted once by the compiler, shipped, usable without it.

`workloads/programs/data` holds one problem file for each pair of a program and a target, with XLA's
default mapping in it, and an index that says of each pair what was measured. `build` makes one
anew.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable
from pathlib import Path

import malloc_game as mg
from malloc_game import Assignment, Problem
from malloc_game.problem.files import (
    from_json,
    read_json,
    sha256_of,
    to_json,
    write_json,
)
from workloads.errors import WorkloadError
from workloads.programs.families import suite

DATA = Path(__file__).parent / "data"
INDEX_VERSION = 1
_NAME = re.compile(r"\w[\w.]*-\w+")  # of a pair; it is part of a path
# A pair is contended if a mapping might be this share faster than XLA's default.
CONTENDED = 0.01


@dataclasses.dataclass(frozen=True)
class Pair:
    """A program of the suite on a target. Latencies are in cycles."""

    program: str
    family: str
    split: str
    target: str
    decisions: int
    contended: bool  # headroom is at least `CONTENDED`
    headroom: float  # (XLA's default - bound) / XLA's default, both predicted
    xla_default: float  # predicted, with the costs that the problem file has
    xla_default_compiled: float
    all_default: float  # predicted: everything in default memory
    bound: float  # proven: no mapping is predicted to be faster
    instructions: int
    values: int
    sha256: str  # of the problem file

    @property
    def name(self) -> str:
        """`program-target`, which is also the problem file's name without its suffix."""
        return f"{self.program}-{self.target}"

    def path(self, directory: Path = DATA) -> Path:
        """The pair's problem file."""
        return directory / f"{self.name}.json.gz"

    def load(self, directory: Path = DATA) -> tuple[Problem, Assignment]:
        """The pair's problem, and XLA's default mapping of it.

        Raises: WorkloadError: the file is not the one that the index speaks of.
        """
        path = self.path(directory)
        if sha256_of(path) != self.sha256:
            what = "differs from its index" if path.is_file() else "is missing"
            raise WorkloadError(f"{path} {what}; run `make suite` or restore the file")
        problem = mg.load_problem(path)
        reference = mg.load_reference(path, problem)
        assert reference is not None
        return problem, reference


def load_index(directory: Path = DATA) -> tuple[Pair, ...]:
    """All pairs that a directory holds, in the suite's order.

    Raises: WorkloadError: the index is missing or damaged.
    """
    path = directory / "index.json"
    try:
        content = read_json(path)
        if not isinstance(content, dict) or content.get("index_version") != INDEX_VERSION:
            raise WorkloadError(f"{path}: not an index of version {INDEX_VERSION}")
        found = from_json(tuple[Pair, ...], content.get("pairs"), "pairs")
        for pair in found:
            if not _NAME.fullmatch(pair.name):
                raise WorkloadError(f"{path}: {pair.name!r} is no program on a target")
        return found
    except mg.MallocGameError as error:
        raise WorkloadError(f"{error}; run `make suite` or restore the file") from error


@functools.cache
def pairs() -> tuple[Pair, ...]:
    """The pairs that ship with this release."""
    return load_index()


def write_index(found: list[Pair], directory: Path = DATA) -> None:
    """Write the index, in the suite's order of programs and each program's of targets."""
    order = {name: i for i, name in enumerate(suite())}
    targets = {name: i for i, name in enumerate(mg.TARGETS)}
    found = sorted(found, key=lambda p: (order.get(p.program, len(order)), targets[p.target]))
    content = {"index_version": INDEX_VERSION, "pairs": [to_json(p) for p in found]}
    write_json(directory / "index.json", content)


def wanted(names: Iterable[str] = ()) -> list[tuple[str, str]]:
    """Pairs (program, target) by name: `program-target`, or `program` for all its targets.

    Without names, all pairs of `suite.json`; with them, also others of its programs.

    Raises: WorkloadError: no such program or target.
    """
    found = []
    for name in names or suite():
        program, _, target = name.rpartition("-")
        if name in suite():
            found += [(name, t) for t in suite()[name].targets]
        elif program in suite() and target in mg.TARGETS:
            found.append((program, target))
        else:
            raise WorkloadError(
                f"no pair {name!r}; need a program of the suite (see `mallocgame programs`),"
                f" alone or with one of -{', -'.join(mg.TARGETS)}"
            )
    return found
