"""Drop-backup: how the paper's player gets out of a dead end.

Under piecemeal rules a value that was produced in alternate memory must stay there, but has room
only up to the use that is asked. Where the next use finds none, the game is stuck: it goes back to
the decision that produced the value, drops it there, and is played anew from then on.
Source: arXiv 2305.07440, "drop-backup". The compiler's rules never need it.
"""

from __future__ import annotations

import numpy as np

import malloc_game
from agent.learning.self_play import FREE


def dead_ends(program: malloc_game.Program, chunk_of: np.ndarray) -> np.ndarray:
    """The first decision of each finished game at which nothing was legal, -1 for none: int32[B].

    chunk_of: int32[B, D], of the final states.
    """
    previous = np.asarray(program.previous)
    must_stay = np.asarray(program.must_stay) & (previous != malloc_game.UNPLACED)
    held = chunk_of[:, previous] != malloc_game.UNPLACED
    stuck = must_stay & held & (chunk_of == malloc_game.UNPLACED)
    return np.where(stuck.any(axis=1), stuck.argmax(axis=1), -1)


def back_up(
    program: malloc_game.Program, actions: np.ndarray, ends: np.ndarray, *, is_free: bool
) -> np.ndarray:
    """The script by which stuck games go on: int32[D, B].

    actions: int32[D, B], as played. ends: int32[B], from `dead_ends`. Up to the decision that
    produced the value a stuck game is as it was, there it drops it. is_free: what follows is chosen
    anew; otherwise it stays as far as it can. Games that are not stuck stay as they are.
    """
    script = np.array(actions)
    values = np.asarray(program.decision_value)
    for game in np.flatnonzero(ends >= 0):
        produced = int(np.flatnonzero(values == values[ends[game]])[0])
        if is_free:
            script[produced:, game] = FREE
        script[values == values[ends[game]], game] = malloc_game.DROP
    return script
