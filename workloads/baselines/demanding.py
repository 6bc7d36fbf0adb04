"""Demanding a mapping of the compiler in few refusals, instead of decision by decision.

`workloads.verify` keeps as much of a mapping as it can: what there is no room for is given up
alone, and if too little is accepted it asks less strictly. Here seconds count: whatever the reason,
what is refused in one layer of a program is taken to be refused in the next, so that all of its
kind is given up; and after a few refusals so is the mapping.
"""

from __future__ import annotations

from malloc_game import Assignment, Problem
from workloads.baselines.compiling import Compiling
from workloads.compiler.session import OVERRIDES_OPTION, Compiled
from workloads.errors import OverrideError
from workloads.overrides.comparison import keep_only
from workloads.overrides.packing import SORT_ORDER_OPTION, sort_order
from workloads.overrides.refusals import alike, is_about_room, is_prefetch, refused_value
from workloads.overrides.text import EXACT_OPTIONS, KEEP_PREFETCHES, overrides

MAX_REFUSALS = 12


def demand(
    race: Compiling, problem: Problem, assignment: Assignment
) -> tuple[Compiled, frozenset[int]]:
    """Compile the program under `assignment`, or as much of it as can be had in a few tries.

    What is refused is first only permitted, with all of its kind, then kept in default memory.
    Returns the compile, and the values that are not demanded in it.

    Raises:
      OverrideError: refused to the end. CompileError, and whatever else `race.compile` raises.
    """
    permitted: frozenset[int] = frozenset()
    dropped: frozenset[int] = frozenset()
    extra: dict[str, str] = {}
    held = {chunk.value for chunk in assignment.chunks}
    for tries_left in reversed(range(MAX_REFUSALS)):
        asked = keep_only(problem, assignment, held - dropped) if dropped else assignment
        text = overrides(problem, asked, permitted=permitted)
        try:
            options = {**EXACT_OPTIONS, **extra, OVERRIDES_OPTION: text}
            return race.compile(options), permitted | dropped
        except OverrideError as error:
            value = refused_value(problem, str(error))
            if value is None or value in dropped or not tries_left:
                raise
            if is_about_room(str(error)) and SORT_ORDER_OPTION not in extra:
                extra = {**extra, SORT_ORDER_OPTION: sort_order(problem, assignment)}
            elif is_prefetch(str(error)) and not KEEP_PREFETCHES.items() <= extra.items():
                extra = {**extra, **KEEP_PREFETCHES}
            elif value in permitted:
                dropped |= {value}
            else:
                permitted |= alike(problem, value)
    raise AssertionError("the last try returns or raises")
