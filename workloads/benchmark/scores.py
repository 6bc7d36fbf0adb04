"""The arithmetic of a comparison: seeds to cells, cells to means, wins, profiles and curves."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from workloads.benchmark.rows import (
    CompiledRow,
    JudgedCompiledRow,
    JudgedRow,
    Row,
    gap_closed,
    ratio,
)

# Latencies within this share of each other are a tie.
TIE = 1e-3
XLA = "XLA's default"


@dataclasses.dataclass(frozen=True)
class Cell:
    """A solver on a pair, all seeds together: its latency is the median of theirs.

    A run that failed counts as everything in default memory, the mapping that needs no solver.
    """

    pair: str
    solver: str
    runs: tuple[Row, ...]  # one for each seed, at least one

    @property
    def first(self) -> Row:
        """Any of the runs, for what they have in common."""
        return self.runs[0]

    @property
    def latencies(self) -> list[float]:
        """Predicted cycles of each run."""
        return [r.all_default if r.predicted is None else r.predicted for r in self.runs]

    @property
    def latency(self) -> float:
        """Predicted cycles, median."""
        return statistics.median(self.latencies)

    @property
    def speedup(self) -> float | None:
        """XLA's default / latency."""
        return ratio(self.first.xla_default, self.latency)

    @property
    def gap_closed(self) -> float | None:
        """As `rows.gap_closed`, of the median."""
        return gap_closed(self.first.xla_default, self.first.bound, self.latency)

    @property
    def seconds(self) -> float:
        """Wall time of a run, median."""
        return statistics.median(r.seconds for r in self.runs)

    @property
    def failed(self) -> int:
        """Runs that failed."""
        return sum(r.error is not None for r in self.runs)

    @property
    def is_optimal(self) -> bool:
        """Whether every run is proven to be optimal."""
        return all(r.is_optimal for r in self.runs)


@dataclasses.dataclass(frozen=True)
class Record:
    """Wins, ties and losses."""

    wins: int
    ties: int
    losses: int

    def __str__(self) -> str:
        return f"{self.wins}/{self.ties}/{self.losses}"


@dataclasses.dataclass(frozen=True)
class Standing:
    """A solver on some pairs. None: no pair to take a mean of."""

    solver: str
    pairs: int
    failed: int  # runs
    speedup: float | None  # over XLA's default, geometric mean
    speedup_contended: float | None  # the same of the contended pairs
    gap_closed: float | None  # mean over the contended pairs
    gap_closed_median: float | None
    against_xla: Record
    against_baselines: Record  # the best other solver on each pair
    optimal: int  # pairs where it is proven to be optimal
    seconds: float  # of a run, mean over pairs


@dataclasses.dataclass(frozen=True)
class CompiledStanding:
    """A solver's compiled mappings."""

    solver: str
    pairs: int
    failed: int
    speedup: float | None  # compiled, over XLA's default compiled; geometric mean
    speedup_monotone: float | None
    speedup_predicted: float | None  # of the same mappings
    gap_closed: float | None  # compiled, mean over the contended pairs; XLA's default where faster
    gap_closed_median: float | None
    honoured: float | None  # mean
    against_xla: Record
    against_baselines: Record  # the best other solver that was compiled on the pair


def cells_of(rows: Iterable[Row]) -> list[Cell]:
    """A cell for each pair and solver, in order of appearance."""
    runs: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        runs.setdefault((row.pair, row.solver), []).append(row)
    return [Cell(*names, tuple(of_cell)) for names, of_cell in runs.items()]


def best_seeds(found: Sequence[Row]) -> list[JudgedRow]:
    """Of every pair and solver the run that is predicted to be fastest; failures are left out."""
    best: dict[tuple[str, str], JudgedRow] = {}
    for row in found:
        if isinstance(row, JudgedRow):
            known = best.setdefault((row.pair, row.solver), row)
            if row.predicted < known.predicted:
                best[row.pair, row.solver] = row
    return list(best.values())


def comparable(cells: Sequence[Cell]) -> list[Cell]:
    """The cells of those pairs that every solver was run on: only there are means comparable."""
    solvers = {c.solver for c in cells}
    there: dict[str, set[str]] = {}
    for cell in cells:
        there.setdefault(cell.pair, set()).add(cell.solver)
    return [c for c in cells if there[c.pair] == solvers]


def geometric_mean(values: Iterable[float]) -> float | None:
    """None of nothing."""
    logs = [math.log(v) for v in values]
    return math.exp(math.fsum(logs) / len(logs)) if logs else None


def mean(values: Iterable[float]) -> float | None:
    """None of nothing."""
    values = list(values)
    return math.fsum(values) / len(values) if values else None


def _known(values: Iterable[float | None]) -> list[float]:
    return [v for v in values if v is not None]


def record(pairs: Iterable[tuple[float, float]]) -> Record:
    """How often the first of two latencies is the smaller one, by more than `TIE` of the second."""
    wins = ties = losses = 0
    for ours, theirs in pairs:
        wins += ours < theirs * (1 - TIE)
        losses += ours > theirs * (1 + TIE)
        ties += abs(ours - theirs) <= theirs * TIE
    return Record(wins, ties, losses)


