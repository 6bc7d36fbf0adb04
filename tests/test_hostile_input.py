"""Files made to do harm: bombs, numbers beyond all bounds, names that mean something elsewhere."""

from __future__ import annotations

import dataclasses
import gzip
import json
import re
import sys

import flax.serialization
import jax
import numpy as np
import pytest
from google.protobuf.text_encoding import CUnescape

import malloc_game as mg
from agent.cli import commands
from agent.learning import metrics
from agent.learning.checkpoint import Checkpoints, restore_generator
from agent.learning.config import AgentConfig, ConfigError
from agent.learning.weights import load_agent
from agent.report import results
from malloc_game.errors import one_line, printable
from malloc_game.problem import files
from malloc_game.problem.definition import MAX_INT
from tests.experiments.fuzz.mutate import EVIL
from tests.experiments.fuzz.readers import READERS
from tests.helpers.run_for_tests import layers, make_run, save_run, weights_only
from workloads import WorkloadError, import_hlo
from workloads.benchmark import rows
from workloads.compiler import parsing
from workloads.importers import normalization
from workloads.overrides.text import overrides, position_matcher

# --- what a file can cost ---------------------------------------------------------------------


def test_a_small_file_that_unpacks_to_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 1 << 20)
    path = tmp_path / "bomb.json.gz"
    path.write_bytes(gzip.compress(b" " * (50 << 20)))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(mg.MallocGameError, match="more than 1048576 bytes unpacked"):
        mg.load_problem(path)


def test_a_file_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 1 << 20)
    with pytest.raises(mg.MallocGameError, match="/dev/zero: more than 1048576 bytes"):
        mg.load_problem("/dev/zero")
    with pytest.raises(mg.ProblemError, match="/dev/zero: more than 1048576 bytes"):
        mg.load_minimalloc_csv("/dev/zero", 8)


def test_what_follows_the_gzip_data_is_not_passed_over(tmp_path):
    path = tmp_path / "p.json.gz"
    path.write_bytes(gzip.compress(b"{}") + b"more")
    with pytest.raises(mg.MallocGameError, match="something after the gzip data"):
        mg.load_problem(path)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"a": 1e999}', "1e999 is out of range"),
        ('{"a": -1e999}', "out of range"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "field 'c' is there twice"),
        ("[" * 100_000, "nested too deeply"),
        ("1" * 5000, "limit"),
    ],
)
def test_json_is_read_strictly(text, why):
    with pytest.raises(ValueError, match=why):
        files.parse_json(text)


def test_what_is_nested_too_deeply_to_be_written_again_is_not_read(tmp_path):
    path = tmp_path / "p.json"
    mg.save_problem(mg.random_problem(1, 2), path)
    content = json.loads(path.read_text())
    for depth, is_read in ((90, True), (110, False)):
        content["problem"]["provenance"] = {"a": json.loads("[" * depth + "]" * depth)}
        path.write_text(json.dumps(content))
        if is_read:
            mg.save_problem(mg.load_problem(path), path)
        else:
            with pytest.raises(mg.ProblemError, match="nested more than 100 deep"):
                mg.load_problem(path)


def test_a_message_is_one_short_line_whatever_it_quotes():
    line = one_line("a\n b\x1b[2J\ud800 " + "x" * 10_000 + " the end")
    assert line.isprintable() and len(line) <= 400 and line.endswith("the end")
    assert line.startswith("a b\\x1b[2J\\ud800")
    error = mg.ProblemError(f"values[0] ({EVIL * 100}): no")
    assert str(error).isprintable() and len(str(error)) <= 400
    assert printable("é, 内存, fusion.1") == "é, 内存, fusion.1"


# --- numbers ----------------------------------------------------------------------------------


def _changed(record, **changes):
    return dataclasses.replace(record, **changes)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schedule_time", 1 << 62), ("trip_count", 1 << 62), ("other_bytes", 1 << 62),
        ("loops", (0, 1 << 62)), ("reserved_bytes", 1 << 62),
    ],
)  # fmt: skip
def test_numbers_of_an_instruction_are_bounded(field, value):
    problem = mg.random_problem(1, 3)
    last = _changed(problem.instructions[-1], **{field: value})
    with pytest.raises(mg.ProblemError, match=field):
        problem.replace(instructions=(*problem.instructions[:-1], last))


