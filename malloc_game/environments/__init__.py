"""The game behind the interfaces that agents expect.

`environment` has `reset` and `step` in the manner of jumanji and dm_env. `gym` and `jumanji` are
the
same for these libraries, which are extras: import the module that you want.
"""

from malloc_game.environments.environment import EnvState, MallocGame, Observation, TimeStep

__all__ = ["EnvState", "MallocGame", "Observation", "TimeStep"]
