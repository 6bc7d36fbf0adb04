"""What the compiler cannot be asked for: refused uses of parameters, and exclusions."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import malloc_game as mg
from malloc_game import COPY, DROP, NO_COPY, check
from malloc_game.game.encoding import bucket
from malloc_game.game.playing import follow_wanted
from malloc_game.problem.violation import EXCLUDED, NOT_ALLOWED
from tests.helpers.toy import RANDOM_PADDING, Game, jit_init, jit_step, pad, random_game, toy

# --- refused uses -----------------------------------------------------------------------------

REFUSED_USE = """
    cycles         20  20  20   20  20
    w  4  param    .   u1  u2?  u4  u8
"""


def test_a_refused_use_can_only_be_dropped_and_the_others_are_free():
    game = Game(REFUSED_USE)
    assert game.asked == (1, "w") and game.legal == {COPY, DROP}
    game.play(DROP)
    assert game.asked == (2, "w") and game.legal == {DROP}
    game.play(DROP)
    assert game.asked == (3, "w") and game.legal == {COPY, DROP}
    assert game.play(COPY) == 4
    assert game.play(NO_COPY) == 8


def test_what_was_copied_before_a_refused_use_is_copied_anew_after_it():
    game = Game(REFUSED_USE)
    game.play(COPY)
    assert game.asked == (2, "w") and game.legal == {DROP}  # though it is there
    assert game.play(DROP) == 0
    assert game.asked == (3, "w") and game.legal == {COPY, DROP}
    assert game.play(COPY, NO_COPY) == 8
    assert game.copies() == [("w", 0, 1), ("w", 2, 3)]
    assert game.chunks() == [("w", 0, 0, 2), ("w", 0, 2, 5)]
    assert mg.check(game.problem, game.assignment) == []


@pytest.mark.parametrize("refused", [0, 1])
def test_a_use_is_refused_if_one_of_its_operands_is(refused):
    problem = toy("""
        cycles         20  20
        w  4  param    .   u3
        v  4  param!   .   u5
    """)
    first, second = problem.instructions[1].positions
    both = [first, dataclasses.replace(second, value=0)]
    both[refused] = dataclasses.replace(both[refused], is_refused=True)
    last = dataclasses.replace(problem.instructions[1], positions=tuple(both))
    game = Game(problem.replace(instructions=(problem.instructions[0], last)))
    assert game.asked == (1, "w") and game.legal == {DROP}


# --- exclusions -------------------------------------------------------------------------------

# y cannot be in alternate memory while w is there for some use, but not for the one at 2.
EXCLUDED_OUTPUT = """
    cycles         20  20   20    20
    w  4  param    .   u1   u2    u4
    y  4  temp     .   .    D1~w  u1
"""


def test_an_output_is_excluded_where_its_operand_stays_behind():
    game = Game(EXCLUDED_OUTPUT)
    game.play(COPY, DROP)
    assert game.asked == (2, "y") and game.legal == {DROP}
    game.play(DROP)
    # Without y the parameter is free again.
    assert game.asked == (3, "w") and game.legal == {COPY, DROP}


def test_a_later_use_is_excluded_where_the_output_is_there_already():
    game = Game(EXCLUDED_OUTPUT)
    game.play(DROP, DROP)
    assert game.asked == (2, "y") and game.legal == {NO_COPY, DROP}  # w is nowhere so far
    game.play(NO_COPY)
    assert game.asked == (3, "w") and game.legal == {DROP}


@pytest.mark.parametrize(("first", "second"), [(COPY, NO_COPY), (DROP, COPY)])
def test_nothing_is_excluded_where_the_use_itself_is_there(first, second):
    game = Game(EXCLUDED_OUTPUT)
    game.play(first, second)
    assert game.asked == (2, "y") and game.legal == {NO_COPY, DROP}
    game.play(NO_COPY)
    assert game.asked == (3, "w") and game.legal == {NO_COPY, DROP}
    game.play(NO_COPY)
    assert mg.check(game.problem, game.assignment) == []


def test_an_output_may_be_there_where_its_operand_is_nowhere():
    game = Game(EXCLUDED_OUTPUT)
    assert game.play(DROP, DROP, NO_COPY) == 2
    game.play(DROP)
    assert mg.check(game.problem, game.assignment) == []


def test_a_use_inside_a_loop_counts_as_one_in_default_memory():
    text = """
        cycles         20  20  20    20
        trips          1   1   3*    1
        w  4  param    .   u1  u1    u1
        y  4  temp     .   .   D1~w  u1
    """
    game = Game(text)
    game.play(COPY)
    assert game.asked == (2, "y") and game.legal == {DROP}
    game.play(DROP)
    assert game.asked == (3, "w") and game.legal == {NO_COPY, DROP}
    game = Game(text)
    game.play(DROP, NO_COPY)
    assert game.asked == (3, "w") and game.legal == {DROP}


# y is defined twice, as what a loop carries is, and asked about before the use at 2 is.
EXCLUDED_LATE = """
    cycles         20  20  20    20
    w  4  param    .   u1  u1    u1
    y  4  temp     .   D1  D1~w  .
