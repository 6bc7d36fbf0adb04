"""The rules by hand on tiny programs; properties on random play of random ones."""

from __future__ import annotations

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import malloc_game as mg
from malloc_game import COPY, DROP, NO_COPY
from malloc_game.game.encoding import bucket
from malloc_game.problem.definition import MAX_PRICED_POSITIONS
from tests.helpers.toy import (
    KIB,
    NUM_STEPS,
    RANDOM_PADDING,
    WIDE_PADDING,
    Game,
    jit_init,
    jit_step,
    pad,
    random_game,
    toy,
)

properties = settings(deadline=None, max_examples=40, derandomize=True, database=None)
seeds = st.integers(0, 10_000)
sizes = st.integers(5, 60)
# Logits of COPY, NO_COPY, DROP: even, greedy, copies before all, seldom anything, never dropping.
biases = st.sampled_from([(0, 0, 0), (2, 2, 0), (9, 0, 0), (-2, -2, 0), (0, 9, 0), (0, 0, -99)])


# --- properties of random play ----------------------------------------------------------------


def _random_program(problem: mg.Problem) -> mg.Program:
    return pad(mg.encode(problem), RANDOM_PADDING)


def _play(program, seed, bias):
    return random_game(program, jax.random.key(seed), jnp.array(bias, jnp.float32))


@properties
@given(seeds, sizes, biases)
def test_random_play_makes_valid_assignments_of_the_promised_latency(seed, size, bias):
    problem = mg.random_problem(seed, size)
    program = _random_program(problem)
    final, trace = _play(program, seed, bias)
    assignment = mg.to_assignment(problem, final)
    assert mg.check(problem, assignment) == []
    judged = mg.latency(problem, assignment)
    assert judged.wait_cycles == 0
    assert judged.cycles == int(final.latency)
    assert judged.write_back_cycles == int(final.write_back)
    # The default latency, and every reward, in exact integers.
    default = mg.latency(problem, mg.all_default(problem)).cycles
    assert default == int(program.default_cycles)
    rewards = np.asarray(trace.next_state.reward, np.int64)
    assert default - rewards.sum() == int(final.latency)
    before, after = np.asarray(trace.state.latency), np.asarray(trace.next_state.latency)
    np.testing.assert_array_equal(before - after, rewards)


@properties
@given(seeds, sizes, biases)
def test_every_step_of_random_play_keeps_the_contract(seed, size, bias):
    program = _random_program(mg.random_problem(seed, size))
    final, trace = _play(program, seed, bias)
    n = int(program.num_decisions)
    steps = np.arange(NUM_STEPS)
    assert n < NUM_STEPS
    # Exactly one step for each decision.
    np.testing.assert_array_equal(trace.state.position, np.minimum(steps, n))
    np.testing.assert_array_equal(trace.state.done, steps >= n)
    legal = np.asarray(trace.state.options.legal)
    assert legal[:, DROP].all()
    assert legal[n:].all()
    assert np.asarray(trace.illegal_is_drop).all()
    # Legal actions are accepted: the decision has a place exactly if it was not dropped.
    action = np.asarray(trace.action)[:n]
    chunk_of = np.asarray(final.chunk_of)[:n]
    np.testing.assert_array_equal(chunk_of != mg.UNPLACED, action != DROP)
    np.testing.assert_array_equal(np.asarray(final.copy_start)[:n] != mg.UNPLACED, action == COPY)
    is_parameter = np.asarray(program.is_parameter)[:n]
    own = (action == COPY) | ((action == NO_COPY) & ~is_parameter)
    np.testing.assert_array_equal(chunk_of[own], np.flatnonzero(own))
    extended = (action == NO_COPY) & is_parameter
    np.testing.assert_array_equal(
        chunk_of[extended], chunk_of[np.asarray(program.previous)[:n][extended]]
    )
    # Nothing happens after the end.
    assert (np.asarray(trace.next_state.reward)[n:] == 0).all()
    last = jax.tree.map(lambda x: x[n - 1], trace.next_state)
    chex.assert_trees_all_equal(final, last.replace(reward=jnp.int32(0)))