@pytest.mark.parametrize("changes", [{"number": -1}, {"number": 1 << 62}, {"index": (0, -1)}])
def test_numbers_of_a_position_are_bounded(changes):
    problem = mg.random_problem(1, 3)
    last = problem.instructions[-1]
    position = _changed(last.positions[0], **changes)
    last = _changed(last, positions=(position, *last.positions[1:]))
    with pytest.raises(mg.ProblemError, match="number .* or index is outside"):
        problem.replace(instructions=(*problem.instructions[:-1], last))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("alternate_memory_bytes", 1 << 62), ("alignment_bytes", 1 << 49),
        ("max_outstanding_copies", 1 << 62), ("alternate_memory_space", -1),
        ("clock_hz", 1e-300), ("clock_hz", float("nan")),
        ("default_bandwidth_bytes_per_second", float("inf")),
    ],
)  # fmt: skip
def test_numbers_of_a_target_are_bounded(field, value):
    problem = mg.random_problem(1, 3)
    with pytest.raises(mg.ProblemError, match=f"target.{field}"):
        problem.replace(target=_changed(problem.target, **{field: value}))


def test_a_program_of_more_cycles_than_a_float_counts_is_refused():
    problem, _ = layers(2)
    table = mg.CostTable((MAX_INT,) * 4, (True,) * 4)
    tables = (table, mg.CostTable(table.cycles * 2, table.known * 2))
    slow = tuple(_changed(i, trip_count=1 << 30) for i in problem.instructions)
    with pytest.raises(mg.ProblemError, match="need at most 2\\*\\*53"):
        problem.replace(cost_tables=tables, instructions=slow)


def test_a_value_that_the_games_counters_cannot_copy_is_refused_by_the_game():
    problem, _ = layers(2)
    target = _changed(problem.target, alternate_memory_bytes=1 << 50)
    values = tuple(_changed(v, size_bytes=1 << 50) for v in problem.values)
    with pytest.raises(mg.ProblemError, match="the game copies at most 1099511627776"):
        mg.encode(problem.replace(target=target, values=values))


def test_copies_of_copies_of_each_other_are_refused():
    problem, _ = layers(4)
    values = list(problem.values)
    for one, other in ((1, 3), (3, 1)):
        values[one] = _changed(values[one], copied_from=other, copied_at=values[one].start)
    with pytest.raises(mg.ProblemError, match="copied_from is 3, which is no parameter"):
        problem.replace(values=tuple(values))


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("chunks", {"offset": 1 << 62}), ("chunks", {"size": 10**30}),
        ("copies", {"value_offset": 1 << 62}), ("copies", {"trip_count": 1 << 62}),
        ("copies", {"end_order": 1 << 62}),
    ],
)  # fmt: skip
def test_numbers_of_an_assignment_are_bounded(tmp_path, kind, changes):
    problem, mapping = layers(3)
    first, *rest = getattr(mapping, kind)
    broken = _changed(mapping, **{kind: (_changed(first, **changes), *rest)})
    mg.save_assignment(broken, problem, tmp_path / "a.json")
    with pytest.raises(mg.AssignmentError, match=f"{kind}\\[0\\]"):
        mg.load_assignment(tmp_path / "a.json", problem)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('{"network": {"hidden_size": 1000000000}}', "NetworkConfig.hidden_size"),
        ('{"network": {"representation_blocks": 1000000000}}', "representation_blocks"),
        ('{"replay": {"capacity": 4611686018427387904}}', "ReplayConfig.capacity"),
        ('{"train": {"learning_rate": 1e999}}', "out of range"),
        (f'{{"train": {{"learning_rate": {10**400}}}}}', "TrainConfig.learning_rate"),
        ("[" * 100_000, "nested too deeply"),
        ('{"train": {}, "train": {}}', "twice"),
    ],
)  # fmt: skip
def test_one_number_of_a_config_cannot_fill_the_memory(text, named):
    with pytest.raises(ConfigError, match=named):
        AgentConfig.from_json(text)


