"""The command `race`: optimize and baselines that use the compiler, for the same time."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import click

from agent.cli.choosing import choose_pairs, pair_filters, read_seeds
from agent.cli.common import show_progress
from agent.cli.interrupts import importing


@click.command("race")
@click.argument("names", nargs=-1, metavar="[PAIR]...")
@pair_filters
@click.option("--contender", "contenders", multiple=True, metavar="NAME",
              help="optimize, learned_greedy, knobs or hill_climbing, which are all that race by"
              " default; or a solver, such as cpsat, in the planner's place. Several times for"
              " several.")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(1, 1e6), default=120.0, show_default=True,
              help="Time for one run, the start of its process included.")  # fmt: skip
@click.option("--seeds", default="0", show_default=True, metavar="N,N...",
              help="A run with each of them.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=pathlib.Path), default="out/race",
              show_default=True, help="Directory of results; what is there is not run again.",
              )  # fmt: skip
@click.option("--report-only", is_flag=True, help="Run nothing: report what --out holds.")
@click.option("--json", "as_json", is_flag=True, help="Print all rows as JSON instead of a table.")
def command(
    names: tuple[str, ...],
    data: pathlib.Path | None,
    contenders: tuple[str, ...],
    seconds: float,
    seeds: str,
    out: pathlib.Path,
    report_only: bool,
    as_json: bool,
    **filters: Any,
) -> None:
    """Race `optimize` against baselines that use the compiler: the same program, the same time.

    Every run starts cold in a process of its own, and what is compiled when the time is up counts.
    --out gets race.jsonl and race.md. A race that is interrupted goes on where it ended.

    Example: mallocgame race --split test --contended --seconds 120 --seeds 0,1,2
    """
    import dataclasses

    with importing():
        from agent.racing import contenders as racing
        from agent.racing import report as race_report
        from agent.report import results
        from malloc_game.problem import files
        from workloads.benchmark import rows
        from workloads.compiler.session import check_compiler
        from workloads.programs.suite_problems import DATA

    numbers, pairs = read_seeds(seeds), choose_pairs(data, names, filters)
    results.check_directory(out)
    if report_only:
        there = {pair.name for pair in pairs}
        every = rows.current(rows.race_results(out).read())
        found = [
            row
            for name in racing.choose_contenders(contenders, (row.contender for row in every))
            for row in every
            if row.contender == name and row.pair in there and row.seconds_limit == seconds
        ]
        if not found:
            raise click.UsageError(f"--out {out} holds no races of these pairs and seconds")
    else:
        chosen = racing.choose_contenders(contenders)
        check_compiler()
        with show_progress("racing") as progress:
            found = racing.race(pairs, chosen, seconds, numbers, out, progress)
    raced = {row.pair for row in found}
    limits = {p.name: race_report.limits(p, data or DATA) for p in pairs if p.name in raced}
    text = race_report.markdown(found, limits)
    files.write_bytes(out / "race.md", text.encode())
    if as_json:
        print(json.dumps([dataclasses.asdict(row) for row in found], indent=2))
    else:
        print(text, end="")
