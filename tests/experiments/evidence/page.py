"""The page of the journal: its tables."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from malloc_game.estimator import NO_CLAIM
from tests.experiments.evidence import journal
from tests.experiments.evidence.journal import Row
from workloads.benchmark.scores import TIE


def _spread(values: Sequence[float]) -> str:
    """Median and range."""
    if len(values) == 1:
        return f"{values[0]:.4f}"
    return f"{np.median(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def _table(header: Sequence[str], lines: Iterable[Sequence[str]], text_columns: int = 1) -> list:
    rule = ["---"] * text_columns + ["---:"] * (len(header) - text_columns)
    cells = [header, rule, *lines]
    return ["| " + " | ".join(line) + " |" for line in cells] + [""]


def _optimum(rows: list[Row]) -> list[str]:
    found = journal.of_experiment(rows, "optimum")
    if not found:
        return []
    lines = [
        [
            str(row["seed"]), f"{np.mean(row['untrained']):.1%}", f"{np.mean(row['trained']):.1%}",
            f"{sum(share == 1 for share in row['trained'])} of {len(row['trained'])}",
            *(f"{first:.3f} to {last:.3f}" for first, last in (row["loss"], row["saved"])),
            f"{row['seconds']:.0f}",
        ]
        for row in sorted(found, key=lambda row: row["seed"])
    ]  # fmt: skip
    return [
        "## A known optimum",
        "",
        f"One network for {found[0]['pair']} (`tests/helpers/learning.py`), shown nothing; their"
        " optima are known, since all mappings were tried. One game without noise: the share of"
        " what the optimum saves over all in default memory, mean over the problems. Loss, and the"
        " share of that latency which games of self-play save: first and last iteration.",
        "",
        *_table(
            ["seed", "untrained", "trained", "at the optimum", "loss", "saved in self-play", "s"],
            lines,
        ),
    ]


def _curves(rows: list[Row], baselines: Mapping) -> list[str]:
    found = journal.of_experiment(rows, "curves")
    if not found:
        return []
    lines = []
    for pair in dict.fromkeys(row["pair"] for row in found):
        each = [row for row in found if row["pair"] == pair]
        default = each[0]["xla_default"][pair]
        curves = [journal.played(row, pair) for row in each]
        baseline = baselines.get(pair, {})
        best = min(journal.best_known(row, pair, baselines) for row in each)
        reached = sum(curve[-1, 1] <= best * (1 + TIE) for curve in curves)
        lines.append([
            pair, str(len(each)), f"{np.median([c[-1, 0] for c in curves]):,.0f}",
            *(
                f"{baseline[n] / default:.4f}" if n in baseline else "-"
                for n in ("random", "greedy")
            ),
            f"{best:.4f}", _spread([c[0, 1] for c in curves]), _spread([c[-1, 1] for c in curves]),
            f"{reached} of {len(each)}",
        ])  # fmt: skip
    return [
        "## Learning from scratch",
        "",
        "A network of its own for each program, shown nothing: no hints, no games of others. One"
        " game"
        " without noise with 32 simulations, by the averaged parameters, over XLA's default latency"
        " (predicted); median and range over seeds. Random and greedy as in `mallocgame bench`;"
        " best known: of all solvers there (60 s each) and of the games of training.",
        "",
        *_table(
            ["pair", "seeds", "games", "random", "greedy", "best known", "untrained", "trained",
             "at the best known"], lines,
        ),
        "![learning curves](evidence/curves.svg)",
        "",
    ]  # fmt: skip


def _ablations(rows: list[Row], baselines: Mapping) -> list[str]:
    found = journal.of_experiment(rows, "ablations")
    if not found:
        return []
    lines = []
    for variant in dict.fromkeys(row["variant"] for row in found):
        each = [row for row in found if row["variant"] == variant]
        curves = [journal.won(row, baselines) for row in each]
        lines.append([
            variant, str(len(each)), _spread([c[len(c) // 2, 1] for c in curves]),
            _spread([c[-1, 1] for c in curves]), _spread([c[1:, 1].mean() for c in curves]),
            f"{np.median([row['seconds'] for row in each]):.0f}",
        ])  # fmt: skip
    names = found[0]["pair"].replace("+", ", ")
    return [
        "## One thing changed",
        "",
        f"One network for three programs ({names}), from nothing, 16 simulations in training unless"
        " it is said; always judged with 32. What a game without noise wins of what can be won:"
        " 0 is"
        " XLA's default, 1 the best mapping known; mean over the programs, median and range over"
        " seeds.",
        "",
        *_table(["variant", "seeds", "half way", "at the end", "mean over training", "s"], lines),
        "![ablations](evidence/ablations.svg)",
        "",
    ]


def _generalist(rows: list[Row]) -> list[str]:
    shared = [
        row for row in journal.of_experiment(rows, "ablations") if row["variant"] == "as it is"
    ]
    alone = [
        row
        for row in journal.of_experiment(rows, "curves")
        if shared and row["pair"] in shared[0]["curve"][0][2]
    ]
    lines = []
    for pair in dict.fromkeys(row["pair"] for row in alone):
        each = [row for row in alone if row["pair"] == pair]
        default = each[0]["xla_default"][pair]
        best = [[row["best_in_training"][pair] / default for row in of] for of in (each, shared)]
        played = [[journal.played(row, pair)[-1, 1] for row in of] for of in (each, shared)]
        lines.append([pair, *map(_spread, [*played, *best])])
    if not lines:
        return []
    return [
        "## A network for each program, or one for all",
        "",
        "After as many iterations, of which each plays all of its games on the one program, or a"
        " third of them. Latency over XLA's default of one game without noise, and of the best game"
        " of training; median and range over seeds.",
        "",
        *_table(
            ["pair", "its own", "one for three", "its own, best", "one for three, best"], lines
        ),
    ]


def _drop_backup(rows: list[Row]) -> list[str]:
    found = journal.of_experiment(rows, "drop_backup")
    if not found:
        return []
    lines = []
    for pair in dict.fromkeys(row["pair"] for row in found):
        for variant in dict.fromkeys(row["variant"] for row in found):
            each = [r for r in found if (r["pair"], r["variant"]) == (pair, variant)]
            if each:
                default = each[0]["xla_default"][pair]
                lines.append([
                    pair, variant, str(len(each)), _spread([r["cycles"] / default for r in each]),
                    _spread([r["network"][-1] / default for r in each]),
                ])  # fmt: skip
    return [
        "## Drop-backup",
        "",
        "The paper's rules (`piecemeal`), under which a game can be stuck: what follows is then"
        " played"
        " anew (drop-backup), or only the stuck value is dropped. The planner from scratch; latency"
        " over XLA's default.",
        "",
        *_table(["pair", "variant", "seeds", "best game", "last game of the network"], lines, 2),
    ]


def _relative(rows: Iterable[Row]) -> dict[str, float]:
    """Latency over XLA's default of each pair, the geometric mean over seeds."""
    logs: dict[str, list[float]] = {}
    for row in rows:
        logs.setdefault(row["pair"], []).append(
            np.log(row["cycles"] / row["xla_default"][row["pair"]])
        )
    return {pair: float(np.exp(np.mean(values))) for pair, values in logs.items()}


