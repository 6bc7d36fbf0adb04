"""The game's rules as a constraint program of OR-tools' CP-SAT.

`model` and `costs` state it, `mapping` goes between mappings and solutions, `neighbourhood` solves
windows of larger problems (large-neighbourhood search), `solver` is the entry.
"""

__all__ = ["costs", "mapping", "model", "neighbourhood", "solver"]
