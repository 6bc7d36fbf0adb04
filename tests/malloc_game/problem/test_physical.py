"""The physical rules and the latency of mappings that no game makes: slices, evictions, loops."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import pytest

import malloc_game as mg
from malloc_game import EVICTION, PREFETCH, Chunk, Copy, check
from malloc_game.solvers import lower_bound
from tests.helpers.toy import KIB, RANDOM_PADDING, pad, random_game, toy

#  KiB    time 0    1    2    3    4    5
#  0..4        .    xxxx xxxx xxxx xxxx .    x: computed, evicted from 2 on, read at 5 in default
#  4..6        .    wwww wwww wwww wwww .    w: the lower half is copied from 1 on
#  6..8        .    .    wwww wwww wwww .       the upper half from 2 on; both are awaited at 3
DRAWING = """
    cycles         20  20  20  20  20  20  20
    x  4  temp     .   D1  -   u1  -   u1  .
    w  4  param    .   .   .   u1  u1  .   u1
"""
X_INSIDE = Chunk(0, 0, 4 * KIB, 1, 5)
W_LOWER = Chunk(1, 4 * KIB, 2 * KIB, 1, 5)
W_UPPER = Chunk(1, 6 * KIB, 2 * KIB, 2, 5, value_offset=2 * KIB)
LOWER = Copy(1, 1, 3, 2 * KIB)
UPPER = Copy(1, 2, 3, 2 * KIB, value_offset=2 * KIB)
EVICT = Copy(0, 2, 5, 4 * KIB, EVICTION)
VALID = mg.Assignment((0, 1, 0, 0b11, 1, 0, 0), (X_INSIDE, W_LOWER, W_UPPER), (LOWER, UPPER, EVICT))


@pytest.fixture
def problem() -> mg.Problem:
    return toy(DRAWING)


def _kinds(problem: mg.Problem, assignment: mg.Assignment) -> set[str]:
    return {violation.kind for violation in check(problem, assignment, expressible=False)}


def _chunks(*chunks: Chunk) -> mg.Assignment:
    return dataclasses.replace(VALID, chunks=chunks)


def _copies(*copies: Copy) -> mg.Assignment:
    return dataclasses.replace(VALID, copies=copies)


def _w_at(offset: int) -> mg.Assignment:
    """The valid mapping with w's chunks elsewhere, still side by side."""
    lower = dataclasses.replace(W_LOWER, offset=offset)
    return _chunks(X_INSIDE, lower, dataclasses.replace(W_UPPER, offset=offset + 2 * KIB))


_new = dataclasses.replace
X_LONG = _new(X_INSIDE, end=6)

