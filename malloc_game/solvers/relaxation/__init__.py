"""What every mapping must pay, as a linear program, and what follows from it.

`program` states it, `linear` builds and bounds it, `bounds` proves lower bounds on latency by it,
and `lp_rounding` plays the game that it wants.
"""

from malloc_game.solvers.relaxation.bounds import Bound, best_entries, lower_bound

__all__ = ["Bound", "best_entries", "lower_bound"]
