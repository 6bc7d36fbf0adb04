"""Files: round trips, every kind of corruption as one clear line, writing whole or not at all."""

from __future__ import annotations

import dataclasses
import errno
import gzip
import json
import os
import pathlib
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import malloc_game as mg
from malloc_game import COPY, NO_COPY
from tests.helpers.toy import Game, toy

DRAWING = """
    cycles         20  20  20  20
    trips          1   2*  1   1
    x  4  out:3    .   D1  -   u1
    w  4  param    .   .   .   u1
    k  4  copied:0 D2  -   .   u1
"""
RULES = """
    cycles         20  20    20    20
    w  4  param    .   u1    u1?   u1
    x  4  temp     D1  D1~w  u1    .
    y  4  temp     .   .     D1~w  u1
"""


@pytest.fixture
def problem() -> mg.Problem:
    return toy(DRAWING).replace(provenance={"compiler": "none", "flags": ["a", 1, None, {}]})


@pytest.fixture
def assignment(problem) -> mg.Assignment:
    game = Game(problem)
    game.play(NO_COPY, COPY, COPY)
    return game.assignment


def _error_line(function, *arguments, kind=mg.MallocGameError) -> str:
    """The message of the error that a call must raise; one line, as a user sees it."""
    with pytest.raises(mg.MallocGameError) as raised:
        function(*arguments)
    assert isinstance(raised.value, kind), raised.type
    message = str(raised.value)
    assert message and "\n" not in message and len(message) < 500
    return message


# --- round trips ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["p.json", "p.json.gz"])
def test_files_round_trip(tmp_path, problem, assignment, name):
    path = tmp_path / name
    mg.save_problem(problem, path)
    assert mg.load_problem(path) == problem
    mg.save_assignment(assignment, problem, path)  # over the old file
    assert mg.load_assignment(path, problem) == assignment
    is_zipped = path.read_bytes()[:2] == b"\x1f\x8b"
    assert is_zipped == name.endswith(".gz")
    assert os.listdir(tmp_path) == [name]


@settings(deadline=None, max_examples=20, derandomize=True, database=None)
@given(st.integers(0, 1000), st.integers(1, 40))
def test_random_problems_round_trip(seed, size):
    problem = mg.random_problem(seed, size)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "problem.json.gz"
        mg.save_problem(problem, path)
        assert mg.load_problem(path) == problem


def test_the_same_problem_gives_the_same_bytes(tmp_path, problem):
    first, second = tmp_path / "a.json.gz", tmp_path / "b.json.gz"
    mg.save_problem(problem, first)
    mg.save_problem(mg.load_problem(first), second)
    assert first.read_bytes() == second.read_bytes()


def test_a_reference_travels_with_the_problem(tmp_path, problem, assignment):
    path = tmp_path / "problem.json"
    mg.save_problem(problem, path, assignment)
    assert mg.load_problem(path) == problem
    assert mg.load_reference(path, problem) == assignment
    mg.save_problem(problem, path)
    assert mg.load_reference(path, problem) is None


def test_optional_fields_may_be_missing_in_a_file(tmp_path, problem):
    path = tmp_path / "problem.json"
    mg.save_problem(problem, path)
    content = json.loads(path.read_text())
    for value in content["problem"]["values"]:
        for name, default in (
            ("copied_at", -1), ("sliced_at", -1), ("sliced_from", -1), ("split_bytes", 0)
        ):  # fmt: skip
            if value[name] == default:
                del value[name]
    path.write_text(json.dumps(content))
    assert mg.load_problem(path) == problem


@pytest.mark.parametrize("name", ["p.json", "p.json.gz"])
def test_what_the_compiler_cannot_be_asked_for_round_trips(tmp_path, name):
    problem = toy(RULES)
    assert problem.exclusions == (mg.Exclusion(0, 1, 1), mg.Exclusion(0, 2, 2))
    path = tmp_path / name
    mg.save_problem(problem, path)
    loaded = mg.load_problem(path)
    assert loaded.exclusions == problem.exclusions
    assert [p.is_refused for i in loaded.instructions for p in i.positions if p.value == 0] == [
        False, True, False,
    ]  # fmt: skip
    assert loaded == problem


def test_a_file_from_before_refused_uses_and_exclusions_still_loads(tmp_path):
    problem = toy(RULES)
    path = tmp_path / "problem.json"
    mg.save_problem(problem, path)
    content = json.loads(path.read_text())
    del content["problem"]["exclusions"]
    for instruction in content["problem"]["instructions"]:
        del instruction["loops"]
        for position in instruction["positions"]:
            del position["is_refused"]
    for value in content["problem"]["values"]:
        del value["copy_cycles"]
    path.write_text(json.dumps(content))
    assert mg.load_problem(path) == toy(RULES.replace("~w", "").replace("u1?", "u1"))


