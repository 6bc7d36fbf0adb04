"""Which decisions two mappings agree on, and what the compiler's refusals say."""

from __future__ import annotations

import dataclasses

import pytest

import malloc_game as mg
from tests.helpers.mapped_by_name import PROBLEM, inside
from workloads.overrides.comparison import compare, decisions, keep_only
from workloads.overrides.refusals import refused_value


def test_decisions_are_values_that_may_move_and_all_uses_of_parameters():
    found = [(PROBLEM.values[v].name, time) for v, time, _ in decisions(PROBLEM)]
    assert found == [("w", 2), ("w", 3), ("x", None), ("y", None)]


def test_a_decision_holds_if_it_holds_everywhere():
    wanted = inside("x", "w")
    assert compare(PROBLEM, wanted, wanted) == (1.0, [])
    masks = list(wanted.masks)
    masks[1] ^= 1  # x, the first position there
    share, differences = compare(PROBLEM, wanted, dataclasses.replace(wanted, masks=tuple(masks)))
    (found,) = differences
    assert share == 0.75
    assert (found.value, found.time, found.wanted_in_alternate) == (1, None, True)
    assert found.message == "x: wanted in alternate memory at op.1 operand 1"
    share, differences = compare(PROBLEM, mg.all_default(PROBLEM), wanted)
    assert share == 0.5
    assert [(d.value, d.time, d.wanted_in_alternate) for d in differences] == [
        (0, 2, False), (1, None, False),
    ]  # fmt: skip


def test_keep_only_leaves_nothing_of_the_others():
    assert keep_only(PROBLEM, inside("w", "x", "y"), [0, 2]) == inside("w", "y")
    assert keep_only(PROBLEM, inside("w", "x"), [1]) == inside("x")


# -- what refusals say -----------------------------------------------------------------------

STRICT = "FAILED_PRECONDITION: MSA strict override failed for instruction "
NO_ROOM = "Out of alternate memory / spatial placement conflict (requested schedule time: n/a)"


@pytest.mark.parametrize(
    "message, name",
    [
        (f"{STRICT}'op.2' operand 2, shape bf16[4], defining instruction 'y': {NO_ROOM}", "y"),
        # The use tells more: several values may be defined by one instruction.
        (f"{STRICT}'op.2' operand 1, shape bf16[4], defining instruction 'y': {NO_ROOM}", "x"),
        (f"{STRICT}'bitcast.7' operand 0, shape bf16[4], defining instruction 'y': ...", "y"),
        ("The value defined at x requires allocation in the alternate memory, which could", "x"),
        ("The value defined at sort.8 {1} requires allocation in the alternate", "sort.8{1}"),
        ("The value defined at sort.8 requires allocation in the alternate memory", "sort.8{0}"),
        ("MSA strict timing override unsatisfied for instruction 'op.2' operand 0: ... (0)", "w"),
        ("The value defined at op.1 requires allocation in the alternate memory", "y"),
        ("The value defined at nothing requires allocation in the alternate memory", None),
        ("RESOURCE_EXHAUSTED: of the usual kind", None),
    ],
)  # fmt: skip
def test_the_refused_value_is_read_from_the_message(message, name):
    z = PROBLEM.values[3]
    both = (dataclasses.replace(z, name=f"sort.8{{{i}}}") for i in range(2))
    problem = PROBLEM.replace(values=(*PROBLEM.values[:3], *both))
    found = refused_value(problem, message)
    assert (None if found is None else problem.values[found].name) == name
