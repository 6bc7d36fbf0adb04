"""The agent, and all that stands on top of it: what `mallocgame` does.

`learning` is Gumbel MuZero, `planner` plans for one program without the compiler, `tuning` has the
compiler in the loop (the main job), `racing` compares it with baselines. `report`, `cli` and
`throughput` show and time. `api.optimize` is the main job as a function: start there.
"""

__all__ = ["api", "cli", "learning", "planner", "racing", "report", "throughput", "tuning"]
