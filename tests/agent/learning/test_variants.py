"""Problems made of others to learn from."""

import dataclasses
import json

import numpy as np
import pytest

import malloc_game as mg
from agent.learning.config import ConfigError
from agent.learning.training_config import TrainingConfig, VariantsConfig
from agent.learning.variants import make_variants
from tests.helpers.toy import pad

# Enough for all variants below, so that greedy's play is compiled once.
PADDING = {"T": 96, "D": 96, "C": 2048, "E": 192, "X": 64}
MANY = VariantsConfig(count=12, most_programs=3)
AS_THEY_ARE = VariantsConfig(
    count=12,
    most_programs=3,
    capacity_factor=1.0,
    bandwidth_factor=1.0,
    cycles_factor=1.0,
    saving_factor=1.0,
)


def problems():
    return [
        mg.random_problem(seed, size, limits=seed == 1) for seed, size in enumerate((12, 20, 30))
    ]


def test_variants_are_valid_games_and_the_same_for_the_same_seed():
    made = make_variants(problems(), MANY, seed=3)
    assert made == make_variants(problems(), MANY, seed=3)
    assert made != make_variants(problems(), MANY, seed=4)
    assert len({problem.name for problem in made}) == MANY.count
    for problem in made:  # a Problem is validated when it is made
        state, _ = mg.greedy(pad(mg.encode(problem), PADDING))
        assignment = mg.to_assignment(problem, state)
        assert mg.check(problem, assignment) == []
        assert mg.latency(problem, assignment).cycles == pytest.approx(float(state.latency))


def test_programs_in_a_row_take_as_long_as_each_of_them():
    default = {p.name: int(mg.encode(p).default_cycles) for p in problems()}
    lengths = {len(p.instructions): default[p.name] for p in problems()}
    for problem in make_variants(problems(), AS_THEY_ARE, seed=0):
        parts = [
            ends
            for ends in _sums(sorted(lengths), AS_THEY_ARE.most_programs)
            if sum(ends) == len(problem.instructions)
        ]
        totals = {sum(lengths[length] for length in part) for part in parts}
        assert int(mg.encode(problem).default_cycles) in totals


def _sums(lengths, most):
    rows = [()]
    for _ in range(most):
        rows += [(*row, length) for row in rows for length in lengths]
    return set(rows)


def test_variants_have_other_memories_and_all_as_many_granules():
    made = make_variants(problems(), MANY, seed=0)
    capacities = {p.target.alternate_memory_bytes for p in made}
    assert len(capacities) > 2
    (original,) = {p.target.alternate_memory_bytes for p in problems()}
    assert all(original / 2 <= c <= original * 2 for c in capacities)
    assert {mg.encode(p).num_granules for p in made} == {mg.encode(problems()[0]).num_granules}


def test_what_saves_nothing_saves_nothing_in_a_variant():
    problem = problems()[0]
    flat = problem.replace(
        cost_tables=tuple(
            dataclasses.replace(t, cycles=(t.cycles[0],) * len(t.cycles))
            for t in problem.cost_tables
        )
    )
    for variant in make_variants([flat], MANY):
        assert all(len(set(t.cycles)) == 1 for t in variant.cost_tables)


def test_programs_of_different_targets_are_not_put_together():
    there = problems()
    other = dataclasses.replace(there[0].target, name="other")
    there.append(there[0].replace(target=other))
    made = make_variants(there, AS_THEY_ARE)
    assert {p.target.name for p in made} == {"toy", "other"}
    alone = [p for p in made if p.target.name == "other"]
    assert all(len(p.instructions) % len(there[0].instructions) == 0 for p in alone)


@pytest.mark.parametrize("field", ["count", "most_programs", "capacity_factor"])
def test_bad_variants_are_named(field):
    with pytest.raises(ConfigError, match=field):
        TrainingConfig.from_json(json.dumps({"variants": {field: -1}}))


def test_no_variants_by_default():
    assert make_variants(problems(), VariantsConfig()) == []
    assert np.all([p.provenance == {} for p in make_variants(problems(), MANY)])
