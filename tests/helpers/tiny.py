"""Random problems so small that everything can be tried, and so tight that not everything fits."""

from __future__ import annotations

import dataclasses

import malloc_game as mg
from tests.helpers.exhaustive import MAX_DECISIONS, decisions_of


def tiny_problem(seed: int, num_instructions: int = 6, memory_share: float = 0.12) -> mg.Problem:
    """A random problem of few decisions in a memory of `memory_share` of the usual."""
    problem = mg.random_problem(seed, num_instructions)
    unit = problem.target.alignment_bytes
    memory = int(problem.target.alternate_memory_bytes * memory_share) // unit * unit
    values = tuple(
        dataclasses.replace(v, may_be_in_alternate=v.may_be_in_alternate and v.size_bytes <= memory)
        for v in problem.values
    )
    target = dataclasses.replace(problem.target, alternate_memory_bytes=memory)
    return problem.replace(target=target, values=values)


def tiny_problems(number: int, most_decisions: int = 9, **sizes) -> list[mg.Problem]:
    """The first `number` of them that have something to decide and not too much."""
    found: list[mg.Problem] = []
    seed = 0
    while len(found) < number:
        problem = tiny_problem(seed, **sizes)
        if 3 <= len(decisions_of(problem)) <= min(most_decisions, MAX_DECISIONS):
            found.append(problem)
        seed += 1
    return found
