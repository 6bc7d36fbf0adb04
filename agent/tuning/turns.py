"""Who is next: time that several ways of searching share, given to what has paid off."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence


def take_turns(
    turns: Sequence[Callable[[], None]],
    best: Callable[[], float],
    left: Callable[[], float],
) -> None:
    """Calls `turns` until no time is left: all once, then two of three times the one whose last
    turn lowered `best` by most for each second (of several such the one that waits longest), and
    every third time the one that waits longest of all.

    best: cycles. left: seconds."""
    rates = [math.inf] * len(turns)
    last = [-1] * len(turns)  # the number of each one's last turn
    number = 0
    while left() > 0:
        everyone = range(len(turns))
        is_third = number % 3 == 2 and math.inf not in rates
        chosen = min(everyone, key=lambda i: (0.0 if is_third else -rates[i], last[i]))
        before, began = best(), time.monotonic()
        turns[chosen]()
        rates[chosen] = (before - best()) / max(time.monotonic() - began, 1e-3)
        last[chosen] = number
        number += 1
