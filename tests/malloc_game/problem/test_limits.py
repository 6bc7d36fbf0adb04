"""Memory that instructions need for themselves, and how many copies may be under way."""

from __future__ import annotations

import dataclasses

import pytest

import malloc_game as mg
from malloc_game import COPY, DROP, NO_COPY
from tests.helpers.toy import KIB, Game, toy


def _kinds(problem: mg.Problem, assignment: mg.Assignment, **how) -> set[str]:
    return {violation.kind for violation in mg.check(problem, assignment, **how)}


# --- reserved memory --------------------------------------------------------------------------


def test_a_chunk_lies_above_what_any_instruction_of_its_life_reserves():
    #  KiB  0   4   6          a: alive while 4 KiB are reserved; b is not
    #  0    .   .   bb
    #  1    rrr aaa bb
    game = Game("""
        cycles         20  20  20
        reserved       0   4   0
        b  2  temp     D1  .   .
        a  4  temp     D1  u1  .
        c  4  temp     .   .   D1
    """)
    game.play(NO_COPY, NO_COPY, NO_COPY)
    assert game.chunks() == [("b", 0, 0, 1), ("a", 4, 0, 2), ("c", 0, 2, 3)]
    assert mg.check(game.problem, game.assignment) == []


def test_what_does_not_fit_beside_reserved_memory_can_only_be_dropped():
    text = """
        cycles          20  20
        reserved        0   {}
        a  12  temp     D1  u1
    """
    assert Game(text.format(4)).legal == {NO_COPY, DROP}
    assert Game(text.format(5)).legal == {DROP}


def test_a_copy_that_is_under_way_while_memory_is_reserved_lies_above_it():
    # 8 KiB: under 1 and 2. 1 needs 4 KiB for itself.
    game = Game("""
        cycles         4   4   4   4
        reserved       0   4   0   0
        w  8  param    .   .   .   u1
    """)
    game.play(COPY)
    assert game.chunks() == [("w", 4, 1, 4)]
    assert mg.check(game.problem, game.assignment) == []


def test_a_chunk_is_not_kept_over_an_instruction_that_reserves_its_place():
    text = """
        cycles         20  20  20  20
        reserved       0   0   {}  0
        w  4  param    .   u1  .   u1
    """
    for kib, legal in ((0, {NO_COPY, DROP}), (1, {DROP})):
        game = Game(text.format(kib))
        game.play(COPY)
        assert game.chunks() == [("w", 0, 0, 2)]
        assert game.legal == legal


def test_a_chunk_in_reserved_memory_is_over_capacity():
    problem = toy("""
        cycles         20  20
        reserved       4   0
        a  4  temp     D1  u1
    """)
    valid = mg.Assignment((1, 1), (mg.Chunk(0, 4 * KIB, 4 * KIB, 0, 2),))
    assert _kinds(problem, valid) == _kinds(problem, valid, expressible=False) == set()
    low = dataclasses.replace(valid, chunks=(mg.Chunk(0, 3 * KIB, 4 * KIB, 0, 2),))
    assert _kinds(problem, low) == _kinds(problem, low, expressible=False) == {"capacity"}


@pytest.mark.parametrize("kib", [-1, 17])
def test_no_instruction_reserves_more_than_there_is(kib):
    with pytest.raises(mg.ProblemError, match=r"reserved_bytes is -?\d+; need 0\.\.16384"):
        toy(f"cycles 20\n reserved {kib}\n a 4 temp D1")


# --- outstanding copies -----------------------------------------------------------------------

TWO_COPIES = """
    cycles         4   4   4   4   4
    a  6  param    .   .   .   u1  .
    b  5  param    .   .   .   .   u1
"""


def test_a_copy_does_not_start_while_too_many_are_under_way():
    #  a: 4 KiB under 1, 2 under 2. b joins it at 2: 2 KiB there and 3 under 3.
    game = Game(toy(TWO_COPIES, max_copies=2))
    game.play(COPY, COPY)
    assert game.copies() == [("a", 1, 3), ("b", 2, 4)]
    # Alone it has the 3 KiB under 3 only.
    game = Game(toy(TWO_COPIES, max_copies=1))
    game.play(COPY)
    assert game.legal == {DROP}
    game = Game(toy(TWO_COPIES.replace("b  5", "b  3"), max_copies=1))
    game.play(COPY, COPY)
    assert game.copies() == [("a", 1, 3), ("b", 3, 4)]


def test_a_copy_may_start_as_another_is_awaited():
    game = Game(toy(TWO_COPIES.replace("b  5", "b  3"), max_copies=1))
    game.play(COPY, COPY)
    assert mg.check(game.problem, game.assignment) == []


def test_too_many_copies_under_way_are_named():
    game = Game(TWO_COPIES)
    game.play(COPY, COPY)
    assert _kinds(game.problem, game.assignment) == set()
    limited = toy(TWO_COPIES, max_copies=1)
    for expressible in (True, False):
        assert _kinds(limited, game.assignment, expressible=expressible) == {"outstanding"}


def test_a_limit_below_zero_is_a_problem_error():
    with pytest.raises(mg.ProblemError, match="max_outstanding_copies is -1; need 0\\.\\."):
        toy(TWO_COPIES, max_copies=-1)
