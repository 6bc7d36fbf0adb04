"""The problem files that ship: they are the index's, valid, and their bounds are bounds."""

from __future__ import annotations

import pytest

import malloc_game as mg
from workloads.benchmark.suite_building import describe
from workloads.programs.families import SPLITS
from workloads.programs.suite_problems import DATA, pairs

PAIRS = pairs()


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_a_shipped_problem_is_whole_and_its_bound_holds(pair):
    problem, xla_default = pair.load()
    assert mg.check(problem, xla_default, expressible=False) == []
    assert mg.latency(problem, xla_default).cycles == pair.xla_default
    everything = mg.all_default(problem)
    assert mg.latency(problem, everything).cycles == pair.all_default
    assert 0 < pair.bound <= min(pair.xla_default, pair.all_default)
    # The costs are those of compiles: what they say of XLA's default is what it compiled to.
    assert pair.xla_default == pytest.approx(pair.xla_default_compiled, rel=0.02)
    assert problem.provenance["bound_cycles"] == pair.bound
    assert problem.provenance["options"] and len(problem.provenance["hlo_sha256"]) == 64
    assert {"jax", "jaxlib", "libtpu"} <= problem.provenance["versions"].keys()


@pytest.mark.parametrize("pair", PAIRS[:: max(len(PAIRS) // 5, 1)], ids=lambda pair: pair.name)
def test_the_index_says_what_the_files_say(pair):
    assert describe(pair.path()) == pair


def test_no_file_is_missing_in_the_index_and_all_are_small():
    files = {path.name for path in DATA.glob("*.json.gz")}
    assert files == {pair.path().name for pair in PAIRS}
    assert sum(path.stat().st_size for path in DATA.glob("*")) < 40 << 20


def test_every_split_has_contended_pairs_and_pairs_with_nothing_to_win():
    contended = [pair.split for pair in PAIRS if pair.contended]
    assert min(contended.count(split) for split in SPLITS) >= 5
    assert any(not pair.contended for pair in PAIRS)
