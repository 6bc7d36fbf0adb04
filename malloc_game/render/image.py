"""A mapping as an image: alternate memory over logical time, copies, and cycles.

Needs matplotlib (`pip install 'mallocgame[plot]'`), which is imported when one is drawn.
"""

from __future__ import annotations

import io
import os
import pathlib
from typing import Any

import numpy as np

from malloc_game.errors import MallocGameError, printable
from malloc_game.problem.assignment import EVICTION, PREFETCH, Assignment, Chunk
from malloc_game.problem.definition import Problem
from malloc_game.problem.files import write_bytes
from malloc_game.problem.target import MIB
from malloc_game.render.layout import copy_lanes, kind_of, title

IMAGE_FORMATS = ("png", "svg", "pdf")
_DPI = 100


def render_image(
    problem: Problem, assignment: Assignment, *, size: tuple[int, int] = (1200, 800)
) -> np.ndarray:
    """Alternate memory over logical time as an image: uint8[height, width, 3].

    One rectangle for each chunk, pale while the copy that fills it is under way; below it, the
    copies from start to end, and the cycles of each instruction. size: (width, height) in pixels.

    Raises:
      MallocGameError: matplotlib is not installed.
    """
    figure = _figure(problem, assignment, size)
    figure.canvas.draw()
    return np.array(figure.canvas.buffer_rgba())[..., :3]


def image_format(path: str | os.PathLike[str]) -> str:
    """The image format that the name of a file asks for.

    Raises:
      MallocGameError: it is none of `IMAGE_FORMATS`.
    """
    suffix = pathlib.Path(path).suffix.lower().removeprefix(".")
    if suffix not in IMAGE_FORMATS:
        known = ", ".join(f"*.{name}" for name in IMAGE_FORMATS)
        raise MallocGameError(f"{path}: a picture is named {known}")
    return suffix


def save_image(
    problem: Problem,
    assignment: Assignment,
    path: str | os.PathLike[str],
    *,
    size: tuple[int, int] = (1200, 800),
) -> None:
    """Write `render_image` as a file, whole or not at all; *.svg and *.pdf are vector graphics.

    Raises:
      MallocGameError: matplotlib is missing, the name asks for another format, or the file cannot
        be written.
    """
    name = image_format(path)
    buffer = io.BytesIO()
    _figure(problem, assignment, size).savefig(buffer, format=name)
    write_bytes(path, buffer.getvalue())


# Colour maps: shades tell neighbours apart, hues what a value is.
_HUES = {"parameter": "Blues", "computed value": "Oranges", "live-out": "Greens"}
_COPY_COLOURS = {PREFETCH: "#2f6fab", EVICTION: "#b5403b"}


