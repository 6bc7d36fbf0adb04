"""What the compiler says an instruction costs under each placement, and a model for the rest.

`CostStore` collects `mask -> cycles` from compiled modules, shared by all instructions that compute
the same thing on the same shapes (`Instruction.fingerprint`). For masks that no compile has shown,
a ridge regression around a bandwidth prior fills the table.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from malloc_game import CostTable, Position
from malloc_game.problem import MAX_PRICED_POSITIONS

# Prior: reading or writing default memory costs this share of its transfer time, the rest being
# hidden behind compute; from the spread of shares seen on the suite's programs.
_PRIOR_SHARE = 0.5


@dataclasses.dataclass
class CostStore:
    """Observed cycles, keyed by (fingerprint, the positions' slots) and placement mask."""

    observed: dict[tuple, dict[int, int]] = dataclasses.field(default_factory=dict)

    def record(self, key: tuple, mask: int, cycles: int) -> bool:
        """Remember an observation; returns whether it is new."""
        masks = self.observed.setdefault(key, {})
        is_new = masks.get(mask) != cycles
        masks[mask] = cycles
        return is_new

    def table(
        self, key: tuple, positions: tuple[Position, ...], bytes_per_cycle: float
    ) -> CostTable:
        """The cost table of an instruction with these positions (the first ones are priced).

        Raises:
          KeyError: nothing was observed under `key`.
        """
        bits = min(len(positions), MAX_PRICED_POSITIONS)
        priced = (1 << bits) - 1
        masks = {}
        for mask, cycles in self.observed[key].items():
            masks[mask & priced] = cycles
        transfer = tuple(p.size_bytes / bytes_per_cycle for p in positions[:bits])
        cycles = _fill(bits, tuple(sorted(masks.items())), transfer)
        known = tuple(mask in masks for mask in range(1 << bits))
        return CostTable(cycles, known)


@functools.lru_cache(maxsize=4096)
def _fill(
    bits: int, known: tuple[tuple[int, int], ...], transfer: tuple[float, ...]
) -> tuple[int, ...]:
    """All 2**bits entries: known ones as they are, the others by ridge regression."""
    observed = dict(known)
    masks = np.array(list(observed), np.int64)
    cycles = np.array(list(observed.values()), np.float64)
    inside = (masks[:, None] >> np.arange(bits)) & 1  # [observations, bits]
    # Unknowns: cycles of the all-default mask and the saving of each position in alternate.
    base = cycles[masks == 0][0] if 0 in observed else cycles.max()
    share = min(_PRIOR_SHARE, 0.9 * base / max(sum(transfer), 1.0))
    prior = np.array(transfer) * share
    design = np.concatenate([np.ones((len(masks), 1)), -inside], axis=1)
    residual = cycles - (base - inside @ prior)
    scale = np.maximum(np.concatenate([[base], np.array(transfer) + 1.0]), 1.0)
    scaled = design * scale
    gram = scaled.T @ scaled + np.eye(bits + 1) * 0.05 * np.mean(scale) ** 2
    weights = scale * np.linalg.solve(gram, scaled.T @ residual)
    every = (np.arange(1 << bits)[:, None] >> np.arange(bits)) & 1
    filled = base - every @ prior + weights[0] - every @ weights[1:]
    filled = np.clip(np.rint(filled), 1, (1 << 31) - 1).astype(np.int64)
    filled[masks] = cycles
    return tuple(int(c) for c in filled)
