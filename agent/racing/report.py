"""What races show: who had the faster program compiled when the time was up."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from malloc_game.estimator import NO_CLAIM
from malloc_game.solvers import SOLVERS, lower_bound
from workloads.benchmark import scores
from workloads.benchmark.rows import RaceRow, gap_closed
from workloads.programs.suite_problems import Pair

# Seconds for the game's bound of one pair; after them it is that of every instruction by itself.
_BOUND_SECONDS = 60.0
# Their names have blanks, so that they are no contenders'.
_BEST_SOLVER = "best of the solvers"
_BEST = "best of the others"


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
    # Pairs where the first contender is faster, as fast, slower, by the seeds that both have run.
    first_against: scores.Record
    # Means of the gap closed, clipped to [-1, 1], over the pairs where there is one.
    memory_gap: float | None
    game_gap: float | None


# Speed-ups of a pair: of each contender, by seed.
_Runs = Mapping[str, Mapping[int, float]]


def by_pair(found: Sequence[RaceRow]) -> dict[str, dict[str, dict[int, float]]]:
    """Of every pair each contender's speed-ups, by seed; failures left out."""
    runs: dict[str, dict[str, dict[int, float]]] = {}
    for row in found:
        of_pair = runs.setdefault(row.pair, {})
        if row.speedup:
            of_pair.setdefault(row.contender, {})[row.seed] = row.speedup
    return runs


def _means(runs: _Runs) -> dict[str, float]:
    return {name: scores.geometric_mean(each.values()) or 1.0 for name, each in runs.items()}


def best_of_the_others(found: Sequence[RaceRow]) -> list[RaceRow]:
    """A contender that is, in each race, whoever was the best but the first contender.

    And one that is the best solver of the game (`malloc_game.solvers`). Of the races (pair and
    seed) that all of these have finished; of less than two there is no best.
    """
    others = _contenders(found)[1:]
    solvers = [name for name in others if name in SOLVERS]
    best = [] if solvers == others else _best_of(found, solvers, _BEST_SOLVER)
    return best + _best_of(found, others, _BEST)


def _best_of(found: Sequence[RaceRow], names: Sequence[str], called: str) -> list[RaceRow]:
    races: dict[tuple[str, int], list[RaceRow]] = {}
    for row in found:
        if row.speedup and row.contender in names:
            races.setdefault((row.pair, row.seed), []).append(row)
    best = [
        max(rows, key=lambda row: row.speedup or 0.0)
        for rows in races.values()
        if len(rows) == len(names) > 1
    ]
    return [dataclasses.replace(row, contender=called) for row in best]


def standings(found: Sequence[RaceRow], limits_of: Mapping[str, Limits]) -> list[Standing]:
    """How the contenders did, in their order, and how the first one did against each."""
    names = _contenders(found)
    raced = _raced_by_all(found)
    complete = {pair: _means(runs) for pair, runs in raced.items()}
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
            first_against=_record(raced.values(), names[0], name),
            memory_gap=_mean_gap((least[p].memory, complete[p][name]) for p in complete),
            game_gap=_mean_gap((least[p].game, complete[p][name]) for p in complete),
        )
        for name in names
    ]


def _contenders(found: Iterable[RaceRow]) -> list[str]:
    """In their order: the others are compared with the first."""
    return list(dict.fromkeys(row.contender for row in found))


def _raced_by_all(found: Sequence[RaceRow]) -> dict[str, _Runs]:
    names = set(_contenders(found))
    return {pair: runs for pair, runs in by_pair(found).items() if set(runs) == names}


