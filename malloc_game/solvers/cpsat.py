"""CP-SAT: the optimal mapping of small problems, the best found and a bound for larger ones."""

from __future__ import annotations

from collections.abc import Callable

from ortools.sat.python import cp_model

from malloc_game.assignment import Assignment, Chunk, Copy
from malloc_game.problem import Problem
from malloc_game.solvers.bound import lower_bound
from malloc_game.solvers.cpsat_costs import Costs
from malloc_game.solvers.cpsat_model import Job, Placement
from malloc_game.solvers.decode import greedy_assignment
from malloc_game.solvers.neighbourhood import Neighbourhoods
from malloc_game.solvers.result import Progress, Result, Search

# Copies times starts that the model lists; more get windows, and the bound comes from elsewhere.
_MAX_STARTS = 4_000


def cpsat(
    problem: Problem,
    seconds: float,
    seed: int = 0,
    *,
    max_iterations: int | None = None,
    progress: Progress | None = None,
    goal: float | None = None,
    window: int | None = None,
    start: Assignment | None = None,
) -> Result:
    """Solve `problem` with one worker: as a whole if it is small, then stretch by stretch.

    max_iterations: units of CP-SAT's deterministic time for the whole, then so many stretches; in
    place of seconds.
    window: most starts that a copy can choose from; by default all, if that is not too many.
    start: a mapping of the game to begin with; by default greedy's.
    stats: "status" (OPTIMAL: of all that the game's rules allow), "is_exact" (the whole could be
    tried), "stretches".
    """
    search = Search(problem, seconds, max_iterations, progress, goal)
    hint = greedy_assignment(problem) if start is None else start
    search.offer(hint)
    relaxed = lower_bound(problem, expressible=True, time_limit=max(1.0, search.remaining / 4))
    placement = Placement(problem, window or _window(problem), hint)
    costs = Costs(placement)
    solution = hint_of(placement, costs, hint)
    is_exact = placement.is_exact and costs.unit == 1
    status, own_bound, stretches = "FEASIBLE", None, 0
    if is_exact:  # small enough to hope for a proof
        whole = _solve_whole(search, placement, solution, seed)
        status = whole.status_name(whole.response_proto.status)
        if whole.response_proto.solution:
            solution = list(whole.response_proto.solution)
            own_bound = whole.best_objective_bound
    if status != "OPTIMAL":
        near = Neighbourhoods(placement, solution, seed)
        while search.next_round():
            value_of = near.improve(search.remaining)
            if value_of is not None:
                search.offer(read(placement, value_of))
        stretches = search.iterations
    return search.result(
        bound=max([relaxed.cycles, *([] if own_bound is None else [own_bound])]),
        status=status,
        is_exact=is_exact,
        stretches=stretches,
    )


def _solve_whole(
    search: Search, placement: Placement, solution: list[int], seed: int
) -> cp_model.CpSolver:
    """Solve the whole model, from a known solution, in about half the time that is left."""
    for number, value in enumerate(solution):
        placement.cp.add_hint(placement.cp.get_int_var_from_proto_index(number), value)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    # All of CP-SAT's strategies in turn, improvement of the best solution included.
    solver.parameters.interleave_search = True
    solver.parameters.random_seed = seed
    solver.parameters.catch_sigint_signal = False  # Ctrl-C is Python's, and not a time limit
    if search.max_iterations is None:
        solver.parameters.max_time_in_seconds = max(0.1, search.remaining / 2)
    else:
        solver.parameters.max_deterministic_time = search.max_iterations
    solver.solve(placement.cp, _Watch(search, placement))
    return solver