# --- names ------------------------------------------------------------------------------------

NAMES = ["two\nlines", 'quote"s', "a'b", "^.*$", "\\", "tab\t", "nul\0", "{1,}", "ü", EVIL]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_cannot_leave_its_string_in_the_overrides(name):
    text = position_matcher(name + "{2,0}''")
    assert text.isascii() and text.isprintable()
    quoted = re.fullmatch(
        r'hlo_position_matcher \{ instruction_name_regex: "((?:[^"\\]|\\.)*)"'
        r" tuple_index \{ index: 2 index: 0 \} \}", text,
    ).group(1)  # fmt: skip
    pattern = CUnescape(quoted).decode()
    assert re.fullmatch(pattern, name)
    assert not re.fullmatch(pattern, name + "x") and not re.fullmatch(pattern, "x")


@pytest.mark.parametrize("name", [*NAMES, "half \ud800", "'" * 20_000 + "x", "{1" * 20_000])
def test_a_mapping_of_values_with_any_names_becomes_overrides(name):
    problem, everything = layers(3, name=name)
    text = overrides(problem, everything)
    assert text.isascii() and text.count("\n") + 1 == text.count("overrides {")


def test_a_target_cannot_lead_out_of_the_directory_of_results(tmp_path):
    (row,) = [rows.Row(**json.loads(line)) for line in READERS["results"].seeds()[1].splitlines()]
    for name in ("../../../x", "/etc/x", "..", "a/b", "~", ".", "\0", EVIL):
        path = rows.assignment_path(tmp_path, _changed(row, target=name, program=name))
        assert path.parent == tmp_path / "assignments" and path.name.isprintable()
    assert rows.assignment_path(tmp_path, row).name == "p-v4.a.0.json"


