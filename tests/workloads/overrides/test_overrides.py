"""Assignments as override text: whom it names, what it demands, and names of every kind."""

from __future__ import annotations

import dataclasses
import re

import pytest

import malloc_game as mg
from malloc_game import Assignment, Chunk
from tests.helpers.toy import KIB, toy
from workloads.overrides.text import overrides

# How a proto text names an instruction, and what follows.
_NAMED = re.compile(r'instruction_name_regex: "((?:[^"\\]|\\.)*)"([^}]*)')


def _patterns(text: str) -> list[tuple[str, str]]:
    """Regular expressions of an override text as the compiler reads them, and what follows each."""
    return [(re.sub(r"\\(.)", r"\1", quoted), rest) for quoted, rest in _NAMED.findall(text)]


def _renamed(problem: mg.Problem, name: str) -> mg.Problem:
    """The problem with the first value that text speaks of by its own name renamed."""
    value = next(
        v for v, each in enumerate(problem.values) if not each.is_parameter and each.copied_at < 0
    )
    values = list(problem.values)
    values[value] = dataclasses.replace(values[value], name=name)
    return problem.replace(values=tuple(values))


@pytest.mark.parametrize(
    "name", ['a.b[0]+(c)|d?"\\w', "^x$", "a*", "{2}", "tab\tand space #&~-", "fusion.1"]
)
def test_a_name_matches_itself_alone(name):
    problem = _renamed(mg.random_problem(3, 20), name + "{1,0}")
    text = overrides(problem, mg.all_default(problem))
    assert text.count("{") - text.count("}") == name.count("{") - name.count("}")
    (pattern,) = [p for p, rest in _patterns(text) if "index: 1 index: 0" in rest]
    assert re.fullmatch(pattern, name)
    for other in (name.replace(".", "x"), name + "4", "x" + name, name[:-1], ""):
        assert other == name or not re.fullmatch(pattern, other)


def test_a_primed_name_means_the_instruction_without_primes():
    problem = _renamed(mg.random_problem(3, 20), "fusion.3''")
    assert ("^fusion\\.3$", " ") in _patterns(overrides(problem, mg.all_default(problem)))


def test_thousands_of_values_make_thousands_of_overrides_each_named_once():
    times = 3000
    instruction = mg.random_problem(0).instructions[0]
    problem = mg.random_problem(0).replace(
        instructions=tuple(
            dataclasses.replace(
                instruction, name=f"op.{t}", schedule_time=t, cost_table=0,
                positions=(mg.Position(t, True, 0, (), KIB),),
            )
            for t in range(times)
        ),
        values=tuple(
            mg.Value(f"op.{t}", KIB, t, t + 1, False, False, True) for t in range(times)
        ),
        cost_tables=(mg.CostTable((2, 1), (True, True)),),
        exclusions=(),
    )  # fmt: skip
    inside = tuple(Chunk(v, 0, KIB, v, v + 1) for v in range(0, times, 2))
    text = overrides(problem, Assignment((1, 0) * (times // 2), inside))
    lines = text.splitlines()
    assert len(lines) == times
    for v, ((pattern, _), line) in enumerate(zip(_patterns(text), lines, strict=True)):
        assert pattern == f"^op\\.{v}$"
        assert ("pin_in_alternate" in line) == (v % 2 == 0) == ("keep_in_default" not in line)


def test_in_place_updates_of_a_pinned_value_are_pinned_too_outside_loops():
    # dlrm on tpu7x: with the first pin alone, the compiler evicted the value between two updates.
    problem = toy("""
        cycles           9   9   9
        trips            1   1   4*
        op.0  4  temp    D   D   D
    """)
    text = overrides(problem, Assignment((1, 1, 1), (Chunk(0, 0, 4 * KIB, 0, 3),)))
    assert [pattern for pattern, _ in _patterns(text)] == ["^op\\.0$", "^op\\.1$"]
    assert text.count("pin_in_alternate_memory") == 2


# -- what a loop carries ---------------------------------------------------------------------

LOOP = toy("""
    cycles           9   9   9   9   9
    trips            1   4*  4*  1   1
    op.0  4  temp    D   u   .   u   .
    op.9  4  temp    D   -   -   u   u
    op.1  4  temp    .   D   u   .   .
    op.3  4  temp    .   .   .   D   u
""")


def _kept_uses(problem: mg.Problem, masks: tuple[int, ...]) -> list[tuple[str, str]]:
    """Instruction and operand number of the uses that are kept in default memory by name."""
    text = overrides(problem, Assignment(masks))
    return re.findall(r'hlo_operand_filter { \w+: "\^op\\\\\.(\d)\$" operand_number: (\d)', text)


def _inside(problem: mg.Problem, name: str) -> tuple[int, ...]:
    """Masks with one value in alternate memory everywhere."""
    return tuple(
        sum(1 << p for p, x in enumerate(i.positions) if problem.values[x.value].name == name)
        for i in problem.instructions
    )


def test_uses_of_what_a_loop_carries_are_kept_inside_and_after_it():
    # Not op.9, which the loop does not carry, and not op.1, which lives inside.
    assert _kept_uses(LOOP, (0,) * 5) == [("1", "0"), ("3", "0")]


def test_a_value_in_alternate_memory_is_not_kept_in_its_loop():
    masks = _inside(LOOP, "op.0")
    assert any(masks) and _kept_uses(LOOP, masks) == []


@pytest.mark.parametrize("name, kept", [("op.1", ("3", "0")), ("op.3", ("1", "0"))])
def test_a_use_is_not_named_where_that_would_name_an_output_in_alternate_memory(name, kept):
    assert _kept_uses(LOOP, _inside(LOOP, name)) == [kept]


def test_a_use_is_not_named_where_that_would_name_what_is_written_in_place():
    problem = toy("""
        cycles           9   9   9
        trips            1   4*  1
        op.0  4  temp    D   u   u
        op.5  4  temp    D   D   -
    """)
    assert _kept_uses(problem, (0,) * 3) == [("2", "0")]


def test_a_parameter_is_kept_for_its_uses_in_loops_and_after_them_too():
    # sinkhorn on v5e: the compiler prefetched a parameter for its loop though it was kept.
    problem = toy("""
        cycles           9   9   9
        trips            1   4*  1
        w     4  param   u   u   u
    """)
    assert _kept_uses(problem, (0,) * 3) == [("1", "0"), ("2", "0")]


def test_what_a_loop_makes_anew_for_a_value_that_it_carries_is_kept_by_its_own_name():
    problem = toy("""
        cycles           9   9   9   9
        trips            1   4*  4*  1
        op.0  4  temp    D   u   D   u
    """)
    text = overrides(problem, Assignment((0,) * 4))
    assert ("^op\\.2$", " ") in _patterns(text)
    assert "op\\\\.2" not in overrides(problem, Assignment((1,) * 4))
