"""The memory map of a run as a figure for papers: before and after, over the bandwidth in use.

It needs matplotlib (`pip install 'mallocgame[plot]'`), which is imported when one is drawn.
"""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np

import malloc_game as mg
from agent.report import summary
from agent.report.data import KINDS, Map, maps_of
from agent.report.run_files import Run
from malloc_game.errors import MallocGameError
from malloc_game.problem.files import write_bytes
from malloc_game.problem.target import MIB
from malloc_game.render.image import image_format
from malloc_game.render.layout import kind_of

_SIZE, _DPI = (11.0, 5.2), 130  # inches
# Okabe and Ito's colours, which all colour vision tells apart; shades part neighbours.
_SHADES = {
    "parameter": ("#4a9fd4", "#82c0e8", "#2f8ac4"),
    "computed value": ("#e69f00", "#f2bd4d", "#c78a00"),
    "live-out": ("#17a67f", "#5cc5a6", "#0d9470"),
}
_OWN, _COPY = "#a9b2bd", "#0072b2"
_MAX_LABELS = 40


def save_figure(run: Run, path: str | os.PathLike[str]) -> None:
    """Draw the reference and the best mapping side by side; the whole file or none.

    path: *.png, *.svg or *.pdf.

    Raises:
      MallocGameError: matplotlib is missing, the name asks for another format, or the file cannot
        be written.
    """
    name = image_format(path)
    buffer = io.BytesIO()
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(name)
    _figure(run).savefig(buffer, format=name, metadata=metadata)
    write_bytes(path, buffer.getvalue())


