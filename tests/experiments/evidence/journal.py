"""Lines of the journal, and what is read off them."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from workloads.benchmark.rows import current, results

Row = dict[str, Any]


def read(path: pathlib.Path) -> list[Row]:
    """Rows of the journal."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def key(row: Row) -> tuple:
    """As of `runs.Run`."""
    return row["experiment"], row["variant"], row["pair"], row["seed"]


def of_baselines(path: pathlib.Path) -> dict[str, dict[str, float]]:
    """Of every pair each solver's predicted latency in 60 s, seed 0, in cycles."""
    found: dict[str, dict[str, float]] = {}
    for row in current(results(path).read()):
        if row.predicted is not None and row.seed == 0:
            found.setdefault(row.pair, {})[row.solver] = row.predicted
    return found


def of_experiment(rows: Iterable[Row], experiment: str) -> list[Row]:
    return [row for row in rows if row["experiment"] == experiment]


def played(row: Row, pair: str) -> np.ndarray:
    """[points, 2]: games, and latency over XLA's default, of a curve of training."""
    default = row["xla_default"][pair]
    return np.array([[games, found[pair] / default] for _, games, found in row["curve"]])


def best_known(row: Row, pair: str, baselines: Mapping[str, Mapping[str, float]]) -> float:
    """Over XLA's default: the fastest mapping that any solver or training found."""
    known = [*baselines.get(pair, {}).values(), row["best_in_training"].get(pair, np.inf)]
    return min(known) / row["xla_default"][pair]


def won(row: Row, baselines: Mapping) -> np.ndarray:
    """[points, 2]: iterations, and the mean over programs of what is won of what can be.

    From XLA's default (0) to the best mapping known (1), not below -1."""
    names = row["pair"].split("+")
    best = {name: best_known(row, name, baselines) for name in names}
    return np.array([
        [number, np.mean([max((1 - found[n] / row["xla_default"][n]) / (1 - best[n]), -1)
                          for n in names])]
        for number, _, found in row["curve"]
    ])  # fmt: skip
