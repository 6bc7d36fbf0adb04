"""Solvers that play the game, jitted; problems of one padded shape share their traces.

Random legal play and greedy, beam search, simulated annealing, and an evolution strategy (an
extra).
"""

__all__ = ["beam_search", "evolution_strategy", "random_restarts", "simulated_annealing"]