def _figure(run: Run) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MallocGameError(
            "pictures need matplotlib; install it with: pip install 'mallocgame[plot]'"
        ) from error

    maps = maps_of(run)[: 1 if run.is_unchanged else 2]
    figure = Figure(_SIZE, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(
        2, len(maps), sharex=True, sharey="row", height_ratios=[4, 1], squeeze=False
    )
    seconds = max(run.problem.target.seconds(float(one.profile.start[-1])) for one in maps)
    unit, unit_name = (1e-3, "ms") if seconds >= 1e-3 else (1e-6, "µs")
    scale = run.problem.target.seconds(1.0) / unit
    axes[0, 0].set_xlim(0, max(seconds, 1e-12) / unit)
    for column, one in enumerate(maps):
        memory, bandwidth = axes[:, column]
        memory.set_title(f"{one.label}: {_latency(run, one)}", fontsize=11, parse_math=False)
        bandwidth.set_xlabel(f"time ({unit_name})")
        _draw_memory(memory, run.problem, one, scale)
        _draw_bandwidth(bandwidth, run.problem, one, scale)
    capacity = run.problem.target.alternate_memory_bytes
    size, size_name = _unit(capacity)
    axes[0, 0].set_ylim(0, capacity / size)
    axes[0, 0].set_ylabel(f"alternate memory, offset ({size_name})")
    axes[1, 0].set_ylim(0, _peak(run.problem) * 1.05)
    axes[1, 0].set_ylabel("default memory\n(GB/s)")
    for each in axes.flat:
        each.spines[["top", "right"]].set_visible(False)
    figure.suptitle(_title(run), fontsize=12, parse_math=False)
    _draw_legend(figure)
    figure.align_ylabels()
    return figure


def _title(run: Run) -> str:
    title = _drawable(f"{run.result['program']} on {run.result['target']}")
    head = summary.headline(run)
    if head.tone == "good":
        title += f": {head.number} {head.text}, compiled"
    return title


def _drawable(name: str) -> str:
    """A name without what a font cannot draw: controls, halves of characters."""
    return "".join(c if c.isprintable() else "?" for c in name)


def _latency(run: Run, one: Map) -> str:
    cycles = one.profile.total
    return f"{cycles:,.0f} cycles, {summary.time_text(run.problem.target.seconds(cycles))}"


def _unit(capacity: int) -> tuple[int, str]:
    return (MIB, "MiB") if capacity >= MIB else (1024, "KiB")


def _peak(problem: mg.Problem) -> float:
    return problem.target.default_bandwidth_bytes_per_second / 1e9


def _draw_memory(axes: Any, problem: mg.Problem, one: Map, scale: float) -> None:
    from matplotlib.collections import PolyCollection

    chunks = one.assignment.chunks
    if not chunks:
        axes.text(0.5, 0.5, "nothing is in alternate memory", transform=axes.transAxes,
                  ha="center", color="#5a6572")  # fmt: skip
        return
    unit, _ = _unit(problem.target.alternate_memory_bytes)
    begins = one.profile.start * scale
    start, end = begins[[c.start for c in chunks]], begins[[c.end for c in chunks]]
    low = np.array([c.offset for c in chunks]) / unit
    high = low + np.array([c.size for c in chunks]) / unit
    colours = [_SHADES[kind_of(problem, c.value)][c.value % 3] for c in chunks]
    axes.add_collection(
        PolyCollection(
            _boxes(start, end, low, high),
            facecolors=colours,
            edgecolors="white",
            linewidths=0.6 if len(chunks) < 1000 else 0.15,
        ),
        autolim=False,
    )
    axes.add_collection(
        PolyCollection(
            _boxes(start, begins[one.filled], low, high), facecolors=(1, 1, 1, 0.55), linewidths=0
        ),
        autolim=False,
    )
    _draw_names(axes, problem, one, (start, end, low, high))


def _boxes(left: Any, right: Any, low: Any, high: Any) -> Any:
    """Corners of N rectangles: float64[N, 4, 2]."""
    corners = ((left, low), (right, low), (right, high), (left, high))
    return np.stack([np.stack([np.asarray(a, float) for a in xy], -1) for xy in corners], 1)


def _draw_names(axes: Any, problem: mg.Problem, one: Map, boxes: tuple[np.ndarray, ...]) -> None:
    """Names of the tensors, in those rectangles that have room for them."""
    start, end, low, high = boxes
    # Points that the axes will take, about: the figure is laid out when it is drawn.
    width = (end - start) / axes.get_xlim()[1] * _SIZE[0] * 72 * 0.43
    unit, _ = _unit(problem.target.alternate_memory_bytes)
    height = (high - low) / (problem.target.alternate_memory_bytes / unit) * _SIZE[1] * 72 * 0.58
    for i in np.argsort(-width * height, kind="stable")[:_MAX_LABELS].tolist():
        name = _drawable(problem.values[one.assignment.chunks[i].value].name)
        if height[i] >= 8 and width[i] >= 3.8 * len(name):
            text = axes.text((start[i] + end[i]) / 2, (low[i] + high[i]) / 2, name, ha="center",
                             va="center", fontsize=6.5, color="#10151a", clip_on=True,
                             parse_math=False)  # fmt: skip
            text.set_in_layout(False)


def _draw_bandwidth(axes: Any, problem: mg.Problem, one: Map, scale: float) -> None:
    own, copied = one.bandwidth
    ends = np.concatenate([one.profile.start[:-1] - one.profile.wait_cycles[:-1],
                           one.profile.start[-1:] - one.profile.wait_cycles[-1:],
                           one.profile.start[-1:]]) * scale  # fmt: skip
    peak = _peak(problem)
    for low, high, colour in ((0 * own, own, _OWN), (own, own + copied, _COPY)):
        axes.fill_between(
            ends, np.append(low, 0) * peak, np.append(high, 0) * peak, step="post", color=colour,
            linewidth=0,
        )  # fmt: skip
    axes.axhline(peak, color="#5a6572", linewidth=0.8, linestyle=":")


def _draw_legend(figure: Any) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=_SHADES[kind][0], label=kind) for kind in KINDS]
    handles += [
        Patch(color="#a9cfe4", label="being copied in"),
        Patch(color=_OWN, label="bandwidth of instructions"),
        Patch(color=_COPY, label="of copies"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False, fontsize=9)
