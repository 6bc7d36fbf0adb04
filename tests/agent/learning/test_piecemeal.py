"""The paper's piecemeal rules, their dead ends, and the drop-backup that leads out of them."""

from __future__ import annotations

import numpy as np
import pytest

import malloc_game as mg
from agent.learning.drop_backup import back_up, dead_ends
from agent.learning.self_play import FREE
from agent.planner.self_play_planner import SelfPlayPlanner
from malloc_game import COPY, DROP, NO_COPY
from tests.helpers.toy import RANDOM_PADDING, Game, jit_init, jit_step, pad
from tests.helpers.training_for_tests import SMALL, changed

#  KiB   0        10
#  0..1  xxxxxxxx            x (10) has room up to its use at 1 only; y (12) sits there at 2,
#  2     yyyyyyyyyyyy        so that the use of x at 3 finds none
STUCK = """
    cycles          40  40  40  40
    x  10  temp     D1  u1  -   u1
    y  12  temp     .   .   D5  .
"""


def _piecemeal(text: str) -> Game:
    return Game(text, rules="piecemeal")


def test_each_use_extends_the_room_of_a_value():
    game = _piecemeal(STUCK)
    game.play(NO_COPY)
    assert game.chunks() == [("x", 0, 0, 1)]
    assert game.asked == (1, "x") and game.legal == {NO_COPY}
    game.play(NO_COPY)
    assert game.chunks() == [("x", 0, 0, 2)]
    game.play(DROP, NO_COPY)
    assert game.chunks() == [("x", 0, 0, 4)] and int(game.state.latency) == 160 - 3
    assert mg.check(game.problem, game.assignment) == []


def test_what_is_in_default_memory_stays_there():
    game = _piecemeal(STUCK)
    game.play(DROP)
    assert game.legal == {DROP}
    game.play(DROP, NO_COPY)
    assert game.legal == {DROP}
    game.play(DROP)
    assert int(game.state.latency) == 160 - 5
    assert mg.check(game.problem, game.assignment) == []


def test_a_game_is_stuck_where_a_value_has_no_room_for_its_next_use():
    game = _piecemeal(STUCK)
    game.play(NO_COPY, NO_COPY, NO_COPY)
    assert game.asked == (3, "x") and game.legal == set() and bool(game.state.is_stuck)
    stuck = jit_step(game.program, game.state, NO_COPY)
    chunk_of = np.asarray(stuck.chunk_of)[None]
    assert dead_ends(game.program, chunk_of).tolist() == [3]
    # The compiler's rules give a value room for its whole life, and never get there.
    whole = Game(STUCK)
    whole.play(NO_COPY)
    assert whole.legal == {DROP}


def test_drop_backup_goes_back_to_where_the_value_was_produced():
    game = _piecemeal(STUCK)
    played = np.full((game.program.max_decisions, 2), DROP)
    played[:4, 0] = (NO_COPY, NO_COPY, NO_COPY, DROP)
    ends = np.array([3, -1])
    script = back_up(game.program, played, ends, is_free=True)
    assert script[:4, 0].tolist() == [DROP, DROP, FREE, DROP]
    np.testing.assert_array_equal(script[:, 1], played[:, 1])
    fixed = back_up(game.program, played, ends, is_free=False)
    assert fixed[:4, 0].tolist() == [DROP, DROP, NO_COPY, DROP]


@pytest.mark.parametrize("drop_backups", [0, 4])
def test_the_planner_gets_out_of_dead_ends(drop_backups):
    config = changed(SMALL.agent, rules="piecemeal", self_play={"drop_backups": drop_backups})
    game = _piecemeal(STUCK)
    planner = SelfPlayPlanner(game.program, config)
    # x, x, y: stuck. x is dropped, and y is what is left (or may be again, if chosen anew).
    (latency,) = planner.seed_games([np.array([NO_COPY, NO_COPY, NO_COPY, NO_COPY])])
    assert planner.stats()["drop_backups"] >= 1
    assert latency == 160 - 5 if drop_backups == 0 else latency in (160 - 5, 160)
    planner.run(iterations=2)
    actions = planner.best_actions
    for action in actions[:4]:
        game.play(int(action))
    assert int(game.state.latency) == planner.best_latency_cycles == 160 - 5
    assert mg.check(game.problem, game.assignment) == []


def test_random_play_is_valid_or_stuck():
    found = {"stuck": 0, "finished": 0}
    for seed in range(12):
        problem = mg.random_problem(seed, 24)
        program = pad(mg.encode(problem, rules="piecemeal"), RANDOM_PADDING)
        state, rng = jit_init(program), np.random.default_rng(seed)
        while not state.done and not state.is_stuck:
            legal = np.flatnonzero(mg.legal_actions(program, state))
            # As much as possible in alternate memory, so that there are dead ends.
            state = jit_step(program, state, int(rng.choice(legal[:2])))
        found["stuck" if state.is_stuck else "finished"] += 1
        if not state.is_stuck:
            assignment = mg.to_assignment(problem, state, rules="piecemeal")
            assert mg.check(problem, assignment) == []
            assert mg.latency(problem, assignment).cycles == int(state.latency)
    assert found["stuck"] and found["finished"], found


def test_copies_of_parameters_are_as_under_the_compilers_rules():
    text = """
        cycles         4   4   4   4
        w  8  param    .   .   .   u2
    """
    game = _piecemeal(text)
    assert game.legal == {COPY, DROP}
    game.play(COPY)
    assert game.copies() == [("w", 1, 3)]


def test_unknown_rules_are_an_error():
    with pytest.raises(ValueError, match="rules is 'chess'; need one of compiler, moves, piece"):
        mg.encode(mg.random_problem(0, 8), rules="chess")
