"""The pictures of the page."""

from __future__ import annotations

import io
import pathlib
from collections.abc import Mapping

import numpy as np

from tests.experiments.evidence import journal
from tests.experiments.evidence.journal import Row


def pictures(rows: list[Row], baselines: pathlib.Path) -> dict[str, bytes]:
    """SVG files by name."""
    known = journal.of_baselines(baselines)
    found = {}
    if journal.of_experiment(rows, "curves"):
        found["curves.svg"] = _svg(*_draw_curves(journal.of_experiment(rows, "curves"), known))
    if journal.of_experiment(rows, "ablations"):
        found["ablations.svg"] = _svg(
            *_draw_ablations(journal.of_experiment(rows, "ablations"), known)
        )
    if any("curve" in row for row in journal.of_experiment(rows, "planning")):
        found["planning.svg"] = _svg(*_draw_planning(journal.of_experiment(rows, "planning")))
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


def _draw_curves(rows: list[Row], baselines: Mapping):
    names = list(dict.fromkeys(row["pair"] for row in rows))
    figure, axes = _panels(len(names), 3)
    for ax, pair in zip(axes, names, strict=True):
        each = [row for row in rows if row["pair"] == pair]
        curves = [journal.played(row, pair) for row in each]
        length = min(map(len, curves))
        games = np.median([c[:length, 0] for c in curves], axis=0)
        values = np.array([c[:length, 1] for c in curves])
        ax.fill_between(games, values.min(0), values.max(0), alpha=0.25, linewidth=0)
        ax.plot(games, np.median(values, axis=0), label="agent")
        default = each[0]["xla_default"][pair]
        for solver, style in (("random", ":"), ("greedy", "--"), ("cpsat", "-.")):
            if solver in baselines.get(pair, {}):
                ax.axhline(
                    baselines[pair][solver] / default, color="0.3", ls=style, lw=1, label=solver
                )
        ax.set(title=pair, xlabel="games", ylabel="latency / XLA default")
    axes[0].legend(fontsize=8)
    return figure, axes


def _draw_ablations(rows: list[Row], baselines: Mapping):
    figure, axes = _panels(2, 2)
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    for variant in variants:
        curves = [journal.won(row, baselines) for row in rows if row["variant"] == variant]
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
