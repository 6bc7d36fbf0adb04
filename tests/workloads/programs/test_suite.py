"""The split of the suite is complete, by family, and checked when it is read."""

import json

import pytest

import malloc_game as mg
from workloads.benchmark import suite_building
from workloads.benchmark.suite_building import build_all
from workloads.compiler.session import versions
from workloads.errors import CompileError, WorkloadError
from workloads.programs import SUITE
from workloads.programs.families import SPLITS, load_suite, suite
from workloads.programs.suite_problems import load_index, wanted


def test_every_program_is_in_exactly_one_family_and_every_family_in_one_split():
    entries = load_suite()
    assert sorted(e.program for e in entries) == sorted(SUITE)
    assert len({(e.family, e.split) for e in entries}) == len({e.family for e in entries})
    assert {e.split for e in entries} == set(SPLITS)
    assert suite()["decode"].split == "test"


def test_no_split_is_thin():
    splits = [e.split for e in load_suite()]
    assert len(splits) >= 32
    assert min(splits.count(split) for split in SPLITS) >= 6


GOOD = {"families": {"f": {"split": "train", "programs": {"a": ["v4"]}}}}


def changed(**fields):
    return {"families": {"f": {**GOOD["families"]["f"], **fields}}}


BAD = {
    "not JSON": ("{", "not a suite file"),
    "a list": ("[]", "need one object 'families'"),
    "another split": (json.dumps(changed(split="dev")), "is 'dev'; need one of train"),
    "no programs": (json.dumps(changed(programs={})), "needs programs, each with its targets"),
    "a list of programs": (json.dumps(changed(programs=["a"])), "needs programs, each with"),
    "unknown": (json.dumps(changed(programs={"a": [], "c": []})), "'c' of family 'f' is no"),
    "twice": (
        json.dumps({"families": {"f": GOOD["families"]["f"], "g": GOOD["families"]["f"]}}),
        "'a' is in 'f' and 'g'",
    ),
    "another target": (json.dumps(changed(programs={"a": ["v3"]})), 'of .a. are \\["v3"\\]'),
    "a target twice": (json.dumps(changed(programs={"a": ["v4", "v4"]})), "each once"),
    "no targets": (json.dumps(changed(programs={"a": None})), "of .a. are null"),
    "another field": (json.dumps(changed(weight=1)), "needs 'split' and 'programs', no more"),
    "missing": (json.dumps(GOOD), "in no family: b"),
    "a family twice": (json.dumps(GOOD)[:-2] + ', "f": {}}}', "'f' is there twice"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_suite_file_is_refused_by_name(tmp_path, what):
    text, message = BAD[what]
    (tmp_path / "suite.json").write_text(text)
    programs = ("a", "b") if what == "missing" else ("a",)
    with pytest.raises(WorkloadError, match=message):
        load_suite(tmp_path / "suite.json", programs)


def test_a_good_suite_file_is_read(tmp_path):
    (tmp_path / "suite.json").write_text(json.dumps(GOOD))
    (entry,) = load_suite(tmp_path / "suite.json", ("a",))
    assert (entry.program, entry.family, entry.split, entry.targets) == ("a", "f", "train", ("v4",))


# -- the suite's data ------------------------------------------------------------------------


def test_pairs_are_named_by_program_or_by_program_and_target():
    targets = [("decode", t) for t in suite()["decode"].targets]
    assert wanted(["decode", "lstm-v4"]) == [*targets, ("lstm", "v4")]
    assert len(wanted()) == sum(len(e.targets) for e in suite().values())
    for name in ("nothing", "decode-v3", "nothing-v4", "-v4"):
        with pytest.raises(WorkloadError, match="no pair"):
            wanted([name])


@pytest.fixture
def build(monkeypatch):
    """`build_all` with a compiler that writes random problems, and what it was asked for."""
    asked = []

    def fake(program, target, directory, *, timeout, progress):
        asked.append((program, target))
        if program == "lstm":
            raise CompileError("too hard")
        problem = mg.random_problem(len(asked), 20).replace(target=mg.TARGETS[target])
        provenance = {
            "program": program, "target": target, "versions": versions(),
            "xla_default_compiled_cycles": 5.0, "bound_cycles": 1.0,
        }  # fmt: skip
        directory.mkdir(exist_ok=True)
        path = directory / f"{program}-{target}.json.gz"
        problem = problem.replace(provenance=provenance)
        mg.save_problem(problem, path, mg.all_default(problem))

    monkeypatch.setattr(suite_building, "build", fake)
    monkeypatch.setattr(suite_building, "check_compiler", lambda: None)
    return asked


def test_missing_pairs_are_built_once_and_what_fails_is_named(build, tmp_path):
    pairs = [("decode", "v4"), ("lstm", "v4"), ("adam_step", "v5e")]
    failures = build_all(pairs, tmp_path)
    assert failures == {"lstm on v4": "too hard"} and build == pairs
    build_all(pairs, tmp_path)
    assert build == [*pairs, ("lstm", "v4")], "only what failed is tried again"
    index = load_index(tmp_path)
    assert [p.name for p in index] == ["decode-v4", "adam_step-v5e"], "in the suite's order"
    problem, reference = index[0].load(tmp_path)
    assert mg.latency(problem, reference).cycles == index[0].xla_default == index[0].all_default
    assert (index[0].family, index[0].split, index[0].bound) == ("decode", "test", 1.0)
    assert index[0].contended and index[0].headroom == pytest.approx(1 - 1 / index[0].all_default)


def test_a_file_of_another_compiler_is_built_anew(build, tmp_path, monkeypatch):
    build_all([("decode", "v4")], tmp_path)
    monkeypatch.setattr(suite_building, "versions", lambda: {"libtpu": "another"})
    build_all([("decode", "v4")], tmp_path)
    assert len(build) == 2


def test_a_problem_file_that_is_not_the_index_s_is_refused(build, tmp_path):
    build_all([("decode", "v4")], tmp_path)
    (pair,) = load_index(tmp_path)
    pair.path(tmp_path).write_bytes(b"")
    with pytest.raises(WorkloadError, match="differs from its index; run `make suite`"):
        pair.load(tmp_path)
    pair.path(tmp_path).unlink()
    with pytest.raises(WorkloadError, match="is missing"):
        pair.load(tmp_path)
    (tmp_path / "index.json").write_text("{}")
    with pytest.raises(WorkloadError, match="not an index of version"):
        load_index(tmp_path)


def test_a_stray_problem_file_is_named(build, tmp_path):
    problem = mg.random_problem(0, 20)
    mg.save_problem(problem, tmp_path / "x.json.gz")
    with pytest.raises(WorkloadError, match="x.json.gz: not a problem file of the suite"):
        build_all([], tmp_path)