def _window(problem: Problem) -> int | None:
    """How many starts a copy can choose from so that the model stays small; None for all."""
    uses = sum(
        len({t for t, _ in places if problem.instructions[t].in_entry})
        for value, places in zip(problem.values, problem.positions_of_value, strict=True)
        if value.may_be_in_alternate and (value.is_parameter or value.copied_at >= 0)
    )
    every = len(problem.instructions) * uses
    return None if every <= _MAX_STARTS else max(4, _MAX_STARTS // max(1, uses))


def read(placement: Placement, value_of: Callable[[cp_model.IntVar], int]) -> Assignment:
    """The mapping that a solution stands for; `value_of` gives the value of a variable."""
    problem = placement.problem
    masks = [0] * len(problem.instructions)
    for (t, p), inside in placement.literals.items():
        masks[t] |= int(value_of(inside)) << p
    copies = [
        Copy(j.value, _start(j, value_of), j.deadline, problem.values[j.value].size_bytes)
        for j in placement.jobs
        if value_of(j.is_made)
    ]
    copies.sort(key=lambda c: (c.start, c.end))
    chunks = []
    for v, inside in placement.values.items():
        if value_of(inside):
            start, job = problem.values[v].start, placement.value_jobs.get(v)
            start = start if job is None else _start(job, value_of)
            place = placement.alignment * value_of(placement.value_offsets[v])
            size, end = problem.values[v].size_bytes, problem.values[v].end
            chunks.append(Chunk(v, place, size, start, end))
    for v, uses in placement.uses.items():
        for i, use in enumerate(uses):
            if value_of(use.job.is_made):
                last = i
                while uses[last].stays is not None and value_of(uses[last].stays):
                    last += 1
                place = placement.alignment * value_of(use.offset)
                size, start = problem.values[v].size_bytes, _start(use.job, value_of)
                chunks.append(Chunk(v, place, size, start, uses[last].time + 1))
    return Assignment(tuple(masks), tuple(chunks), tuple(copies), "cpsat")


def _start(job: Job, value_of: Callable[[cp_model.IntVar], int]) -> int:
    return next(t for t, starts in job.starts.items() if value_of(starts))


def hint_of(placement: Placement, costs: Costs, hint: Assignment) -> list[int]:
    """The solution that a mapping of the game is: the value of every variable, by its number."""
    problem = placement.problem
    hints: dict[int, int] = {}  # by number of the variable, each once

    def suggest(variable: cp_model.IntVar, value: int) -> None:
        hints[variable.index] = int(value)

    starts = {(c.value, c.end): c.start for c in hint.copies}
    ready = {(c.value, c.start): c.end for c in hint.copies}
    for job in placement.jobs:
        start = starts.get((job.value, job.deadline))
        suggest(job.is_made, start is not None)
        for t, starts_then in job.starts.items():
            suggest(starts_then, t == start)
    for job, first, length, end in placement.spans:
        start = starts.get((job.value, job.deadline), 0)
        suggest(first, start)
        suggest(length, end - start)
    for (t, p), inside in placement.literals.items():
        suggest(inside, hint.in_alternate(t, p))
    for t, (masks, entries) in enumerate(costs.entries):
        if entries[0] is not None:
            for mask, entry in zip(masks, entries, strict=True):
                suggest(entry, mask == hint.masks[t] & max(masks))
    chunks: dict[int, list[Chunk]] = {v: [] for v in range(len(problem.values))}
    for chunk in hint.chunks:
        chunks[chunk.value].append(chunk)
    for v, offset in placement.value_offsets.items():
        place = chunks[v][0].offset if chunks[v] else 0
        suggest(offset, place // placement.alignment)
    for v, uses in placement.uses.items():
        for use in uses:
            here = [c for c in chunks[v] if ready[v, c.start] <= use.time < c.end]
            suggest(use.offset, here[0].offset // placement.alignment if here else 0)
            if use.stays is not None:
                suggest(use.stays, bool(here) and here[0].end > use.time + 1)
    started, backlog = costs.queue_of(hints)
    for variables, values in ((costs.started, started), (costs.backlog, backlog)):
        for variable, value in zip(variables[1:], values[1:], strict=True):
            suggest(variable, value)
    fixed = placement.cp.proto.variables  # constants
    return [hints.get(n, fixed[n].domain[0]) for n in range(len(fixed))]


class _Watch(cp_model.CpSolverSolutionCallback):
    """Keeps every better solution, so that a run that is cut off loses nothing."""

    def __init__(self, search: Search, placement: Placement):
        super().__init__()
        self.search, self.placement = search, placement

    def on_solution_callback(self) -> None:
        """Called by CP-SAT for every new solution."""
        self.search.offer(read(self.placement, self.value))