DAMAGES = {
    "overlap": ("overlap", _w_at(3 * KIB)),
    "past the end of memory": ("capacity", _w_at(13 * KIB)),
    "before the start of memory": ("capacity", _w_at(-4 * KIB)),
    "half a granule off": ("alignment", _w_at(8 * KIB + 512)),
    "no chunk for a use": ("uncovered", _chunks(X_INSIDE)),
    "no memory for one half": ("uncovered", _chunks(X_INSIDE, W_LOWER)),
    "the halves are not side by side": (
        "uncovered", _chunks(X_INSIDE, W_LOWER, _new(W_UPPER, offset=8 * KIB))),
    "the chunk is gone before the last use": (
        "uncovered", _chunks(X_INSIDE, _new(W_LOWER, end=4), _new(W_UPPER, end=4))),
    "the chunk begins after its copy": (
        "uncovered", _chunks(X_INSIDE, _new(W_LOWER, start=2), W_UPPER)),
    "a chunk before the value exists": (
        "too_early", _chunks(_new(X_INSIDE, start=0), W_LOWER, W_UPPER)),
    "a chunk outlives the value": (
        "too_late", _chunks(_new(X_INSIDE, end=7), W_LOWER, W_UPPER)),
    "a chunk of no time": (
        "too_late", _chunks(*VALID.chunks, Chunk(1, 9 * KIB, 4 * KIB, 6, 6))),
    "a chunk of more than the value": (
        "size", _chunks(X_INSIDE, W_LOWER, _new(W_UPPER, size=3 * KIB))),
    "no prefetch": ("no_copy", _copies(EVICT)),
    "one slice is missing": ("size", _copies(LOWER, EVICT)),
    "a slice is too short": ("size", _copies(LOWER, _new(UPPER, size=KIB), EVICT)),
    "a slice is too long": ("size", _copies(LOWER, _new(UPPER, size=3 * KIB), EVICT)),
    "a slice is copied twice": ("size", _copies(LOWER, LOWER, EVICT)),
    "a prefetch is awaited after its use": (
        "no_copy", _copies(_new(LOWER, end=4), _new(UPPER, end=4), EVICT)),
    "one slice is awaited after the use": ("size", _copies(LOWER, _new(UPPER, end=4), EVICT)),
    "a prefetch for no use": (
        "too_late", _copies(LOWER, UPPER, EVICT, Copy(1, 5, 7, 4 * KIB))),
    "a copy is awaited before it starts": (
        "too_late", _copies(_new(LOWER, start=2, end=2, start_order=1), UPPER, EVICT)),
    "no eviction": ("no_eviction", _copies(LOWER, UPPER)),
    "half an eviction": ("size", _copies(LOWER, UPPER, _new(EVICT, size=2 * KIB))),
    "an eviction is awaited after the use": (
        "no_eviction",
        _new(_copies(LOWER, UPPER, _new(EVICT, end=6)), chunks=(X_LONG, W_LOWER, W_UPPER))),
    "an eviction starts before the value exists": (
        "too_early", _copies(LOWER, UPPER, _new(EVICT, start=0))),
    "the chunk goes away under an eviction": (
        "uncovered", _chunks(_new(X_INSIDE, end=4), W_LOWER, W_UPPER)),
}  # fmt: skip
# What comes with it: a copy that carries nothing leaves its use without data, and so on.
FOLLOW_UPS = {
    "no chunk for a use": {"no_copy"},
    "no memory for one half": {"size"},
    "the halves are not side by side": {"size"},
    "the chunk begins after its copy": {"size"},
    "a slice is too long": {"uncovered"},
    "a copy is awaited before it starts": {"size"},
    "a prefetch for no use": {"uncovered"},
    "an eviction starts before the value exists": {"no_copy", "no_eviction"},
}


def test_memory_can_do_what_the_game_may_not(problem):
    assert check(problem, VALID, expressible=False) == []
    assert {v.kind for v in check(problem, VALID)} >= {"size", "partial"}


@pytest.mark.parametrize("name", DAMAGES)
def test_each_damage_is_named(problem, name):
    kind, damaged = DAMAGES[name]
    assert damaged != VALID
    found = _kinds(problem, damaged)
    assert found >= {kind}
    assert found <= {kind} | FOLLOW_UPS.get(name, set())


def test_a_definition_makes_every_other_copy_stale():
    problem = toy("""
        cycles         20  20  20  20
        p  4  param    u1  .   -   u1
        q  4  temp     D1  u1  -   u1
    """)
    # p is written over in alternate memory at 1: what default memory has is stale from then on.
    instruction = problem.instructions[1]
    positions = (*instruction.positions, mg.Position(0, True, 0, (), 4 * KIB))
    table = mg.CostTable((20,) * 4, (True,) * 4)
    problem = problem.replace(
        instructions=(
            problem.instructions[0],
            _new(instruction, positions=positions),
            *problem.instructions[2:],
        ),
        cost_tables=(problem.cost_tables[0], table, *problem.cost_tables[2:]),
    )
    chunk = Chunk(0, 0, 4 * KIB, 0, 3)
    inside = mg.Assignment((0, 0b10, 0, 0), (chunk,), (Copy(0, 2, 3, 4 * KIB, EVICTION),))
    assert _kinds(problem, inside) == set()
    assert _kinds(problem, _new(inside, copies=())) == {"no_eviction"}
    # A copy of what was there before the write brings nothing; nor does an eviction of it.
    before = _new(inside, copies=(Copy(0, 0, 3, 4 * KIB, PREFETCH),), masks=(0, 0, 0, 1))
    before = _new(before, chunks=(_new(chunk, end=4),))
    assert _kinds(problem, before) == {"no_copy"}
    after = _new(before, copies=(Copy(0, 2, 3, 4 * KIB, PREFETCH),))
    assert _kinds(problem, after) == set()


