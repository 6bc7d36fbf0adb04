"""Plans for the correction loop: greedy's game, improved by trying changes to it.

As the costs become known, the best compile so far may be better than anything that greedy finds;
then it is where the search begins.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

import numpy as np

import malloc_game as mg
from malloc_game import Assignment, CostTable, Problem
from malloc_game.game.decisions import list_decisions
from malloc_game.game.state import DROP
from malloc_game.solvers.decode import latencies_of_wanted, num_slots, to_assignment

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
    decisions = list_decisions(problem)
    _, actions = mg.greedy(program)
    rows = [np.asarray(actions) != DROP]
    for start in starts:
        row = np.zeros(num_slots(program), bool)
        row[: len(decisions)] = [
            any(start.in_alternate(t, p) for t, p in decision.positions) for decision in decisions
        ]
        rows.append(row)
    best, best_cycles, best_actions = rows[0], None, actions
    for _ in range(rounds):
        rows += [_changed(best, len(decisions), rng) for _ in range(_BATCH - len(rows))]
        cycles, plays = latencies_of_wanted(program, np.stack(rows))
        cycles = np.asarray(cycles)
        first = int(cycles.argmin())
        if best_cycles is None or cycles[first] < best_cycles:
            best, best_cycles = rows[first], cycles[first]
            best_actions = np.asarray(plays)[first]
        rows = []
    return to_assignment(problem, program, best_actions, "learned greedy")


def _changed(wanted: np.ndarray, num_decisions: int, rng: np.random.Generator) -> np.ndarray:
    """A few decisions changed, all within a stretch of the schedule."""
    if not num_decisions:
        return wanted
    centre = int(rng.integers(num_decisions))
    width = int(
        4.0 * 2.0 ** rng.uniform(0.0, 6.0)
    )  # few that are far apart have to do with another
    first, last = max(centre - width, 0), min(centre + width + 1, num_decisions)
    flips = rng.random(last - first) < (1.0 + rng.exponential()) / (last - first)
    changed = wanted.copy()
    changed[first:last] ^= flips
    changed[centre] ^= not flips[centre - first]
    return changed


def with_costs_drawn(
    problem: Problem, deviations: Sequence[np.ndarray], rng: np.random.Generator
) -> Problem:
    """The problem with each cost that no compile has shown drawn from what it may be.

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
