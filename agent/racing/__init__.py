"""`optimize` and baselines that compile, for the same time from a cold start.

`contenders` runs them, each in a `child` process; `solver` puts a solver in the planner's place;
`report` makes the tables. Start at `contenders`.
"""

__all__ = ["child", "contenders", "report", "solver"]