@pytest.mark.parametrize(
    ("record", "field", "new", "expected"),
    [
        ("exclusion", "output", 3, "exclusions[0]: no values 0 and 3"),
        ("exclusion", "time", 0, "exclusions[0]: op.0 does not read the parameter"),
        ("exclusion", "time", "1", "problem.exclusions[0].time: expected int"),
        ("exclusion", "use", 1, "problem.exclusions[0]: unknown field 'use'"),
        ("position", "is_refused", "no", "positions[0].is_refused: expected bool"),
    ],
)
def test_a_broken_rule_is_named(tmp_path, record, field, new, expected):
    path = tmp_path / "problem.json"
    mg.save_problem(toy(RULES), path)
    content = json.loads(path.read_text())
    records = {
        "exclusion": content["problem"]["exclusions"][0],
        "position": content["problem"]["instructions"][1]["positions"][0],
    }
    records[record][field] = new
    path.write_text(json.dumps(content))
    line = _error_line(mg.load_problem, path, kind=mg.ProblemError)
    assert line.startswith(str(path)) and expected in line


def test_a_mapping_of_the_compilers_round_trips(tmp_path, problem):
    first = mg.Copy(1, 0, 2, 2048, is_cross_program=True)
    slices = (first, mg.Copy(1, 1, 2, 2048, value_offset=2048, start_order=1, end_order=3))
    eviction = mg.Copy(0, 2, 2, 4096, mg.EVICTION, trip_count=2)
    chunks = (mg.Chunk(1, 0, 2048, 0, 4), mg.Chunk(1, 2048, 2048, 1, 4, value_offset=2048))
    mapping = mg.Assignment((0,) * 4, chunks, (*slices, eviction), "xla_default")
    path = tmp_path / "assignment.json"
    mg.save_assignment(mapping, problem, path)
    assert mg.load_assignment(path, problem) == mapping


def test_a_file_from_before_slices_and_evictions_still_loads(tmp_path, problem):
    old = {
        "masks": [0, 1, 0, 1],
        "chunks": [{"value": 0, "offset": 0, "size": 4096, "start": 1, "end": 4}],
        "copies": [{"value": 1, "start": 0, "end": 3, "size": 4096, "direction": "prefetch"}],
        "source": "game",
    }
    path = tmp_path / "assignment.json"
    path.write_text(json.dumps({"schema_version": 1, "assignment": old}))
    loaded = mg.load_assignment(path, problem)
    assert loaded.chunks == (mg.Chunk(0, 0, 4096, 1, 4),)
    assert loaded.copies == (mg.Copy(1, 0, 3, 4096),)


# --- corrupt files ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "empty"),
        (b" \n ", "empty"),
        (gzip.compress(b"", mtime=0), "empty"),
        (b"not JSON", "not valid JSON"),
        (b'{"problem": {', "not valid JSON"),
        (b"\xff\xfe\x00bad", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"problem": {"name": NaN}}', "NaN is not allowed"),
        (b'{"problem": {"name": -Infinity}}', "-Infinity is not allowed"),
        (gzip.compress(b'{"problem": {}}', mtime=0)[:-9], "truncated"),
        (gzip.compress(b'{"problem": {}}', mtime=0)[:5], "truncated"),
        (b"\x1f\x8b\x08\x00garbage.....", "gzip"),
        (b"[]", "not a problem file"),
        (b"{}", "not a problem file"),
        (b'{"assignment": {}, "schema_version": 1}', "not a problem file"),
        (b'{"problem": {}}', "schema_version is None"),
        (b'{"problem": {}, "schema_version": 999}', "schema_version is 999"),
        (b'{"problem": {}, "schema_version": 1}', "problem: field 'name' is missing"),
        (b'{"problem": [], "schema_version": 1}', "problem: expected an object, found list"),
    ],
)
def test_what_is_no_problem_file_is_one_line(tmp_path, data, expected):
    path = tmp_path / "bad.json"
    path.write_bytes(data)
    line = _error_line(mg.load_problem, path)
    assert line.startswith(str(path)) and expected in line


def test_a_flipped_bit_in_a_zipped_file_is_noticed(tmp_path, problem):
    path = tmp_path / "problem.json.gz"
    mg.save_problem(problem, path)
    data = bytearray(path.read_bytes())
    data[-6] ^= 1  # in the checksum
    path.write_bytes(data)
    assert str(path) in _error_line(mg.load_problem, path)


def test_a_file_that_is_not_there_is_one_line(tmp_path, problem):
    assert "No such file" in _error_line(mg.load_problem, tmp_path / "none.json")
    assert "directory" in _error_line(mg.load_problem, tmp_path)
    assert "No such file" in _error_line(mg.load_assignment, tmp_path / "none.json", problem)


DELETE = object()


