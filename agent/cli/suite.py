"""The commands `programs` and `suite`: the programs, and the pairs of one with a target."""

from __future__ import annotations

import json
import pathlib
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from agent.cli.choosing import choose_pairs, pair_filters
from agent.cli.common import farm_options, open_farm, print_table

if TYPE_CHECKING:
    from workloads.farm import Farm


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def programs(as_json: bool) -> None:
    """List the suite's programs.

    Example: mallocgame programs
    """
    from workloads.programs import SUITE
    from workloads.programs.families import suite

    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "family": suite()[name].family,
            "split": suite()[name].split,
            "description": (factory.__doc__ or "").strip().splitlines()[0],
        }
        for name, factory in SUITE.items()
    ]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        print(f"{row['name']:18} {row['split']:11} {row['description']}")


@click.command("suite")
@pair_filters
@click.option("--build", "builds", is_flag=True,
              help="Extract missing pairs with the real compiler first, those named by PAIR or all"
              " of suite.json.")  # fmt: skip
@click.argument("names", nargs=-1, metavar="[PAIR]...")
@click.option("--compile-timeout", type=click.FloatRange(1, 1e6), default=600.0, show_default=True,
              help="Seconds for one compile.")  # fmt: skip
@farm_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def pairs(
    data: pathlib.Path | None,
    builds: bool,
    names: tuple[str, ...],
    compile_timeout: float,
    as_json: bool,
    workers: int,
    ray_address: str | None,
    task_seconds: float | None,
    task_memory: float | None,
    **filters: Any,
) -> None:
    """List the pairs of a program and a target that ship as problem files.

    headroom: the share of XLA's default latency that a proven lower bound leaves to be won.

    Example: mallocgame suite --split test --contended
    """
    if builds:
        with open_farm(workers, ray_address, task_seconds, task_memory) as farm:
            _build(names, data, compile_timeout, farm)
    found = choose_pairs(data, names, filters)
    fields = ["program", "family", "split", "target", "decisions", "contended", "headroom"]
    rows = [{name: getattr(pair, name) for name in fields} for pair in found]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    contended = sum(row["contended"] for row in rows)
    lines = [
        [*(str(row[n]) for n in fields[:5]), "yes" if row["contended"] else "no",
         f"{row['headroom']:.1%}"]
        for row in rows
    ]  # fmt: skip
    print_table(f"{len(rows)} pairs, {contended} contended", fields, lines, num_left=4)


def _build(
    names: tuple[str, ...], data: pathlib.Path | None, timeout: float, farm: Farm | None
) -> None:
    """Build the pairs that are missing; a pair that fails is named on stderr."""
    from workloads.benchmark.suite_building import build_all
    from workloads.errors import CompileError
    from workloads.programs.suite_problems import DATA, wanted

    began = time.monotonic()

    def say(message: str) -> None:
        print(f"[{time.monotonic() - began:7.1f} s] {message}", file=sys.stderr, flush=True)

    failures = build_all(wanted(names), data or DATA, timeout=timeout, farm=farm, progress=say)
    if failures:
        raise CompileError("; ".join(f"{name}: {why}" for name, why in failures.items()))
