"""The report of a benchmark: from rows to `report.md`, `report.html` and pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from malloc_game import MallocGameError
from malloc_game.estimator import NO_CLAIM
from malloc_game.problem.files import write_bytes
from workloads.benchmark import figures, rows, scores
from workloads.benchmark.document import Block, Heading, Picture, Table, Text, markdown, to_html
from workloads.benchmark.rows import CompiledRow, JudgedCompiledRow, JudgedRow, Row
from workloads.benchmark.scores import Cell
from workloads.programs.suite_problems import CONTENDED

# A run is called late if it took more than this many times its time limit.
_LATE = 1.2
_LEGEND = (
    "ratio: estimated cycles, XLA's default / found, geometric mean over pairs; contended: the same"
    f" over the pairs where at least {CONTENDED:.0%} is to be won; gap closed: (XLA's default -"
    " found) / (XLA's default - proven bound), mean and median over the contended pairs;"
    f" wins/ties/losses: of pairs, a tie is within {scores.TIE:.1%}; optimal: pairs where no faster"
    " mapping exists, or none of the game's; s: wall time of a run, mean. Of several seeds the"
    " median counts, and a run that failed counts as everything in default memory."
)


@dataclasses.dataclass(frozen=True)
class Results:
    """What a directory of results holds: the rows that count, and what compiling said of them."""

    runs: tuple[Row, ...]
    compiled: tuple[tuple[JudgedRow, CompiledRow], ...]

    def only(self, pairs: Iterable[str] | None, solvers: Iterable[str] | None) -> Results:
        """The rows of these pairs (`program-target`) and solvers; None is all."""
        pairs = None if pairs is None else set(pairs)
        solvers = None if solvers is None else set(solvers)

        def is_wanted(row: Row) -> bool:
            return (pairs is None or row.pair in pairs) and (
                solvers is None or row.solver in solvers
            )

        return Results(
            tuple(row for row in self.runs if is_wanted(row)),
            tuple(both for both in self.compiled if is_wanted(both[0])),
        )

    def joined(self) -> list[dict[str, Any]]:
        """One record for each run, with the compiled fields (None where nothing was compiled)."""
        of_run = {row.key: compiled for row, compiled in self.compiled}
        return [_record(row, of_run.get(row.key)) for row in self.runs]


_COMPILED_FIELDS = (
    "compiled",
    "xla_default_compiled",
    "compiled_speedup",
    "compiled_speedup_monotone",
    "honoured",
    "mode",
    "compile_seconds",
)


def _record(row: Row, compiled: CompiledRow | None) -> dict[str, Any]:
    record = dataclasses.asdict(row)
    for name in _COMPILED_FIELDS:
        record[name] = getattr(compiled, name) if compiled else None
    record["compile_error"] = compiled.error if compiled else None
    return record


def load(out: Path) -> Results:
    """The results in a directory.

    Of a pair whose problem has changed only the runs on the newest one count, and of several seeds
    that were compiled the one that is predicted to be fastest.

    Raises: MallocGameError: there are none, or a file is damaged.
    """
    everything = rows.results(out).read()
    if not everything:
        raise MallocGameError(f"{out}: no results here; run `mallocgame bench --out {out}` first")
    newest = {row.pair: row.problem_sha256 for row in everything}
    runs = [r for r in rows.current(everything) if r.problem_sha256 == newest[r.pair]]
    compiled = {c.key: c for c in rows.compiled_results(out).read()}
    there = [row for row in runs if row.compiled_key in compiled]
    best = scores.best_seeds(there)
    return Results(tuple(runs), tuple((row, compiled[row.compiled_key]) for row in best))


def write(results: Results, out: Path) -> str:
    """Write `report.md`, `report.html` and the pictures to `out`; returns the Markdown.

    Raises: MallocGameError: a file cannot be written.
    """
    blocks = document(results)
    for block in blocks:
        if isinstance(block, Picture):
            write_bytes(out / block.file, block.svg)
    text = markdown(blocks)
    write_bytes(out / "report.md", text.encode(errors="replace"))
    write_bytes(out / "report.html", to_html(blocks).encode(errors="replace"))
    return text


def document(results: Results) -> list[Block]:
    """The whole report."""
    cells = scores.cells_of(results.runs)
    if not cells:
        return [Heading(1, "Benchmark"), Text("There are no results.")]
    fair = scores.comparable(cells)
    blocks: list[Block] = [*_head(results.runs, cells, fair)]
    if fair:
        blocks += [Heading(2, "Solvers"), standings_table(fair), Text(_LEGEND)]
        blocks += _pictures(fair)
        blocks += _groups(fair)
    if results.compiled:
        blocks += _compiled(results.compiled)
    blocks += [Heading(2, "Pairs")]
    for name in dict.fromkeys(c.pair for c in cells):
        blocks += _pair([c for c in cells if c.pair == name])
    return [*blocks, *_failures(results)]


def _count(number: float | None) -> str:
    return "-" if number is None else f"{number:,.0f}"


def _share(number: float | None) -> str:
    return "-" if number is None else f"{number:.1%}"


def _factor(number: float | None) -> str:
    return "-" if number is None else f"{number:.4f}"


def _head(runs: Sequence[Row], cells: Sequence[Cell], fair: Sequence[Cell]) -> Iterable[Block]:
    pairs = {c.pair: c.first for c in cells}
    solvers = dict.fromkeys(c.solver for c in cells)
    limits = sorted({r.seconds_limit for r in runs})
    seeds = sorted({r.seed for r in runs})
    contended = sum(bool(r.contended) for r in pairs.values())
    busy = sum(r.cpu_seconds for r in runs) / max(sum(r.seconds for r in runs), 1e-9)
    known = sorted({", ".join(f"{k} {v}" for k, v in sorted(r.versions.items())) for r in runs})
    yield Heading(1, f"Benchmark of {', '.join(solvers)}")
    yield Text(
        f"Pairs of a program and a target: {len(pairs)}, of them contended: {contended};"
        f" {' and '.join(f'{s:g}' for s in limits)} s a run, seeds {', '.join(map(str, seeds))};"
        f" processor time is {busy:.0%} of wall time;"
        f" {'; '.join(known)}. Latencies are cycles, predicted unless called compiled; nothing here"
        " has run on a TPU."
    )
    yield Text(NO_CLAIM)
    if len(limits) > 1:
        yield Text(
            "The time limits differ between runs, so the means do not compare like with like."
        )
    late = [r.solver for r in runs if r.seconds > _LATE * r.seconds_limit]
    if late:
        counts = ", ".join(f"{solver} {late.count(solver)}" for solver in dict.fromkeys(late))
        yield Text(f"Runs that took more than {_LATE:g} times their time limit: {counts}.")
    left_out = len(pairs) - len({c.pair for c in fair})
    if not fair:
        yield Text("No pair was run by every solver, so there are no means over pairs.")
    elif left_out:
        yield Text(f"Pairs that not every solver was run on, which means leave out: {left_out}.")


def standings_table(cells: Sequence[Cell]) -> Table:
    """A row for each solver, the best first."""
    header = ["solver", "pairs", "ratio", "contended", "gap closed", "median"]
    header += ["against XLA", "against baselines", "optimal", "failed runs", "s"]
    return Table(
        header,
        [
            [
                s.solver,
                str(s.pairs),
                _factor(s.speedup),
                _factor(s.speedup_contended),
                _share(s.gap_closed),
                _share(s.gap_closed_median),
                str(s.against_xla),
                str(s.against_baselines),
                str(s.optimal),
                str(s.failed),
                f"{s.seconds:.1f}",
            ]
            for s in scores.standings(cells)
        ],
    )


def _pictures(cells: Sequence[Cell]) -> list[Block]:
    seconds = np.geomspace(0.1, max(max(r.seconds for c in cells for r in c.runs), 0.2), 200)
    curves = scores.gap_curves(cells, seconds)
    try:
        blocks: list[Block] = [
            Heading(2, "Performance profile"),
            Picture(
                "profile.svg",
                figures.profile_svg(scores.profile_of(cells)),
                "Share of pairs on which a solver is within a factor tau of the best latency that"
                " anyone found.",
            ),
        ]
        if curves:
            caption = "Gap closed over time, median over runs on contended pairs."
            blocks += [
                Heading(2, "Gap closed over time"),
                Picture("gap.svg", figures.gap_svg(curves, seconds), caption),
            ]
    except MallocGameError as error:  # matplotlib is an extra
        return [Text(f"No pictures: {error}.")]
    return blocks


def _groups(cells: Sequence[Cell]) -> Iterable[Block]:
    """Geometric means of the speed-up by family, target and split."""
    order = [s.solver for s in scores.standings(cells)]
    by: dict[str, Callable[[Row], str | None]] = {
        "family": lambda r: r.family,
        "target": lambda r: r.target,
        "split": lambda r: r.split,
    }
    for title, group_of in by.items():
        groups: dict[str, list[Cell]] = {}
        for cell in cells:
            groups.setdefault(group_of(cell.first) or "(own problems)", []).append(cell)
        lines = []
        for group, members in groups.items():
            pairs = {c.pair: bool(c.first.contended) for c in members}
            means = {s.solver: s.speedup for s in scores.standings(members)}
            counts = [str(len(pairs)), str(sum(pairs.values()))]
            lines.append([group, *counts, *(_factor(means.get(solver)) for solver in order)])
        yield Heading(2, f"Ratio to XLA's default by {title}")
        yield Table([title, "pairs", "contended", *order], lines)


def compiled_table(joined: Sequence[tuple[JudgedRow, CompiledRow]]) -> Table:
    """A row for each solver that something was compiled of, the best first."""
    header = ["solver", "pairs", "ratio, compiled", "monotone", "predicted", "gap closed"]
    return Table(
        [*header, "median", "honoured", "against XLA", "against baselines", "failed"],
        [
            [
                s.solver,
                str(s.pairs),
                _factor(s.speedup),
                _factor(s.speedup_monotone),
                _factor(s.speedup_predicted),
                _share(s.gap_closed),
                _share(s.gap_closed_median),
                _share(s.honoured),
                str(s.against_xla),
                str(s.against_baselines),
                str(s.failed),
            ]
            for s in scores.compiled_standings(joined)
        ],
    )


def _compiled(joined: Sequence[tuple[JudgedRow, CompiledRow]]) -> Iterable[Block]:
    yield Heading(2, "Compiled by the real compiler")
    yield compiled_table(joined)
    yield Text(
        "Of several seeds, the mapping that is predicted to be fastest. monotone: the ratio that"
        " is left if alternate memory never cost more than default memory; predicted: of the same"
        " mappings, before they were compiled; gap closed: compiled, mean and median over the"
        " contended pairs, by XLA's default where that is faster, which nobody has to leave;"
        " honoured: share of decisions that hold in the compiled program. The geometric means are"
        " over a solver's own pairs."
    )
    good = [(row, c) for row, c in joined if isinstance(c, JudgedCompiledRow)]
    good.sort(key=lambda both: (both[0].pair, both[1].compiled))
    header = ["pair", "solver", "predicted", "compiled", "XLA's default", "ratio", "monotone"]
    lines = [
        [
            row.pair,
            row.solver,
            _count(row.predicted),
            _count(c.compiled),
            _count(c.xla_default_compiled),
            _factor(c.compiled_speedup),
            _factor(c.compiled_speedup_monotone),
            _share(c.honoured),
            c.mode,
        ]
        for row, c in good
    ]
    yield Table([*header, "honoured", "asked"], lines, num_left=2)


def _pair(cells: Sequence[Cell]) -> Iterable[Block]:
    """One pair: its solvers, the best first."""
    row = cells[0].first
    yield Heading(3, f"{row.program} on {row.target}")
    of = f" ({row.family}, {row.split})" if row.family else ""
    yield Text(
        f"{row.decisions} decisions, {row.instructions} instructions{of}; bound"
        f" {_count(row.bound)}, XLA's default {_count(row.xla_default)}, everything in default"
        f" memory {_count(row.all_default)}; headroom {_share(row.headroom)}"
    )
    lines = []
    for cell in sorted(cells, key=lambda c: c.latency):
        spread = f"{_count(min(cell.latencies))} to {_count(max(cell.latencies))}"
        lines.append(
            [
                cell.solver + (" (optimal)" if cell.is_optimal else ""),
                _count(cell.latency),
                spread if len(cell.runs) > 1 else "-",
                _factor(cell.speedup),
                _share(cell.gap_closed),
                f"{cell.seconds:.1f}",
                str(cell.failed),
            ]
        )
    header = ["solver", "predicted", "all seeds", "ratio", "gap closed", "s", "failed"]
    yield Table(header, lines)


def _failures(results: Results) -> Iterable[Block]:
    failed = [(r.pair, r.solver, str(r.seed), r.error) for r in results.runs if r.error]
    failed += [(c.pair, c.solver, str(c.seed), c.error) for _, c in results.compiled if c.error]
    if failed:
        yield Heading(2, "Failures")
        yield Table(["pair", "solver", "seed", "error"], failed, num_left=4)
