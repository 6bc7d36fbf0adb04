"""The pretrained agent as two more solvers: a problem and some seconds in, a mapping out."""

from __future__ import annotations

from typing import Any

import malloc_game as mg
from agent.learning.pretrained import load_pretrained
from agent.learning.zero_shot_play import zero_shot as play_one_game
from agent.planner.pretrained_planner import make_planner
from malloc_game.solvers.decode import replay
from malloc_game.solvers.result import Search, solver


@solver
def agent(search: Search, seed: int) -> dict[str, Any]:
    """Plan with the agent that ships until the time is up; see `pretrained.make_planner`.

    stats: "games" played, "found_by" (see `ProblemPlanner.best_source`)."""
    planner = make_planner(search.problem, seed)
    search.offer(planner.best_assignment)
    while search.next_round():
        left = None if search.max_iterations is not None else search.remaining
        planner.run(seconds=left, iterations=1)
        search.offer(planner.best_assignment)
    stats = planner.stats()
    return dict(games=stats["games"], found_by=planner.best_source)


@solver
def zero_shot(search: Search, seed: int) -> dict[str, Any]:
    """One game of the agent that ships, without noise or learning, 32 simulations a move.

    The game is played to its end, however long that takes, and draws nothing: `seconds` and `seed`
    change nothing."""
    del seed
    config, params = load_pretrained()
    problem = search.problem
    actions, _ = play_one_game(problem, (config, params))
    state = replay(mg.encode(problem, rules=config.rules), actions)
    search.offer(mg.to_assignment(problem, state, "zero_shot", rules=config.rules))
    return dict(games=1)
