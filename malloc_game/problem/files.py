"""Problems and assignments as versioned JSON (gzipped if named *.gz), strict on reading.

A file may come from anyone: what it can cost is bounded, and it is data only (docs/security.md).
Files are written whole or not at all: to a temporary file in the same directory, then renamed.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import math
import os
import pathlib
import sys
import tempfile
import types
import typing
import zlib
from typing import Any

from malloc_game.errors import AssignmentError, MallocGameError, ProblemError
from malloc_game.problem.assignment import EVICTION, PREFETCH, Assignment, Chunk, Copy
from malloc_game.problem.definition import MAX_BYTES, MAX_INT, MAX_TRIPS, SCHEMA_VERSION, Problem

# Of a file, and of what is in a gzipped one. A thousand times the largest problem of the suite; as
# Python objects the worst content takes some 25 times as much memory.
MAX_FILE_BYTES = 1 << 28
# No number of a result is larger: they are cycles, seconds, counts, ratios and seeds.
LARGEST = 1e19
_MAX_DEPTH = 100  # of lists and objects inside each other where anything may stand: provenance
_CHUNK_BYTES = 1 << 20
PathLike = str | os.PathLike[str]


def write_bytes(path: PathLike, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all.

    Raises:
      MallocGameError: the directory is missing, read-only or full.
    """
    path = pathlib.Path(path)
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".tmp-", delete=False) as file:
            temporary = file.name
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise MallocGameError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


def write_json(path: PathLike, content: Any) -> None:
    """Write `content` as JSON to `path` (gzipped for *.gz), whole or not at all."""
    data = (json.dumps(content, allow_nan=False, separators=(",", ":")) + "\n").encode()
    if str(path).endswith(".gz"):
        data = gzip.compress(data, mtime=0)
    write_bytes(path, data)


def sha256_of(path: PathLike) -> str | None:
    """Hash of a file's bytes, in hexadecimal; None if it cannot be read."""
    try:
        return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
    except OSError:
        return None


def read_bytes(path: PathLike, most: int | None = None) -> bytes:
    """The bytes of a file of at most `most` bytes, by default `MAX_FILE_BYTES`.

    It may be a pipe or a device: no more than that is read.

    Raises:
      MallocGameError: missing, unreadable or too large.
    """
    limit = MAX_FILE_BYTES if most is None else most
    parts: list[bytes] = []
    size = 0
    try:
        with open(path, "rb") as file:
            while size <= limit and (part := file.read(min(_CHUNK_BYTES, limit + 1 - size))):
                parts.append(part)
                size += len(part)
    except OSError as error:
        raise MallocGameError(f"cannot read {path}: {error.strerror or error}") from error
    if size > limit:
        raise MallocGameError(f"{path}: more than {limit} bytes; no such file is that large")
    return b"".join(parts)


def read_json(path: PathLike) -> Any:
    """Read a JSON file, gzipped or not.

    Raises:
      MallocGameError: missing, unreadable, too large, empty, truncated, or not JSON.
    """
    data = read_bytes(path)
    if data[:2] == b"\x1f\x8b":
        data = _unzipped(data, path)
    if not data.strip():
        raise MallocGameError(f"{path}: the file is empty; expected JSON")
    try:
        return parse_json(data)
    except ValueError as error:
        raise MallocGameError(f"{path}: not valid JSON ({error})") from error


def _unzipped(data: bytes, path: PathLike) -> bytes:
    """The content of one gzip member, of bounded size: a small file can unpack to terabytes."""
    decompressor = zlib.decompressobj(wbits=31)
    try:
        content = decompressor.decompress(data, MAX_FILE_BYTES)
    except zlib.error as error:
        raise MallocGameError(f"{path}: not valid gzip data ({error})") from error
    if decompressor.unconsumed_tail:
        raise MallocGameError(f"{path}: more than {MAX_FILE_BYTES} bytes unpacked")
    if not decompressor.eof:
        raise MallocGameError(f"{path}: the gzip data is truncated")
    if decompressor.unused_data:
        raise MallocGameError(f"{path}: there is something after the gzip data")
    return content


def parse_json(text: str | bytes) -> Any:
    """Parse JSON, strictly: no NaN, no number beyond a float's range, no field of an object twice.

    Raises:
      ValueError: it is not JSON of that kind, or is nested too deeply.
    """
    try:
        return json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            object_pairs_hook=_without_repeats,
        )
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def is_of_result(number: float) -> bool:
    """Whether a number can be one of a result: 0, or neither too large nor too small for ratios and
    products of a few of them to be finite."""
    return number == 0 or 1 / LARGEST <= number <= LARGEST


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not allowed")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is out of range")
    return number


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"field {repeated[:100]!r} is there twice")
    return found


