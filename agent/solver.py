"""The pretrained agent as one more solver: a problem and some seconds in, a mapping out."""

from __future__ import annotations

from agent.pretrained import make_planner
from malloc_game.problem import Problem
from malloc_game.solvers import Result
from malloc_game.solvers.result import Progress, Search


def agent(
    problem: Problem,
    seconds: float,
    seed: int = 0,
    *,
    max_iterations: int | None = None,
    progress: Progress | None = None,
    goal: float | None = None,
) -> Result:
    """Plan with the agent that ships until the time is up; see `pretrained.make_planner`.

    stats: "games" played, "found_by" (see `ProblemPlanner.best_source`)."""
    search = Search(problem, seconds, max_iterations, progress, goal)
    planner = make_planner(problem, seed)
    search.offer(planner.best_assignment)
    while search.next_round():
        left = None if max_iterations is not None else search.remaining
        planner.run(seconds=left, iterations=1)
        search.offer(planner.best_assignment)
    stats = planner.stats()
    return search.result(games=stats["games"], found_by=planner.best_source)