def _main(monkeypatch, capsys, *arguments) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["mallocgame", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        commands.main()
    output = capsys.readouterr()
    return stop.value.code, output.out, output.err


@pytest.fixture(scope="module")
def evil_run(tmp_path_factory):
    """The directory of a run in which everything has a name that means something elsewhere."""
    problem, everything = layers(4, name=EVIL + "\x1b[2J\ud800")
    problem = problem.replace(name=EVIL, target=_changed(problem.target, name=EVIL))
    run = make_run(problem, everything, weights_only(problem, everything),
                   best_not_honoured=[EVIL], versions={EVIL: EVIL})  # fmt: skip
    return save_run(run, tmp_path_factory.mktemp("evil") / "run")


def test_commands_print_names_as_text(evil_run, monkeypatch, capsys, tmp_path):
    for arguments in (
        ("render", evil_run / "problem.json", evil_run / "assignment.json"),
        ("report", evil_run, "--out", tmp_path / "page.html"),
    ):
        code, out, err = _main(monkeypatch, capsys, *arguments)
        assert (code, err) == (0, "")
        assert out.replace("\n", "").isprintable()
    assert "<img" not in (tmp_path / "page.html").read_text().partition('<script type="app')[0]


def test_a_table_prints_names_as_text(evil_run, capsys):
    problem = mg.load_problem(evil_run / "problem.json")
    row = {"mapping": "given", "predicted_cycles": 1.0, "predicted_ms": 1.0, "wait_cycles": 0.0}
    results.show_evaluation(problem, [{**row, "violations": [EVIL + "\x1b[2J"]}])
    out = capsys.readouterr().out
    assert out.replace("\n", "").isprintable() and "[/red]" in out


@pytest.mark.parametrize("suffix", ["svg", "png", "pdf"])
def test_pictures_take_any_name(evil_run, tmp_path, suffix):
    pytest.importorskip("matplotlib")
    problem = mg.load_problem(evil_run / "problem.json")
    mapping = mg.load_assignment(evil_run / "assignment.json", problem)
    mg.save_image(problem, mapping, tmp_path / f"map.{suffix}")
    if suffix == "svg":
        assert "<img" not in (tmp_path / "map.svg").read_text()


def test_a_mistake_with_any_name_is_one_line_and_status_2(evil_run, monkeypatch, capsys, tmp_path):
    content = json.loads((evil_run / "problem.json").read_text())
    content["problem"]["values"][0]["size_bytes"] = -1
    (tmp_path / "p.json").write_text(json.dumps(content))
    code, out, err = _main(monkeypatch, capsys, "render", tmp_path / "p.json")
    assert (code, out) == (2, "")
    assert err.startswith("mallocgame: error: ") and err.count("\n") == 1 and err[:-1].isprintable()


# --- programs ---------------------------------------------------------------------------------


def test_lines_without_end_are_told_apart_in_one_pass():
    text = "\n" * 300_000 + "x"
    with pytest.raises(WorkloadError, match="neither HLO"):
        parsing.kind_of(text)
    assert parsing.kind_of("\n" * 300_000 + "HloModule m") == parsing.HLO_TEXT


def test_calls_that_double_at_every_level_are_not_followed(monkeypatch):
    """Sixty computations, each calling the next one twice: none leaves an instruction."""
    monkeypatch.setattr(normalization, "_MAX_VISITS", 10_000)
    text = ["HloModule m", "c0 { ROOT p = f32[8] parameter(0) }"]
    for i in range(1, 60):
        text.append(
            f"c{i} {{ p = f32[8] parameter(0)\n a = f32[8] call(p), to_apply=c{i - 1}\n"
            f" ROOT b = f32[8] call(a), to_apply=c{i - 1} }}"
        )
    text.append(
        "ENTRY e { p = f32[8] parameter(0)\n q = f32[8] call(p), to_apply=c59\n"
        " ROOT r = f32[8] add(q, q) }"
    )
    with pytest.raises(WorkloadError, match="calls are too many to inline"):
        import_hlo("\n".join(text), "v4")


def test_a_constant_of_terabytes_is_refused_and_takes_no_memory():
    text = "HloModule m\nENTRY e { ROOT c = f32[1099511627776] constant({1, 2}) }"
    with pytest.raises(WorkloadError) as refused:
        import_hlo(text, "v4")
    assert "\n" not in str(refused.value)


# --- what training leaves ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        {"format": "mallocMuZero agent, version 1"},
        {"format": "mallocMuZero agent, version 1", "config": 3, "params": {}},
        {"format": np.zeros(3), "config": "{}", "params": {}},
        {"format": "mallocMuZero agent, version 1", "config": "{}", "params": {"a": {"b": "c"}}},
        {"format": "mallocMuZero agent, version 1", "config": "{}", "params": [1]},
        ["format"],
    ],
)
def test_what_is_no_agent_is_refused(tmp_path, content):
    path = tmp_path / "agent.msgpack"
    path.write_bytes(flax.serialization.msgpack_serialize(content))
    with pytest.raises(ConfigError) as refused:
        load_agent(path)
    assert "\n" not in str(refused.value)


def test_an_agent_whose_parameters_are_no_numbers_is_refused(tmp_path):
    path = tmp_path / "agent.msgpack"
    (seed,) = READERS["agent"].seeds()
    content = flax.serialization.msgpack_restore(seed)
    leaves, structure = jax.tree.flatten(content["params"])
    for bad, why in ((np.nan, "not a finite number"), (None, "not those of the networks")):
        first = np.full_like(leaves[0], bad) if bad is not None else leaves[0].astype(np.int64)
        content["params"] = jax.tree.unflatten(structure, [first, *leaves[1:]])
        path.write_bytes(flax.serialization.msgpack_serialize(content))
        with pytest.raises(ConfigError, match=why):
            load_agent(path)


def test_a_log_that_is_no_text_is_left_with_what_is(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"iteration": 0}\n\xff\xfe\n[[[[\n{"iteration": "x"}\n{"iteration": 5}\n')
    metrics._keep_before(path, 3)
    assert path.read_bytes() == b'{"iteration": 0}\n'


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"bit_generator": "MT19937"}', "NaN"])
def test_a_state_that_is_no_random_generators_is_refused(text):
    with pytest.raises(ConfigError):
        restore_generator(text)


def test_a_file_in_place_of_the_checkpoints_is_one_line(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(ConfigError) as refused:
        Checkpoints(tmp_path / "checkpoints", 1)
    assert "\n" not in str(refused.value)