@pytest.mark.parametrize(
    ("where", "new", "expected"),
    [
        ("target", DELETE, "problem: field 'target' is missing"),
        ("values.1.size_bytes", DELETE, "problem.values[1]: field 'size_bytes' is missing"),
        ("values.1.colour", "red", "problem.values[1]: unknown field 'colour'"),
        ("values.1.size_bytes", "4", "problem.values[1].size_bytes: expected int"),
        ("values.1.size_bytes", 4.0, "problem.values[1].size_bytes: expected int"),
        ("values.1.size_bytes", True, "problem.values[1].size_bytes: expected int"),
        ("values.1.size_bytes", None, "problem.values[1].size_bytes: expected int"),
        ("values.1.is_parameter", 2, "problem.values[1].is_parameter: expected bool"),
        ("values.1.name", 7, "problem.values[1].name: expected str"),
        ("values", {}, "problem.values: expected a list, found dict"),
        ("values.1", [], "problem.values[1]: expected an object, found list"),
        ("provenance", [], "problem.provenance: expected an object, found list"),
        ("target.clock_hz", "fast", "problem.target.clock_hz: expected float"),
        pytest.param(
            "target.clock_hz", 10**400, "problem.target.clock_hz: expected float", id="huge"),
        ("cost_tables.0.cycles", [1, "2"], "problem.cost_tables[0].cycles[1]: expected int"),
        # Rules of a problem.
        ("target.clock_hz", 0, "target.clock_hz is 0"),
        ("target.default_bandwidth_bytes_per_second", -1, "default_bandwidth_bytes_per_second"),
        ("target.alternate_memory_bytes", 0, "target.alternate_memory_bytes is 0"),
        ("target.alignment_bytes", -8, "target.alignment_bytes is -8"),
        ("instructions", [], "instructions is empty"),
        ("instructions.1.schedule_time", 0, "schedule_time must grow"),
        ("instructions.1.trip_count", 0, "instructions[1] (op.1): trip_count 0"),
        ("instructions.1.other_bytes", -1, "instructions[1] (op.1): other_bytes"),
        ("instructions.1.cost_table", 9, "instructions[1] (op.1): cost_table 9 does not exist"),
        ("instructions.1.cost_table", 3, "instructions[1] (op.1): cost table 3 prices 3 positions"),
        ("instructions.1.positions.0.value", 9, "positions[0]: no value 9"),
        ("instructions.1.positions.0.value", -1, "positions[0]: no value -1"),
        ("instructions.1.positions.0.size_bytes", -1, "positions[0]: size_bytes"),
        ("instructions.1.name", "op.0", "instructions: names must be unique"),
        ("values.1.name", "x", "values: names must be unique"),
        ("values.1.size_bytes", -1, "values[1] (w): size_bytes is -1"),
        ("values.1.size_bytes", 0, "values[1] (w): may_be_in_alternate needs a size of 1..16384"),
        ("values.1.size_bytes", 16385, "values[1] (w): may_be_in_alternate needs a size"),
        ("values.0.start", 4, "values[0] (x): live range [4, 4)"),
        ("values.0.end", 9, "values[0] (x): live range [1, 9)"),
        ("values.0.start", 2, "value x lives over [2, 4), not at 1"),
        ("values.0.write_back_cycles", -1, "values[0] (x): write_back_cycles is -1"),
        ("values.2.copy_cycles", -2, "values[2] (k): copy_cycles is -2"),
        ("instructions.1.loops", [0, -1], "instructions[1] (op.1): loops"),
        ("values.1.copied_at", 1, "values[1] (w): copied_at is 1"),
        ("values.2.copied_at", 4, "values[2] (k): copied_at is 4"),
        ("values.2.copied_from", 5, "values[2] (k): copied_from is 5"),
        ("values.0.copied_from", 1, "values[0] (x): copied_from is 1"),
        ("values.1.sliced_at", 1, "values[1] (w): sliced_at is 1"),
        ("values.2.sliced_at", 4, "values[2] (k): sliced_at is 4"),
        ("values.2.sliced_at", 1, "values[2] (k): sliced_from is -1"),
        ("values.0.sliced_from", 1, "values[0] (x): sliced_from is 1"),
        ("values.0.split_bytes", 1 << 20, "values[0] (x): split_bytes is 1048576"),
        ("cost_tables.0.cycles", [1, 2, 3], "cost_tables[0].cycles has 3 entries"),
        ("cost_tables.0.cycles", [], "cost_tables[0].cycles has 0 entries"),
        ("cost_tables.0.cycles", [1, -2], "cost_tables[0].cycles[1] is -2"),
        ("cost_tables.0.known", [1], "cost_tables[0].known must have 2 entries"),
    ],
)  # fmt: skip
def test_a_broken_field_is_named(tmp_path, problem, where, new, expected):
    path = tmp_path / "problem.json"
    mg.save_problem(problem, path)
    content = json.loads(path.read_text())
    *parents, last = where.split(".")
    record = content["problem"]
    for key in parents:
        record = record[int(key) if isinstance(record, list) else key]
    if new is DELETE:
        del record[last]
    else:
        record[int(last) if isinstance(record, list) else last] = new
    path.write_text(json.dumps(content))
    line = _error_line(mg.load_problem, path, kind=mg.ProblemError)
    assert line.startswith(str(path)) and expected in line