def _against(ours: Mapping[str, float], other: Mapping[str, float], names: Sequence[str]) -> str:
    """Faster / as fast / slower."""
    ratio = np.array([ours[name] / other[name] for name in names])
    faster, slower = int((ratio < 1 - TIE).sum()), int((ratio > 1 + TIE).sum())
    return f"{faster} / {len(ratio) - faster - slower} / {slower}"


def _standings(found: list[Row], baselines: Mapping) -> tuple[list[str], list[list[str]]]:
    """The pairs that all have done, and a line for each variant and baseline."""
    of_variant = {
        variant: _relative(row for row in found if row["variant"] == variant)
        for variant in dict.fromkeys(row["variant"] for row in found)
    }
    some = {row["pair"]: row for row in found}
    of_baseline: dict[str, dict[str, float]] = {}
    for pair, row in some.items():
        for solver in ("greedy", "annealing", "cpsat"):
            if solver in baselines.get(pair, {}):
                relative = baselines[pair][solver] / row["xla_default"][pair]
                of_baseline.setdefault(f"{solver}, 60 s", {})[pair] = relative
    if "cpsat, 60 s" not in of_baseline:
        of_baseline = {}
    every = {**of_baseline, **of_variant}
    names = [pair for pair in some if all(pair in value for value in every.values())]
    bound = {pair: some[pair]["bound"][pair] / some[pair]["xla_default"][pair] for pair in names}
    lines = []
    for name, value in every.items() if names else ():
        gaps = [(1 - value[pair]) / max(1 - bound[pair], 1e-9) for pair in names]
        lines.append([
            name, f"{np.exp(np.mean([np.log(value[pair]) for pair in names])):.4f}",
            f"{np.median(gaps):.1%}", f"{np.clip(gaps, -1, 1).mean():.1%}",
            *(_against(value, of_baseline[baseline], names) if baseline in of_baseline else "-"
              for baseline in ("greedy, 60 s", "cpsat, 60 s")),
        ])  # fmt: skip
    return names, lines