def test_what_is_prefetched_across_programs_may_stay_for_the_next_run(problem):
    chunk = Chunk(1, 0, 4 * KIB, 0, 7)
    crossing = Copy(1, 0, 3, 4 * KIB, is_cross_program=True)
    stays = mg.Assignment((0, 0, 0, 0b10, 0b1, 0, 1), (chunk,), (crossing,))
    assert _kinds(problem, stays) == set()
    problem = toy(DRAWING.replace("u1  u1  .   u1", "u1  u1  .   ."))
    ends = [_new(v, end=5) if v.name == "w" else v for v in problem.values]
    problem = problem.replace(values=tuple(ends))
    for_next = Copy(1, 6, 7, 4 * KIB)
    stays = _new(stays, masks=(0, 0, 0, 0b10, 0b1, 0, 0), copies=(crossing, for_next))
    assert _kinds(problem, stays) == set()
    assert _kinds(problem, _new(stays, copies=(_new(crossing, start=1), for_next))) == {"too_early"}
    plain = _new(crossing, is_cross_program=False)
    assert _kinds(problem, _new(stays, copies=(plain, for_next))) == {"too_late"}


def test_a_plain_copy_of_a_parameter_may_write_alternate_memory_or_become_a_prefetch():
    problem = toy("""
        cycles             8   8   8   8
        k  4  copied:1     -   D8  .   u1
    """)
    masks = (0, 1, 0, 1)
    written = mg.Assignment(masks, (Chunk(0, 0, 4 * KIB, 1, 4),))
    assert _kinds(problem, written) == set()
    prefetched = mg.Assignment(masks, (Chunk(0, 0, 4 * KIB, 0, 4),), (Copy(0, 0, 3, 4 * KIB),))
    assert _kinds(problem, prefetched) == set()
    later = mg.Assignment(masks, (Chunk(0, 0, 4 * KIB, 2, 4),), (Copy(0, 2, 3, 4 * KIB),))
    assert _kinds(problem, later) == set()
    assert _kinds(problem, _new(later, copies=())) == {"no_copy"}
    assert _kinds(problem, mg.Assignment(masks)) == {"uncovered"}
    # The prefetch makes the copy disappear; without one the copy itself takes its time.
    assert mg.latency(problem, prefetched).instruction_cycles == 8 + 0 + 8 + 7
    assert mg.latency(problem, written).instruction_cycles == 8 + 0 + 8 + 7
    read = [
        _new(i, other_bytes=4 * KIB) if t == 1 else i for t, i in enumerate(problem.instructions)
    ]
    problem = problem.replace(instructions=tuple(read))
    assert mg.latency(problem, prefetched).instruction_cycles == 8 + 0 + 8 + 7
    assert mg.latency(problem, written).instruction_cycles == 8 + 4 + 8 + 7  # 4 KiB are read
    known = problem.replace(values=(_new(problem.values[0], copy_cycles=6),))
    assert mg.latency(known, written).instruction_cycles == 8 + 6 + 8 + 7


def test_a_copy_is_charged_by_where_its_own_result_is():
    """What else its instruction touches in alternate memory is priced by the cost table."""
    problem = toy("""
        cycles             20  20  20  20
        w  4  param        .   u3  .   .
        k  4  copied:1     -   D5  .   u1
        j  2  copied:1     -   D7  .   u1
    """)

    def cycles_of_the_copy(mask: int, *copies: Copy) -> float:
        mapping = mg.Assignment((0, mask, 0, 0), copies=copies)
        return mg.latency(problem, mapping).instruction_cycles - 60

    assert cycles_of_the_copy(0b001) == 20 - 3
    # k is written there by the instruction itself: w and j, or j alone, are moved.
    assert cycles_of_the_copy(0b010) == 6
    assert cycles_of_the_copy(0b011) == 2
    assert cycles_of_the_copy(0b011, Copy(1, 0, 3, 4 * KIB)) == 20 - 8
    # A prefetch of one says nothing of the other.
    assert cycles_of_the_copy(0b110, Copy(1, 0, 3, 4 * KIB)) == 4
    both = Copy(1, 0, 3, 4 * KIB), Copy(2, 0, 3, 2 * KIB)
    assert cycles_of_the_copy(0b110, *both) == 20 - 12


@pytest.mark.parametrize("seed", range(4))
def test_what_the_game_makes_is_physical(seed):
    problem = mg.random_problem(seed, 50)
    program = pad(mg.encode(problem), RANDOM_PADDING)
    final, _ = random_game(program, jax.random.key(seed), jnp.array([0.0, 0.0, -99.0]))
    assignment = mg.to_assignment(problem, final)
    assert assignment.copies
    assert check(problem, assignment, expressible=False) == []
    for i, copy in enumerate(assignment.copies):
        without = assignment.copies[:i] + assignment.copies[i + 1 :]
        kinds = _kinds(problem, _new(assignment, copies=without))
        value = problem.values[copy.value]
        # Without its prefetch a copy of a parameter may simply have written its chunk itself.
        assert kinds == {"no_copy"} or (value.copied_at >= 0 and copy.start <= value.copied_at)
    assert check(problem, mg.all_default(problem), expressible=False) == []


