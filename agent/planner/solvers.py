"""The pretrained agent as two more solvers: a problem and some seconds in, a mapping out."""

from __future__ import annotations

import malloc_game as mg
from agent.learning.pretrained import load_pretrained
from agent.learning.zero_shot_play import zero_shot as play_one_game
from agent.planner.pretrained_planner import make_planner
from malloc_game.problem.definition import Problem
from malloc_game.solvers import Result
from malloc_game.solvers.decode import replay
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


def zero_shot(
    problem: Problem,
    seconds: float,
    seed: int = 0,
    *,
    max_iterations: int | None = None,
    progress: Progress | None = None,
    goal: float | None = None,
) -> Result:
    """One game of the agent that ships, without noise or learning, 32 simulations a move.

    The game is played to its end, however long that takes, and draws nothing: `seconds` and `seed`
    change nothing."""
    del seed
    search = Search(problem, seconds, max_iterations, progress, goal)
    config, params = load_pretrained()
    actions, _ = play_one_game(problem, (config, params))
    state = replay(mg.encode(problem, rules=config.rules), actions)
    search.offer(mg.to_assignment(problem, state, "zero_shot", rules=config.rules))
    return search.result(games=1)
