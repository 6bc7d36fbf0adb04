"""What all solvers promise: valid mappings, no worse than their start, the same for one seed."""

from __future__ import annotations

import builtins
import sys

import pytest

import malloc_game as mg
from malloc_game.solvers import SOLVERS, SolverError, get_solver, lower_bound, solve
from malloc_game.solvers.result import Search

_PROBLEM = mg.random_problem(2, 20)
_ROUNDS = {"beam": 1}  # of which each is wider than the last, and compiled anew; of others two


@pytest.fixture(scope="module")
def greedy_cycles():
    return solve("greedy", _PROBLEM, 1.0).latency_cycles


@pytest.mark.parametrize("name", SOLVERS)
def test_a_solver_gives_a_valid_mapping_and_repeats_it(name, greedy_cycles):
    seen = []
    runs = [
        solve(
            name,
            _PROBLEM,
            60.0,
            seed=5,
            max_iterations=_ROUNDS.get(name, 2),
            progress=lambda *x: seen.append(x),
        )
        for _ in range(2)
    ]
    result = runs[0]
    assert mg.check(_PROBLEM, result.assignment) == []
    assert mg.latency(_PROBLEM, result.assignment).cycles == result.latency_cycles
    default_cycles = mg.latency(_PROBLEM, mg.all_default(_PROBLEM)).cycles
    assert result.latency_cycles <= (default_cycles if name == "random" else greedy_cycles)
    assert result.assignment == runs[1].assignment
    assert lower_bound(_PROBLEM).cycles <= result.latency_cycles
    assert result.bound is None or result.bound <= result.latency_cycles + 1e-3
    cycles = [c for _, c in result.stats["improvements"]]
    assert cycles == sorted(cycles, reverse=True) and cycles[-1] == result.latency_cycles
    assert len(seen) == 2 * len(cycles)


def test_a_solver_stops_in_time():
    solve("random", _PROBLEM, 0.0, max_iterations=1)  # compiles
    result = solve("random", _PROBLEM, 1.0)
    assert result.stats["iterations"] >= 1
    assert result.seconds < 10.0


def test_an_unknown_solver_is_one_clear_line():
    with pytest.raises(SolverError, match="no solver 'magic'; there are greedy, random"):
        get_solver("magic")


def test_a_missing_extra_is_one_clear_line(monkeypatch):
    monkeypatch.delitem(sys.modules, "malloc_game.solvers.play.evolution_strategy", raising=False)
    plain_import = builtins.__import__

    def without(wanted, *args, **kwargs):
        if wanted.partition(".")[0] == "evosax":
            raise ModuleNotFoundError(f"No module named {wanted!r}", name=wanted)
        return plain_import(wanted, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SolverError, match=r"needs evosax: install mallocgame\[solvers\]"):
        get_solver("evolution")


def test_only_better_and_valid_mappings_are_kept():
    search = Search(_PROBLEM, 1.0)
    default = mg.all_default(_PROBLEM)
    assert search.offer(default) and not search.offer(default)
    everything = tuple((1 << len(x.positions)) - 1 for x in _PROBLEM.instructions)
    with pytest.raises(AssertionError, match="uncovered|no_copy|not_allowed"):
        search.offer(mg.Assignment(everything, source="damaged"))
    assert search.result().assignment is default


@pytest.mark.parametrize("name", [name for name in SOLVERS if name != "greedy"])
def test_a_run_that_reached_what_is_proven_to_be_the_least_ends(name):
    found = solve(name, _PROBLEM, 60.0, max_iterations=_ROUNDS.get(name, 2)).latency_cycles
    there = solve(name, _PROBLEM, 60.0, max_iterations=1_000_000, goal=found)
    assert there.latency_cycles <= found * (1 + 1e-6)
    assert there.stats["iterations"] < 1_000  # of a million


def test_rounds_are_counted_or_timed():
    search = Search(_PROBLEM, 0.0, max_iterations=3)
    assert [search.next_round() for _ in range(5)] == [True, True, True, False, False]
    assert search.fraction == 1.0
    assert not Search(_PROBLEM, 0.0).next_round()
