"""CP-SAT: the optimal mapping of small problems, the best found and a bound for larger ones."""

from __future__ import annotations

from typing import Any

from ortools.sat.python import cp_model

from malloc_game.problem.assignment import Assignment
from malloc_game.solvers.cpsat.mapping import read, stated
from malloc_game.solvers.cpsat.model import Placement
from malloc_game.solvers.cpsat.neighbourhood import Neighbourhoods
from malloc_game.solvers.decode import greedy_assignment
from malloc_game.solvers.relaxation.bounds import lower_bound
from malloc_game.solvers.result import Search, solver


@solver
def cpsat(
    search: Search, seed: int, *, most_starts: int | None = None, start: Assignment | None = None
) -> dict[str, Any]:
    """Solve the problem with one worker: as a whole if it is small, then window by window (LNS).

    max_iterations: units of CP-SAT's deterministic time for the whole, then so many windows of the
    schedule; in place of seconds.
    most_starts: so many a copy can choose from; by default all, if that is not too many.
    start: a mapping of the game to begin with; by default greedy's.
    stats: "status" (OPTIMAL: of all that the game's rules allow), "is_exact" (the whole could be
    tried), "windows" (of LNS).
    """
    problem = search.problem
    hint = greedy_assignment(problem) if start is None else start
    search.offer(hint)
    relaxed = lower_bound(problem, expressible=True, time_limit=max(1.0, search.remaining / 4))
    placement, costs, solution = stated(problem, hint, most_starts)
    is_exact = placement.is_exact and costs.unit == 1
    status, own_bound, windows = "FEASIBLE", None, 0
    if is_exact:  # small enough to hope for a proof
        whole = _solve_whole(search, placement, solution, seed)
        status = whole.status_name(whole.response_proto.status)
        if whole.response_proto.solution:
            solution = list(whole.response_proto.solution)
            own_bound = whole.best_objective_bound
    if status != "OPTIMAL":
        near = Neighbourhoods(placement, solution, seed)
        while search.next_round():
            better = near.improve(search.remaining)
            if better is not None:
                search.offer(better)
        windows = search.iterations
    return dict(
        bound=max([relaxed.cycles, *([] if own_bound is None else [own_bound])]),
        status=status,
        is_exact=is_exact,
        windows=windows,
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


class _Watch(cp_model.CpSolverSolutionCallback):
    """Keeps every better solution, so that a run that is cut off loses nothing."""

    def __init__(self, search: Search, placement: Placement):
        super().__init__()
        self.search, self.placement = search, placement

    def on_solution_callback(self) -> None:
        """Called by CP-SAT for every new solution."""
        self.search.offer(read(self.placement, self.value))