# --- assignments ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda a: dataclasses.replace(a, masks=a.masks[1:]), "for 3 instructions"),
        (lambda a: dataclasses.replace(a, masks=(0, 4, 0, 0)), "masks[1] is 4"),
        (lambda a: dataclasses.replace(a, masks=(-1, 0, 0, 0)), "masks[0] is -1"),
        (lambda a: _damaged(a, "chunks", value=3), "chunks[0].value 3"),
        (lambda a: _damaged(a, "chunks", value=-1), "chunks[0].value -1"),
        (lambda a: _damaged(a, "chunks", end=5), "chunks[0] times"),
        (lambda a: _damaged(a, "chunks", start=3, end=2), "chunks[0] times"),
        (lambda a: _damaged(a, "copies", start=-1), "copies[0] times"),
        (lambda a: _damaged(a, "copies", value=99), "copies[0].value 99"),
        (lambda a: _damaged(a, "copies", direction="sideways"), "copies[0].direction 'sideways'"),
        (lambda a: _damaged(a, "copies", trip_count=0), "copies[0] has trip_count 0"),
        (lambda a: _damaged(a, "copies", end_order=-1), "end_order -1"),
        (lambda a: _damaged(a, "copies", size=-4), "copies[0] has size -4"),
        (lambda a: _damaged(a, "chunks", value_offset=-1), "chunks[0] has size 4096 and value"),
    ],
)
def test_an_assignment_that_does_not_fit_is_refused(
    tmp_path, problem, assignment, change, expected
):
    path = tmp_path / "assignment.json"
    content = {"schema_version": 1, "assignment": dataclasses.asdict(change(assignment))}
    path.write_text(json.dumps(content))
    line = _error_line(mg.load_assignment, path, problem, kind=mg.AssignmentError)
    assert line.startswith(str(path)) and expected in line
    mg.save_problem(problem, path, change(assignment))
    line = _error_line(mg.load_reference, path, problem, kind=mg.AssignmentError)
    assert line.startswith(str(path)) and expected in line


def _damaged(assignment: mg.Assignment, field: str, **changes) -> mg.Assignment:
    first, *rest = getattr(assignment, field)
    return dataclasses.replace(
        assignment, **{field: (dataclasses.replace(first, **changes), *rest)}
    )


def test_the_assignment_of_another_problem_is_refused(tmp_path, problem):
    path = tmp_path / "assignment.json"
    other = mg.random_problem(1, 20)
    mg.save_assignment(mg.all_default(other), other, path)
    line = _error_line(mg.load_assignment, path, problem, kind=mg.AssignmentError)
    assert "20 instructions" in line and "'toy' has 4" in line


def test_a_problem_file_is_no_assignment_file(tmp_path, problem):
    path = tmp_path / "problem.json"
    mg.save_problem(problem, path)
    line = _error_line(mg.load_assignment, path, problem, kind=mg.AssignmentError)
    assert "not an assignment file" in line


# --- whole or not at all ----------------------------------------------------------------------


def _no_space(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("step", ["fsync", "replace", "chmod", "write"])
@pytest.mark.parametrize("exists", [False, True])
def test_a_full_disk_leaves_nothing_behind(tmp_path, problem, monkeypatch, step, exists):
    path = tmp_path / "problem.json"
    if exists:
        path.write_text("old")
    if step == "write":
        real = tempfile.NamedTemporaryFile

        def full(*args, **kwargs):
            file = real(*args, **kwargs)
            file.file.write(b'{"half')  # so much still fitted
            file.write = _no_space
            return file

        monkeypatch.setattr(tempfile, "NamedTemporaryFile", full)
    else:
        monkeypatch.setattr(os, step, _no_space)
    line = _error_line(mg.save_problem, problem, path)
    assert line == f"cannot write {path}: No space left on device"
    assert os.listdir(tmp_path) == (["problem.json"] if exists else [])
    if exists:
        assert path.read_text() == "old"


def test_a_missing_folder_is_one_line(tmp_path, problem):
    path = tmp_path / "none" / "problem.json"
    assert _error_line(mg.save_problem, problem, path).startswith(f"cannot write {path}")


def test_a_folder_is_not_overwritten(tmp_path, problem):
    assert "cannot write" in _error_line(mg.save_problem, problem, tmp_path)
    assert os.listdir(tmp_path) == []
