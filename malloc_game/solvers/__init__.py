"""Solvers and bounds: everything that solves a `Problem` without a compiler.

    from malloc_game.solvers import SOLVERS, lower_bound, solve
    result = solve("cpsat", problem, seconds=20, seed=0)

Every solver gives an assignment that passes `malloc_game.check`, judged by `malloc_game.latency`.
Those that play the game or plan with OR-tools are loaded when they are asked for.
"""

from __future__ import annotations

import importlib
from typing import Any

from malloc_game.problem.definition import Problem
from malloc_game.solvers.relaxation.bounds import Bound, best_entries, lower_bound
from malloc_game.solvers.result import Progress, Result, Solver, SolverError, is_optimal

# By name: the module and the function in it.
SOLVERS: dict[str, tuple[str, str]] = {
    "greedy": ("play.random_restarts", "greedy"),
    "random": ("play.random_restarts", "random_play"),
    "beam": ("play.beam_search", "beam"),
    "annealing": ("play.simulated_annealing", "annealing"),
    "evolution": ("play.evolution_strategy", "evolution"),
    "rounding": ("relaxation.lp_rounding", "rounding"),
    "cpsat": ("cpsat.solver", "cpsat"),
}
_EXTRA = ("evosax",)


def get_solver(name: str) -> Solver:
    """The solver of that name (a key of `SOLVERS`).

    Raises:
      SolverError: there is none, or it needs a package that is not installed.
    """
    if name not in SOLVERS:
        raise SolverError(f"no solver {name!r}; there are {', '.join(SOLVERS)}")
    module, function = SOLVERS[name]
    try:
        return getattr(importlib.import_module(f"{__name__}.{module}"), function)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRA:
            raise
        raise SolverError(
            f"solver {name!r} needs {package}: install mallocgame[solvers]"
        ) from error


def solve(name: str, problem: Problem, seconds: float, seed: int = 0, **options: Any) -> Result:
    """Run the solver `name` for about `seconds`; it returns the best mapping that it found.

    options: `max_iterations` (rounds, in place of seconds), `progress` (called with seconds and
    cycles at every improvement), `goal` (cycles that are proven to be the least: a run that is
    there ends), and the solver's own.

    Raises:
      SolverError: as `get_solver`.
    """
    return get_solver(name)(problem, seconds, seed, **options)


__all__ = [
    "SOLVERS",
    "Bound",
    "Progress",
    "Result",
    "Solver",
    "SolverError",
    "best_entries",
    "get_solver",
    "is_optimal",
    "lower_bound",
    "solve",
]
