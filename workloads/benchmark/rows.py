"""The rows of a benchmark, and the files that hold them: one JSON object a line, appended."""

from __future__ import annotations

import dataclasses
import fcntl
import importlib.metadata
import json
import os
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any, Generic, TypeVar
from urllib.parse import quote

import malloc_game as mg
from malloc_game import MallocGameError
from malloc_game.problem.files import (
    LARGEST,
    from_json,
    is_of_result,
    parse_json,
    read_bytes,
    write_bytes,
)

# No gap is closed where less than this share of XLA's default latency is to be won.
_NO_GAP = 1e-9
_PACKAGES = ("jax", "numpy", "scipy", "ortools", "evosax")


class _OfPair:
    """What rows about a program on a target share; the fields are the rows' own."""

    program: str
    target: str

    @property
    def pair(self) -> str:
        """`program-target`."""
        return f"{self.program}-{self.target}"


@dataclasses.dataclass(frozen=True)
class Row(_OfPair):
    """One run of a solver on a problem. Latencies are predicted cycles.

    One that found a mapping is a `JudgedRow`. After a failure `predicted` and all that follows from
    it are None, and `error` says why.
    """

    program: str
    target: str
    family: str | None  # None: the problem came as a file and is not of the suite
    split: str | None
    solver: str
    seed: int
    seconds_limit: float
    seconds: float  # wall time that it took, tracing and compiling included
    cpu_seconds: float  # processor time of all threads: on a busy machine less than it could be
    decisions: int
    instructions: int
    problem_sha256: str  # of the problem file
    xla_default: float | None  # None: the problem file has no mapping of XLA's
    all_default: float  # everything in default memory
    bound: float  # proven: no mapping is faster
    headroom: float | None  # (XLA's default - bound) / XLA's default, at least 0
    contended: bool | None  # headroom is at least that of `suite_data.CONTENDED`
    predicted: float | None  # latency of what the solver found
    speedup: float | None  # XLA's default / predicted
    gap_closed: float | None  # (XLA's default - predicted) / (XLA's default - bound)
    solver_bound: float | None  # the solver's own: nothing that the game could make is faster
    is_optimal: bool  # predicted is at one of the two bounds
    improvements: tuple[tuple[float, float], ...]  # (seconds, predicted) on the way, thinned
    mapping_sha256: str | None  # of the assignment file
    error: str | None
    versions: Mapping[str, str]

    @property
    def key(self) -> Hashable:
        """What the row is about: the last row of a key counts."""
        return self.pair, self.solver, self.seed

    @property
    def compiled_key(self) -> Hashable:
        """The key of the `CompiledRow` of its mapping."""
        return self.pair, self.solver, self.seed, self.mapping_sha256


@dataclasses.dataclass(frozen=True)
class JudgedRow(Row):
    """A run that found a mapping."""

    predicted: float
    mapping_sha256: str
    error: None


@dataclasses.dataclass(frozen=True)
class CompiledRow(_OfPair):
    """The mapping of one run, compiled by the real compiler. Latencies are compiled cycles.

    One that came through is a `JudgedCompiledRow`; of one that did not `error` says why.
    """

    program: str
    target: str
    solver: str
    seed: int
    mapping_sha256: str  # of the run's `Row`
    compiled: float | None
    xla_default_compiled: float | None
    compiled_speedup: float | None  # XLA's default / compiled
    compiled_speedup_monotone: float | None  # if alternate memory never cost more than default
    honoured: float | None  # fraction of decisions that hold in the compiled program
    mode: str | None  # how the compiler was asked, see `workloads.verify`
    compile_seconds: float
    error: str | None
    versions: Mapping[str, str]

    @property
    def key(self) -> Hashable:
        """What the row is about: the last row of a key counts."""
        return self.pair, self.solver, self.seed, self.mapping_sha256


@dataclasses.dataclass(frozen=True)
class JudgedCompiledRow(CompiledRow):
    """A mapping that the compiler made a program of."""

    compiled: float
    xla_default_compiled: float
    compiled_speedup: float
    compiled_speedup_monotone: float
    honoured: float
    mode: str
    error: None


@dataclasses.dataclass(frozen=True)
class RaceRow(_OfPair):
    """One run of a contender that has the compiler judge what it tries, from a cold start.

    Latencies are compiled cycles; None after a failure, and `error` says why."""

    program: str
    target: str
    family: str
    split: str
    contender: str
    seed: int
    seconds_limit: float  # everything included, from the start of the process
    cores: int
    xla_default: float | None
    compiled: float | None  # the best at the time limit, XLA's default being one of them
    speedup: float | None  # XLA's default / compiled
    # (seconds, the fewest cycles so far), what came too late included
    history: tuple[tuple[float, float], ...]
    seconds: float  # until the process ended
    error: str | None
    versions: Mapping[str, str]
    found_by: str | None = None  # what found the best; rows of earlier versions do not say

    @property
    def key(self) -> Hashable:
        """What the row is about: the last row of a key counts."""
        return self.pair, self.contender, self.seed, self.seconds_limit


AnyRow = TypeVar("AnyRow", Row, CompiledRow, RaceRow)


def gap_closed(xla_default: float | None, bound: float, predicted: float) -> float | None:
    """Share of what could be won over XLA's default that is won; None where that is nothing."""
    if xla_default is None or xla_default - bound < _NO_GAP * xla_default:
        return None
    return (xla_default - predicted) / (xla_default - bound)