def _seeds(found: Iterable[Row]) -> str:
    """Which seeds there are; of those that fewer pairs have than others, how many."""
    of: dict[int, set[str]] = {}
    for row in found:
        of.setdefault(row["seed"], set()).add(row["pair"])
    most = max(map(len, of.values()))
    return ", ".join(
        str(seed) if len(of[seed]) == most else f"{seed} ({len(of[seed])} of {most} pairs)"
        for seed in sorted(of)
    )


_STANDING = ["", "latency / XLA default", "gap closed, median", "mean", "against greedy",
             "against CP-SAT"]  # fmt: skip


def _planning(rows: list[Row], baselines: Mapping) -> list[str]:
    found = journal.of_experiment(rows, "planning")
    if not found:
        return []
    names, lines = _standings(found, baselines)
    iterations = max(row["curve"][-1][0] for row in found if "curve" in row)
    return [
        "## Zero-shot and fine-tuned, on test families",
        "",
        f"{len(names)} contended pairs, seeds {_seeds(found)}; predicted."
        " Zero-shot: one"
        " game of the agent that ships, without noise, 32 simulations. The others go on from the"
        " best"
        f" simple play for {iterations} iterations (a batch of 16 games and 24 updates each)."
        " Geometric mean of the latency; gap closed clipped to [-1, 1] before the mean;"
        " faster / as fast (within 0.1%) / slower.",
        "",
        *_table(_STANDING, lines),
        "![planning](evidence/planning.svg)",
        "",
    ]


def _lead(rows: list[Row], baselines: Mapping) -> list[str]:
    found = journal.of_experiment(rows, "lead")
    if not found:
        return []
    names, lines = _standings(found, baselines)
    both: dict[str, dict[str, float]] = {
        variant: _relative(row for row in found if row["variant"] == variant)
        for variant in dict.fromkeys(row["variant"] for row in found)
    }
    led, anywhere = both.get("led by the policy", {}), both.get("anywhere", {})
    common = [pair for pair in led if pair in anywhere]
    return [
        "## Where LNS windows are solved anew",
        "",
        f"From the best simple play on, {found[0]['curve'][-1][0]} LNS windows of CP-SAT, half of"
        " them"
        " where the policy disagrees with the mapping, or all of them anywhere;"
        f" {len(names)} contended pairs of test families, seeds {_seeds(found)}."
        f" Led against anywhere: {_against(led, anywhere, common)}.",
        "",
        *_table(_STANDING, lines),
    ]


def markdown(rows: list[Row], baselines: pathlib.Path) -> str:
    """The page. baselines: results of `mallocgame bench`."""
    known = journal.of_baselines(baselines)
    versions = sorted({row["jax"] for row in rows})
    lines = [
        "# Evidence",
        "",
        "Made by `make evidence`, which goes on from `evidence/evidence.jsonl`. Counted in"
        " iterations"
        " and LNS windows, so that a busy machine gives the same numbers. All latencies are"
        " predicted;"
        f" jax {', '.join(versions)}, CPU.",
        "",
        NO_CLAIM,
        "",
        *_planning(rows, known),
        *_lead(rows, known),
        *_optimum(rows),
        *_curves(rows, known),
        *_generalist(rows),
        *_ablations(rows, known),
        *_drop_backup(rows),
    ]
    return "\n".join(lines).rstrip("\n") + "\n"
