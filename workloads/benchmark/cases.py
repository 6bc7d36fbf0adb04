"""What a benchmark is run on: pairs of the suite, and problem files of anyone."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import malloc_game as mg
from malloc_game import Assignment, Problem
from malloc_game.solvers import lower_bound
from workloads.benchmark.suite_building import BOUND_SECONDS
from workloads.errors import WorkloadError
from workloads.programs.suite_problems import CONTENDED, DATA, Pair

PROBLEM_SUFFIXES = (".json.gz", ".json")


@dataclasses.dataclass(frozen=True)
class Opened:
    """A problem, and what is known of it before anyone solves it. Latencies in cycles."""

    problem: Problem
    decisions: int
    xla_default: float | None  # None: the file has no mapping of XLA's
    all_default: float
    bound: float

    @property
    def headroom(self) -> float | None:
        """Share of XLA's default latency that might be won."""
        if self.xla_default is None:
            return None
        return max(0.0, 1.0 - self.bound / self.xla_default) if self.xla_default else 0.0

    @property
    def contended(self) -> bool | None:
        """Whether there is something to win."""
        return None if self.headroom is None else self.headroom >= CONTENDED


@dataclasses.dataclass(frozen=True)
class Case:
    """One problem of a benchmark; opened only when there is something to do with it."""

    program: str
    target: str
    sha256: str  # of the problem file
    path: Path
    pair: Pair | None = None  # None: not of the suite

    @property
    def name(self) -> str:
        """`program-target`."""
        return f"{self.program}-{self.target}"

    @classmethod
    def of_pair(cls, pair: Pair, directory: Path = DATA) -> Case:
        """A pair of the suite, whose problem file is in `directory`."""
        return cls(pair.program, pair.target, pair.sha256, pair.path(directory), pair)

    @classmethod
    def of_file(cls, path: Path) -> Case:
        """A problem file; its program is called by the file's name.

        Raises: MallocGameError: it cannot be read, or is no problem file.
        """
        problem = mg.load_problem(path)
        program = path.name
        for suffix in (*PROBLEM_SUFFIXES, f"-{problem.target.name}"):
            program = program.removesuffix(suffix)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        return cls(program, problem.target.name, sha256, path)

    def open(self) -> Opened:
        """Load the problem; for one that is not of the suite, compute the bound (minutes at most).

        Raises:
          WorkloadError: a pair's file is missing or another. MallocGameError: it cannot be read.
        """
        reference: Assignment | None
        if self.pair is not None:
            problem, reference = self.pair.load(self.path.parent)
            bound = self.pair.bound
        else:
            problem = mg.load_problem(self.path)
            reference = mg.load_reference(self.path, problem)
            bound = lower_bound(problem, time_limit=BOUND_SECONDS).cycles
        return Opened(
            problem,
            decisions=int(mg.encode(problem).num_decisions),
            xla_default=mg.latency(problem, reference).cycles if reference else None,
            all_default=mg.latency(problem, mg.all_default(problem)).cycles,
            bound=bound,
        )


def select(
    pairs: Iterable[Pair],
    names: Sequence[str] = (),
    *,
    split: str | None = None,
    family: str | None = None,
    target: str | None = None,
    contended: bool = False,
) -> list[Pair]:
    """The pairs of these names (all, if there are none) that pass every filter, in their order.

    names: `program-target`, or `program` for all its targets.

    Raises: WorkloadError: a name or a filter's value that no pair has, or nothing is left.
    """
    pairs = list(pairs)
    known = {p.name for p in pairs} | {p.program for p in pairs}
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, sorted(known), n=3)
            hint = f"did you mean {', '.join(close)}?" if close else "see `mallocgame suite`"
            raise WorkloadError(f"no pair or program {name!r} in the suite; {hint}")
    for field, wanted in (("split", split), ("family", family), ("target", target)):
        there = dict.fromkeys(getattr(p, field) for p in pairs)
        if wanted is not None and wanted not in there:
            raise WorkloadError(f"no pair has {field} {wanted!r}; there are {', '.join(there)}")
    chosen = [
        p
        for p in pairs
        if (not names or p.name in names or p.program in names)
        and split in (None, p.split)
        and family in (None, p.family)
        and target in (None, p.target)
        and (p.contended or not contended)
    ]
    if not chosen:
        raise WorkloadError("no pair of the suite is all of that; see `mallocgame suite`")
    return chosen


def check_distinct(cases: Sequence[Case]) -> None:
    """Raises: WorkloadError: two cases have one name, so that their results would be mixed up."""
    seen: dict[str, Case] = {}
    for case in cases:
        other = seen.setdefault(case.name, case)
        if other is not case:
            raise WorkloadError(
                f"{case.path} and {other.path} are both called {case.name}; rename one of them"
            )
