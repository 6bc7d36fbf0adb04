"""CP-SAT finds exactly what trying everything finds, and improves what is too large for that."""

from __future__ import annotations

import numpy as np
import pytest

import malloc_game as mg
from malloc_game.solvers.cpsat import neighbourhood
from malloc_game.solvers.cpsat.costs import Costs
from malloc_game.solvers.cpsat.mapping import hint_of, read
from malloc_game.solvers.cpsat.model import Placement
from malloc_game.solvers.cpsat.solver import cpsat
from malloc_game.solvers.decode import to_assignment
from tests.helpers.exhaustive import optimum
from tests.helpers.tiny import tiny_problem, tiny_problems
from tests.helpers.toy import RANDOM_PADDING, pad, toy


def _solve(problem, seconds=60.0, **options):
    """From everything in default memory: greedy would have to be compiled."""
    return cpsat(problem, seconds, start=mg.all_default(problem), **options)


def _optimal(problem):
    result = _solve(problem)
    assert result.stats["status"] == "OPTIMAL"
    assert mg.check(problem, result.assignment) == []
    assert mg.latency(problem, result.assignment).cycles == result.latency_cycles
    assert result.bound == pytest.approx(result.latency_cycles, rel=1e-6)
    return result.latency_cycles


# --- by hand ----------------------------------------------------------------------------------


def test_the_more_useful_of_two_values_is_kept():
    problem = toy("""
        cycles          9   9
        x   10 temp     D2  u3
        y   10 temp     D1  u1
    """)
    assert optimum(problem)[0] == _optimal(problem) == 18 - 5


def test_a_copy_needs_idle_bandwidth_in_time():
    text = """
        cycles          {}  9
        w   8  param    .   u8
    """
    assert optimum(toy(text.format(8)))[0] == _optimal(toy(text.format(8))) == 8 + 1
    assert optimum(toy(text.format(7)))[0] == _optimal(toy(text.format(7))) == 7 + 9


def test_a_chunk_may_outlast_a_use_in_default_memory():
    # Bandwidth for one copy only, and the second use is slower in alternate memory.
    problem = toy("""
        cycles          8   9   9   9
        w   8  param    .   u4  u-5 u4
    """)
    assert optimum(problem)[0] == _optimal(problem) == 35 - 8


def test_offsets_are_packed_better_than_first_fit_does():
    """`b` must not take the lowest place, or `d` never finds 10 KiB in one piece."""
    problem = toy("""
        cycles          9   9   9   9
        a   6  temp     D1  -   .   .
        b   6  temp     .   D1  -   u1
        d   10 temp     .   .   D1  u1
    """)
    assert optimum(problem)[0] == _optimal(problem) == 36 - 5


def test_an_exclusion_forbids_what_the_compiler_cannot_be_asked_for():
    problem = toy("""
        cycles          9   9   9
        p   2  param    .   u-9 u1
        q   2  temp     .   D3~p .
    """)
    assert optimum(problem)[0] == _optimal(problem) == 27 - 3


# --- against trying everything ------------------------------------------------------------------


@pytest.mark.parametrize("memory_share", [0.06, 0.12, 0.25])
@pytest.mark.parametrize("num_instructions", [6, 8])
def test_the_optimum_is_that_of_trying_everything(num_instructions, memory_share):
    problems = tiny_problems(5, num_instructions=num_instructions, memory_share=memory_share)
    better = 0
    for problem in problems:
        cycles, assignment = optimum(problem)
        assert mg.check(problem, assignment) == []
        assert _optimal(problem) == cycles, problem.name
        better += cycles < mg.latency(problem, mg.all_default(problem)).cycles
    assert better, "nothing was to be decided"


# --- larger ones --------------------------------------------------------------------------------


def _random_mapping(problem):
    """A game of random actions, of which the illegal ones count as DROP."""
    program = pad(mg.encode(problem), RANDOM_PADDING)  # one shape, so one trace
    actions = np.random.default_rng(0).choice([mg.COPY, mg.NO_COPY], program.max_decisions)
    return to_assignment(problem, program, actions, "random")


@pytest.mark.parametrize("most_starts", [None, 6])
def test_every_game_is_a_solution_of_the_model(most_starts):
    """The mapping that a game's variables stand for is the game's own, and breaks no constraint."""
    for seed in range(4):
        problem = mg.random_problem(seed, 40)
        mapping = _random_mapping(problem)
        placement = Placement(problem, most_starts, mapping)
        costs = Costs(placement)
        solution = hint_of(placement, costs, mapping)
        assert mapping.copies
        again = read(placement, lambda variable: solution[variable.index])  # noqa: B023
        assert again.masks == mapping.masks
        assert mg.latency(problem, again).cycles == mg.latency(problem, mapping).cycles
        near = neighbourhood.Neighbourhoods(placement, solution, 0)
        model = near._model(1 << 30, 1 << 30)  # all that is decided is fixed
        assert neighbourhood.cp_model.CpSolver().solve(model) == neighbourhood.cp_model.OPTIMAL


def test_windows_grow_to_the_whole_schedule_and_no_further():
    """In a long run on a small problem they would grow beyond all numbers."""
    problem = mg.random_problem(0, 20)
    mapping = _random_mapping(problem)
    placement = Placement(problem, None, mapping)
    near = neighbourhood.Neighbourhoods(placement, hint_of(placement, Costs(placement), mapping), 0)
    for _ in range(4):
        assert near.improve(60.0) is not None
    assert near.num_optimal == 4 and near.width == 20


def test_windows_improve_a_large_problem_and_repeat_by_seed(monkeypatch):
    monkeypatch.setattr(neighbourhood, "_EFFORT", 0.05)
    problem = mg.random_problem(1, 40)
    runs = [_solve(problem, most_starts=6, max_iterations=4, seed=3) for _ in range(2)]
    assert runs[0].assignment == runs[1].assignment
    assert runs[0].latency_cycles < mg.latency(problem, mg.all_default(problem)).cycles
    assert runs[0].bound <= runs[0].latency_cycles
    assert mg.check(problem, runs[0].assignment) == []
    assert runs[0].stats["windows"] == 4 and not runs[0].stats["is_exact"]


def test_a_problem_without_decisions_is_solved_at_once():
    problem = tiny_problem(0)
    values = [mg.Value(**{**vars(v), "may_be_in_alternate": False}) for v in problem.values]
    result = _solve(problem.replace(values=tuple(values)))
    assert result.assignment.masks == (0,) * len(problem.instructions)
    assert result.stats["status"] == "OPTIMAL"