# -- loops -----------------------------------------------------------------------------------


LOOP = """
    cycles         20  20  20  20
    trips          1   3*  3*  1
    w  4  param    .   .   u   .
    y  4  temp     D   u   D   u
"""


def test_what_comes_from_before_a_loop_must_outlast_it():
    problem = toy(LOOP)
    used = (0, 0, 1, 0)
    before = Copy(0, 0, 1, 4 * KIB)
    assert _kinds(problem, mg.Assignment(used, (Chunk(0, 0, 4 * KIB, 0, 3),), (before,))) == set()
    problem = toy(LOOP.replace(".   u   .", "u   .   ."))
    used = (0, 1, 0, 0)
    lasts = Chunk(0, 0, 4 * KIB, 0, 2)
    values = (_new(problem.values[0], end=3), problem.values[1])  # alive until the loop ends
    problem = problem.replace(values=values)
    assert _kinds(problem, mg.Assignment(used, (_new(lasts, end=3),), (before,))) == set()
    # Gone after its use, though the next round reads it again.
    assert _kinds(problem, mg.Assignment(used, (lasts,), (before,))) == {"no_copy"}


def test_a_copy_inside_a_loop_brings_data_in_every_round():
    problem = toy(LOOP)
    each_round = Copy(0, 1, 2, 4 * KIB, trip_count=3)
    inside = mg.Assignment((0, 0, 1, 0), (Chunk(0, 0, 4 * KIB, 1, 3),), (each_round,))
    assert _kinds(problem, inside) == set()
    once = _new(each_round, trip_count=1)  # starts before the loop: no round can await it
    assert _kinds(problem, _new(inside, copies=(once,))) == {"no_copy"}


def test_a_round_leaves_its_result_where_the_next_one_reads_it():
    problem = toy(LOOP)
    chunk = Chunk(1, 0, 4 * KIB, 0, 4)
    carried = mg.Assignment((1, 1, 0b10, 1), (chunk,))
    assert _kinds(problem, carried) == set()
    elsewhere = _new(carried, masks=(1, 1, 0, 0))
    assert _kinds(problem, elsewhere) == {"no_copy"}
    moved = (_new(chunk, end=2), _new(chunk, start=2, offset=8 * KIB))
    assert _kinds(problem, _new(carried, chunks=moved)) == {"no_copy"}


# -- latency ---------------------------------------------------------------------------------


def _wait(problem: mg.Problem, *copies: Copy) -> float:
    masks = (0,) * len(problem.instructions)
    return mg.latency(problem, mg.Assignment(masks, copies=copies)).wait_cycles


# Every instruction takes 6 cycles and moves 4 KiB, so it leaves 2 KiB idle.
BUSY = """
    cycles         6   6   6   6
    trips          1   3*  3*  1
    f  4  param!   u   u   u   u
"""


def test_evictions_and_prefetches_run_in_queues_of_their_own():
    problem = toy(BUSY)
    read, write = Copy(0, 1, 2, 4 * KIB), Copy(0, 1, 2, 4 * KIB, EVICTION)
    assert _wait(problem, read) == _wait(problem, write) == 2  # 4 KiB, 2 of them hidden
    assert _wait(problem, read, read) == 6
    assert _wait(problem, read, write) == 6  # half the bandwidth each
    assert _wait(problem, read, _new(write, end=4)) == 6  # whoever waits: both are done then


def test_a_copy_inside_a_loop_is_awaited_every_time():
    problem = toy(BUSY)
    assert _wait(problem, Copy(0, 1, 2, 4 * KIB, trip_count=3)) == 3 * 2


def test_slices_are_copies_of_their_own():
    problem = toy(BUSY)
    first = Copy(0, 0, 2, 2 * KIB)
    second = Copy(0, 1, 2, 2 * KIB, value_offset=2 * KIB)
    assert _wait(problem, first, second) == 0


