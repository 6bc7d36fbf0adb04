"""Planning for one program, without the compiler.

`problem_planner` puts the parts together: games and learning (`self_play_planner`), annealing led
by the policy (`annealer`), and windows of the schedule solved anew by CP-SAT (`lns_windows`).
`pretrained_planner` sets one up with the agent that ships, `solvers` makes solvers of it. Start at
`problem_planner`.
"""

__all__ = [
    "annealer",
    "compiled",
    "lns_windows",
    "pretrained_planner",
    "problem_planner",
    "self_play_planner",
    "solvers",
]
