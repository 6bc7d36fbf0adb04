"""A toy problem of values of all kinds, and mappings of it by name, for tests of the way back."""

from __future__ import annotations

import dataclasses

import malloc_game as mg
from malloc_game import Assignment, Chunk, Copy
from tests.helpers.toy import KIB, toy

PROBLEM = toy("""
    cycles           9   9   9   9
    trips            1   1   1   4*
    w   4  param     .   .   u1  u1
    x   4  temp      D   u   u   .
    y   4  temp      .   D   u   .
    z   4  temp!     D   u   .   .
""")


def _layers() -> mg.Problem:
    drawn = toy("""
        cycles   9   9   9   9   8   8
        a   4  temp   D1  u1  .   .   .   .
        b   4  temp   .   .   D1  u1  .   .
        c   4  temp   .   .   .   .   D1  u1
    """)
    same = {2: 0, 3: 1}
    instructions = tuple(
        dataclasses.replace(instruction, cost_table=same.get(t, t))
        for t, instruction in enumerate(drawn.instructions)
    )
    return drawn.replace(instructions=instructions)


# `a` and `b` are used alike, as in two layers; `c` is not.
LAYERS = _layers()


def inside(*names: str, problem: mg.Problem = PROBLEM) -> Assignment:
    """The mapping with some values in alternate memory wherever they are in the entry."""
    masks = tuple(
        sum(
            1 << p
            for p, position in enumerate(instruction.positions)
            if problem.values[position.value].name in names and instruction.in_entry
        )
        for instruction in problem.instructions
    )
    chunks, copies = [], []
    for v, value in enumerate(problem.values):
        if value.name in names:
            chunks.append(Chunk(v, 4 * KIB * v, value.size_bytes, value.start, value.end))
            if value.is_parameter:
                copies.append(Copy(v, 0, problem.positions_of_value[v][0][0], value.size_bytes))
    return Assignment(masks, tuple(chunks), tuple(copies), "by hand")
