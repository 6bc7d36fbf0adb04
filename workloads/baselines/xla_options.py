"""XLA's own knobs: each option that changes memory-space assignment, then the best combined.

Which options do anything was found by trying; many others that XLA documents for it change nothing.
"""

from __future__ import annotations

import itertools

from workloads.baselines.clocked_run import Race

# Option and values other than the default, those that helped most on a few programs first.
KNOBS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("xla_msa_max_cross_program_prefetches", ("0",)),
    ("xla_tpu_sliced_prefetch_max_slices", ("0",)),
    ("xla_msa_preferred_overlap_to_async_copy_ratio", ("1", "8")),
    ("xla_tpu_enforce_prefetch_fifo_order", ("true",)),
    ("xla_msa_max_retries", ("0",)),
    ("xla_msa_max_outstanding_prefetches", ("1", "8")),
    ("xla_msa_explicit_prefetch_memory_limit_kib", ("1024", "8192")),
    ("xla_tpu_msa_inefficient_use_to_copy_ratio", ("0", "1")),
    ("xla_msa_max_repacks", ("0",)),
    ("xla_msa_enable", ("false",)),
)
_MOST_COMBINED = 4


def settings() -> list[dict[str, str]]:
    """Every knob alone at every value, in the order in which they are tried."""
    # First one value of each knob, so that a short race has seen them all.
    by_turn = itertools.zip_longest(*([(name, v) for v in values] for name, values in KNOBS))
    return [{one[0]: one[1]} for turn in by_turn for one in turn if one is not None]


def combinations(gains: dict[tuple[str, str], float]) -> list[dict[str, str]]:
    """Settings of several knobs, most promising first, from what each gained alone.

    gains: (option, value) -> cycles saved over XLA's default; only what saves is combined.
    """
    best: dict[str, tuple[float, str]] = {}
    for (name, value), gain in gains.items():
        if gain > 0:
            best[name] = max(best.get(name, (0.0, "")), (gain, value))
    names = sorted(best, key=lambda name: -best[name][0])[: 2 * _MOST_COMBINED]
    found = [
        chosen
        for size in range(2, _MOST_COMBINED + 1)
        for chosen in itertools.combinations(names, size)
    ]
    found.sort(key=lambda chosen: -sum(best[name][0] for name in chosen))
    return [{name: best[name][1] for name in chosen} for chosen in found]


def knobs(race: Race, seed: int = 0) -> None:
    """Try every knob alone, then combinations of those that helped. Nothing is left to chance."""
    del seed
    race.start()
    gains: dict[tuple[str, str], float] = {}
    for setting in settings():
        tried = race.try_options(setting)
        if tried is not None:
            (one,) = setting.items()
            gains[one] = race.xla_default_cycles - tried[0]
    for setting in combinations(gains):
        race.try_options(setting)
