"""What found a mapping, by the names that tables, logs, reports and files use.

A name says what really did it. Only those of `NETWORK` are the network's.
"""

from __future__ import annotations

ALL_DEFAULT = "everything in default memory"
XLA_DEFAULT = "XLA's default"
GREEDY = "greedy"
LP_ROUNDING = "LP rounding"
CPSAT_LNS = "CP-SAT LNS"
ANNEALING = "annealing"
CHANCE = "random moves"
NETWORK_PLAY = "network play"
NETWORK_PERTURBATION = "network play of a perturbed game"
THOMPSON = "Thompson sampling"
PERMISSIONS = "permissions"
GUIDED = "guided search"

# Where the network's search chose at least some of the moves.
NETWORK = (NETWORK_PLAY, NETWORK_PERTURBATION)

# A sentence about each.
MEANING = {
    ALL_DEFAULT: "nothing is in alternate memory",
    XLA_DEFAULT: "the mapping that XLA makes by itself",
    GREEDY: "greedy by benefit, with costs corrected by compiles",
    LP_ROUNDING: "a game that takes what the linear relaxation has in alternate memory",
    CPSAT_LNS: "CP-SAT solved windows of the schedule anew (large-neighbourhood search)",
    ANNEALING: "simulated annealing around the best game so far",
    CHANCE: "an earlier game with some moves drawn at random",
    NETWORK_PLAY: "the network’s search chose every move",
    NETWORK_PERTURBATION: "the network’s search changed some moves of an earlier game",
    THOMPSON: "a plan under costs sampled from what they may be, where no compile had shown them",
    PERMISSIONS: "XLA placed what learned costs permit it to place",
    GUIDED: "a search over what XLA may place by itself, by placement dry runs",
}

# Of the sources of `agent.tuning.outcome` that have one finder by themselves.
OF_SOURCES = {
    "all_default": ALL_DEFAULT,
    "xla_default": XLA_DEFAULT,
    "greedy": GREEDY,
    "guided": GUIDED,
}

# What `SelfPlayPlanner` says of its games; those that it was given have names of their own.
OF_GAMES = {
    "self_play": NETWORK_PLAY,
    "greedy_play": NETWORK_PLAY,
    "perturbation": NETWORK_PERTURBATION,
    "chance": CHANCE,
    "annealing": ANNEALING,
}
