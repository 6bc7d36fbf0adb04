"""The benchmark's results as Markdown that reads well in a terminal, too."""

from __future__ import annotations

import dataclasses
from typing import Any

from agent.throughput.search import SearchRow
from malloc_game.throughput.measurement import Row

_REFERENCE = "jumanji BinPack-v2"


@dataclasses.dataclass(frozen=True)
class Goal:
    """A target of the project and what was measured."""

    name: str
    measured: float
    relation: str  # "at least" or "at most"
    wanted: float

    @property
    def is_met(self) -> bool:
        """Whether the goal was reached."""
        if self.relation == "at least":
            return self.measured >= self.wanted
        return self.measured <= self.wanted


@dataclasses.dataclass(frozen=True)
class Report:
    """All results of one run."""

    machine: dict[str, Any]
    rows: list[Row]
    searches: list[SearchRow]
    goals: list[Goal]
    missing: list[str]  # what was not measured, and why


def markdown(report: Report) -> str:
    """The whole report; ends with a newline."""
    machine = report.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    device = f"{machine['platform']} ({machine['device']}), {machine['cores']} cores"
    parts = [f"{device}; {versions}", _speed_table(report.rows)]
    parts += [*report.missing, _LEGEND]
    if report.searches:
        parts += [_search_table(report.searches)]
    if report.goals:
        parts += [_goal_table(report.goals)]
    return "\n\n".join(parts) + "\n"


_LEGEND = """\
steps/s: of the whole batch, observation included, random legal actions drawn from each game's mask,
new games where one is over; no observation: the same without it; given: without the drawing, too.
state: one game without its observation; compile and memory: of the loop and the whole batch."""


def _speed_table(rows: list[Row]) -> str:
    reference = {r.batch_size: r.speed for r in rows if r.environment == _REFERENCE}

    def ratio(row):
        other = reference.get(row.batch_size)
        return f"{row.speed / other:.2f}x" if row.speed and other else "-"

    header = ["environment", "decisions", "batch", "steps/s", "vs BinPack", "no observation"]
    header += ["given", "state, bytes", "compile, s", "memory, MiB"]
    lines = [
        [
            row.environment,
            _count(row.num_decisions),
            _count(row.batch_size),
            row.note or _count(row.speed),
            ratio(row),
            _count(row.speed_unobserved),
            _count(row.speed_given),
            _count(row.state_bytes),
            "-" if row.compile_seconds is None else f"{row.compile_seconds:.1f}",
            "-" if row.memory_bytes is None else f"{row.memory_bytes / (1 << 20):,.1f}",
        ]
        for row in rows
    ]
    return _table(header, lines)


def _search_table(searches: list[SearchRow]) -> str:
    header = ["decisions", "games", "simulations", "bare mctx, sims/s", "self-play, sims/s"]
    lines = [
        [
            _count(row.num_decisions),
            _count(row.num_games),
            _count(row.num_simulations),
            _count(row.bare),
            _count(row.self_play),
            f"{row.ratio:.2f}",
        ]
        for row in searches
    ]
    return _table([*header, "ratio"], lines)


def _goal_table(goals: list[Goal]) -> str:
    lines = [
        [
            t.name,
            f"{t.measured:.2f}",
            f"{t.relation} {t.wanted:g}",
            "yes" if t.is_met else "no",
        ]
        for t in goals
    ]
    return _table(["target", "measured", "wanted", "met"], lines)


def _count(number: float | None) -> str:
    return "-" if number is None else f"{number:,.0f}"


def _table(header: list[str], lines: list[list[str]]) -> str:
    """A Markdown table with aligned columns: the first to the left, the others to the right."""
    width = [max(3, *(len(line[i]) for line in [header, *lines])) for i in range(len(header))]

    def text(line):
        cells = [
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(line, width, strict=True))
        ]
        return "| " + " | ".join(cells) + " |"

    rule = [("-" * w if i == 0 else "-" * (w - 1) + ":") for i, w in enumerate(width)]
    return "\n".join([text(header), text(rule), *map(text, lines)])