def to_json(record: Any) -> Any:
    """Dataclasses to dictionaries, tuples to lists; booleans of a tuple of bools to 0 and 1."""
    if dataclasses.is_dataclass(record):
        return {f.name: to_json(getattr(record, f.name)) for f in dataclasses.fields(record)}
    if isinstance(record, tuple | list):
        if record and all(isinstance(x, bool) for x in record):
            return [int(x) for x in record]
        return [to_json(x) for x in record]
    return record


def from_json(kind: Any, content: Any, where: str) -> Any:
    """Build `kind` (a dataclass or the annotation of one of its fields) from JSON, strictly.

    Raises:
      ProblemError: an unknown, missing or mistyped field, named by its path `where`.
    """
    origin = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind):
        return _record_from_json(kind, content, where)
    if origin is tuple:
        if not isinstance(content, list):
            raise ProblemError(f"{where}: expected a list, found {type(content).__name__}")
        item = typing.get_args(kind)[0]
        if item is int and all(type(x) is int for x in content):
            return tuple(content)  # the long lists: cycles, masks
        return tuple(from_json(item, x, f"{where}[{i}]") for i, x in enumerate(content))
    if origin is types.UnionType:  # `X | None`
        if content is None:
            return None
        return from_json(
            next(k for k in typing.get_args(kind) if k is not type(None)), content, where
        )
    if origin in (dict, typing.get_origin(typing.Mapping[str, Any])):
        if not isinstance(content, dict):
            raise ProblemError(f"{where}: expected an object, found {type(content).__name__}")
        _check_depth(content, where)
        return content
    return _scalar_from_json(kind, content, where)


def _scalar_from_json(kind: Any, content: Any, where: str) -> Any:
    if kind is bool and type(content) in (bool, int) and content in (0, 1):
        return bool(content)
    if kind is float and type(content) in (int, float) and abs(content) <= sys.float_info.max:
        return float(content)
    if kind is not bool and type(content) is kind:
        return content
    if isinstance(content, list | dict):
        found = {list: "a list", dict: "an object"}[type(content)]
    else:
        found = json.dumps(content)[:60]
    raise ProblemError(f"{where}: expected {kind.__name__}, found {found}")


def _check_depth(content: Any, where: str) -> None:
    """What can be read must be writable, too, and writing may recurse from further down."""
    level, depth = [content], 0
    while level:
        inside = (x.values() if isinstance(x, dict) else x for x in level)
        level = [x for group in inside for x in group if isinstance(x, dict | list)]
        depth += 1
        if depth > _MAX_DEPTH:
            raise ProblemError(f"{where}: nested more than {_MAX_DEPTH} deep")