"""


def test_an_output_that_is_asked_about_before_the_use_takes_it_for_dropped():
    game = Game(EXCLUDED_LATE)
    game.play(COPY)
    assert game.asked == (1, "y") and game.legal == {DROP}
    game = Game(EXCLUDED_LATE)
    game.play(DROP, NO_COPY)
    assert game.asked == (2, "w") and game.legal == {COPY, DROP}  # the use itself
    game.play(COPY)
    assert game.legal == {NO_COPY, DROP}
    game = Game(EXCLUDED_LATE)
    game.play(DROP, NO_COPY, DROP)
    assert game.asked == (3, "w") and game.legal == {DROP}


def test_each_exclusion_of_a_parameter_counts():
    # The use at 2 is free of z's exclusion, not of y's.
    game = Game("""
        cycles         20  20    20    20
        w  4  param    .   u1    u1    u1
        y  2  temp     .   D1~w  u1    .
        z  2  temp     .   .     D1~w  u1
    """)
    game.play(DROP, NO_COPY)
    assert game.asked == (2, "w") and game.legal == {DROP}
    game.play(DROP)
    assert game.asked == (2, "z") and game.legal == {NO_COPY, DROP}
    game.play(DROP)
    assert game.asked == (3, "w") and game.legal == {DROP}


def test_exclusions_of_one_parameter_leave_others_alone():
    # One group each: y goes with w, z with v.
    text = """
        cycles         20  20  20    20
        w  2  param    .   u1  u1    u1
        v  2  param    .   u1  u1    u1
        y  2  temp     .   .   D1~w  u1
        z  2  temp     .   .   D1~v  u1
    """
    game = Game(text)
    game.play(COPY, DROP, DROP, DROP)
    assert game.asked == (2, "y") and game.legal == {DROP}
    game.play(DROP)
    assert game.asked == (2, "z") and game.legal == {NO_COPY, DROP}
    game.play(NO_COPY)
    assert game.asked == (3, "w") and game.legal == {COPY, DROP}
    game.play(DROP)
    assert game.asked == (3, "v") and game.legal == {DROP}
    game = Game(text)
    game.play(DROP, COPY, DROP, DROP)
    assert game.asked == (2, "y") and game.legal == {NO_COPY, DROP}
    game.play(NO_COPY)
    assert game.asked == (2, "z") and game.legal == {DROP}


def test_a_prefetch_that_replaces_a_copy_can_be_excluded():
    text = """
        cycles             20  20  20    20
        w  4  param        .   u1  u2    .
        k  4  copied:2     -   -   D8~w  u1
    """
    game = Game(text)
    game.play(COPY, DROP)
    assert game.asked == (3, "k") and game.legal == {DROP}
    game = Game(text)
    game.play(COPY, NO_COPY)
    assert game.asked == (3, "k") and game.legal == {COPY, DROP}
    game.play(COPY)
    assert mg.check(game.problem, game.assignment) == []


def test_exclusions_of_what_is_never_asked_about_change_nothing():
    for text in (EXCLUDED_OUTPUT, EXCLUDED_LATE):
        game = Game(text.replace("temp ", "temp!"))
        game.play(COPY, DROP)
        assert game.legal == {COPY, DROP}
    game = Game(EXCLUDED_OUTPUT.replace("param ", "param!"))
    assert game.asked == (2, "y") and game.legal == {NO_COPY, DROP}


# --- the checker ------------------------------------------------------------------------------


def _kinds(problem: mg.Problem, assignment: mg.Assignment) -> set[str]:
    return {violation.kind for violation in check(problem, assignment)}


def _moved(game: Game, *actions: int) -> mg.Assignment:
    game.play(*actions)
    return game.assignment


def _free_use(problem: mg.Problem) -> mg.Problem:
    """The same problem without any refused use or exclusion."""
    instructions = tuple(
        dataclasses.replace(
            i, positions=tuple(dataclasses.replace(p, is_refused=False) for p in i.positions)
        )
        for i in problem.instructions
    )
    return problem.replace(instructions=instructions, exclusions=())


def test_the_checker_names_a_refused_use():
    problem = toy(REFUSED_USE)
    through = _moved(Game(_free_use(problem)), COPY, NO_COPY, NO_COPY, NO_COPY)
    assert check(_free_use(problem), through) == []
    (found,) = check(problem, through)
    assert str(found) == "not_allowed: op.2 operand 0"
    around = _moved(Game(problem), COPY, DROP, COPY, NO_COPY)
    assert check(problem, around) == []
    assert _kinds(problem, dataclasses.replace(around, masks=(0, 1, 1, 1, 1))) >= {NOT_ALLOWED}


# Actions on w at 1, w at 2, y and w at 3, with what the checker says of them.
PLAYS = {
    "an earlier use is there": ((COPY, DROP, NO_COPY, DROP), {EXCLUDED}),
    "a later use is there": ((DROP, DROP, NO_COPY, COPY), {EXCLUDED}),
    "both are": ((COPY, DROP, NO_COPY, COPY), {EXCLUDED}),
    "the use itself is there as well": ((COPY, NO_COPY, NO_COPY, DROP), set()),
    "the use itself and a later one are": ((DROP, COPY, NO_COPY, NO_COPY), set()),
    "w is nowhere": ((DROP, DROP, NO_COPY, DROP), set()),
    "y is not": ((COPY, DROP, DROP, COPY), set()),
}


@pytest.mark.parametrize("name", PLAYS)
def test_the_checker_names_an_exclusion(name):
    actions, kinds = PLAYS[name]
    problem = toy(EXCLUDED_OUTPUT)
    assignment = _moved(Game(_free_use(problem)), *actions)
    assert check(_free_use(problem), assignment) == []
    found = check(problem, assignment)
    assert [str(v) for v in found] == ["excluded: w and y at 2"] * len(kinds)
    # Memory could do it all the same, and the compiler's own mapping may.
    assert check(problem, assignment, expressible=False) == []


def test_the_checker_looks_inside_loops():
    problem = toy("""
        cycles         20  20  20    20
        trips          1   1   3*    1
        w  4  param    .   u1  u1    .
        y  4  temp     .   .   D1~w  u1
    """)
    assignment = _moved(Game(_free_use(problem)), COPY, NO_COPY)
    assert _kinds(problem, assignment) == {EXCLUDED}


# --- random play ------------------------------------------------------------------------------


def _with_more_rules(problem: mg.Problem, seed: int) -> mg.Problem:
    """The same problem with every exclusion that it could have, and a quarter of the uses refused.

    Few problems have so many; here a random game must meet them.
    """
    rng = np.random.default_rng(seed)
    instructions = tuple(
        dataclasses.replace(
            i,
            positions=tuple(
                dataclasses.replace(
                    p, is_refused=problem.values[p.value].is_parameter and bool(rng.random() < 0.25)
                )
                for p in i.positions
            ),
        )
        for i in problem.instructions
    )
    exclusions = tuple(
        mg.Exclusion(used.value, t, made.value)
        for t, i in enumerate(instructions)
        for used in i.positions
        for made in i.positions
        if problem.values[used.value].is_parameter and made.is_output
    )
    return problem.replace(instructions=instructions, exclusions=exclusions)


@pytest.mark.parametrize("seed", range(6))
def test_random_games_with_many_rules_are_valid_and_of_the_promised_latency(seed):
    problem = _with_more_rules(mg.random_problem(seed, 40), seed)
    assert len(problem.exclusions) >= 5
    program = pad(mg.encode(problem), RANDOM_PADDING)
    for bias in ((0.0, 0.0, 0.0), (0.0, 0.0, -99.0)):
        final, _ = random_game(program, jax.random.key(seed), jnp.array(bias))
        assignment = mg.to_assignment(problem, final)
        assert check(problem, assignment) == []
        assert mg.latency(problem, assignment).cycles == int(final.latency)


def test_the_game_allows_exactly_what_the_checker_does():
    """Every move that is legal without these rules is legal with them, or breaks one of them."""
    seen = {EXCLUDED: 0, NOT_ALLOWED: 0, "legal": 0}
    for seed in range(4):
        problem = _with_more_rules(mg.random_problem(seed, 45), seed)
        program = pad(mg.encode(problem), RANDOM_PADDING)
        free = pad(mg.encode(_free_use(problem)), RANDOM_PADDING)
        state, free_state = jit_init(program), jit_init(free)
        rng = np.random.default_rng(seed)
        while not state.done:
            legal = np.asarray(mg.legal_actions(program, state))
            for action in np.flatnonzero(mg.legal_actions(free, free_state)[:DROP]):
                after = jit_step(free, free_state, jnp.int32(action))
                found = _kinds(problem, mg.to_assignment(problem, after))
                assert found <= {EXCLUDED, NOT_ALLOWED}
                assert bool(legal[action]) == (not found)
                for kind in found or {"legal"}:
                    seen[kind] += 1
            action = jnp.int32(rng.choice(np.flatnonzero(legal)))
            state, free_state = jit_step(program, state, action), jit_step(free, free_state, action)
    assert min(seen.values()) >= 10, seen


@pytest.mark.parametrize("seed", range(3))
def test_players_that_want_everything_keep_the_rules(seed):
    problem = _with_more_rules(mg.random_problem(seed, 40), seed)
    program = pad(mg.encode(problem), RANDOM_PADDING)
    wanted = jnp.ones(program.max_decisions, bool)
    state, actions = follow_wanted(program, wanted)
    n = int(program.num_decisions)
    placed = np.asarray(state.chunk_of)[:n] != mg.UNPLACED
    assert placed.any() and not placed.all()
    np.testing.assert_array_equal(placed, np.asarray(actions)[:n] != DROP)
    assert not (placed & np.asarray(program.is_refused)[:n]).any()
    assignment = mg.to_assignment(problem, state)
    assert check(problem, assignment) == []
    # It gets the same again, and what is wanted of nothing is nothing.
    again, _ = follow_wanted(program, jnp.zeros_like(wanted).at[:n].set(placed))
    np.testing.assert_array_equal(np.asarray(again.chunk_of)[:n] != mg.UNPLACED, placed)
    none, _ = follow_wanted(program, ~wanted)
    assert int(none.latency) == int(program.default_cycles)


def test_random_problems_have_these_rules():
    problems = [mg.random_problem(seed, 40) for seed in range(10)]
    assert all(p.exclusions for p in problems)
    refused = [p for x in problems for i in x.instructions for p in i.positions if p.is_refused]
    assert len(refused) >= 10 and not any(p.is_output for p in refused)
    program = mg.encode(problems[0])
    assert (np.asarray(program.excluding_group) > 0).any()
    assert program.excluding_group.shape == (bucket(len(problems[0].exclusions), smallest=8),)
