"""The mallocGame: pure JAX functions over one game.

`rules` has `init` and `step`; `state` every array with its shape; `encoding` makes padded arrays of
a problem, the only place where bytes become granules. `heap` and `copies` say where a chunk fits
and when a copy must start, `decisions` what is asked in which order, `observation` what a network
sees, `playing` has random legal play and greedy by benefit. Start at `rules`.
"""

from malloc_game.game.encoding import encode
from malloc_game.game.observation import OBSERVATION_SIZE, observe
from malloc_game.game.playing import (
    admitting_plays,
    follow,
    greedy,
    greedy_plays,
    random_play,
    replay,
)
from malloc_game.game.rules import init, legal_actions, placement_masks, step, to_assignment
from malloc_game.game.state import (
    ACTION_NAMES,
    COPY,
    DROP,
    NO_COPY,
    NUM_ACTIONS,
    RULES,
    UNPLACED,
    GameState,
    Program,
)

__all__ = [
    "ACTION_NAMES",
    "COPY",
    "DROP",
    "NO_COPY",
    "NUM_ACTIONS",
    "OBSERVATION_SIZE",
    "RULES",
    "UNPLACED",
    "admitting_plays",
    "encode",
    "follow",
    "greedy",
    "greedy_plays",
    "init",
    "legal_actions",
    "observe",
    "placement_masks",
    "random_play",
    "replay",
    "step",
    "to_assignment",
    "GameState",
    "Program",
]
