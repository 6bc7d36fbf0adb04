"""The pictures of a report as SVG. They need matplotlib, which is imported when one is drawn."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np

from malloc_game import MallocGameError
from workloads.benchmark.scores import XLA

_LARGEST_RATIO = 4.0  # of a profile's axis
_DASHES = ("-", "--", "-.", ":")


def profile_svg(ratios: Mapping[str, np.ndarray]) -> bytes:
    """A performance profile of `scores.profile`: share of pairs within tau of the best.

    Raises: MallocGameError: matplotlib is not installed.
    """
    figure, axes = _axes()
    worst = max(float(r[-1]) for r in ratios.values())
    end = min(max(1.01, worst * 1.01), _LARGEST_RATIO)
    lines = {}
    for number, (name, sorted_ratios) in enumerate(ratios.items()):
        share = np.arange(1, len(sorted_ratios) + 1) / len(sorted_ratios)
        x = np.concatenate([[1.0], sorted_ratios, [max(end, sorted_ratios[-1])]])
        y = np.concatenate([[0.0], share, share[-1:]])
        (lines[name],) = axes.plot(x, y, drawstyle="steps-post", **_look(number, name))
    axes.set(xlim=(1.0, end), ylim=(0.0, 1.02))
    axes.set(xlabel="tau: latency / best latency found", ylabel="share of pairs within tau")
    return _finish(figure, axes, lines)


def gap_svg(curves: Mapping[str, np.ndarray], seconds: Sequence[float] | np.ndarray) -> bytes:
    """Gap closed over time, of `scores.gap_curves`.

    Raises: MallocGameError: matplotlib is not installed.
    """
    figure, axes = _axes()
    lines = {}
    for number, (name, gaps) in enumerate(curves.items()):
        (lines[name],) = axes.plot(seconds, gaps, drawstyle="steps-post", **_look(number, name))
    axes.axhline(0.0, color="0.5", linewidth=0.8)
    axes.set(xscale="log", xlim=(seconds[0], seconds[-1]), ylim=(-0.5, 1.02))
    axes.set(xlabel="seconds", ylabel="gap closed, median")
    return _finish(figure, axes, lines)


def _axes():
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MallocGameError(
            "pictures need matplotlib; install it with: pip install 'mallocgame[plot]'"
        ) from error
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(alpha=0.3)
    return figure, axes


def _look(number: int, name: str) -> dict[str, object]:
    if name == XLA:
        return {"color": "black", "linewidth": 1.2, "linestyle": ":"}
    return {"color": f"C{number % 10}", "linestyle": _DASHES[number // 10 % len(_DASHES)]}


def _finish(figure, axes, lines: Mapping[str, object]) -> bytes:
    """The figure with its legend, as an SVG that depends on nothing but its content."""
    import matplotlib

    legend = axes.legend(list(lines.values()), list(lines), fontsize="small")
    for text in legend.get_texts():
        text.set_parse_math(False)  # names are not formulas
    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "mallocgame", "svg.fonttype": "path"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()
