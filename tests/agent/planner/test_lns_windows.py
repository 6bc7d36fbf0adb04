"""Large neighbourhood search beside the games, and the planner that both belong to."""

import dataclasses
import threading
import time

import numpy as np
import pytest

import malloc_game as mg
from agent.planner.lns_windows import SOURCE, WindowSearch
from agent.planner.problem_planner import ProblemPlanner
from malloc_game.solvers import solve
from malloc_game.solvers.cpsat.neighbourhood import Neighbourhoods
from tests.helpers.training_for_tests import SMALL, changed

PROBLEM = mg.random_problem(3, 24)
CONFIG = changed(SMALL.agent, self_play={"lns_windows": 2})
GAMES_ONLY = SMALL.agent


def greedy():
    state, _ = mg.greedy(mg.encode(PROBLEM))
    return mg.to_assignment(PROBLEM, state), int(state.latency)


def test_windows_find_the_optimum_of_a_small_problem_and_the_same_for_the_same_seed():
    def search():
        search = WindowSearch(PROBLEM, seed=1)
        search.go_on_from(*greedy())
        search.start(12, None, None)
        found = search.finish()
        search.close()
        return found

    found = search()
    assert found.assignment.source == SOURCE
    assert mg.check(PROBLEM, found.assignment) == []
    assert found.cycles == mg.latency(PROBLEM, found.assignment).cycles
    assert found.cycles < greedy()[1]
    best = solve("cpsat", PROBLEM, 60.0, max_iterations=30)
    assert best.stats["status"] == "OPTIMAL" and found.cycles == best.latency_cycles
    assert search() == found


def test_no_window_begins_after_the_deadline():
    search = WindowSearch(PROBLEM, seed=1)
    search.go_on_from(*greedy())
    search.start(1_000_000, time.monotonic(), None)
    assert search.finish().assignment == greedy()[0]
    search.close()
    assert search.num_windows == 0


def test_without_a_count_windows_go_on_until_they_are_asked_for(monkeypatch):
    search, is_third, improve = (
        WindowSearch(PROBLEM, seed=1),
        threading.Event(),
        Neighbourhoods.improve,
    )

    def improve_and_tell(*args):
        if search.num_windows == 3:  # three are done
            is_third.set()
        return improve(*args)

    monkeypatch.setattr(Neighbourhoods, "improve", improve_and_tell)
    search.go_on_from(*greedy())
    search.start(None, None, None)
    assert is_third.wait(60)
    assert search.best.cycles <= greedy()[1]  # can be had meanwhile
    found = search.finish()
    done = search.num_windows
    search.close()  # waits for what still goes on
    assert found == search.best and search.num_windows == done >= 3


def test_a_slower_mapping_is_not_gone_on_from():
    search = WindowSearch(PROBLEM, seed=1)
    search.go_on_from(*greedy())
    search.go_on_from(mg.all_default(PROBLEM), mg.latency(PROBLEM, mg.all_default(PROBLEM)).cycles)
    search.start(0, None, None)
    assert search.finish().assignment == greedy()[0]
    search.close()


