"""What races show: who had the faster program compiled when the time was up."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from workloads.contest import scores
from workloads.contest.rows import RaceRow


@dataclasses.dataclass(frozen=True)
class Standing:
    """A contender over all pairs that every contender has finished."""

    contender: str
    pairs: int
    speedup: float  # geometric mean over pairs; of a pair, over seeds
    first_against: scores.Record  # pairs where the first contender is faster, as fast, slower


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


def standings(found: Sequence[RaceRow]) -> list[Standing]:
    """How the contenders did, in their order, and how the first one did against each."""
    names = list(dict.fromkeys(row.contender for row in found))
    complete = [means for means in by_pair(found).values() if set(means) == set(names)]
    return [
        Standing(
            contender=name,
            pairs=len(complete),
            speedup=scores.geometric_mean(means[name] for means in complete) or 1.0,
            first_against=scores.record((1 / m[names[0]], 1 / m[name]) for m in complete),
        )
        for name in names
    ]


def markdown(found: Sequence[RaceRow]) -> str:
    """Both tables, and how the runs were made."""
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
        f" a tie is within {scores.TIE:.1%}.",
        "",
        f"| contender | pairs | geometric mean | {names[0]} wins | ties | loses |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for s in standings(found):
        against = s.first_against
        record = [against.wins, against.ties, against.losses]
        cells = [""] * 3 if s.contender == names[0] else map(str, record)
        lines.append(f"| {s.contender} | {s.pairs} | {s.speedup:.4f} | {' | '.join(cells)} |")
    lines += ["", "| pair | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for pair, means in by_pair(found).items():
        best = max(means.values(), default=0.0)
        cells = []
        for name in names:
            value = means.get(name)
            text = "-" if value is None else f"{value:.4f}"
            is_best = value is not None and value >= best * (1 - scores.TIE)
            cells.append(f"**{text}**" if is_best else text)
        lines.append(f"| {pair} | " + " | ".join(cells) + " |")
    for row in failed:
        lines += ["", f"{row.pair}, {row.contender}, seed {row.seed}: {row.error}"]
    return "\n".join(lines) + "\n"