def standings(cells: Sequence[Cell]) -> list[Standing]:
    """Every solver's, the best geometric mean first."""
    of_pair: dict[str, list[Cell]] = {}
    for cell in cells:
        of_pair.setdefault(cell.pair, []).append(cell)

    def baselines(cell: Cell) -> list[float]:
        return [c.latency for c in of_pair[cell.pair] if c.solver != cell.solver]

    found = []
    for solver in dict.fromkeys(c.solver for c in cells):
        mine = [c for c in cells if c.solver == solver]
        against_xla = [(c.latency, xla) for c in mine if (xla := c.first.xla_default)]
        contended = [c for c in mine if c.first.contended]
        gaps = _known(c.gap_closed for c in contended)
        found.append(
            Standing(
                solver=solver,
                pairs=len(mine),
                failed=sum(c.failed for c in mine),
                speedup=geometric_mean(_known(c.speedup for c in mine)),
                speedup_contended=geometric_mean(_known(c.speedup for c in contended)),
                gap_closed=mean(gaps),
                gap_closed_median=statistics.median(gaps) if gaps else None,
                against_xla=record(against_xla),
                against_baselines=record(
                    (c.latency, min(baselines(c))) for c in mine if baselines(c)
                ),
                optimal=sum(c.is_optimal for c in mine),
                seconds=statistics.fmean(c.seconds for c in mine),
            )
        )
    return sorted(found, key=lambda s: -(s.speedup or 0.0))


def compiled_standings(joined: Iterable[tuple[Row, CompiledRow]]) -> list[CompiledStanding]:
    """Every solver's, the best geometric mean first."""
    of_solver: dict[str, list[tuple[Row, CompiledRow]]] = {}
    of_pair: dict[str, dict[str, float]] = {}
    for row, compiled in joined:
        of_solver.setdefault(row.solver, []).append((row, compiled))
        if isinstance(compiled, JudgedCompiledRow):
            of_pair.setdefault(row.pair, {})[row.solver] = compiled.compiled

    def against_baselines(row: Row) -> list[tuple[float, float]]:
        found = of_pair[row.pair]
        others = [cycles for solver, cycles in found.items() if solver != row.solver]
        return [(found[row.solver], min(others))] if others else []

    found = []
    for solver, mine in of_solver.items():
        good = [(row, c) for row, c in mine if isinstance(c, JudgedCompiledRow)]
        gaps = _compiled_gaps(good)
        found.append(
            CompiledStanding(
                solver=solver,
                pairs=len(good),
                failed=len(mine) - len(good),
                speedup=geometric_mean(c.compiled_speedup for _, c in good),
                speedup_monotone=geometric_mean(c.compiled_speedup_monotone for _, c in good),
                speedup_predicted=geometric_mean(r.speedup for r, _ in good if r.speedup),
                gap_closed=mean(gaps),
                gap_closed_median=statistics.median(gaps) if gaps else None,
                honoured=mean(c.honoured for _, c in good),
                against_xla=record((c.compiled, c.xla_default_compiled) for _, c in good),
                against_baselines=record(
                    both for row, _ in good for both in against_baselines(row)
                ),
            )
        )
    return sorted(found, key=lambda s: -(s.speedup or 0.0))


def _compiled_gaps(joined: Iterable[tuple[Row, JudgedCompiledRow]]) -> list[float]:
    """Gap closed on each contended pair by what would be used: XLA's default where it is faster."""
    return _known(
        gap_closed(c.xla_default_compiled, row.bound, min(c.compiled, c.xla_default_compiled))
        for row, c in joined
        if row.contended
    )


def profile(latencies: Mapping[str, Sequence[float]]) -> dict[str, np.ndarray]:
    """For a performance profile (Dolan and More, 2002): each one's ratios to the best, sorted.

    latencies: of each contestant on the same pairs, in the same order. The share of pairs within a
    factor tau of the best is the share of ratios up to tau.
    """
    table = np.array(list(latencies.values()), dtype=np.float64)
    ratios = np.sort(table / table.min(axis=0), axis=1)
    return dict(zip(latencies, ratios, strict=True))


def profile_of(cells: Sequence[Cell]) -> dict[str, np.ndarray]:
    """The profile of all solvers, and of XLA's default if it is known everywhere."""
    latencies: dict[str, list[float]] = {}
    for cell in sorted(cells, key=lambda c: c.pair):
        latencies.setdefault(cell.solver, []).append(cell.latency)
    defaults = {c.pair: xla for c in cells if (xla := c.first.xla_default) is not None}
    if len(defaults) == len({c.pair for c in cells}):
        latencies[XLA] = [defaults[pair] for pair in sorted(defaults)]
    return profile(latencies)


def gap_curves(
    cells: Sequence[Cell], seconds: Sequence[float] | np.ndarray
) -> dict[str, np.ndarray]:
    """Gap closed by each solver at each of `seconds`: the median over runs on contended pairs.

    NaN while fewer than half of the runs have found a mapping.
    """
    curves = {}
    for solver in dict.fromkeys(c.solver for c in cells):
        runs = [r for c in cells if c.solver == solver and c.first.contended for r in c.runs]
        if runs:
            table = np.sort([_gaps_at(run, seconds) for run in runs], axis=0)
            low, high = table[(len(runs) - 1) // 2], table[len(runs) // 2]
            curves[solver] = np.where(np.isfinite(low), (low + high) / 2, np.nan)
    return curves


def _gaps_at(run: Row, seconds: Sequence[float] | np.ndarray) -> np.ndarray:
    """-inf before the first improvement, and where the run failed."""
    times = np.array([at for at, _ in run.improvements])
    gaps = [gap_closed(run.xla_default, run.bound, cycles) for _, cycles in run.improvements]
    index = np.searchsorted(times, seconds, side="right")
    return np.array([-np.inf, *gaps], dtype=np.float64)[index]
