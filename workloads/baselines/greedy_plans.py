"""Plans for the correction loop: greedy's game, improved by trying changes to it.

As the costs become known, the best compile so far may be better than anything that greedy finds;
then it is where the search begins.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

import jax
import numpy as np

import malloc_game as mg
from malloc_game import Assignment, CostTable, Problem
from malloc_game.game.decisions import wanted_by
from malloc_game.game.state import DROP
from malloc_game.solvers.decode import latencies_of_wanted, to_assignment
from malloc_game.solvers.play.simulated_annealing import neighbours

_BATCH = 32  # plays at once
ROUNDS = 12


def plan(
    problem: Problem,
    starts: Sequence[Assignment] = (),
    rng: np.random.Generator | None = None,
    rounds: int = ROUNDS,
) -> Assignment:
    """Greedy's game or the play of a start, whichever is faster, changed for the better.

    starts: mappings from anywhere; which decisions have alternate memory in them is what counts.
    rounds: batches of changes, each made to the best play so far.
    """
    rng = rng or np.random.default_rng(0)
    program = mg.encode(problem)
    _, actions = mg.greedy(program)
    rows = [np.asarray(actions) != DROP]
    rows += [wanted_by(problem, start, program.max_decisions) for start in starts]
    best, best_cycles, best_actions = rows[0], None, actions
    for _ in range(rounds):
        key = jax.random.key(int(rng.integers(1 << 31)))
        rows += list(np.asarray(neighbours(program, best, key, _BATCH))[len(rows) :])
        cycles, plays = latencies_of_wanted(program, np.stack(rows))
        cycles = np.asarray(cycles)
        first = int(cycles.argmin())
        if best_cycles is None or cycles[first] < best_cycles:
            best, best_cycles = rows[first], cycles[first]
            best_actions = np.asarray(plays)[first]
        rows = []
    return to_assignment(problem, program, best_actions, "learned greedy")


def with_costs_sampled(
    problem: Problem, deviations: Sequence[np.ndarray], rng: np.random.Generator
) -> Problem:
    """The problem with each cost that no compile has shown sampled from what it may be.

    Thompson sampling: planning by such costs tries what might be fastest.
    deviations: standard deviation of the entries of each cost table, as `Extraction.uncertainty`.
    """
    tables = []
    for table, deviation in zip(problem.cost_tables, deviations, strict=True):
        noise = rng.standard_normal(len(deviation)) * deviation
        cycles = np.maximum(np.rint(np.array(table.cycles) + noise), 0).astype(int)
        tables.append(CostTable(tuple(cycles.tolist()), table.known))
    return problem.replace(cost_tables=tuple(tables))


def with_refusals(problem: Problem, refused: Collection[tuple[int, int | None]]) -> Problem:
    """The problem without decisions, (value, time or None for a whole life), that are refused."""
    whole = {v for v, time in refused if time is None}
    uses = {(time, v) for v, time in refused if time is not None}
    values = tuple(
        dataclasses.replace(value, is_refused=value.is_refused or v in whole)
        for v, value in enumerate(problem.values)
    )
    instructions = tuple(
        dataclasses.replace(
            instruction,
            positions=tuple(
                dataclasses.replace(p, is_refused=p.is_refused or (t, p.value) in uses)
                for p in instruction.positions
            ),
        )
        for t, instruction in enumerate(problem.instructions)
    )
    return problem.replace(values=values, instructions=instructions)
