"""The research option: computed values that move in the middle of their lives."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import malloc_game as mg
from malloc_game import COPY, DROP, NO_COPY
from tests.helpers.toy import RANDOM_PADDING, Game, jit_init, jit_step, pad, toy

LIFE = """
    cycles         8   8   8   8   8
    x  4  temp     D1  -   -   u2  u4
"""


def _game(text: str | mg.Problem) -> Game:
    return Game(text, rules="moves")


def _is_valid(game: Game) -> bool:
    judged = mg.latency(game.problem, game.assignment)
    assert mg.check(game.problem, game.assignment, expressible=False) == []
    return judged.wait_cycles == 0 and judged.cycles == int(game.state.latency)


def test_each_use_of_a_computed_value_is_asked():
    game, asked = _game(LIFE), []
    while game.asked:
        asked.append(game.asked)
        game.play(NO_COPY)
    assert asked == [(0, "x"), (3, "x"), (4, "x")]
    assert game.chunks() == [("x", 0, 0, 5)] and not game.copies() and not game.evictions()
    assert int(game.state.latency) == 40 - 7 and _is_valid(game)


def test_a_use_in_default_memory_of_what_was_produced_in_alternate_books_an_eviction():
    #  Half of the idle bandwidth is for evictions: 4 KiB under 2, where nothing else moves.
    game = _game(LIFE)
    game.play(NO_COPY)
    assert game.legal == {NO_COPY, DROP}
    assert game.play(DROP) == 0
    assert game.evictions() == [("x", 2, 3)]
    # It leaves alternate memory then, and is in default memory for good.
    assert game.chunks() == [("x", 0, 0, 3)]
    game.play(DROP)
    assert game.evictions() == [("x", 2, 3)]
    assert int(game.state.latency) == 40 - 1 and _is_valid(game)


def test_what_was_evicted_can_be_copied_back():
    game = _game(LIFE.replace("-   -   u2  u4", "-   u2  -   u4"))
    game.play(NO_COPY, DROP)
    assert game.evictions() == [("x", 1, 2)]
    assert game.legal == {COPY, DROP}
    assert game.play(COPY) == 4
    assert game.copies() == [("x", 3, 4)]
    assert game.chunks() == [("x", 0, 0, 2), ("x", 0, 3, 5)] and _is_valid(game)


def test_an_eviction_starts_when_the_value_is_there_and_ends_before_the_use():
    # 8 KiB need two instructions of 4 idle KiB; there is one between definition and use.
    text = """
        cycles         8   8   8
        x  8  temp     D1  -   u1
    """
    game = _game(text)
    game.play(NO_COPY)
    assert game.legal == {NO_COPY}  # DROP cannot be done: the use is forced to stay
    assert game.play(NO_COPY) == 1
    game = _game(text.replace("x  8", "x  4"))
    game.play(NO_COPY)
    assert game.legal == {NO_COPY, DROP}


def test_an_illegal_action_where_nothing_can_be_evicted_is_no_copy():
    game = _game("""
        cycles         8   8
        x  8  temp     D1  u1
    """)
    game.play(NO_COPY)
    assert game.legal == {NO_COPY}
    for action in (COPY, DROP, 7):
        after = jit_step(game.program, game.state, action)
        assert int(after.reward) == 1 and int(after.chunk_of[1]) == 0


def test_a_value_produced_in_default_memory_can_be_copied_for_a_later_use():
    game = _game(LIFE)
    game.play(DROP)
    assert game.legal == {COPY, DROP}
    game.play(COPY)
    assert game.copies() == [("x", 2, 3)] and game.chunks() == [("x", 0, 2, 4)]
    assert game.legal == {NO_COPY, DROP}
    assert game.play(NO_COPY) == 4
    assert game.chunks() == [("x", 0, 2, 5)] and _is_valid(game)


def test_a_value_is_not_copied_before_it_is_in_default_memory():
    #  16 KiB in 4 KiB a time: not between 1 and 3.
    text = """
        cycles          8   8   8   8   8
        x  {}  temp     D1  -   -   -   u1
    """
    fits, too_large = _game(text.format(12)), _game(text.format(13))
    for game in (fits, too_large):
        game.play(DROP)
    assert fits.legal == {COPY, DROP} and too_large.legal == {DROP}


def test_memory_is_free_again_after_an_eviction():
    #  x (10) leaves at 2; y (10) takes its place from 2 on, which a whole life would not allow.
    text = """
        cycles          40  40  40  40
        x  10  temp     D1  -   u   u
        y  10  temp     .   .   D5  u5
    """
    game = _game(text)
    game.play(NO_COPY, DROP)
    assert game.evictions() == [("x", 1, 2)]
    assert game.asked == (2, "y")
    game.play(NO_COPY)
    assert game.chunks() == [("x", 0, 0, 2), ("y", 0, 2, 4)]
    game.play(DROP, NO_COPY)
    assert _is_valid(game)
    whole = Game(text)
    whole.play(NO_COPY)
    assert whole.legal == {DROP}


def test_an_evicted_live_out_needs_no_write_back():
    game = _game("""
        cycles          20  20  20
        x  4  out:9     D1  -   u1
    """)
    assert game.play(NO_COPY) == 1 - 9
    assert game.play(DROP) == 9
    assert int(game.state.write_back) == 0 and _is_valid(game)


def test_refusals_and_exclusions_do_not_hold():
    text = """
        cycles         20  20  20
        r  4  temp?    D1  u1  .
        w  4  param    .   u1  u1
        y  4  temp     .   .   D1~w
    """
    assert Game(text).legal == {DROP}
    game = _game(text)
    assert game.legal == {NO_COPY, DROP}
    #         r,       r,       w at 1, at 2
    game.play(NO_COPY, NO_COPY, COPY, DROP)
    assert game.asked == (2, "y") and game.legal == {NO_COPY, DROP}
    game.play(NO_COPY)
    assert _is_valid(game)
    assert {v.kind for v in mg.check(game.problem, game.assignment)} == {"not_allowed", "excluded"}


@pytest.mark.parametrize(
    "cells", ["D1  u1  D1  u1", "D1* u1  u1  u1"], ids=["written twice", "in a loop"]
)
def test_what_is_written_twice_or_in_a_loop_has_one_place_for_its_whole_life(cells):
    text = f"""
        cycles         20  20  20  20
        trips          {"3*" if "*" in cells else "1"}   1   1   1
        x  4  temp     {cells.replace("*", "")}
    """
    assert int(_game(text).program.num_decisions) == 1


def test_evictions_count_as_copies_under_way():
    text = """
        cycles          40  40  40  40
        x  4  temp      D1  -   u   .
        w  24 param     .   .   .   u1
    """
    free, limited = _game(toy(text, memory_kib=64)), _game(toy(text, memory_kib=64, max_copies=1))
    for game in (free, limited):
        game.play(NO_COPY, DROP)
        assert game.evictions() == [("x", 1, 2)]
    # Half of the idle 40 KiB under 1, and of the 36 under 2; the eviction is under way under 1.
    for game in (free, limited):
        assert game.asked == (3, "w")
    assert free.legal == {COPY, DROP} and limited.legal == {DROP}
    free.play(COPY)
    assert free.copies() == [("w", 1, 3)]


@pytest.mark.parametrize("limits", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_random_play_is_valid_and_of_the_promised_latency(seed, limits):
    problem = mg.random_problem(seed, 24, limits=limits)
    program = pad(mg.encode(problem, rules="moves"), RANDOM_PADDING)  # compiled once for all
    state, rng, total = jit_init(program), np.random.default_rng(seed), 0
    while not state.done:
        legal = np.flatnonzero(mg.legal_actions(program, state))
        assert len(legal)
        state = jit_step(program, state, jnp.int32(rng.choice(legal)))
        total += int(state.reward)
    assignment = mg.to_assignment(problem, state, rules="moves")
    assert mg.check(problem, assignment, expressible=False) == []
    judged = mg.latency(problem, assignment)
    assert judged.wait_cycles == 0
    assert judged.cycles == int(state.latency) == int(program.default_cycles) - total


def test_random_play_evicts_and_brings_back():
    """The property above would be empty otherwise."""
    found = {"eviction": 0, "back": 0, "forced": 0}
    for seed in range(12):
        problem = mg.random_problem(seed, 24)
        program = pad(mg.encode(problem, rules="moves"), RANDOM_PADDING)
        state, rng = jit_init(program), np.random.default_rng(seed)
        while not state.done:
            legal = np.flatnonzero(mg.legal_actions(program, state))
            found["forced"] += legal.tolist() == [NO_COPY]
            state = jit_step(program, state, jnp.int32(rng.choice(legal)))
        copies = mg.to_assignment(problem, state, rules="moves").copies
        evicted = {c.value: c.end for c in copies if c.direction == mg.EVICTION}
        found["eviction"] += len(evicted)
        found["back"] += sum(
            c.direction == mg.PREFETCH and c.start >= evicted.get(c.value, 1 << 30) for c in copies
        )
    assert all(found.values()), found


def test_a_game_without_moves_carries_nothing_of_them():
    program = mg.encode(toy(LIFE))
    state = jax.eval_shape(mg.init, program)
    assert state.evictions is None