def test_random_play_reaches_every_kind_of_move():
    """The properties above would be empty if random problems never allowed these."""
    seen = {"copy", "extend", "produce", "prefetch instead of a copy", "only drop", "negative"}
    for seed in range(6):
        program = _random_program(mg.random_problem(seed, 60))
        final, trace = _play(program, seed, (0, 0, -99))
        n = int(program.num_decisions)
        action, legal = np.asarray(trace.action)[:n], np.asarray(trace.state.options.legal)[:n]
        parameter = np.asarray(program.is_parameter)[:n]
        found = {
            "copy": (action == COPY) & parameter,
            "extend": (action == NO_COPY) & parameter,
            "produce": (action == NO_COPY) & ~parameter,
            "prefetch instead of a copy": (action == COPY) & ~parameter,
            "only drop": legal.sum(1) == 1,
            "negative": np.asarray(trace.next_state.reward)[:n] < 0,
        }
        seen -= {name for name, where in found.items() if where.any()}
    assert not seen


# --- traces, batches, padding -----------------------------------------------------------------


vmap_init, vmap_step = jax.jit(jax.vmap(mg.init)), jax.jit(jax.vmap(mg.step))


def _stack(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@pytest.fixture(scope="module")
def four_programs() -> list[mg.Program]:
    return [_random_program(mg.random_problem(s, n)) for s, n in enumerate((12, 30, 45, 60))]


def _bucket_mates(count: int) -> list[mg.Program]:
    """Encoded random problems of one shape, without padding by hand."""
    by_shape: dict[tuple, list[mg.Program]] = {}
    for seed in range(100):
        program = mg.encode(mg.random_problem(seed, 20))
        shape = tuple(x.shape for x in jax.tree.leaves(program))
        by_shape.setdefault(shape, []).append(program)
        if len(by_shape[shape]) == count:
            return by_shape[shape]
    raise AssertionError("no shape is shared")


def test_problems_of_one_bucket_share_one_trace():
    first_of_init = jax.jit(chex.assert_max_traces(mg.init, n=1))
    first_of_step = jax.jit(chex.assert_max_traces(mg.step, n=1))
    for program in _bucket_mates(3):
        state = first_of_init(program)
        for action in (COPY, NO_COPY, DROP):
            state = first_of_step(program, state, jnp.int32(action))
        assert int(state.position) == 3


def test_sizes_are_padded_to_few_buckets():
    assert [bucket(n) for n in (0, 1, 64, 65, 96, 97, 129, 193, 1000)] == [
        64, 64, 64, 96, 96, 128, 192, 256, 1024,
    ]  # fmt: skip
    assert all(n <= bucket(n) <= max(64, 1.5 * n) for n in range(1, 5000))


def test_vmap_over_different_programs_equals_a_loop(four_programs):
    batch = _stack(four_programs)
    states = vmap_init(batch)
    singles = [jit_init(p) for p in four_programs]
    rng = np.random.default_rng(0)
    for _ in range(25):
        # Not only legal ones: illegal actions are part of the contract.
        actions = rng.integers(0, 3, 4)
        states = vmap_step(batch, states, jnp.asarray(actions, jnp.int32))
        singles = [
            jit_step(p, s, jnp.int32(a))
            for p, s, a in zip(four_programs, singles, actions, strict=True)
        ]
        chex.assert_trees_all_equal(states, _stack(singles))


def test_a_row_does_not_depend_on_its_neighbours(four_programs):
    row = lambda tree: jax.tree.map(lambda x: x[1], tree)  # noqa: E731
    batch = _stack(four_programs)
    others = _stack([four_programs[i] for i in (3, 1, 1, 0)])
    states, moved = vmap_init(batch), vmap_init(others)
    rng = np.random.default_rng(1)
    for _ in range(25):
        actions, other_actions = rng.integers(0, 3, (2, 4))
        other_actions[1] = actions[1]
        states = vmap_step(batch, states, jnp.asarray(actions, jnp.int32))
        moved = vmap_step(others, moved, jnp.asarray(other_actions, jnp.int32))
        chex.assert_trees_all_equal(row(states), row(moved))


@pytest.mark.parametrize("seed", range(4))
def test_padding_changes_nothing(seed):
    problem = mg.random_problem(seed, 40)
    program = mg.encode(problem)
    n = int(program.num_decisions)
    final, trace = _play(pad(program, RANDOM_PADDING), seed, (0, 0, 0))
    wide_final, wide_trace = _play(pad(program, WIDE_PADDING), seed, (0, 0, 0))
    np.testing.assert_array_equal(trace.action, wide_trace.action)
    np.testing.assert_array_equal(trace.next_state.reward, wide_trace.next_state.reward)
    np.testing.assert_array_equal(trace.state.options.legal, wide_trace.state.options.legal)
    np.testing.assert_array_equal(trace.state.options.gain[:n], wide_trace.state.options.gain[:n])
    assert mg.to_assignment(problem, final) == mg.to_assignment(problem, wide_final)


def test_padding_leaves_an_entry_beyond_the_end():
    """So what looks ahead past the end, or at a finished game, sees padding and never real data."""
    for size in range(40, 66):
        problem = mg.random_problem(1, size)
        program = mg.encode(problem)
        assert program.max_times > size
        assert program.max_decisions > int(program.num_decisions)


def test_init_and_step_take_problems_as_well():
    game = Game(ONE_PARAMETER)
    state = jax.jit(lambda: mg.step(game.problem, mg.init(game.problem), COPY))()
    game.play(COPY)
    chex.assert_trees_all_equal(state, game.state)


def test_encode_returns_a_program_as_it_is(four_programs):
    assert mg.encode(four_programs[0]) is four_programs[0]


# --- copies -----------------------------------------------------------------------------------

ONE_PARAMETER = """
    cycles         4   4   4   4
    w  8  param    .   .   .   u2
"""


def test_a_copy_takes_the_latest_start_that_is_in_time():
    #  time  0    1    2    3
    #  idle  4    4    4    -      8 KiB before time 3: under 1 and 2
    game = Game(ONE_PARAMETER)
    assert game.asked == (3, "w") and game.legal == {COPY, DROP}
    assert game.play(COPY) == 2
    assert game.copies() == [("w", 1, 3)]
    assert game.chunks() == [("w", 0, 1, 4)]
    assert game.state.done and int(game.state.latency) == 14


@pytest.mark.parametrize(("kib", "start"), [(1, 2), (4, 2), (4.5, 1), (12, 0), (12.5, None)])
def test_the_start_follows_the_size(kib, start):
    game = Game(ONE_PARAMETER.replace("w  8", f"w  {kib}"))
    if start is None:
        assert game.legal == {DROP}
    else:
        game.play(COPY)
        assert game.copies() == [("w", start, 3)]


def test_a_use_at_the_first_instruction_cannot_be_copied_for():
    game = Game("""
        cycles         4   4
        w  1  param    u1  .
    """)
    assert game.legal == {DROP}


def test_bytes_of_other_arrays_leave_less_idle_bandwidth():
    # f moves 3 KiB at 2, g 4 KiB at 1: idle 4, 0, 1.
    game = Game("""
        cycles         4   4   4   4
        w  2  param    .   .   .   u2
        f  3  param!   .   .   u   .
        g  4  param!   .   u   .   .
    """)
    game.play(COPY)
    assert game.copies() == [("w", 0, 3)]


def test_earlier_decisions_change_the_idle_bandwidth():
    # x (4 KiB) keeps the bandwidth of 0 and 1 busy unless it is in alternate memory.
    text = """
        cycles         4   4   4
        x  4  temp     D   u   .
        w  4  param    .   .   u1
    """
    game = Game(text)
    game.play(DROP)
    assert game.legal == {DROP}
    game = Game(text)
    game.play(NO_COPY, COPY)
    assert game.copies() == [("w", 1, 2)]


def test_a_second_copy_may_not_delay_the_first():
    #  time     0    1    2    3    4
    #  idle     4    4    4    4
    #  a                  AAAA |              booked: 4 KiB from 2, used at 3
    #  b        BBBB BBBB           |         from 3: 4 KiB only; from 2: after a, too late;
    #                                         from 1: a would be late; so from 0
    game = Game("""
        cycles         4   4   4   4   4
        a  4  param    .   .   .   u   .
        b  8  param    .   .   .   .   u1
    """)
    game.play(COPY)
    assert game.copies() == [("a", 2, 3)]
    game.play(COPY)
    assert game.copies() == [("a", 2, 3), ("b", 0, 4)]


def test_a_copy_that_could_only_delay_an_earlier_one_is_illegal():
    game = Game("""
        cycles         4   4   4   4
        a  4  param    .   .   u   .
        b  8  param    .   .   .   u1
    """)
    game.play(COPY)
    assert game.copies() == [("a", 1, 2)]
    # From 2: 4 KiB. From 1: behind a, 4 KiB too. From 0: 4 KiB now, then a is late.
    assert game.legal == {DROP}


def test_a_copy_may_use_what_an_earlier_one_leaves():
    #  a: 2 of the 4 KiB under 2. b queues behind it: 2 KiB under 2 and 4 under 3.
    game = Game("""
        cycles         4   4   4   4   4
        a  2  param    .   .   .   u   .
        b  6  param    .   .   .   .   u1
    """)
    game.play(COPY, COPY)
    assert game.copies() == [("a", 2, 3), ("b", 2, 4)]


def _reference_start(idle, booked, size, use):
    """Latest start for a copy such that, played unit by unit, nobody is late: brute force."""
    for start in range(use - 1, -1, -1):
        queue = sorted([*booked, (start, len(booked), size, use)])
        left = {order: kib for _, order, kib, _ in queue}
        late = False
        for t in range(len(idle) + 1):
            late |= any(end == t and left[order] for _, order, _, end in queue)
            for _ in range(idle[t] if t < len(idle) else 0):
                waiting = [order for begin, order, _, _ in queue if begin <= t and left[order]]
                if waiting:
                    left[waiting[0]] -= 1
        if not late:
            return start
    return None


@settings(properties, max_examples=150)
@given(
    st.lists(st.integers(0, 5), min_size=4, max_size=9),
    st.lists(st.tuples(st.integers(1, 8), st.integers(0, 8)), min_size=1, max_size=8),
    st.integers(0, 255),
)
def test_copies_start_as_late_as_brute_force_says(idle, wanted, dropped):
    # 8 KiB of each instruction's bandwidth go to f, which must stay in default memory; each use
    # reads KiBs of its own, so decide in schedule order and see what is idle before it.
    uses = sorted((min(use, len(idle) - 1), size) for size, use in wanted)
    drawing = ["cycles " + " ".join(str(i + 90) for i in idle)]
    for i, (use, size) in enumerate(uses):
        cells = ["u" if t == use else "." for t in range(len(idle))]
        drawing.append(f"w{i} {size} param " + " ".join(cells))
    read = [sum(s for u, s in uses if u == t) for t in range(len(idle))]
    problem = toy("\n".join(drawing), memory_kib=1024, alignment_kib=64)
    # All other bandwidth is taken, so that exactly `idle` is left where every use is in default.
    instructions = tuple(
        dataclasses.replace(x, other_bytes=(90 - r) * KIB)
        for x, r in zip(problem.instructions, read, strict=True)
    )
    game = Game(problem.replace(instructions=instructions))
    idle_now, booked = list(idle), []
    for i, (use, size) in enumerate(uses):
        expected = _reference_start(idle_now, booked, size, use)
        assert (COPY in game.legal) == (expected is not None)
        if expected is None or dropped >> i & 1:
            game.play(DROP)
            continue
        game.play(COPY)
        assert game.copies()[-1] == (f"w{i}", expected, use)
        booked.append((expected, len(booked), size, use))
        idle_now[use] += size  # what the use no longer reads from default memory
    assert mg.check(game.problem, game.assignment) == []


def test_very_long_programs_can_still_copy_late():
    """Idle bandwidth of 40 x 16 GiB is more than fits in 32-bit arithmetic done carelessly."""
    cycles = " ".join(["16777216"] * 40)
    game = Game(f"""
        cycles {cycles}
        w 8 param {". " * 39} u1
    """)
    game.play(COPY)
    assert game.copies() == [("w", 38, 39)]


def test_one_long_instruction_does_not_make_a_program_too_large():
    cycles = " ".join(["16777216", *["10"] * 199])
    game = Game(f"""
        cycles {cycles}
        w 8 param {". " * 199} u1
    """)
    game.play(COPY)
    assert game.copies() == [("w", 198, 199)]


def test_a_latency_that_does_not_fit_32_bits_is_a_problem_error():
    text = f"cycles {2**31 - 1} 1\n x 4 temp D u"
    with pytest.raises(mg.ProblemError, match="exceeds 2\\*\\*31"):
        mg.encode(toy(text))


# --- memory -----------------------------------------------------------------------------------


def test_the_lowest_offset_that_is_free_over_the_whole_life_is_taken():
    #  KiB   0    4    8    14
    #  0..1  aaaa bbbb .....
    #  2..3  dddd bbbb cccccc        c (6) does not fit in the hole that a left; d (4) does
    game = Game("""
        cycles        20  20  20  20
        a  4  temp    D1  u1  .   .
        b  4  temp    D1  -   -   u1
        c  6  temp    .   .   D1  u1
        d  4  temp    .   .   D1  u1
    """)
    game.play(NO_COPY, NO_COPY, NO_COPY, NO_COPY)
    assert game.chunks() == [("a", 0, 0, 2), ("b", 4, 0, 4), ("c", 8, 2, 4), ("d", 0, 2, 4)]
    assert int(game.state.latency) == 80 - 8


def test_a_chunk_must_fit_over_its_whole_life_not_only_now():
    # w's chunk would begin while a and b are still there: 2 KiB are left of 16.
    game = Game("""
        cycles         4   4   4   4
        a  8  temp     D   -   u   .
        b  6  temp     D   -   u   .
        w  4  param    .   .   .   u1
        v  2  param    .   .   .   u1
    """)
    game.play(NO_COPY, NO_COPY)
    assert game.legal == {DROP}  # w
    game.play(DROP)
    assert game.legal == {COPY, DROP}  # v
    game.play(COPY)
    assert game.chunks()[-1] == ("v", 14, 2, 4)


FULL = """
    cycles         20  20  20
    a  10  temp    D3  u3  .
    b  10  temp    .   D1  u1
"""


def test_what_does_not_fit_can_only_be_dropped():
    game = Game(FULL)
    game.play(NO_COPY)
    assert game.legal == {DROP}
    assert game.play(DROP) == 0
    assert int(game.state.latency) == 60 - 6


def test_a_dropped_value_leaves_its_room():
    game = Game(FULL)
    game.play(DROP)
    assert game.legal == {NO_COPY, DROP}
    assert game.play(NO_COPY) == 2


def test_the_whole_memory_can_be_used():
    game = Game(FULL.replace("10", "16"))
    game.play(NO_COPY)
    assert game.chunks() == [("a", 0, 0, 2)]


def test_sizes_are_rounded_up_to_granules():
    game = Game(FULL.replace("a  10", "a  3.5").replace("b  10", "b  0.001"))
    game.play(NO_COPY, NO_COPY)
    assert [c.offset for c in game.assignment.chunks] == [0, 4 * KIB]
    assert [c.size for c in game.assignment.chunks] == [3584, 1]


def test_what_cannot_be_in_alternate_memory_is_never_asked():
    # Too large, empty, refused by the compiler.
    game = Game("""
        cycles          20  20
        a  32  temp!    D3  u3
        b  0   temp!    D3  u3
        c  4   temp!    D3  u3
        w  4   param!   .   u3
        d  4   temp     D1  u1
    """)
    assert int(game.program.num_decisions) == 1 and game.asked == (0, "d")


def test_a_problem_without_decisions_is_over_at_once():
    game = Game("""
        cycles         20  20
        c  4  temp!    D3  u3
    """)
    assert game.state.done and game.legal == {COPY, NO_COPY, DROP}
    after = jit_step(game.program, game.state, NO_COPY)
    chex.assert_trees_all_equal(after, game.state)
    assert game.assignment == mg.Assignment((0, 0), source="game")


def test_what_the_compiler_refuses_is_asked_but_can_only_be_dropped():
    game = Game("""
        cycles         20  20  20
        x  4  temp?    D3  u3  .
        w  4  param?   .   .   u3
    """)
    assert game.asked == (0, "x") and game.legal == {DROP}
    game.play(DROP)
    assert game.asked == (2, "w") and game.legal == {DROP}


# --- parameters -------------------------------------------------------------------------------

THREE_USES = """
    cycles         20  20  20  20  20  20
    w  4  param    .   u1  .   u2  .   u4
"""


def test_no_copy_extends_the_chunk_of_a_parameter():
    game = Game(THREE_USES)
    assert game.asked == (1, "w")
    assert game.play(COPY) == 1
    assert game.chunks() == [("w", 0, 0, 2)]
    # Held, so it is used from there or dropped, not copied anew.
    assert game.asked == (3, "w") and game.legal == {NO_COPY, DROP}
    assert game.play(NO_COPY) == 2
    assert game.chunks() == [("w", 0, 0, 4)]
    assert game.play(NO_COPY) == 4
    assert game.chunks() == [("w", 0, 0, 6)]
    assert game.copies() == [("w", 0, 1)]
    assert game.assignment.masks == (0, 1, 0, 1, 0, 1)


def test_a_dropped_parameter_can_be_copied_again():
    game = Game(THREE_USES)
    game.play(COPY, DROP)
    assert game.legal == {COPY, DROP}
    assert game.play(COPY) == 4
    assert game.copies() == [("w", 0, 1), ("w", 4, 5)]
    assert game.chunks() == [("w", 0, 0, 2), ("w", 0, 4, 6)]
    assert game.assignment.masks == (0, 1, 0, 0, 0, 1)


def test_a_parameter_that_was_never_copied_cannot_be_kept():
    game = Game(THREE_USES)
    assert game.legal == {COPY, DROP}
    game.play(DROP)
    assert game.legal == {COPY, DROP}


def test_a_chunk_is_not_extended_over_another():
    #  time   1    2    3
    #  w      0-10 .    ?       x sits on 0-10 at 2, so w lost its place
    text = """
        cycles          20  20  20  20  20
        w  10  param    .   u1  .   u1  u1
        x  10  temp     .   .   D1  .   .
    """
    game = Game(text)
    game.play(COPY, NO_COPY)
    assert game.chunks()[-1] == ("x", 0, 2, 3)
    assert game.asked == (3, "w") and game.legal == {DROP}
    game.play(DROP)
    assert game.legal == {COPY, DROP}
    game = Game(text)
    game.play(COPY, DROP)
    assert game.legal == {NO_COPY, DROP}


def test_two_operands_of_one_instruction_are_one_use():
    problem = toy("""
        cycles         20  20
        w  4  param    .   u3
        v  4  param!   .   u5
    """)
    # Make v's operand another reading of w.
    first, second = problem.instructions[1].positions
    both = (first, mg.Position(0, False, 1, (), second.size_bytes))
    last = dataclasses.replace(problem.instructions[1], positions=both)
    game = Game(problem.replace(instructions=(problem.instructions[0], last)))
    assert int(game.program.num_decisions) == 1
    assert game.play(COPY) == 8
    assert game.assignment.masks == (0, 0b11)


# --- computed values --------------------------------------------------------------------------


def test_a_computed_value_is_in_alternate_memory_for_its_whole_life():
    game = Game("""
        cycles         20  20  20  20
        x  4  temp     .   D1  u2  u3
    """)
    assert game.asked == (1, "x") and game.legal == {NO_COPY, DROP}
    assert game.play(NO_COPY) == 6
    assert game.chunks() == [("x", 0, 1, 4)] and game.copies() == []
    assert game.assignment.masks == (0, 1, 1, 1)


def test_a_write_back_of_a_live_out_is_charged():
    game = Game("""
        cycles         20  20
        x  4  out:5    D3  -
    """)
    assert game.play(NO_COPY) == 3 - 5
    assert int(game.state.latency) == 42
    assert mg.latency(game.problem, game.assignment).write_back_cycles == 5


def test_the_reward_is_negative_where_alternate_memory_is_slower():
    game = Game("""
        cycles         20  20
        x  4  temp     D-7 u2
    """)
    assert game.play(NO_COPY) == -5
    assert int(game.state.latency) == 45


def test_costs_are_of_masks_not_of_single_positions():
    """y's gain depends on where x is: two operands of one instruction, cycles not additive."""
    problem = toy("""
        cycles         20  20
        x  4  temp     D   u
        y  4  temp     D   u
    """)
    table = mg.CostTable((20, 19, 18, 5), (True,) * 4)
    problem = problem.replace(cost_tables=(problem.cost_tables[0], table))
    game = Game(problem)
    assert game.play(NO_COPY) == 1
    assert game.play(NO_COPY) == 14


@pytest.mark.parametrize("past", [0, 1])
def test_positions_past_the_priced_ones_cost_nothing_but_are_mapped(past):
    """x is operand number 9, the last that is priced, or number 10, the first that is not."""
    before = MAX_PRICED_POSITIONS - 1 + past
    rows = "\n".join(f"v{i} 1 param! . u" for i in range(before))
    problem = toy(f"cycles 20 20\n{rows}\nx 1 temp D2 -")
    x = len(problem.values) - 1
    last = problem.instructions[1]
    positions = (*last.positions, mg.Position(x, False, before, (), KIB))
    # One cycle less for each position that is priced.
    cycles = tuple(20 - mask.bit_count() for mask in range(1 << MAX_PRICED_POSITIONS))
    table = mg.CostTable(cycles, (True,) * len(cycles))
    problem = problem.replace(
        instructions=(problem.instructions[0], dataclasses.replace(last, positions=positions)),
        cost_tables=(problem.cost_tables[0], table),
    )
    game = Game(problem)
    assert game.play(NO_COPY) == 2 + (1 - past)
    assert game.assignment.masks == (1, 1 << before)
    assert mg.check(game.problem, game.assignment) == []


# --- loops ------------------------------------------------------------------------------------


def test_uses_of_parameters_inside_loops_are_not_asked():
    game = Game("""
        cycles         20  20  20  20
        trips          1   3*  3*  1
        w  4  param    .   u1  .   u1
    """)
    assert int(game.program.num_decisions) == 1 and game.asked == (3, "w")


def test_trip_counts_weigh_cycles():
    game = Game("""
        cycles         20  20  20  20
        trips          1   3*  3*  1
        x  4  temp     .   D1  u2  .
        y  4  temp     D4  -   u5  .
    """)
    assert int(game.program.default_cycles) == 20 + 60 + 60 + 20
    assert game.asked == (0, "y") and game.play(NO_COPY) == 4 + 3 * 5
    assert game.play(NO_COPY) == 3 * (1 + 2)


def test_copies_do_not_start_inside_loops():
    #  The idle bandwidth of one trip of the loop counts, but the copy starts before it.
    text = """
        cycles         4   4   4   4
        trips          1   3*  3*  1
        w  {}  param   .   .   .   u1
    """
    game = Game(text.format(4))
    game.play(COPY)
    assert game.copies() == [("w", 0, 3)]
    assert Game(text.format(12)).legal == {COPY, DROP}
    assert Game(text.format(13)).legal == {DROP}


# --- values copied from parameters ------------------------------------------------------------

COPIED = """
    cycles             8   8   8   8
    w  {}  param!      .   u   .   .
    k  {}  copied:1    -   D8  -   u1
"""


def test_a_prefetch_replaces_the_copy_of_a_parameter():
    game = Game(COPIED.format(4, 4))
    assert game.asked == (3, "k") and game.legal == {COPY, DROP}
    assert game.play(COPY) == 8 + 1
    assert game.copies() == [("k", 2, 3)] and game.chunks() == [("k", 0, 2, 4)]
    assert game.problem.instruction_cycles(1, game.assignment.masks[1]) == 0
    assert mg.check(game.problem, game.assignment) == []


def test_dropping_keeps_the_copy_of_a_parameter():
    game = Game(COPIED.format(4, 4))
    assert game.play(DROP) == 0
    assert game.assignment == mg.Assignment((0,) * 4, source="game")


def test_a_copy_that_disappears_lends_no_bandwidth():
    # 12 KiB: 8 under 2, none under 1, so from 0. Instruction 1 takes no time then.
    game = Game(COPIED.format(12, 12))
    game.play(COPY)
    assert game.copies() == [("k", 0, 3)]
    assert mg.check(game.problem, game.assignment) == []
    assert mg.latency(game.problem, game.assignment).wait_cycles == 0
    assert Game(COPIED.format(16, 16)).legal == {COPY, DROP}


# --- order ------------------------------------------------------------------------------------


def test_uses_of_parameters_are_asked_before_definitions_in_schedule_order():
    game = Game("""
        cycles           20  20  20  20  20
        x  1  temp       .   .   D   u   .
        w  1  param      .   u   u   .   u
        y  1  temp       .   D   -   u   .
        v  1  param      .   .   u   .   .
        k  1  copied:1   -   D   -   u   .
    """)
    order = []
    while game.asked:
        order.append(game.asked)
        game.play(DROP)
    assert order == [(1, "w"), (1, "y"), (2, "w"), (2, "v"), (2, "x"), (3, "k"), (4, "w")]


# --- illegal actions --------------------------------------------------------------------------


@pytest.mark.parametrize("action", [NO_COPY, 3, 7, -1])
def test_an_illegal_action_is_drop(action):
    game = Game(ONE_PARAMETER)
    dropped = jit_step(game.program, game.state, DROP)
    chex.assert_trees_all_equal(jit_step(game.program, game.state, action), dropped)


@pytest.mark.parametrize("action", [COPY, NO_COPY, DROP, -1])
def test_nothing_happens_after_the_end(action):
    game = Game(ONE_PARAMETER)
    game.play(COPY)
    after = jit_step(game.program, game.state, action)
    chex.assert_trees_all_equal(after, game.state.replace(reward=jnp.int32(0)))
    assert mg.legal_actions(game.program, after).all()
