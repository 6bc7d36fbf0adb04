"""The independent checker: each kind of damage to a valid assignment is told by its own name."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import pytest

import malloc_game as mg
from malloc_game import COPY, DROP, NO_COPY, check
from tests.helpers.toy import KIB, RANDOM_PADDING, Game, pad, random_game, toy

#  KiB    time 0    1    2    3    4
#  0..4        .    xxxx xxxx xxxx .       x: computed, read at 3
#  4..8        .    .    wwww wwww wwww    w: a copy from 2 fills it for 3, then kept for 4
DRAWING = """
    cycles         20  20  5   20  20
    trips          3*  1   1   1   1
    x  4  temp     .   D1  -   u1  .
    w  4  param    .   .   .   u1  u1
"""


@pytest.fixture
def problem() -> mg.Problem:
    return toy(DRAWING)


@pytest.fixture
def valid(problem) -> mg.Assignment:
    game = Game(problem)
    game.play(NO_COPY, COPY, NO_COPY)
    assert game.chunks() == [("x", 0, 1, 4), ("w", 4, 2, 5)]
    assert game.copies() == [("w", 2, 3)]
    return game.assignment


def _kinds(problem: mg.Problem, assignment: mg.Assignment) -> set[str]:
    return {violation.kind for violation in check(problem, assignment)}


def _with_chunk(assignment: mg.Assignment, number: int, **changes) -> mg.Assignment:
    chunks = list(assignment.chunks)
    chunks[number] = dataclasses.replace(chunks[number], **changes)
    return dataclasses.replace(assignment, chunks=tuple(chunks))


def _with_copy(assignment: mg.Assignment, **changes) -> mg.Assignment:
    copy = dataclasses.replace(assignment.copies[0], **changes)
    return dataclasses.replace(assignment, copies=(copy,))


X, W = 0, 1
DAMAGES = {
    "overlap in part": ("overlap", lambda a: _with_chunk(a, W, offset=3 * KIB)),
    "overlap in full": ("overlap", lambda a: _with_chunk(a, W, offset=0)),
    "past the end of memory": ("capacity", lambda a: _with_chunk(a, W, offset=13 * KIB)),
    "before the start of memory": ("capacity", lambda a: _with_chunk(a, X, offset=-KIB)),
    "half a granule off": ("alignment", lambda a: _with_chunk(a, W, offset=4 * KIB + 512)),
    "no chunk": ("uncovered", lambda a: dataclasses.replace(a, chunks=a.chunks[1:])),
    "chunk ends before the last use": ("uncovered", lambda a: _with_chunk(a, X, end=3)),
    "chunk begins after the definition": ("uncovered", lambda a: _with_chunk(a, X, start=2)),
    "a computed value in both memories": (
        "partial", lambda a: dataclasses.replace(a, masks=(0, 1, 0, 2, 1))),
    "chunk before the value exists": ("too_early", lambda a: _with_chunk(a, X, start=0)),
    "chunk outlives the value": ("too_late", lambda a: _with_chunk(a, X, end=5)),
    "copy ends after the last use": ("too_late", lambda a: dataclasses.replace(
        a, copies=(*a.copies, mg.Copy(W, 3, 5, 4 * KIB)))),
    "copy ends as it starts": ("too_late", lambda a: dataclasses.replace(
        a, copies=(*a.copies, mg.Copy(W, 4, 4, 4 * KIB)))),
    "copy starts after the program": ("too_late", lambda a: dataclasses.replace(
        a, copies=(*a.copies, mg.Copy(W, 5, 5, 4 * KIB)))),
    "no copy at all": ("no_copy", lambda a: dataclasses.replace(a, copies=())),
    "an eviction is no prefetch": ("no_copy", lambda a: _with_copy(a, direction=mg.EVICTION)),
    "the copy fills another chunk": ("no_copy", lambda a: _with_copy(a, start=1)),
    "copy too small": ("size", lambda a: _with_copy(a, size=KIB)),
    "chunk too small": ("size", lambda a: _with_chunk(a, W, size=3 * KIB)),
    "chunk too large": ("size", lambda a: _with_chunk(a, W, size=5 * KIB)),
}  # fmt: skip


def test_the_undamaged_assignment_is_valid(problem, valid):
    assert check(problem, valid) == []
    assert check(problem, mg.all_default(problem)) == []


@pytest.mark.parametrize("name", DAMAGES)
def test_each_damage_is_named(problem, valid, name):
    kind, damage = DAMAGES[name]
    damaged = damage(valid)
    assert damaged != valid
    assert _kinds(problem, damaged) >= {kind}
    # Nothing else is blamed, but for a use that loses its chunk or its copy with it.
    follow_up = {"size": {"bandwidth"}, "too_late": {"bandwidth"}}.get(kind, set())
    assert _kinds(problem, damaged) <= {kind} | follow_up


def test_a_value_that_may_not_be_there_is_named(problem, valid):
    values = tuple(
        dataclasses.replace(v, may_be_in_alternate=v.name != "w") for v in problem.values
    )
    assert _kinds(problem.replace(values=values), valid) == {"not_allowed"}
    values = tuple(dataclasses.replace(v, is_refused=v.name == "x") for v in problem.values)
    assert _kinds(problem.replace(values=values), valid) == {"not_allowed"}


def test_a_copy_from_inside_a_loop_is_too_early(problem, valid):
    early = _with_chunk(_with_copy(valid, start=0), W, start=0)
    assert _kinds(problem, early) == {"too_early"}


def test_a_copy_that_is_not_done_in_time_is_named():
    # 5 KiB idle under 2: 5 KiB are in time, 5.5 are not; nor are two copies of 4.
    for kib, expected in ((5, set()), (5.5, {"bandwidth"})):
        problem = toy(DRAWING.replace("w  4", f"w  {kib}"))
        size = int(kib * KIB)
        assignment = mg.Assignment(
            (0, 0, 0, 1 << 1, 0), (mg.Chunk(W, 0, size, 2, 4),), (mg.Copy(W, 2, 3, size),)
        )
        assert _kinds(problem, assignment) == expected


def test_a_copy_that_delays_another_is_named():
    problem = toy("""
        cycles         4   4   4   4
        a  4  param    .   .   u   .
        b  4  param    .   .   .   u
    """)
    chunks = (mg.Chunk(0, 0, 4 * KIB, 1, 3), mg.Chunk(1, 4 * KIB, 4 * KIB, 1, 4))
    first, second = mg.Copy(0, 1, 2, 4 * KIB), mg.Copy(1, 1, 3, 4 * KIB)
    in_order = mg.Assignment((0, 0, 1, 1), chunks, (first, second))
    assert check(problem, in_order) == []
    swapped = dataclasses.replace(in_order, copies=(second, first))
    assert _kinds(problem, swapped) == {"bandwidth"}
    assert mg.latency(problem, in_order).wait_cycles == 0
    assert mg.latency(problem, swapped).wait_cycles == 4


def test_uncovered_parameter_use_is_named(problem, valid):
    shorter = _with_chunk(valid, W, end=4)
    assert _kinds(problem, shorter) == {"uncovered", "no_copy"}


def test_a_chunk_may_take_over_at_the_instant_another_ends():
    problem = toy("""
        cycles         20  20  20
        x  4  temp     D1  u1  .
        y  4  temp     .   .   D1
    """)
    touching = mg.Assignment((1, 1, 1), (mg.Chunk(0, 0, 4096, 0, 2), mg.Chunk(1, 0, 4096, 2, 3)))
    assert check(problem, touching) == []


def test_a_value_copied_from_a_parameter_needs_a_prefetch():
    problem = toy("""
        cycles             8   8   8   8
        k  4  copied:1     -   D8  .   u1
    """)
    game = Game(problem)
    game.play(COPY)
    assert check(problem, game.assignment) == []
    assert _kinds(problem, dataclasses.replace(game.assignment, copies=())) == {"no_copy"}
    assert "uncovered" in _kinds(problem, dataclasses.replace(game.assignment, chunks=()))
    half = dataclasses.replace(game.assignment, masks=(0, 1, 0, 0))
    assert _kinds(problem, half) == {"partial"}


def test_a_violation_reads_well(problem, valid):
    (found,) = check(problem, DAMAGES["overlap in full"][1](valid))
    assert str(found) == "overlap: chunks of x and w"


@pytest.mark.parametrize("seed", range(5))
def test_damaged_random_games_are_rejected(seed):
    problem = mg.random_problem(seed, 50)
    program = pad(mg.encode(problem), RANDOM_PADDING)
    bias = jnp.array([0.0, 0.0, -99.0])
    final, _ = random_game(program, jax.random.key(seed), bias)
    assignment = mg.to_assignment(problem, final)
    assert check(problem, assignment) == []
    assert len(assignment.chunks) >= 5 and assignment.copies
    for i, chunk in enumerate(assignment.chunks):
        without = assignment.chunks[:i] + assignment.chunks[i + 1 :]
        assert check(problem, dataclasses.replace(assignment, chunks=without))
        for changes in (
            {"offset": problem.target.alternate_memory_bytes},
            {"offset": chunk.offset + 1},
            {"size": chunk.size + 1},
            {"end": chunk.end - 1},
            {"start": chunk.start + 1},
        ):
            assert check(problem, _with_chunk(assignment, i, **changes)), (chunk, changes)
    for i in range(len(assignment.copies)):
        without = assignment.copies[:i] + assignment.copies[i + 1 :]
        assert check(problem, dataclasses.replace(assignment, copies=without))


def test_waiting_is_charged_where_a_copy_is_late():
    """The judge of all mappings, on one that no game makes: 3 of 4 KiB must be waited for."""
    problem = toy("""
        cycles         9   5   9
        f  4  param!   .   u   .
        w  4  param    .   .   u2
    """)
    late = mg.Assignment((0, 0, 1), (mg.Chunk(1, 0, 4096, 1, 3),), (mg.Copy(1, 1, 2, 4096),))
    assert _kinds(problem, late) == {"bandwidth"}
    judged = mg.latency(problem, late)
    assert (judged.instruction_cycles, judged.wait_cycles, judged.cycles) == (9 + 5 + 7, 3, 24)


def test_dropping_everything_is_all_default(problem):
    game = Game(problem)
    game.play(DROP, DROP, DROP)
    default = mg.all_default(problem)
    assert dataclasses.replace(game.assignment, source="all_default") == default
    assert mg.latency(problem, default).cycles == 3 * 20 + 20 + 5 + 20 + 20
