"""Problems: rules checked when they are made, positions, costs, and targets."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

import malloc_game as mg
from malloc_game.game.encoding import granule_bytes
from malloc_game.problem.target import MIB
from tests.helpers.toy import toy

DRAWING = """
    cycles         20  20  20
    x  4  temp     D1  u2  .
    w  2  param    .   u4  u8
"""


def test_a_drawing_says_what_it_means():
    problem = toy(DRAWING)
    x, w = problem.values
    assert (x.start, x.end, w.start, w.end) == (0, 2, 0, 3)
    assert problem.positions_of_value == (((0, 0), (1, 0)), ((1, 1), (2, 0)))
    assert [str(p) for p in problem.instructions[1].positions] == ["operand 0", "operand 1"]
    assert str(problem.instructions[0].positions[0]) == "output"


def test_cycles_and_bytes_follow_the_mask():
    problem = toy(DRAWING)
    assert [problem.instruction_cycles(1, mask) for mask in range(4)] == [20, 18, 16, 14]
    assert [problem.default_bytes(1, mask) for mask in range(4)] == [6144, 2048, 4096, 0]


def test_a_position_names_its_tuple_index():
    assert str(mg.Position(0, True, 0, (1, 2), 4)) == "output{1,2}"
    assert str(mg.Position(0, False, 3, (), 4)) == "operand 3"


def test_replacing_checks_again():
    problem = toy(DRAWING)
    with pytest.raises(mg.ProblemError, match="instructions is empty"):
        problem.replace(instructions=())


EXCLUDING = """
    cycles         20  20    20
    w  4  param    .   u1    u1
    x  4  temp     D1  D1~w  -
    y  4  temp     .   -     D1
"""


@pytest.mark.parametrize(
    ("exclusion", "expected"),
    [
        ((0, 1, 3), "no values 0 and 3"),
        ((-1, 1, 1), "no values -1 and 1"),
        ((1, 1, 2), "needs a parameter and a computed value"),
        ((0, 1, 0), "needs a parameter and a computed value"),
        ((0, 3, 1), "time is 3; need a logical time of the problem"),
        ((0, -1, 1), "time is -1; need a logical time of the problem"),
        ((0, 0, 1), "op.0 does not read the parameter and define the output"),
        ((0, 2, 1), "op.2 does not read the parameter and define the output"),
        ((0, 1, 2), "op.1 does not read the parameter and define the output"),
    ],
)
def test_an_exclusion_speaks_of_an_instruction_and_what_it_reads_and_defines(exclusion, expected):
    problem = toy(EXCLUDING)
    assert problem.exclusions == (mg.Exclusion(0, 1, 1),)
    assert problem.replace(exclusions=(mg.Exclusion(0, 2, 2),)).exclusions
    with pytest.raises(mg.ProblemError) as raised:
        problem.replace(exclusions=(*problem.exclusions, mg.Exclusion(*exclusion)))
    assert str(raised.value) == f"exclusions[1]: {expected}"


def test_only_uses_of_parameters_can_be_refused():
    assert toy("cycles 20 20\n w 4 param . u1?").instructions[1].positions[0].is_refused
    with pytest.raises(mg.ProblemError, match=r"positions\[0\]: is_refused is for parameters"):
        toy("cycles 20 20\n x 4 temp D1 u1?")


def test_a_cost_table_prices_up_to_ten_positions():
    rows = "\n".join(f"v{i} 1 param u1" for i in range(10))
    assert toy(f"cycles 20\n{rows}").cost_tables[0].num_bits == 10
    with pytest.raises(mg.ProblemError, match="has 2048 entries; need 1, 2, 4 .. 1024"):
        toy(f"cycles 20\n{rows}\nw 1 param u1")


def test_problems_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        toy(DRAWING).name = "another"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -1.0])
def test_a_target_needs_a_positive_clock(value):
    problem = toy(DRAWING)
    with pytest.raises(mg.ProblemError, match=r"target\.clock_hz"):
        problem.replace(target=dataclasses.replace(problem.target, clock_hz=value))


def test_errors_are_the_users_and_are_value_errors():
    assert issubclass(mg.ProblemError, mg.MallocGameError)
    assert issubclass(mg.AssignmentError, mg.MallocGameError)
    assert issubclass(mg.ProblemError, ValueError)


@pytest.mark.parametrize("name", mg.TARGETS)
def test_targets_are_plausible(name):
    target = mg.TARGETS[name]
    assert target.name == name and target.source
    assert 16 * MIB <= target.alternate_memory_bytes <= 128 * MIB
    assert 300 < target.default_bytes_per_cycle < 4000
    assert target.seconds(target.clock_hz) == 1.0
    problem = toy(DRAWING).replace(target=target)
    granule = granule_bytes(problem)
    # Granules are whole alignments, and cover all memory but less than one granule.
    assert granule % target.alignment_bytes == 0
    granules = mg.encode(problem).num_granules
    assert granules <= 2048
    assert 0 <= target.alternate_memory_bytes - granules * granule < granule


@pytest.mark.parametrize("seed", range(3))
def test_the_device_has_the_cycles_and_idle_bandwidth_of_every_mask(seed):
    problem = mg.random_problem(seed, 60)
    program = mg.encode(problem)
    start, cycles, idle = (
        np.asarray(getattr(program, name)) for name in ("table_start", "cycles", "idle")
    )
    replaceable = {v.copied_at for v in problem.values}
    per_cycle = problem.target.default_bytes_per_cycle
    num_idle = 0
    for t, instruction in enumerate(problem.instructions):
        for mask in range(1 << min(len(instruction.positions), 10)):
            taken = problem.instruction_cycles(t, mask)
            spare = taken * per_cycle - problem.default_bytes(t, mask)
            units = 0 if t in replaceable else max(0, math.floor(spare / 1024))
            assert cycles[start[t] + mask] == taken
            assert idle[start[t] + mask] == units
            num_idle += units > 0
    assert num_idle > 100


def test_random_problems_are_reproducible_and_varied():
    assert mg.random_problem(3, 30) == mg.random_problem(3, 30)
    assert mg.random_problem(3, 30) != mg.random_problem(4, 30)
    problems = [mg.random_problem(seed, 40) for seed in range(10)]
    values = [v for p in problems for v in p.values]
    for kind in ("is_parameter", "is_live_out", "may_be_in_alternate", "write_back_cycles"):
        assert {bool(getattr(v, kind)) for v in values} == {True, False}
    assert any(v.copied_at >= 0 for v in values)
    assert any(not i.in_entry for p in problems for i in p.instructions)
