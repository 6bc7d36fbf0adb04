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
    speedup: float  # geometric mean over pairs; of a pair, over seeds
    first_against: scores.Record  # pairs where the first contender is faster, as fast, slower
    # Means of the gap closed, clipped to [-1, 1], over the pairs where there is one.
    memory_gap: float | None
    game_gap: float | None


def by_pair(found: Sequence[RaceRow]) -> dict[str, dict[str, float]]:
    """Of every pair each contender's speed-up, the geometric mean over seeds; failures left out."""
    runs: dict[str, dict[str, list[float]]] = {}
    for row in found:
        of_pair = runs.setdefault(row.pair, {})
        if row.speedup:
            of_pair.setdefault(row.contender, []).append(row.speedup)
    return {
        pair: {name: scores.geometric_mean(each) or 1.0 for name, each in of_pair.items()}
        for pair, of_pair in runs.items()
    }


def standings(found: Sequence[RaceRow], limits_of: Mapping[str, Limits]) -> list[Standing]:
    """How the contenders did, in their order, and how the first one did against each."""
    names = list(dict.fromkeys(row.contender for row in found))
    complete = {n: means for n, means in by_pair(found).items() if set(means) == set(names)}
    least = {pair: limits_of[pair] for pair in complete}
    return [
        Standing(
            contender=name,
            pairs=len(complete),
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
        " start and the two first compiles included. Speed-ups are compiled, over XLA's default;"
        f" a tie is within {scores.TIE:.1%}. Gap closed: the share of what could be won over XLA's"
        " default, by the proven (predicted) bound of whatever memory could do, and by that of the"
        " game's rules; clipped to [-1, 1], the mean over pairs. Permissions can win more than the"
        " game's rules allow, and XLA's default may be faster than they do.",
        "",
        f"| contender | pairs | geometric mean | {names[0]} wins | ties | loses"
        " | gap closed, memory | game |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for s in standings(found, limits_of):
        against = s.first_against
        record = [against.wins, against.ties, against.losses]
        cells = [""] * 3 if s.contender == names[0] else map(str, record)
        cells = [*cells, *("-" if g is None else f"{g:.1%}" for g in (s.memory_gap, s.game_gap))]
        lines.append(f"| {s.contender} | {s.pairs} | {s.speedup:.4f} | {' | '.join(cells)} |")
    header = ["pair", *names, "game's bound", "memory's bound"]
    lines += ["", "| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(names) + 2)]
    for pair, means in by_pair(found).items():
        best = max(means.values(), default=0.0)
        cells = []
        for name in names:
            value = means.get(name)
            text = "-" if value is None else f"{value:.4f}"
            is_best = value is not None and value >= best * (1 - scores.TIE)
            cells.append(f"**{text}**" if is_best else text)
        cells += [f"{1 / limits_of[pair].game:.4f}", f"{1 / limits_of[pair].memory:.4f}"]
        lines.append(f"| {pair} | " + " | ".join(cells) + " |")
    for row in failed:
        lines += ["", f"{row.pair}, {row.contender}, seed {row.seed}: {row.error}"]
    return "\n".join(lines) + "\n"