def by_seed(found: Sequence[RaceRow]) -> list[str]:
    """A table of markdown, a line for each contender but the first: seed by seed against that one.

    Over the pairs that every contender has finished. A seed of a contender is compared with the
    same one of the first, and with the first one's first: where machines differ from run to run,
    the seed has less to say than the machine that a run had.
    """
    names = _contenders(found)
    races = list(_raced_by_all(found).values())
    first_seed = min((seed for runs in races for seed in runs[names[0]]), default=0)
    lines = [
        f"| contender | seeds | geometric mean | wins / ties / losses of {names[0]}, same seed"
        f" | won or tied | against its seed {first_seed} | won or tied | all seeds | won or tied |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name in names[1:]:
        seeds = sorted({seed for runs in races for seed in runs[name]})
        means = [
            scores.geometric_mean(runs[name][seed] for runs in races if seed in runs[name])
            for seed in seeds
        ]
        cells = [name, ", ".join(map(str, seeds)), ", ".join(f"{mean:.3f}" for mean in means)]
        for records in (
            [_record_of_seeds(races, (names[0], seed), (name, seed)) for seed in seeds],
            [_record_of_seeds(races, (names[0], first_seed), (name, seed)) for seed in seeds],
            [_record(races, names[0], name)],
        ):
            cells.append(", ".join(f"{r.wins} / {r.ties} / {r.losses}" for r in records))
            cells.append(", ".join(map(_won_or_tied, records)))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _record_of_seeds(
    races: Iterable[_Runs], first: tuple[str, int], second: tuple[str, int]
) -> scores.Record:
    """How often a contender with a seed beats another with one, where both have run."""
    found = [[runs[name].get(seed) for name, seed in (first, second)] for runs in races]
    return scores.record([(1 / ours, 1 / theirs) for ours, theirs in found if ours and theirs])


def _won_or_tied(record: scores.Record) -> str:
    pairs = record.wins + record.ties + record.losses
    return f"{(record.wins + record.ties) / pairs:.0%}" if pairs else "-"


def _record(races: Iterable[_Runs], first: str, name: str) -> scores.Record:
    """How often `first` beats `name`; a machine may differ from seed to seed, so by common ones."""
    latencies = []
    for runs in races:
        seeds = [seed for seed in runs[first] if seed in runs[name]]
        means = _means({n: {seed: runs[n][seed] for seed in seeds} for n in (first, name)})
        if seeds:
            latencies.append((1 / means[first], 1 / means[name]))
    return scores.record(latencies)


def _mean_gap(found: Iterable[tuple[float, float]]) -> float | None:
    """Of bounds over XLA's default, and speed-ups."""
    gaps = [gap_closed(1.0, bound, 1 / speedup) for bound, speedup in found]
    known = [gap for gap in gaps if gap is not None]
    return float(np.clip(known, -1, 1).mean()) if known else None


def markdown(found: Sequence[RaceRow], limits_of: Mapping[str, Limits]) -> str:
    """The tables, and how the runs were made. limits_of: by the names of pairs."""
    if not found:
        return ""
    names = _contenders(found)
    limits = sorted({row.seconds_limit for row in found})
    cores = sorted({row.cores for row in found})
    seeds = _seeds(found)
    failed = [row for row in found if row.error]
    lines = [
        NO_CLAIM,
        "",
        f"{', '.join(f'{limit:g}' for limit in limits)} s on {', '.join(map(str, cores))} cores,"
        f" seeds {', '.join(map(str, seeds))}; each run a process of its own with empty caches, its"
        " start and the two first compiles included. Ratios are of the tile chooser's estimated"
        " cycles, XLA's default over the contender's, compiled; they are no speed-ups:"
        " the geometric mean over seeds, and in brackets the range. A tie is within"
        f" {scores.TIE:.1%}; who beats whom is by the seeds that both have raced."
        " Gap closed: the share of what could be won over XLA's"
        " default, by the proven (predicted) bound of whatever memory could do, and by that of the"
        " game's rules; clipped to [-1, 1], the mean over pairs. Permissions can win more than the"
        " game's rules allow, and XLA's default may be faster than they do. First compile: when a"
        " run had it, median. The best of others, or of solvers, is whoever was fastest in a race"
        " (a pair with a seed) that all of them have finished.",
        "",
        *([*by_seed(found), ""] if len(seeds) > 1 and len(names) > 1 else []),
        f"| seed | contender | pairs | first compile, s | geometric mean | {names[0]} wins | ties"
        " | loses | gap closed, memory | game |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    parts = {"all": found} if len(seeds) > 1 else {}
    parts |= {str(seed): [row for row in found if row.seed == seed] for seed in seeds}
    for seed, part in parts.items():
        best = best_of_the_others(part)
        # A best of some of the seeds only is no line among those of all of them.
        there = {(row.contender, row.seed) for row in best}
        whole = [row for row in best if all((row.contender, n) in there for n in _seeds(part))]
        with_best = [*part, *whole]
        lines += [_standing_line(seed, s, names[0]) for s in standings(with_best, limits_of)]
    header = ["pair", *names, "game's bound", "memory's bound"]
    lines += ["", "| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(names) + 2)]
    for pair, runs in by_pair(found).items():
        cells = _speedups(runs, names)
        cells += [f"{1 / limits_of[pair].game:.4f}", f"{1 / limits_of[pair].memory:.4f}"]
        lines.append(f"| {pair} | " + " | ".join(cells) + " |")
    for row in failed:
        lines += ["", f"{row.pair}, {row.contender}, seed {row.seed}: {row.error}"]
    return "\n".join(lines) + "\n"


def _seeds(found: Iterable[RaceRow]) -> list[int]:
    return sorted({row.seed for row in found})


def _speedups(runs: _Runs, names: Sequence[str]) -> list[str]:
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
        speedups = runs[name].values()
        least, most = (f"{value:.4f}" for value in (min(speedups), max(speedups)))
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