def _record_from_json(kind: Any, content: Any, where: str) -> Any:
    if not isinstance(content, dict):
        raise ProblemError(f"{where}: expected an object, found {type(content).__name__}")
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    for name in content:
        if name not in fields:
            raise ProblemError(f"{where}: unknown field {name!r}; known: {', '.join(fields)}")
    values = {}
    for name, field in fields.items():
        if name in content:
            values[name] = from_json(hints[name], content[name], f"{where}.{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ProblemError(f"{where}: field {name!r} is missing")
    return kind(**values)


def _load(path: PathLike, kind: Any, label: str, error: type[MallocGameError]) -> Any:
    content = read_json(path)
    if not isinstance(content, dict) or label not in content:
        article = "an" if label[0] in "aeiou" else "a"
        raise error(f"{path}: not {article} {label} file (no field {label!r})")
    version = content.get("schema_version")
    if version != SCHEMA_VERSION:
        raise error(f"{path}: schema_version is {version!r}; this release reads {SCHEMA_VERSION}")
    try:
        return from_json(kind, content[label], label)
    except MallocGameError as cause:
        raise error(f"{path}: {cause}") from cause


def problem_to_json(problem: Problem) -> dict[str, Any]:
    """The problem file's content."""
    content = to_json(problem)
    content["provenance"] = dict(problem.provenance)
    return {"schema_version": SCHEMA_VERSION, "problem": content}


def save_problem(problem: Problem, path: PathLike, reference: Assignment | None = None) -> None:
    """Write a problem file (JSON, gzipped for *.gz).

    reference: a known assignment to travel with the problem, usually the compiler's own default.

    Raises:
      MallocGameError: the file cannot be written.
    """
    content = problem_to_json(problem)
    if reference is not None:
        content["reference"] = to_json(reference)
    write_json(path, content)


def load_problem(path: PathLike) -> Problem:
    """Read and validate a problem file.

    Raises:
      MallocGameError: the file cannot be read, or is no problem file.
      ProblemError: its content breaks a rule; the message names the field.
    """
    return _load(path, Problem, "problem", ProblemError)


def load_reference(path: PathLike, problem: Problem) -> Assignment | None:
    """The assignment that travels with a problem file, None if there is none.

    Raises:
      MallocGameError: the file cannot be read.
      AssignmentError: the assignment does not fit the problem.
    """
    content = read_json(path)
    if not isinstance(content, dict) or "reference" not in content:
        return None
    try:
        reference = from_json(Assignment, content["reference"], "reference")
    except ProblemError as cause:
        raise AssignmentError(f"{path}: {cause}") from cause
    check_shape(problem, reference, str(path))
    return reference


def save_assignment(assignment: Assignment, problem: Problem, path: PathLike) -> None:
    """Write an assignment file; it remembers which problem it belongs to.

    Raises:
      MallocGameError: the file cannot be written.
    """
    content = {
        "schema_version": SCHEMA_VERSION,
        "problem_name": problem.name,
        "target": problem.target.name,
        "assignment": to_json(assignment),
        "alternate": {
            i.name: [str(p) for k, p in enumerate(i.positions) if assignment.in_alternate(t, k)]
            for t, i in enumerate(problem.instructions)
            if assignment.masks[t]
        },
    }
    write_json(path, content)


def load_assignment(path: PathLike, problem: Problem) -> Assignment:
    """Read an assignment of `problem`.

    Raises:
      MallocGameError: the file cannot be read, or is no assignment file.
      AssignmentError: it does not fit the problem.
    """
    assignment = _load(path, Assignment, "assignment", AssignmentError)
    check_shape(problem, assignment, str(path))
    return assignment


def check_shape(problem: Problem, assignment: Assignment, where: str) -> None:
    """Check that an assignment speaks of this problem's instructions and values.

    Raises:
      AssignmentError: naming what does not exist in the problem.
    """
    times = len(problem.instructions)
    if len(assignment.masks) != times:
        raise AssignmentError(
            f"{where}: the assignment is for {len(assignment.masks)} instructions,"
            f" the problem {problem.name!r} has {times}"
        )
    for t, mask in enumerate(assignment.masks):
        if not 0 <= mask < 1 << len(problem.instructions[t].positions):
            raise AssignmentError(f"{where}: masks[{t}] is {mask}; no such positions")
    records: list[tuple[str, Chunk | Copy]] = [
        *((f"chunks[{i}]", c) for i, c in enumerate(assignment.chunks)),
        *((f"copies[{i}]", c) for i, c in enumerate(assignment.copies)),
    ]
    for name, record in records:
        if not 0 <= record.value < len(problem.values):
            raise AssignmentError(f"{where}: {name}.value {record.value} does not exist")
        if not 0 <= record.start <= record.end <= times:
            raise AssignmentError(f"{where}: {name} times [{record.start}, {record.end}) invalid")
        if not (0 <= record.value_offset <= MAX_BYTES and 0 <= record.size <= MAX_BYTES):
            raise AssignmentError(
                f"{where}: {name} has size {record.size} and value_offset {record.value_offset};"
                " need 0..2**50"
            )
    for i, chunk in enumerate(assignment.chunks):
        if abs(chunk.offset) > MAX_BYTES:
            raise AssignmentError(f"{where}: chunks[{i}].offset {chunk.offset} is out of range")
    for i, copy in enumerate(assignment.copies):
        orders = (copy.start_order, copy.end_order)
        if not 1 <= copy.trip_count <= MAX_TRIPS or not 0 <= min(orders) <= max(orders) <= MAX_INT:
            raise AssignmentError(
                f"{where}: copies[{i}] has trip_count {copy.trip_count}, start_order"
                f" {copy.start_order} and end_order {copy.end_order}; need 1..2**30, 0..2**31 - 1"
            )
        if copy.direction not in (PREFETCH, EVICTION):
            raise AssignmentError(
                f"{where}: copies[{i}].direction {copy.direction!r}; need {PREFETCH} or {EVICTION}"
            )