def ratio(xla_default: float | None, ours: float | None) -> float | None:
    """Speed-up over XLA's default; None where one of the two is not known, or nothing."""
    return xla_default / ours if xla_default and ours else None


def versions() -> dict[str, str]:
    """Versions that a predicted result depends on; packages that are missing are left out."""
    found = {"malloc_game": mg.__version__}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def one_line(error: BaseException, limit: int = 300) -> str:
    """An exception as the `error` of a row."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


def current(rows: Iterable[AnyRow]) -> list[AnyRow]:
    """The rows that count, in the order in which their keys first appeared."""
    return list({row.key: row for row in rows}.values())


# Rows that did not fail, and what they have that those that failed have not.
_JUDGED: dict[type, tuple[type, tuple[str, ...]]] = {
    Row: (JudgedRow, ("predicted",)),
    CompiledRow: (
        JudgedCompiledRow,
        (
            "compiled",
            "xla_default_compiled",
            "compiled_speedup",
            "compiled_speedup_monotone",
            "honoured",
            "mode",
        ),
    ),
}
_PAIRS = ("improvements", "history")


def _check(row: Row | CompiledRow | RaceRow) -> None:
    """Raises: ValueError: a field without which, or with which, there is no comparison."""
    for field in dataclasses.fields(row):
        value = getattr(row, field.name)
        is_signed = field.name == "gap_closed"
        is_speedup = field.name in ("speedup", "compiled_speedup", "compiled_speedup_monotone")
        numbers = [x for pair in value for x in pair] if field.name in _PAIRS else [value]
        for number in numbers:
            if not isinstance(number, int | float):
                continue
            is_good = abs(number) <= LARGEST if is_signed else is_of_result(number)
            if not is_good or (is_speedup and number == 0):
                raise ValueError(f"{field.name} is {number}")
        if field.name in _PAIRS and any(len(pair) != 2 for pair in value):
            raise ValueError(f"{field.name} needs pairs of seconds and cycles")
    _, found = _JUDGED.get(type(row), (type(row), ()))
    for name in found:
        if getattr(row, name) is not None:
            raise ValueError(f"{name} and error contradict each other")


class Journal(Generic[AnyRow]):
    """A file of rows that one process at a time appends to, as a context manager.

    A process that dies loses at most the row it was writing: a last line without its end is no row,
    and is cut off when the file is next appended to.
    """

    def __init__(self, path: Path, kind: type[AnyRow]):
        self.path = path
        self.kind: Any = kind  # a class of rows, called with its fields
        self._file: IO[bytes] | None = None

    def read(self) -> list[AnyRow]:
        """All rows, oldest first; none if there is no file.

        Raises: MallocGameError: the file cannot be read, or a line is not a row.
        """
        if not self.path.exists():
            return []
        lines = read_bytes(self.path).split(b"\n")[:-1]
        return [self._row(line, f"{self.path}:{i + 1}") for i, line in enumerate(lines)]

    def _row(self, line: bytes, where: str) -> AnyRow:
        try:
            content = parse_json(line)
            kind = self.kind
            if isinstance(content, dict) and content.get("error", "") is None:
                kind, _ = _JUDGED.get(kind, (kind, ()))
            row = from_json(kind, content, "row")
            _check(row)
            return row
        except (ValueError, MallocGameError) as error:
            raise MallocGameError(
                f"{where}: not a row of this release ({error}); remove the line, or choose another"
                " directory"
            ) from error

    def __enter__(self) -> Journal[AnyRow]:
        """Raises: MallocGameError: it cannot be written, or another process writes it."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._file.seek(0)
            self._file.truncate(self._file.read().rfind(b"\n") + 1)
        except BlockingIOError as error:
            self.__exit__()
            raise MallocGameError(f"another process is writing {self.path}; wait for it") from error
        except OSError as error:
            self.__exit__()
            raise MallocGameError(f"cannot write {self.path}: {error.strerror or error}") from error
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def append(self, row: AnyRow) -> None:
        """Write a row, for good. Raises: MallocGameError: it cannot be written."""
        assert self._file is not None, "use it as a context manager"
        line = json.dumps(dataclasses.asdict(row), allow_nan=False) + "\n"
        try:
            self._file.write(line.encode())
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise MallocGameError(f"cannot write {self.path}: {error.strerror or error}") from error


def results(out: Path) -> Journal[Row]:
    """The journal of runs in a directory of results."""
    return Journal(out / "results.jsonl", Row)


def compiled_results(out: Path) -> Journal[CompiledRow]:
    """The journal of compiled mappings in a directory of results."""
    return Journal(out / "compiled.jsonl", CompiledRow)


def race_results(out: Path) -> Journal[RaceRow]:
    """The journal of races in a directory of results."""
    return Journal(out / "race.jsonl", RaceRow)


def assignment_path(out: Path, row: Row | CompiledRow) -> Path:
    """Where the mapping of a run is kept."""
    return mapping_path(out, row.pair, row.solver, row.seed)


def mapping_path(out: Path, pair: str, solver: str, seed: int) -> Path:
    """Where the mapping of a run is kept, for one that has no row yet."""
    # A target's name comes from a problem file: no character in it may name another directory.
    name = quote(f"{pair}.{solver}.{seed}", safe="", errors="surrogatepass")
    return out / "assignments" / f"{name}.json"


def keep_mapping(out: Path, row: Row, mapping: bytes | None) -> None:
    """Writes the mapping file of a row. Raises: MallocGameError: it cannot be written."""
    if mapping is not None:
        write_bytes(assignment_path(out, row), mapping)