def test_windows_lie_where_the_weights_are():
    times = len(PROBLEM.instructions)
    weights = np.zeros(times)
    weights[times // 4] = 1.0
    search = WindowSearch(PROBLEM, seed=1)
    default = mg.all_default(PROBLEM)
    search.go_on_from(default, mg.latency(PROBLEM, default).cycles)
    search.start(1, None, weights)
    found = search.finish()
    search.close()
    changed = [t for t in range(times) if found.assignment.masks[t]]
    # A value of the window may be used later, but none lies behind it as a whole.
    width = 16
    values = {c.value for c in found.assignment.chunks}
    assert changed and min(changed) < times // 4 + width
    assert all(PROBLEM.values[v].start < times // 4 + width for v in values)


def test_a_planner_of_a_problem_keeps_the_best_mapping_whoever_found_it():
    planner = ProblemPlanner(PROBLEM, CONFIG, seed=0)
    begin = planner.best_cycles
    assert begin <= greedy()[1]
    planner.run(iterations=1)
    assert planner.stats()["lns_windows"] == 2 * 8 and planner.stats()["games"] == 0
    planner.run(iterations=2)
    best = planner.best_assignment
    assert mg.check(PROBLEM, best) == []
    assert mg.latency(PROBLEM, best).cycles == planner.best_cycles < begin
    assert planner.best_cycles <= planner.planner.best_latency_cycles
    stats = planner.stats()
    assert stats["lns_windows"] == 2 * 2 * 8 + 2 and stats["games"] > 0
    assert stats["best_latency_cycles"] == planner.best_cycles == planner.best.cycles
    again = ProblemPlanner(PROBLEM, CONFIG, seed=0)
    again.run(iterations=3)
    assert (again.best_assignment, again.best_source) == (best, planner.best_source)


def test_games_are_not_begun_when_little_time_is_left():
    planner = ProblemPlanner(PROBLEM, CONFIG, seed=0)
    planner.run(seconds=20, iterations=9)  # after 8 of them games would begin
    assert planner.stats()["games"] == 0 and planner.stats()["lns_windows"] == 18


def test_a_planner_without_windows_has_games_only():
    planner = ProblemPlanner(PROBLEM, GAMES_ONLY, seed=0)
    planner.run(iterations=1)
    assert planner.stats()["lns_windows"] == 0
    assert planner.best_cycles == planner.planner.best_latency_cycles


@pytest.mark.parametrize("iterations", [1, 2])
def test_corrected_costs_keep_the_best_mapping_at_its_new_latency(iterations):
    planner = ProblemPlanner(PROBLEM, CONFIG, seed=0)
    planner.run(iterations=iterations)
    tables = tuple(
        dataclasses.replace(t, cycles=tuple(3 * c for c in t.cycles)) for t in PROBLEM.cost_tables
    )
    dearer = dataclasses.replace(PROBLEM, cost_tables=tables)
    before, found_by = planner.best_assignment, planner.best_source
    planner.set_problem(dearer)
    assert (planner.best_assignment, planner.best_source) == (before, found_by)
    assert planner.best_cycles <= mg.latency(dearer, before).cycles
    planner.run(iterations=1)
    assert mg.check(dearer, planner.best_assignment) == []
    number = planner.stats()["lns_windows"]
    assert number == (2 * 2 * 8 if iterations == 1 else 2 * 2 * 8 + 2)


def test_under_corrected_costs_greedy_plays_anew():
    planner = ProblemPlanner(PROBLEM, CONFIG, seed=0)
    # Alternate memory is of no use but to the last third of the schedule.
    tables = [
        t if i > 2 * len(PROBLEM.cost_tables) / 3 else dataclasses.replace(t, cycles=t.cycles[::-1])
        for i, t in enumerate(PROBLEM.cost_tables)
    ]
    corrected = dataclasses.replace(PROBLEM, cost_tables=tuple(tables))
    before = mg.latency(corrected, planner.best_assignment).cycles
    anew = ProblemPlanner(corrected, CONFIG, seed=0).best_cycles
    assert anew < before
    planner.set_problem(corrected)
    assert planner.best_cycles == anew


@pytest.mark.parametrize("iterations", [0, 1])
def test_a_better_mapping_from_elsewhere_is_gone_on_from(iterations):
    planner = ProblemPlanner(PROBLEM, GAMES_ONLY, seed=0)
    planner.run(iterations=iterations)
    found = solve("cpsat", PROBLEM, 60.0, max_iterations=30).assignment
    state, _ = mg.follow(PROBLEM, found)  # as a game
    assert int(state.latency) < planner.best_cycles
    for known in ([found], [mg.all_default(PROBLEM)], []):
        planner.set_problem(PROBLEM, known)
        assert planner.best_cycles == int(state.latency)
        assert mg.check(PROBLEM, planner.best_assignment) == []


def test_planning_needs_a_limit():
    with pytest.raises(ValueError, match="seconds or iterations"):
        ProblemPlanner(PROBLEM, CONFIG).run()