def test_the_order_of_what_happens_before_one_instruction_counts():
    problem = toy(BUSY)
    read, write = Copy(0, 0, 1, 4 * KIB), Copy(0, 1, 2, 4 * KIB, EVICTION)
    # Awaited first: 2 KiB alone; then the eviction has 2 idle KiB, and 2 cycles to wait for.
    assert _wait(problem, read, write) == 2 + 2
    # Started first: both share the bandwidth for 4 cycles; then the eviction's rest is hidden.
    shared = _new(read, end_order=1), _new(write, start_order=0)
    assert _wait(problem, *shared) == 4 + 0
    # Awaited in full before the next one starts, with no instruction in between.
    chain = (
        Copy(0, 1, 1, 4 * KIB, start_order=0, end_order=1),
        Copy(0, 1, 1, 4 * KIB, EVICTION, start_order=2, end_order=3),
    )
    assert _wait(problem, *chain) == 4 + 4


def test_an_eviction_of_a_live_out_takes_the_place_of_its_write_back():
    problem = toy("""
        cycles         6   6   6
        f  4  param!   u   u   u
        y  4  out:5    D   -   -
    """)
    inside = mg.Assignment((0b10, 0, 0), (Chunk(1, 0, 4 * KIB, 0, 3),))
    assert mg.latency(problem, inside).write_back_cycles == 5
    evicted = _new(inside, copies=(Copy(1, 1, 3, 4 * KIB, EVICTION),))
    judged = mg.latency(problem, evicted)
    assert (judged.write_back_cycles, judged.wait_cycles) == (0, 0)
    assert check(problem, inside, expressible=False) == []
    assert check(problem, evicted, expressible=False) == []


def test_a_plain_copy_is_free_only_if_prefetches_bring_the_whole_value():
    problem = toy("""
        cycles             9   9   9   9
        k  4  copied:1     -   D8  .   u1
    """)
    problem = problem.replace(values=(dataclasses.replace(problem.values[0], copy_cycles=7),))

    def cycles(*sizes):
        offsets = [sum(sizes[:i]) for i in range(len(sizes))]
        copies = tuple(
            Copy(0, 0, 3, size, value_offset=at) for size, at in zip(sizes, offsets, strict=True)
        )
        chunk = Chunk(0, 0, 4 * KIB, 0, 4)
        return mg.latency(problem, mg.Assignment((0, 1, 0, 1), (chunk,), copies)).cycles

    assert cycles(4 * KIB) == cycles(KIB, 3 * KIB) == 9 + 1 + 9 + 8
    assert cycles(KIB) == cycles(KIB, 2 * KIB) == 9 + 7 + 9 + 8


def test_what_takes_no_time_may_make_a_value_in_alternate_memory():
    # sinkhorn: a loop's first carry comes from a custom call that is not timed.
    problem = toy("""
        cycles            1   9   9   9
        x  4  temp        -   u9  D   u
    """)

    def kinds(start):
        chunk = Chunk(0, 0, 4 * KIB, start, 4)
        return _kinds(problem, mg.Assignment((0, 1, 1, 1), (chunk,)))

    assert problem.values[0].start == 0
    assert kinds(0) == set() and kinds(1) == {"no_copy"}
    # The bound knows of it: the use saves its 9 cycles without a copy, for which there is no time.
    assert lower_bound(problem).cycles == pytest.approx(1 + 3 * 9 - 9)


#  KiB    time 0    1    2    3    4
#  0..4        .    .    ssss ssss .     s: half of x, which stays in default memory
SLICED = """
    cycles         20  20  20  20  20
    x  8  temp!    D   u   -   u   -
    s  4  sliced:x .   D1  -   u1  .
"""
ASYNCHRONOUS = mg.Assignment(
    (0, 0b10, 0, 0b10, 0), (Chunk(1, 0, 4 * KIB, 2, 4),), (Copy(1, 2, 3, 4 * KIB),)
)


