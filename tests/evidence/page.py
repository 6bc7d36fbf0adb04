"""The page of the journal: tables and pictures."""

from __future__ import annotations

import io
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from workloads.contest.rows import current, results
from workloads.contest.scores import TIE

Row = dict[str, Any]


def read(path: pathlib.Path) -> list[Row]:
    """Rows of the journal."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def key(row: Row) -> tuple:
    """As of `runs.Run`."""
    return row["experiment"], row["variant"], row["pair"], row["seed"]


def of_rivals(path: pathlib.Path) -> dict[str, dict[str, float]]:
    """Of every pair each solver's predicted latency in 60 s, seed 0, in cycles."""
    found: dict[str, dict[str, float]] = {}
    for row in current(results(path).read()):
        if row.predicted is not None and row.seed == 0:
            found.setdefault(row.pair, {})[row.solver] = row.predicted
    return found


def _of(rows: Iterable[Row], experiment: str) -> list[Row]:
    return [row for row in rows if row["experiment"] == experiment]


def _spread(values: Sequence[float]) -> str:
    """Median and range."""
    if len(values) == 1:
        return f"{values[0]:.4f}"
    return f"{np.median(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def _table(header: Sequence[str], lines: Iterable[Sequence[str]], text_columns: int = 1) -> list:
    rule = ["---"] * text_columns + ["---:"] * (len(header) - text_columns)
    cells = [header, rule, *lines]
    return ["| " + " | ".join(line) + " |" for line in cells] + [""]


def _played(row: Row, pair: str) -> np.ndarray:
    """[points, 2]: games, and latency over XLA's default, of a curve of training."""
    default = row["xla_default"][pair]
    return np.array([[games, found[pair] / default] for _, games, found in row["curve"]])


def _best_known(row: Row, pair: str, rivals: Mapping[str, Mapping[str, float]]) -> float:
    """Over XLA's default: the fastest mapping that any solver or training found."""
    known = [*rivals.get(pair, {}).values(), row["best_in_training"].get(pair, np.inf)]
    return min(known) / row["xla_default"][pair]


