"""A model of an instruction's cycles under placements that no compile has shown, and its doubt.

A Gaussian process over placement masks, exact where the compiler has spoken, but for what is so
dear that it must be done in another way. How it differs from a regression: near an observed
placement it says little else, far from one it falls back to a prior, and it knows which of the two
it does. Nothing in it assumes that alternate memory is faster.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from malloc_game import Position

# Fitted to what compiles of six programs on five targets gave for 469 kinds of instructions: least
# error of predictive distributions (continuous ranked probability score) for masks held out. Fits
# that leave one program out give about the same numbers.
# Prior mean: share of the all-default cycles saved when all inputs, all outputs are in alternate.
_INPUT_SHARE = 0.55
_OUTPUT_SHARE = 0.10
# Prior deviation between unrelated masks, of the all-default cycles, and how many observations that
# guess is worth against the deviations that the instruction itself has shown.
_DEVIATION = 0.26
_GUESS_WEIGHT = 4.0
# Masks that differ in a position with share w of all traffic lie _ROUGHNESS * w**_EXPONENT apart.
_ROUGHNESS = 0.62
_EXPONENT = 0.78
_SMALLEST_SHARE = 1e-6
# Without the all-default cycles, the level is known only to this variance (of the prior's).
_LEVEL_VARIANCE = 0.1
# Rounding of the estimates themselves, so that equal masks do not make a singular matrix.
_JITTER = 1e-6
_LEAST_LEFT = 0.02  # no prediction is below this share of the all-default cycles
# A placement that costs more than this, of the all-default cycles, is another way of doing the same
# (copies of 8 MiB within alternate memory on tpu7x: 3.0) and says nothing of other placements. In
# training programs all such kinds of instructions but one cost 0.8 to 1.0 wherever else they are
# placed; up to 1.8, as on v4, is the ordinary price of writing to alternate memory.
_ANOTHER_WAY = 2.0


@dataclasses.dataclass(frozen=True)
class Traffic:
    """What an instruction moves, in cycles of default memory's full bandwidth."""

    positions: tuple[float, ...]
    is_output: tuple[bool, ...]
    other: float  # of arrays that are not positions

    @classmethod
    def of(cls, positions: Sequence[Position], other_bytes: int, bytes_per_cycle: float) -> Traffic:
        """The traffic of an instruction with these positions."""
        return cls(
            tuple(p.size_bytes / bytes_per_cycle for p in positions),
            tuple(p.is_output for p in positions),
            other_bytes / bytes_per_cycle,
        )


def mask_bits(masks: Sequence[int], num_bits: int) -> np.ndarray:
    """Masks as rows of zeros and ones, bit 0 first: float64[len(masks), num_bits]."""
    rows = [[mask >> i & 1 for i in range(num_bits)] for mask in masks]
    return np.array(rows, np.float64).reshape(len(masks), num_bits)


@functools.cache
def every_mask(num_bits: int) -> np.ndarray:
    """All masks of so many bits, in order: float64[2**num_bits, num_bits]."""
    return (np.arange(1 << num_bits)[:, None] >> np.arange(num_bits) & 1).astype(np.float64)


class Prediction:
    """Cycles of one kind of instruction for any masks, given those that compiles have shown."""

    def __init__(self, traffic: Traffic, observed: Mapping[int, int]):
        """observed: mask -> cycles, at least one."""
        moved = np.array(traffic.positions, np.float64)
        share = moved / max(moved.sum() + traffic.other, 1e-9)
        self._distance = _ROUGHNESS * np.maximum(share, _SMALLEST_SHARE) ** _EXPONENT
        self._saved = share * np.where(traffic.is_output, _OUTPUT_SHARE, _INPUT_SHARE)
        self._has_base = 0 in observed
        self.base = float(max(observed.get(0, max(observed.values())), 1))
        masks = [
            mask
            for mask, cycles in observed.items()
            if (mask or not self._has_base) and cycles <= _ANOTHER_WAY * self.base
        ]
        self._shown = mask_bits(masks, len(moved))
        cycles = np.array([observed[mask] for mask in masks], np.float64)
        surprise = cycles / self.base - self._prior(self._shown)
        covariance = self._covariance(self._shown, self._shown) + _JITTER * np.eye(len(masks))
        self._factor = np.linalg.cholesky(covariance)
        self._whitened = np.linalg.solve(self._factor, surprise)
        # Its own surprises tell how rough this kind is (a Student-t process).
        total = _GUESS_WEIGHT * _DEVIATION**2 + float(self._whitened @ self._whitened)
        self._scale = total / (_GUESS_WEIGHT + len(masks))

    def _prior(self, bits: np.ndarray) -> np.ndarray:
        return 1.0 - bits @ self._saved

    def _similarity(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        apart = (a * self._distance) @ (1 - b).T + ((1 - a) * self._distance) @ b.T
        return np.exp(-apart)

    def _covariance(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Prior covariance, of the difference from the all-default cycles where these are known."""
        if not self._has_base:
            return self._similarity(a, b) + _LEVEL_VARIANCE
        zero = np.zeros((1, a.shape[1]))
        to_base = self._similarity(a, zero) + self._similarity(zero, b)
        return self._similarity(a, b) - to_base + 1.0

    def mean(self, bits: np.ndarray) -> np.ndarray:
        """Expected cycles, float64[n], of masks given as rows of bits (`mask_bits`)."""
        seen = np.linalg.solve(self._factor, self._covariance(self._shown, bits))
        cycles = self.base * (self._prior(bits) + seen.T @ self._whitened)
        return np.maximum(cycles, _LEAST_LEFT * self.base)

    def deviation(self, bits: np.ndarray) -> np.ndarray:
        """Standard deviation in cycles of each mask: float64[n]."""
        seen = np.linalg.solve(self._factor, self._covariance(self._shown, bits))
        zero = np.zeros((1, bits.shape[1]))
        own: float | np.ndarray = 1.0 + _LEVEL_VARIANCE
        if self._has_base:
            own = 2.0 - 2.0 * self._similarity(bits, zero)[:, 0]
        variance = np.maximum(own + _JITTER - (seen**2).sum(0), 0.0)
        return self.base * np.sqrt(self._scale * variance)

    def covariance(self, bits: np.ndarray) -> np.ndarray:
        """Covariance in cycles squared between masks: float64[n, n]."""
        seen = np.linalg.solve(self._factor, self._covariance(self._shown, bits))
        left = self._covariance(bits, bits) + _JITTER * np.eye(len(bits)) - seen.T @ seen
        return self.base**2 * self._scale * left
