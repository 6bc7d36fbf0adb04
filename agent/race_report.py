"""What races show: who had the faster program compiled when the time was up."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from malloc_game.solvers import lower_bound
from workloads.contest import scores
from workloads.contest.rows import RaceRow, gap_closed
from workloads.suite_data import Pair

# Seconds for the game's bound of one pair; after them it is that of every instruction by itself.
_BOUND_SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class Limits:
    """Latencies over XLA's default that no mapping can beat, both predicted."""

    memory: float  # whatever memory could do; what gap closed is measured by
    game: float  # what the game can make, and so ask of the compiler


def limits(pair: Pair, directory: pathlib.Path) -> Limits:
    """Of a pair whose problem file is in `directory`: of the index, and solved for (a second)."""
    problem, _ = pair.load(directory)
    game = lower_bound(problem, expressible=True, time_limit=_BOUND_SECONDS).cycles
    return Limits(pair.bound / pair.xla_default, max(game, pair.bound) / pair.xla_default)


@dataclasses.dataclass(frozen=True)
class Standing:
    """A contender over all pairs that every contender has finished."""

    contender: str
    pairs: int
    first_compile: float  # seconds, median over runs: how fast the machine was; NaN without any
    speedup: float  # geometric mean over pairs; of a pair, over seeds
    first_against: scores.Record  # pairs where the first contender is faster, as fast, slower
    # Means of the gap closed, clipped to [-1, 1], over the pairs where there is one.
    memory_gap: float | None
    game_gap: float | None


def by_pair(found: Sequence[RaceRow]) -> dict[str, dict[str, list[float]]]:
    """Of every pair each contender's speed-ups, one for each seed; failures left out."""
    runs: dict[str, dict[str, list[float]]] = {}
    for row in found:
        of_pair = runs.setdefault(row.pair, {})
        if row.speedup:
            of_pair.setdefault(row.contender, []).append(row.speedup)
    return runs


def _means(speedups: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: scores.geometric_mean(each) or 1.0 for name, each in speedups.items()}


def standings(found: Sequence[RaceRow], limits_of: Mapping[str, Limits]) -> list[Standing]:
    """How the contenders did, in their order, and how the first one did against each."""
    names = list(dict.fromkeys(row.contender for row in found))
    complete = {n: _means(runs) for n, runs in by_pair(found).items() if set(runs) == set(names)}
    least = {pair: limits_of[pair] for pair in complete}
    firsts = {
        name: [row.history[0][0] for row in found if row.contender == name and row.history]
        for name in names
    }
    return [
        Standing(
            contender=name,
            pairs=len(complete),
            first_compile=float(np.median(firsts[name] or np.nan)),
            speedup=scores.geometric_mean(means[name] for means in complete.values()) or 1.0,
            first_against=scores.record(
                (1 / means[names[0]], 1 / means[name]) for means in complete.values()
            ),
            memory_gap=_mean_gap((least[p].memory, complete[p][name]) for p in complete),
            game_gap=_mean_gap((least[p].game, complete[p][name]) for p in complete),
        )
        for name in names
    ]


def _mean_gap(found: Iterable[tuple[float, float]]) -> float | None:
    """Of bounds over XLA's default, and speed-ups."""
    gaps = [gap_closed(1.0, bound, 1 / speedup) for bound, speedup in found]
    known = [gap for gap in gaps if gap is not None]
    return float(np.clip(known, -1, 1).mean()) if known else None


def markdown(found: Sequence[RaceRow], limits_of: Mapping[str, Limits]) -> str:
    """Both tables, and how the runs were made. limits_of: by the names of pairs."""
    if not found:
        return ""
    names = list(dict.fromkeys(row.contender for row in found))
    limits = sorted({row.seconds_limit for row in found})
    cores = sorted({row.cores for row in found})
    seeds = sorted({row.seed for row in found})
    failed = [row for row in found if row.error]
    lines = [
        f"{', '.join(f'{limit:g}' for limit in limits)} s on {', '.join(map(str, cores))} cores,"
        f" seeds {', '.join(map(str, seeds))}; each run a process of its own with empty caches, its"
        " start and the two first compiles included. Speed-ups are compiled, over XLA's default:"
        " the geometric mean over seeds, and in brackets the range. A tie is within"
        f" {scores.TIE:.1%}. Gap closed: the share of what could be won over XLA's"
        " default, by the proven (predicted) bound of whatever memory could do, and by that of the"
        " game's rules; clipped to [-1, 1], the mean over pairs. Permissions can win more than the"
        " game's rules allow, and XLA's default may be faster than they do. First compile: when a"
        " run had it, median.",
        "",
        f"| seed | contender | pairs | first compile, s | geometric mean | {names[0]} wins | ties"
        " | loses | gap closed, memory | game |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    parts = {"all": found} if len(seeds) > 1 else {}
    parts |= {str(seed): [row for row in found if row.seed == seed] for seed in seeds}
    for seed, part in parts.items():
        lines += [_standing_line(seed, s, names[0]) for s in standings(part, limits_of)]
    header = ["pair", *names, "game's bound", "memory's bound"]
    lines += ["", "| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(names) + 2)]
    for pair, runs in by_pair(found).items():
        cells = _speedups(runs, names)
        cells += [f"{1 / limits_of[pair].game:.4f}", f"{1 / limits_of[pair].memory:.4f}"]
        lines.append(f"| {pair} | " + " | ".join(cells) + " |")
    for row in failed:
        lines += ["", f"{row.pair}, {row.contender}, seed {row.seed}: {row.error}"]
    return "\n".join(lines) + "\n"


def _speedups(runs: Mapping[str, Sequence[float]], names: Sequence[str]) -> list[str]:
    """A cell for each of `names`; who is the best, or ties with it, in bold."""
    means = _means(runs)
    best = max(means.values(), default=0.0)
    cells = []
    for name in names:
        if name not in runs:
            cells.append("-")
            continue
        text = f"{means[name]:.4f}"
        if means[name] >= best * (1 - scores.TIE):
            text = f"**{text}**"
        least, most = (f"{value:.4f}" for value in (min(runs[name]), max(runs[name])))
        cells.append(text if least == most else f"{text} ({least} to {most})")
    return cells


def _standing_line(seed: str, standing: Standing, first: str) -> str:
    against = standing.first_against
    record = [against.wins, against.ties, against.losses]
    gaps = (standing.memory_gap, standing.game_gap)
    cells = [
        *(seed, standing.contender, str(standing.pairs)),
        *(f"{standing.first_compile:.1f}", f"{standing.speedup:.4f}"),
        *([""] * 3 if standing.contender == first else map(str, record)),
        *("-" if gap is None else f"{gap:.1%}" for gap in gaps),
    ]
    return f"| {' | '.join(cells)} |"