def _curves(rows: list[Row], rivals: Mapping) -> list[str]:
    found = _of(rows, "curves")
    if not found:
        return []
    lines = []
    for pair in dict.fromkeys(row["pair"] for row in found):
        each = [row for row in found if row["pair"] == pair]
        default = each[0]["xla_default"][pair]
        curves = [_played(row, pair) for row in each]
        rival = rivals.get(pair, {})
        best = min(_best_known(row, pair, rivals) for row in each)
        reached = sum(curve[-1, 1] <= best * (1 + TIE) for curve in curves)
        lines.append([
            pair, str(len(each)), f"{np.median([c[-1, 0] for c in curves]):,.0f}",
            *(f"{rival[n] / default:.4f}" if n in rival else "-" for n in ("random", "greedy")),
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


def _ablation_scores(row: Row, rivals: Mapping) -> np.ndarray:
    """[points, 2]: iterations, and the mean over programs of what is won of what can be.

    From XLA's default (0) to the best mapping known (1), not below -1."""
    names = row["pair"].split("+")
    best = {name: _best_known(row, name, rivals) for name in names}
    return np.array([
        [number, np.mean([max((1 - found[n] / row["xla_default"][n]) / (1 - best[n]), -1)
                          for n in names])]
        for number, _, found in row["curve"]
    ])  # fmt: skip


def _ablations(rows: list[Row], rivals: Mapping) -> list[str]:
    found = _of(rows, "ablations")
    if not found:
        return []
    lines = []
    for variant in dict.fromkeys(row["variant"] for row in found):
        each = [row for row in found if row["variant"] == variant]
        curves = [_ablation_scores(row, rivals) for row in each]
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
    shared = [row for row in _of(rows, "ablations") if row["variant"] == "as it is"]
    alone = [
        row for row in _of(rows, "curves") if shared and row["pair"] in shared[0]["curve"][0][2]
    ]
    lines = []
    for pair in dict.fromkeys(row["pair"] for row in alone):
        each = [row for row in alone if row["pair"] == pair]
        default = each[0]["xla_default"][pair]
        best = [[row["best_in_training"][pair] / default for row in of] for of in (each, shared)]
        played = [[_played(row, pair)[-1, 1] for row in of] for of in (each, shared)]
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
    found = _of(rows, "drop_backup")
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


def _standings(found: list[Row], rivals: Mapping) -> tuple[list[str], list[list[str]]]:
    """The pairs that all have done, and a line for each variant and rival."""
    of_variant = {
        variant: _relative(row for row in found if row["variant"] == variant)
        for variant in dict.fromkeys(row["variant"] for row in found)
    }
    some = {row["pair"]: row for row in found}
    of_rival: dict[str, dict[str, float]] = {}
    for pair, row in some.items():
        for solver in ("greedy", "annealing", "cpsat"):
            if solver in rivals.get(pair, {}):
                relative = rivals[pair][solver] / row["xla_default"][pair]
                of_rival.setdefault(f"{solver}, 60 s", {})[pair] = relative
    of_rival = {name: value for name, value in of_rival.items() if "cpsat, 60 s" in of_rival}
    every = {**of_rival, **of_variant}
    names = [pair for pair in some if all(pair in value for value in every.values())]
    bound = {pair: some[pair]["bound"][pair] / some[pair]["xla_default"][pair] for pair in names}
    lines = []
    for name, value in every.items() if names else ():
        gaps = [(1 - value[pair]) / max(1 - bound[pair], 1e-9) for pair in names]
        lines.append([
            name, f"{np.exp(np.mean([np.log(value[pair]) for pair in names])):.4f}",
            f"{np.median(gaps):.1%}", f"{np.clip(gaps, -1, 1).mean():.1%}",
            *(_against(value, of_rival[rival], names) if rival in of_rival else "-"
              for rival in ("greedy, 60 s", "cpsat, 60 s")),
        ])  # fmt: skip
    return names, lines


_STANDING = ["", "latency / XLA default", "gap closed, median", "mean", "against greedy",
             "against CP-SAT"]  # fmt: skip


def _planning(rows: list[Row], rivals: Mapping) -> list[str]:
    found = _of(rows, "planning")
    if not found:
        return []
    names, lines = _standings(found, rivals)
    seeds = sorted({row["seed"] for row in found})
    iterations = max(row["curve"][-1][0] for row in found if "curve" in row)
    return [
        "## Zero-shot and fine-tuned, on test families",
        "",
        f"{len(names)} contended pairs, seeds {', '.join(map(str, seeds))}; predicted."
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


def _lead(rows: list[Row], rivals: Mapping) -> list[str]:
    found = _of(rows, "lead")
    if not found:
        return []
    names, lines = _standings(found, rivals)
    both: dict[str, dict[str, float]] = {
        variant: _relative(row for row in found if row["variant"] == variant)
        for variant in dict.fromkeys(row["variant"] for row in found)
    }
    led, anywhere = both.get("led by the policy", {}), both.get("anywhere", {})
    common = [pair for pair in led if pair in anywhere]
    seeds = sorted({row["seed"] for row in found})
    return [
        "## Where stretches are solved anew",
        "",
        f"From the best simple play on, {found[0]['curve'][-1][0]} stretches of CP-SAT, half of"
        " them"
        " where the policy disagrees with the mapping, or all of them anywhere;"
        f" {len(names)} contended pairs of test families, seeds {', '.join(map(str, seeds))}."
        f" Led against anywhere: {_against(led, anywhere, common)}.",
        "",
        *_table(_STANDING, lines),
    ]


def markdown(rows: list[Row], rivals: pathlib.Path) -> str:
    """The page. rivals: results of `mallocgame bench`."""
    known = of_rivals(rivals)
    versions = sorted({row["jax"] for row in rows})
    lines = [
        "# Evidence",
        "",
        "Made by `make evidence`, which goes on from `evidence/evidence.jsonl`. Counted in"
        " iterations"
        " and stretches, so that a busy machine gives the same numbers. All latencies are"
        " predicted;"
        f" jax {', '.join(versions)}, CPU.",
        "",
        *_planning(rows, known),
        *_lead(rows, known),
        *_curves(rows, known),
        *_generalist(rows),
        *_ablations(rows, known),
        *_drop_backup(rows),
    ]
    return "\n".join(lines).rstrip("\n") + "\n"


def pictures(rows: list[Row], rivals: pathlib.Path) -> dict[str, bytes]:
    """SVG files by name."""
    known = of_rivals(rivals)
    found = {}
    if _of(rows, "curves"):
        found["curves.svg"] = _svg(*_draw_curves(_of(rows, "curves"), known))
    if _of(rows, "ablations"):
        found["ablations.svg"] = _svg(*_draw_ablations(_of(rows, "ablations"), known))
    if any("curve" in row for row in _of(rows, "planning")):
        found["planning.svg"] = _svg(*_draw_planning(_of(rows, "planning")))
    return found


def _panels(count: int, columns: int):
    from matplotlib.figure import Figure

    lines = -(-count // columns)
    figure = Figure(figsize=(3.4 * columns, 2.6 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for each in axes:
        each.grid(alpha=0.3)
    for each in axes[count:]:
        each.remove()
    return figure, axes[:count]


def _svg(figure, axes) -> bytes:
    import matplotlib

    del axes
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "mallocgame", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _draw_curves(rows: list[Row], rivals: Mapping):
    names = list(dict.fromkeys(row["pair"] for row in rows))
    figure, axes = _panels(len(names), 3)
    for ax, pair in zip(axes, names, strict=True):
        each = [row for row in rows if row["pair"] == pair]
        curves = [_played(row, pair) for row in each]
        length = min(map(len, curves))
        games = np.median([c[:length, 0] for c in curves], axis=0)
        values = np.array([c[:length, 1] for c in curves])
        ax.fill_between(games, values.min(0), values.max(0), alpha=0.25, linewidth=0)
        ax.plot(games, np.median(values, axis=0), label="agent")
        default = each[0]["xla_default"][pair]
        for solver, style in (("random", ":"), ("greedy", "--"), ("cpsat", "-.")):
            if solver in rivals.get(pair, {}):
                ax.axhline(
                    rivals[pair][solver] / default, color="0.3", ls=style, lw=1, label=solver
                )
        ax.set(title=pair, xlabel="games", ylabel="latency / XLA default")
    axes[0].legend(fontsize=8)
    return figure, axes


def _draw_ablations(rows: list[Row], rivals: Mapping):
    figure, axes = _panels(2, 2)
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    for variant in variants:
        curves = [_ablation_scores(row, rivals) for row in rows if row["variant"] == variant]
        length = min(map(len, curves))
        x = curves[0][:length, 0]
        y = np.median([c[:length, 1] for c in curves], axis=0)
        is_number = variant.endswith("simulations")
        for ax, wanted in ((axes[0], is_number), (axes[1], not is_number)):
            if wanted or variant == "as it is":
                label = "16 simulations" if ax is axes[0] and not is_number else variant
                ax.plot(x, y, label=label)
    for ax in axes:
        ax.set(xlabel="iterations", ylabel="won of what can be won", ylim=(-1.05, 1.05))
        ax.legend(fontsize=7)
    return figure, axes


def _draw_planning(rows: list[Row]):
    figure, axes = _panels(1, 1)
    with_curve = [row for row in rows if "curve" in row]
    variants = list(dict.fromkeys(row["variant"] for row in with_curve))
    for variant in variants:
        each = [row for row in with_curve if row["variant"] == variant]
        logs = [np.log(np.array(r["curve"])[:, 1] / r["xla_default"][r["pair"]]) for r in each]
        length = min(map(len, logs))
        mean = np.exp(np.mean([log[:length] for log in logs], axis=0))
        axes[0].plot(np.arange(length), mean, label=variant)
    axes[0].set(xlabel="iterations", ylabel="latency / XLA default, geometric mean")
    axes[0].legend(fontsize=7)
    return figure, axes
