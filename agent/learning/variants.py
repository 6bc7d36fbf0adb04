"""More programs to learn from: variants of those that there are.

Networks soon overfit a few dozen programs. A variant puts one to three programs of one target in
a row and changes what makes a mapping good: the capacity of alternate memory, its bandwidth to
default memory, how long each computation takes, and how much of that alternate memory saves. What
is learned must then be how to weigh these, not which instruction of which program it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from agent.learning.training_config import VariantsConfig
from malloc_game.game.encoding import NUM_GRANULES
from malloc_game.problem.definition import CostTable, Instruction, Problem, Value
from malloc_game.problem.target import Target


def make_variants(
    problems: Sequence[Problem], config: VariantsConfig, seed: int = 0
) -> list[Problem]:
    """`config.count` variants; the same problems, config and seed give the same ones.

    Programs of all targets are drawn alike, since there are more of some than of others."""
    by_target: dict[str, list[Problem]] = {}
    for problem in problems:
        by_target.setdefault(problem.target.name, []).append(problem)
    targets = sorted(by_target)
    variants = []
    for number in range(config.count if targets else 0):
        rng = np.random.default_rng((seed, number))
        there = by_target[targets[rng.integers(len(targets))]]
        length = int(rng.integers(1, config.most_programs + 1))
        parts = [there[i] for i in rng.integers(len(there), size=length)]
        variants.append(_vary(_chain(parts), config, rng, f"variant-{number}"))
    return variants


def _chain(problems: Sequence[Problem]) -> Problem:
    """One program after the other, in one memory. All are of one target.

    Parameters are there from the start, whichever program uses them."""
    if len(problems) == 1:
        return problems[0]
    instructions: list[Instruction] = []
    values: list[Value] = []
    tables: list[CostTable] = []
    exclusions = []
    for number, problem in enumerate(problems):
        times, first = len(instructions), len(values)
        schedule_time = instructions[-1].schedule_time + 1 if instructions else 0
        loops = 1 + max((loop for i in instructions for loop in i.loops), default=-1)
        exclusions += [
            dataclasses.replace(
                e, parameter=e.parameter + first, time=e.time + times, output=e.output + first
            )
            for e in problem.exclusions
        ]
        instructions += [
            dataclasses.replace(
                i,
                name=f"{i.name}.{number}",
                schedule_time=i.schedule_time + schedule_time,
                positions=tuple(dataclasses.replace(p, value=p.value + first) for p in i.positions),
                cost_table=i.cost_table + len(tables),
                loops=tuple(loop + loops for loop in i.loops),
            )
            for i in problem.instructions
        ]
        values += [
            dataclasses.replace(
                v,
                name=f"{v.name}.{number}",
                start=0 if _is_there_before(v) else v.start + times,
                end=v.end + times,
                copied_at=-1 if v.copied_at == -1 else v.copied_at + times,
                copied_from=-1 if v.copied_from == -1 else v.copied_from + first,
            )
            for v in problem.values
        ]
        tables += problem.cost_tables
    return Problem(
        name="chain",
        target=problems[0].target,
        instructions=tuple(instructions),
        values=tuple(values),
        cost_tables=tuple(tables),
        exclusions=tuple(exclusions),
    )


def _is_there_before(value: Value) -> bool:
    """Whether a chunk of it may begin before its program does: a parameter, or a copy of one."""
    return value.is_parameter or (value.copied_at != -1 and value.start == 0)


def _vary(problem: Problem, config: VariantsConfig, rng: np.random.Generator, name: str) -> Problem:
    """The problem with other memory and other costs."""
    target = _vary_target(problem.target, config, rng)
    capacity = target.alternate_memory_bytes
    share = capacity / problem.target.alternate_memory_bytes
    return problem.replace(
        name=name,
        target=target,
        cost_tables=tuple(_vary_table(table, config, rng) for table in problem.cost_tables),
        instructions=tuple(
            dataclasses.replace(i, reserved_bytes=int(i.reserved_bytes * share))
            for i in problem.instructions
        ),
        values=tuple(
            dataclasses.replace(
                v, may_be_in_alternate=v.may_be_in_alternate and v.size_bytes <= capacity
            )
            for v in problem.values
        ),
        provenance={},
    )


def _factor(config_factor: float, rng: np.random.Generator) -> float:
    """A number between 1 / factor and factor, its logarithm uniform."""
    return float(config_factor ** rng.uniform(-1.0, 1.0))


def _vary_target(target: Target, config: VariantsConfig, rng: np.random.Generator) -> Target:
    capacity = target.alternate_memory_bytes * _factor(config.capacity_factor, rng)
    # In whole granules, so that all programs have as many: a bucket has as few as any of its own.
    step = NUM_GRANULES * target.alignment_bytes
    capacity = max(1, round(capacity / step)) * step
    bandwidth = target.default_bandwidth_bytes_per_second
    return dataclasses.replace(
        target,
        alternate_memory_bytes=capacity,
        default_bandwidth_bytes_per_second=bandwidth * _factor(config.bandwidth_factor, rng),
    )


def _vary_table(table: CostTable, config: VariantsConfig, rng: np.random.Generator) -> CostTable:
    """Another time for the computation, and another share of it saved; never below 0 cycles."""
    all_of_it = _factor(config.cycles_factor, rng)
    saved = _factor(config.saving_factor, rng)
    default = table.cycles[0]
    if min(table.cycles) == 0:  # a copy that a prefetch can replace: then it takes no time at all
        saved = 1.0
    cycles = tuple(
        max(0, round(all_of_it * (default - saved * (default - c)))) for c in table.cycles
    )
    return CostTable(cycles, table.known)
