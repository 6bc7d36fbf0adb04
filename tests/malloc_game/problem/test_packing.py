"""The order in which the compiler is to place buffers: what fits in a mapping packs in that order.

The compiler's own packing is played in a few lines of Python, the worst it may do included.
"""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from malloc_game import Assignment, Chunk
from tests.helpers.toy import toy
from workloads.overrides.packing import placement_order, sort_order


def order(*chunks: tuple[int, int, int, int, int]) -> list[int]:
    """Placement order of chunks given as value, offset, size, start, end."""
    return placement_order(Assignment((), tuple(Chunk(*c) for c in chunks)))


def test_nothing_to_place_has_an_empty_order():
    assert order() == []


def test_what_lies_below_comes_first_whatever_its_number():
    stack = [(3, 0, 4, 0, 9), (1, 4, 4, 0, 9), (2, 8, 4, 0, 9)]
    assert order(*stack) == order(*stack[::-1]) == [3, 1, 2]


def test_only_what_is_alive_at_the_same_time_has_to_wait():
    # 0 lies lowest at first, and above the place of 1 later on.
    assert order((0, 0, 4, 0, 2), (0, 8, 4, 6, 8), (1, 4, 4, 2, 6)) == [0, 1]
    assert order((0, 0, 4, 0, 2), (0, 8, 4, 6, 8), (1, 4, 4, 8, 9)) == [0, 1]
    assert order((0, 0, 4, 0, 2), (0, 8, 4, 6, 8), (1, 4, 4, 2, 7)) == [1, 0]


def test_order_follows_through_a_chain():
    # 0 lies low and rests on nothing; 9 is highest but only 1 is below it, and so on.
    chunks = [(0, 0, 2, 4, 6), (1, 2, 2, 3, 5), (9, 4, 2, 2, 4), (4, 6, 2, 1, 3), (8, 8, 2, 0, 2)]
    assert order(*chunks) == [0, 1, 9, 4, 8]


def test_a_value_with_several_chunks_waits_for_all_that_lies_below_any():
    chunks = [(0, 0, 4, 0, 2), (0, 8, 4, 6, 8), (1, 0, 8, 6, 8), (2, 4, 4, 0, 2)]
    assert order(*chunks) == [1, 0, 2]


def test_in_a_circle_the_lowest_goes_first_and_all_are_placed_once():
    # 0 is below 1 in the beginning and above it in the end; 2 rests on both.
    circle = [(0, 2, 4, 0, 2), (1, 6, 4, 0, 2), (1, 0, 4, 5, 7), (0, 4, 4, 5, 7), (2, 20, 4, 0, 7)]
    assert order(*circle) == [1, 0, 2]


def test_the_text_ranks_every_value_before_what_the_mapping_does_not_mention():
    problem = toy("""
        cycles           9   9   9
        w   4  param     u1  .   u1
        x   4  temp      D   u   u
        y   4  temp      .   D   u
    """)
    mapping = Assignment((0, 0, 0), (Chunk(2, 0, 4096, 1, 3), Chunk(1, 4096, 4096, 0, 3)))
    text = sort_order(problem, mapping)
    found = re.findall(r'regex: "\^(\w+)\$".*assign_value: (-?\d+)', text)
    ranks = {name: int(rank) for name, rank in found}
    assert ranks["y"] < ranks["x"] < 0 and "w" not in ranks
    assert text.count("overrides {") == text.count("\n") + 1


# -- the property ----------------------------------------------------------------------------

MEMORY = 64


def random_mapping(rng: random.Random, num_values: int) -> list[Chunk]:
    """Chunks that share no memory, one a value; dense, with addresses in no order of number."""
    chunks: list[Chunk] = []
    for value in range(num_values):
        size, start = rng.randint(1, 16), rng.randint(0, 11)
        end = start + rng.randint(1, 6)
        free = [
            offset
            for offset in range(MEMORY - size + 1)
            if not any(
                offset < c.offset + c.size and c.offset < offset + size
                and start < c.end and c.start < end
                for c in chunks
            )
        ]  # fmt: skip
        if free:
            chunks.append(Chunk(value, rng.choice(free[:3] + free[-3:]), size, start, end))
    return chunks


def pack(chunks: list[Chunk], fit: str) -> dict[int, int]:
    """Offsets when chunks are placed one after another, by value; memory has no end here."""
    placed: list[tuple[int, Chunk]] = []
    for chunk in chunks:
        taken = sorted(
            (offset, offset + other.size)
            for offset, other in placed
            if other.start < chunk.end and chunk.start < other.end
        )
        gaps, low = [], 0
        for start, end in taken:
            gaps.append((start - low, low))
            low = max(low, end)
        gaps.append((1 << 30, low))
        fitting = [gap for gap in gaps if gap[0] >= chunk.size]
        offset = min(fitting)[1] if fit == "best" else min(low for _, low in fitting)
        placed.append((offset, chunk))
    return {chunk.value: offset for offset, chunk in placed}


@pytest.mark.parametrize("fit", ["best", "first"])
@given(seed=st.integers(0, 2**32), num_values=st.integers(2, 30))
@settings(max_examples=150, deadline=None)
def test_in_this_order_nothing_ends_up_higher_than_in_the_mapping(fit, seed, num_values):
    chunks = random_mapping(random.Random(seed), num_values)
    of = {c.value: c for c in chunks}
    found = placement_order(Assignment((), tuple(chunks)))
    assert sorted(found) == sorted(of)
    offsets = pack([of[v] for v in found], fit)
    assert all(offsets[v] <= of[v].offset for v in of)


def test_in_other_orders_what_fits_need_not_pack():
    """The property above has something to say: the order of numbers overflows memory."""
    higher = 0
    for seed in range(40):
        chunks = random_mapping(random.Random(seed), 30)
        offsets = pack(chunks, "best")
        higher += any(offsets[c.value] + c.size > MEMORY for c in chunks)
    assert higher > 5
