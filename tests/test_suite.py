"""The split of the suite is complete, by family, and checked when it is read."""

import json

import pytest

from workloads.errors import WorkloadError
from workloads.programs import SUITE
from workloads.suite import SPLITS, load_suite, suite


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