def test_an_asynchronous_slice_takes_the_place_of_a_plain_one():
    problem = toy(SLICED)
    assert check(problem, ASYNCHRONOUS, expressible=False) == []
    found = mg.latency(problem, ASYNCHRONOUS)
    assert (found.instruction_cycles, found.wait_cycles) == (20 + 0 + 20 + 19 + 20, 0)
    plain = _new(ASYNCHRONOUS, chunks=(Chunk(1, 0, 4 * KIB, 1, 4),), copies=())
    assert check(problem, plain, expressible=False) == []
    assert mg.latency(problem, plain).cycles == 20 + 19 + 20 + 19 + 20
    # It may be on its way before its place in the program, but is no move of the game.
    early = _new(plain, copies=(Copy(1, 1, 3, 4 * KIB),))
    assert check(problem, early, expressible=False) == []
    assert {v.kind for v in check(problem, early)} == {"not_allowed"}
    late = _new(ASYNCHRONOUS, copies=(Copy(1, 3, 3, 4 * KIB),))
    assert mg.latency(problem, late).wait_cycles == 4


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"copies": ()}, {"uncovered", "no_copy"}),
        ({"copies": (Copy(1, 2, 3, 2 * KIB),)}, {"size"}),
        ({"copies": (Copy(1, 2, 4, 4 * KIB),)}, {"too_late", "no_copy"}),
        ({"copies": (Copy(1, 0, 3, 4 * KIB),)},
         {"no_eviction", "too_late", "uncovered", "no_copy"}),
        ({"chunks": ()}, {"uncovered"}),
        ({"chunks": (Chunk(1, 0, 4 * KIB, 3, 4),)}, {"uncovered", "no_copy"}),
        ({"masks": (0, 0, 0, 0b10, 0)}, set()),
        ({"masks": (0, 0b10, 0, 0, 0)}, {"no_eviction"}),
    ],
    ids=["plain", "half", "too late", "too early", "no memory", "memory too late",
         "after a plain one", "read where it is not"],
)  # fmt: skip
def test_an_asynchronous_slice_needs_what_any_copy_needs(changes, expected):
    assert _kinds(toy(SLICED), _new(ASYNCHRONOUS, **changes)) == expected


def test_what_is_sliced_is_in_default_memory_until_the_slice_is_there():
    inside = toy(SLICED.replace("temp!", "temp "))
    made_inside = _new(
        ASYNCHRONOUS,
        masks=(1, 0b11, 0, 0b11, 0),
        chunks=(*ASYNCHRONOUS.chunks, Chunk(0, 8 * KIB, 8 * KIB, 0, 5)),
    )
    assert _kinds(inside, made_inside) == {"no_eviction"}
    evicted = _new(made_inside, copies=(Copy(0, 1, 2, 8 * KIB, EVICTION), *made_inside.copies))
    assert _kinds(inside, evicted) == set()
    overwritten = toy(SLICED.replace("-   u   -", "D   u   -"))
    assert _kinds(overwritten, _new(ASYNCHRONOUS, masks=(0, 0b10, 0, 0b10, 0))) == {"too_late"}


def test_an_asynchronous_slice_is_in_the_loop_of_the_plain_one():
    problem = toy("""
        cycles         20  20  20  20
        trips          1   3*  3*  1
        x  8  temp!    D   u   -   -
        s  4  sliced:x .   D1  u1  .
    """)
    once = mg.Assignment(
        (0, 0b10, 1, 0), (Chunk(1, 0, 4 * KIB, 1, 3),), (Copy(1, 1, 2, 4 * KIB, trip_count=3),)
    )
    assert _kinds(problem, once) == set()
    before = _new(once, copies=(Copy(1, 1, 2, 4 * KIB),))
    assert "too_early" in _kinds(problem, before)


def test_two_cores_may_hold_a_half_each():
    text = """
        cycles      20  20  20
        w  4  param .   u1  .
        v  4  param .   u1  .
    """
    copies = Copy(0, 0, 1, 4 * KIB), Copy(1, 0, 1, 4 * KIB)
    halves = Chunk(0, 0, 2 * KIB, 0, 2), Chunk(1, 2 * KIB, 4 * KIB, 0, 2)
    assignment = mg.Assignment((0, 0b11, 0), halves, copies)
    whole = toy(text)
    assert _kinds(whole, assignment) == {"uncovered"}
    split = whole.replace(values=(_new(whole.values[0], split_bytes=2 * KIB), whole.values[1]))
    assert _kinds(split, assignment) == set()
    assert {v.kind for v in check(split, assignment)} == {"size"}, "the game leaves room for all"
    for chunk in (_new(halves[0], size=KIB), _new(halves[0], value_offset=2 * KIB)):
        assert _kinds(split, _new(assignment, chunks=(chunk, halves[1]))) == {"uncovered"}
    assert _kinds(split, _new(assignment, copies=(_new(copies[0], size=2 * KIB), copies[1]))) == {
        "size"
    }
    assert "overlap" in _kinds(
        split, _new(assignment, chunks=(_new(halves[0], offset=KIB), halves[1]))
    )