def _figure(problem: Problem, assignment: Assignment, size: tuple[int, int]) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise MallocGameError(
            "pictures need matplotlib; install it with: pip install 'mallocgame[plot]'"
        ) from error

    figure = Figure((size[0] / _DPI, size[1] / _DPI), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    memory, copies, cycles = figure.subplots(3, 1, sharex=True, height_ratios=[6, 1.3, 1.7])
    heading = "\n".join(map(printable, title(problem, assignment)))
    figure.suptitle(heading, fontsize=11, parse_math=False)
    _draw_memory(memory, problem, assignment, size)
    _draw_copies(copies, assignment)
    _draw_cycles(cycles, problem, assignment)
    cycles.set_xlim(0, len(problem.instructions))
    cycles.set_xlabel("logical time (instructions)")
    cycles.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (memory, copies, cycles):
        axes.spines[["top", "right"]].set_visible(False)
    figure.align_ylabels()
    return figure


def _boxes(left: Any, right: Any, low: Any, high: Any) -> list[np.ndarray]:
    """Corners of N rectangles: float64[4, 2] each."""
    corners = [(left, low), (right, low), (right, high), (left, high)]
    return list(np.stack([np.stack([np.asarray(a, float) for a in xy], -1) for xy in corners], 1))


def _draw_memory(
    axes: Any, problem: Problem, assignment: Assignment, size: tuple[int, int]
) -> None:
    from matplotlib import colormaps
    from matplotlib.collections import PolyCollection
    from matplotlib.patches import Patch

    capacity = problem.target.alternate_memory_bytes
    unit, unit_name = (MIB, "MiB") if capacity >= MIB else (1024, "KiB")
    axes.set_ylim(0, capacity / unit)
    axes.set_ylabel(f"alternate memory ({unit_name})")
    chunks = assignment.chunks
    # Steps of the golden ratio keep the shades of consecutive values apart.
    shades = {kind: colormaps[hue](0.25 + 0.35 * (np.arange(16) * 0.618034 % 1))
              for kind, hue in _HUES.items()}  # fmt: skip
    colours = np.array([shades[kind_of(problem, c.value)][c.value % 16] for c in chunks])
    columns = [[getattr(c, name) for c in chunks] for name in ("start", "end", "offset", "size")]
    start, end, offset, held = (np.array(column, float) for column in columns)
    low, high = offset / unit, (offset + held) / unit
    edge = 0.8 if len(chunks) < 1000 else 0.2
    axes.add_collection(
        PolyCollection(
            _boxes(start, end, low, high),
            facecolors=colours.reshape(-1, 4),
            edgecolors="white",
            linewidths=edge,
        ),
        autolim=False,
    )
    arrival = {(c.value, c.start): c.end for c in assignment.copies if c.direction == PREFETCH}
    filled = np.array([arrival.get((c.value, c.start), c.start) for c in chunks], float)
    axes.add_collection(
        PolyCollection(_boxes(start, filled, low, high), facecolors=(1, 1, 1, 0.6), linewidths=0),
        autolim=False,
    )
    pixels = 0.9 * size[0] / len(problem.instructions), 0.55 * size[1] * unit / capacity
    _draw_names(axes, problem, chunks, (low + high) / 2, (end - start) * pixels[0],
                (high - low) * pixels[1])  # fmt: skip
    legend = [Patch(color=colormaps[hue](0.45), label=kind) for kind, hue in _HUES.items()]
    legend.append(Patch(color="#dce6f0", label="being copied"))
    axes.legend(
        handles=legend, loc="lower right", bbox_to_anchor=(1, 1), ncols=4, frameon=False, fontsize=9
    )


def _draw_names(
    axes: Any, problem: Problem, chunks: tuple[Chunk, ...], middle: Any, width: Any, height: Any
) -> None:
    """Names of the values, inside those rectangles (in pixels) that have room for them."""
    for i in np.argsort(-width * height, kind="stable")[:60].tolist():
        name, chunk = printable(problem.values[chunks[i].value].name), chunks[i]
        if height[i] >= 13 and width[i] >= 6.5 * len(name):
            text = axes.text(
                (chunk.start + chunk.end) / 2, middle[i], name,
                ha="center", va="center", fontsize=8, color="#222222", clip_on=True,
                parse_math=False,
            )  # fmt: skip
            text.set_in_layout(False)


def _draw_copies(axes: Any, assignment: Assignment) -> None:
    from matplotlib.collections import PolyCollection

    axes.set_ylabel("copies")
    axes.set_yticks([])
    copies = sorted(assignment.copies, key=lambda c: (c.start, c.end))
    lanes = np.array(copy_lanes(copies), float)
    axes.set_ylim(0, max(3.0, lanes.max(initial=0) + 1))
    start = np.array([c.start for c in copies], float)
    end = np.array([c.end for c in copies], float)
    axes.add_collection(
        PolyCollection(
            _boxes(start, end, lanes + 0.12, lanes + 0.88),
            facecolors=[_COPY_COLOURS[c.direction] for c in copies],
            edgecolors="white",
            linewidths=0.8 if len(copies) < 1000 else 0,
        ),
        autolim=False,
    )


def _draw_cycles(axes: Any, problem: Problem, assignment: Assignment) -> None:
    trips = np.array([i.trip_count for i in problem.instructions], float)
    default, now = (
        trips * [problem.instruction_cycles(t, mask) for t, mask in enumerate(masks)]
        for masks in ((0,) * len(trips), assignment.masks)
    )
    axes.set_yscale("log")
    for height, colour, label in (
        (default, "#d9d9d9", "all default"),
        (now, "#5b7f95", "this mapping"),
    ):
        height = np.maximum(np.append(height, height[-1]), 1)
        axes.fill_between(
            np.arange(len(height)), height, 1, step="post", color=colour, linewidth=0, label=label
        )
    axes.set_ylim(bottom=max(1.0, default[default > 0].min(initial=1e9) / 3))
    axes.set_ylabel("cycles")
    axes.legend(
        loc="lower right", bbox_to_anchor=(1, 0.98), ncols=2, frameon=False, fontsize=9,
        borderaxespad=0,
    )  # fmt: skip
