"""No mapping, however it comes and goes, is faster than the bounds."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

import malloc_game as mg
from malloc_game.problem.assignment import EVICTION, PREFETCH
from malloc_game.solvers.relaxation.bounds import best_entries, lower_bound
from malloc_game.solvers.relaxation.linear import LinearProgram
from malloc_game.solvers.relaxation.program import relax
from tests.helpers.exhaustive import optimum
from tests.helpers.tiny import tiny_problem, tiny_problems
from tests.helpers.toy import NUM_STEPS, RANDOM_PADDING, pad, random_game, toy


def _cycles(problem, assignment):
    return mg.latency(problem, assignment).cycles


# --- by hand ----------------------------------------------------------------------------------


def test_what_fits_together_reaches_the_bound():
    problem = toy("""
        cycles          9   9   9
        x   4  temp     D2  u3  .
        y   4  temp     .   D1  u4
    """)
    assert lower_bound(problem).cycles == pytest.approx(27 - 10)
    assert lower_bound(problem, expressible=True).cycles == pytest.approx(27 - 10)


def test_two_values_that_do_not_fit_at_once_are_not_both_there():
    problem = toy("""
        cycles          9   9
        x   10 temp     D2  u3
        y   10 temp     D1  u1
    """)
    # No instruction may have both; one instruction could have either.
    assert lower_bound(problem).cycles == pytest.approx(18 - 5)


def test_a_value_that_stays_takes_memory_in_between():
    text = """
        cycles          0   8   9
        x   10 temp     D0  -   u8
        y   10 temp     .   D8  .
    """
    # Either gains 8. For both, 4 KiB of x would leave and come back, with nothing idle before: so
    # the relaxation is dearer than both, but not as dear as the optimum.
    assert 17 - 16 < lower_bound(toy(text)).cycles <= 17 - 8
    assert lower_bound(toy(text, memory_kib=20)).cycles == pytest.approx(17 - 16)


def test_a_parameter_must_be_carried_before_its_use():
    problem = toy("""
        cycles          3   9
        w   8  param    .   u8
    """)
    # Three cycles are idle before the use, and carry 3 of 8 KiB; to wait for the rest costs 5.
    assert lower_bound(problem).cycles == pytest.approx(12 - 8 * 3 / 8)
    assert lower_bound(problem, expressible=True).cycles == pytest.approx(12 - 8 * 3 / 8)


def test_a_result_is_written_back_or_evicted():
    dear = toy("""
        cycles          9   9
        y   4  out:50   D8  u1
    """)
    # Evicted under the last instruction, which leaves 8 KiB idle.
    assert lower_bound(dear).cycles == pytest.approx(18 - 9)
    # The game has no evictions: the write-back would cost more than is won.
    assert lower_bound(dear, expressible=True).cycles == pytest.approx(18)


def test_a_plain_copy_may_write_alternate_memory_by_itself():
    problem = toy("""
        cycles              9   9   9
        k   4  copied:1     .   D8  u1
    """)
    # Its own traffic is then gone: nothing is left of its cycles but what is known to remain.
    assert lower_bound(problem).cycles <= 27 - 10
    assert best_entries(problem) == 9 + 0 + 8


def test_an_asynchronous_slice_takes_bandwidth_where_a_plain_one_takes_cycles():
    problem = toy("""
        cycles         20  20  6   20
        x  8  temp!    D   u   -   -
        s  4  sliced:x .   D1  -   u1
    """)
    # Four KiB pass under the third instruction; nothing is left of the second.
    assignment = mg.Assignment(
        (0, 0b10, 0, 1), (mg.Chunk(1, 0, 4096, 2, 4),), (mg.Copy(1, 2, 3, 4096),)
    )
    assert mg.check(problem, assignment, expressible=False) == []
    assert _cycles(problem, assignment) == 20 + 0 + 6 + 19
    assert lower_bound(problem).cycles == pytest.approx(20 + 0 + 6 + 19)
    assert lower_bound(problem, expressible=True).cycles == pytest.approx(20 + 19 + 6 + 19)
    assert best_entries(problem) == 20 + 0 + 6 + 19
    busy = toy("""
        cycles         8   12  0   20
        x  8  temp!    D   u   -   -
        s  4  sliced:x .   D1  -   u1
    """)
    # With nothing idle before the use, a byte that is brought is a byte that is waited for; the
    # relaxation has a half of x inside, whose 4 KiB make room for it.
    assert _cycles(busy, assignment) == 8 + 4 + 19
    assert lower_bound(busy).cycles == pytest.approx(8 + 0 + 19)


def test_halves_on_two_cores_take_half_the_memory():
    problem = toy("""
        cycles          9   9
        x   10 temp     D2  u3
        y   10 temp     D1  u1
    """)
    halved = [dataclasses.replace(v, split_bytes=v.size_bytes // 2) for v in problem.values]
    assert lower_bound(problem.replace(values=tuple(halved))).cycles == pytest.approx(18 - 7)
    expressible = lower_bound(problem.replace(values=tuple(halved)), expressible=True)
    assert expressible.cycles == pytest.approx(18 - 5)


def test_without_time_the_bound_is_that_of_the_best_entries():
    problem = mg.random_problem(0, 40)
    found = lower_bound(problem, time_limit=0.0)
    if found.relaxed is None:  # a very fast machine might make it all the same
        assert found.cycles == pytest.approx(best_entries(problem))
    assert found.cycles <= best_entries(problem) or found.relaxed is not None


def test_a_linear_program_is_bounded_by_its_multipliers():
    lp = LinearProgram()
    x, y = lp.variable(cost=-1.0), lp.variable(cost=-2.0)
    lp.at_most([(x, 1.0), (y, 1.0)], 1.5)
    lp.equal([(x, 1.0), (y, -1.0)], 0.25)
    cycles, solution = lp.solve()
    assert cycles == pytest.approx(-(0.875 + 2 * 0.625))
    np.testing.assert_allclose(solution, [0.875, 0.625])


# --- properties ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_no_random_game_is_below_the_bounds(seed):
    problem = mg.random_problem(seed, 30 + 5 * seed)
    physical, playable = lower_bound(problem), lower_bound(problem, expressible=True)
    assert best_entries(problem) * (1 - 1e-6) <= physical.cycles
    assert physical.cycles <= playable.cycles * (1 + 1e-6)
    assert playable.cycles <= _cycles(problem, mg.all_default(problem))
    program = pad(mg.encode(problem), RANDOM_PADDING)
    assert int(program.num_decisions) <= NUM_STEPS
    for game, bias in enumerate([(0, 0, 0), (2, 2, 0), (9, 9, 0)]):
        final, _ = random_game(program, jax.random.key(game), np.array(bias, np.float32))
        assert playable.cycles <= _cycles(problem, mg.to_assignment(problem, final))


@pytest.mark.parametrize("memory_share", [0.06, 0.12, 0.3])
def test_the_optimum_of_tiny_problems_is_not_below_the_bounds(memory_share):
    for problem in tiny_problems(6, memory_share=memory_share):
        cycles, _ = optimum(problem)
        assert lower_bound(problem).cycles <= lower_bound(problem, expressible=True).cycles + 1e-3
        assert lower_bound(problem, expressible=True).cycles <= cycles


@pytest.mark.parametrize("seed", range(12))
def test_nothing_that_memory_could_do_is_below_the_bound(seed):
    """Mappings with evictions, returns and waits, at random: a few hundred, their best included."""
    problem = tiny_problem(seed, 8, 0.3)
    bound = lower_bound(problem).cycles
    rng = np.random.default_rng(seed)
    valid, moved, best = 0, 0, np.inf
    for _ in range(200):
        assignment = random_physical(problem, rng)
        if mg.check(problem, assignment, expressible=False):
            continue
        valid += 1
        moved += any(c.direction == EVICTION for c in assignment.copies)
        best = min(best, _cycles(problem, assignment))
    assert valid > 20, "too few of the mappings are valid for the test to mean anything"
    assert bound <= best


def random_physical(problem: mg.Problem, rng: np.random.Generator) -> mg.Assignment:
    """Every value in and out of alternate memory at random; most are valid, some are not.

    Position by position a value is here or there; copies carry it from one to the other, started
    anywhere since it was last made, and waited for where they are late.
    """
    masks = [0] * len(problem.instructions)
    chunks: list[mg.Chunk] = []
    copies: list[mg.Copy] = []
    likely = rng.choice([0.2, 0.5, 0.9])
    for v in rng.permutation(len(problem.values)):
        plan = _plan(problem, int(v), rng, likely)
        if plan is None:
            continue
        inside, spans, moves = plan
        placed = [_place(problem, int(v), span, chunks) for span in spans]
        if None in placed:
            continue
        chunks += placed
        copies += moves
        for t, p in inside:
            masks[t] |= 1 << p
    return mg.Assignment(tuple(masks), tuple(chunks), tuple(copies), "random physical")


def _plan(problem, v, rng, likely):
    """Positions in alternate memory, spans of chunks, and copies of one value."""
    value, places = problem.values[v], problem.positions_of_value[v]
    if not places or not 0 < value.size_bytes <= problem.target.alternate_memory_bytes:
        return None
    times = sorted({t for t, _ in places})
    sides = {t: bool(rng.random() < likely) for t in times}
    inside = [(t, p) for t, p in places if sides[t]]
    spans, moves = [], []
    has_default, start = value.is_parameter, None  # start: of the chunk that holds it now
    made = value.start
    for t in times:
        positions = problem.instructions[t].positions
        is_made = any(positions[p].is_output for u, p in places if u == t)
        if is_made:
            if start is not None:
                spans.append((start, t))
            start, has_default, made = (t if sides[t] else None), not sides[t], t + 1
        elif sides[t] and start is None:
            begin = int(rng.integers(min(made, t), t + 1))
            moves.append(mg.Copy(v, begin, t, value.size_bytes, PREFETCH))
            start = begin
        elif not sides[t] and not has_default:
            begin = int(rng.integers(min(made, t), t + 1))
            moves.append(mg.Copy(v, begin, t, value.size_bytes, EVICTION))
            has_default = True
            if rng.random() < 0.5:
                spans.append((start, max(t, start + 1)))
                start, made = None, t
        elif not sides[t] and start is not None and has_default and rng.random() < 0.5:
            spans.append((start, t))
            start, made = None, t
    if start is not None:
        spans.append((start, value.end))
    spans = [(a, b) for a, b in spans if a < b]
    if not moves and value.is_live_out and not has_default and rng.random() < 0.5:
        end = len(problem.instructions)
        moves.append(mg.Copy(v, made, end, value.size_bytes, EVICTION))
    return inside, spans, moves


def _place(problem, v, span, chunks):
    """The lowest place that is free over `span`, or None."""
    size, unit = problem.values[v].size_bytes, problem.target.alignment_bytes
    around = [c for c in chunks if c.start < span[1] and span[0] < c.end]
    for offset in sorted({0, *(-(-(c.offset + c.size) // unit) * unit for c in around)}):
        if offset + size > problem.target.alternate_memory_bytes:
            return None
        if all(c.offset + c.size <= offset or offset + size <= c.offset for c in around):
            return mg.Chunk(v, offset, size, *span)
    return None


def test_wide_tables_are_cut_to_a_lower_bound(monkeypatch):
    problem = mg.random_problem(3, 40)
    whole = relax(problem, expressible=False)
    monkeypatch.setattr("malloc_game.solvers.relaxation.program._MAX_ENTRIES", 100)
    cut = relax(problem, expressible=False)
    assert cut.cycles < whole.cycles
