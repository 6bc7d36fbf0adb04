"""The benchmark: `python -m agent.throughput` times the game, its peers and search on this machine.

Everything in one run: steps per second of mallocGame by number of decisions and batch next to
environments of jumanji and pgx under the same loop, and simulations per second of self-play next
to bare mctx with the same network. Prints one Markdown table for each; progress goes to a terminal
only.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
import sys
import warnings
from collections.abc import Callable
from typing import Any

import click
import jax

import malloc_game as mg
from agent.learning.config import AgentConfig
from agent.throughput.report import Goal, Report, markdown
from agent.throughput.search import SearchRow, measure_search
from malloc_game.platform import num_cores
from malloc_game.problem import files
from malloc_game.throughput.environments import (
    PEERS,
    malloc_environment,
    peer_environment,
    problem_with,
)
from malloc_game.throughput.measurement import (
    Effort,
    Row,
    measure_game,
    measure_peer,
    step_bytes,
    tree_bytes,
)

NUM_DECISIONS: tuple[int, ...] = (64, 512, 4096, 32768)
BATCH_SIZES: tuple[int, ...] = (1, 64, 1024)
SEARCH_DECISIONS: tuple[int, ...] = (512, 4096)
_GIVEN_BATCH = 64  # given actions are measured at this batch size only
_PACKAGES = ("jax", "jaxlib", "jumanji", "pgx", "mctx")


def run(
    num_decisions: tuple[int, ...],
    batch_sizes: tuple[int, ...],
    search_decisions: tuple[int, ...],
    effort: Effort,
    config: AgentConfig | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> Report:
    """Measure everything. progress: called with a line before each measurement."""
    config = AgentConfig() if config is None else config
    rows, missing = [], []
    for name in PEERS:
        try:
            environment = peer_environment(name)
        except ImportError as error:
            missing.append(f"{name}: not measured, no package {error.name!r} (extra `bench`)")
            continue
        for batch_size in batch_sizes:
            progress(f"{environment.name}, batch {batch_size}")
            rows.append(measure_peer(environment, batch_size, effort))
    programs = {}
    for number in sorted({*num_decisions, *search_decisions}):
        progress(f"a problem of {number} decisions")
        programs[number] = mg.encode(problem_with(number))
    for number in num_decisions:
        observed = malloc_environment(programs[number], observed=True)
        plain = malloc_environment(programs[number], observed=False)
        for batch_size in batch_sizes:
            progress(f"mallocGame, {number} decisions, batch {batch_size}")
            given = batch_size == _GIVEN_BATCH
            rows.append(measure_game(observed, plain, batch_size, effort, given=given))
    searches = []
    for number in search_decisions:
        progress(f"search, {number} decisions")
        searches.append(measure_search(config, programs[number], effort))
    goals = _goals(rows, searches, programs)
    return Report(machine(), rows, searches, goals, missing)


def machine() -> dict[str, Any]:
    """Device, cores and versions."""
    device = jax.devices()[0]
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pass
    return {
        "platform": device.platform,
        "device": device.device_kind,
        "cores": num_cores(),
        "versions": versions,
    }


def _goals(
    rows: list[Row], searches: list[SearchRow], programs: dict[int, mg.Program]
) -> list[Goal]:
    """The project's goals that these measurements can judge."""
    speed = {(r.environment, r.num_decisions, r.batch_size): r.speed for r in rows}
    found = []
    ours, peer = speed.get(("mallocGame", 512, 64)), speed.get(("jumanji BinPack-v2", None, 64))
    if ours and peer:
        name = "steps/s over BinPack-v2's, 512 decisions, batch 64"
        found.append(Goal(name, ours / peer, "at least", 5.0))
    for batch_size in sorted({r.batch_size for r in rows}):
        small = speed.get(("mallocGame", 512, batch_size))
        large = speed.get(("mallocGame", 32768, batch_size))
        if small and large:
            name = f"time per step, 32,768 over 512 decisions, batch {batch_size}"
            found.append(Goal(name, small / large, "at most", 64.0))
    if 4096 in programs:
        program, gib = programs[4096], 1 << 30
        state = tree_bytes(jax.eval_shape(mg.init, program))
        name = "GiB of 1,024 games of 4,096 decisions"
        found.append(Goal(f"{name}, states", 1024 * state / gib, "at most", 2.0))
        found.append(
            Goal(f"{name}, one step in place", step_bytes(program, 1024) / gib, "at most", 2.0)
        )
    for row in searches:
        name = f"self-play over bare mctx, {row.num_decisions:,} decisions"
        found.append(Goal(name, row.ratio, "at least", 0.6))
    if jax.default_backend() == "gpu":
        best = [r.speed for r in rows if r.num_decisions == 512 and r.speed]
        if best:
            found.append(Goal("million steps/s, 512 decisions", max(best) / 1e6, "at least", 1.0))
    return found


@click.command()
@click.option("--quick", is_flag=True, help="One size only, in about a minute.")
@click.option("--json", "json_path", metavar="PATH", help="Write the numbers as JSON.")
@click.option("--markdown", "markdown_path", metavar="PATH", help="Write the tables.")
@click.option(
    "--memory-limit",
    type=click.FloatRange(min=0, min_open=True),
    default=8.0,
    show_default=True,
    help="GiB; what would need more is not run, and the table says so.",
)
def main(
    quick: bool, json_path: str | None, markdown_path: str | None, memory_limit: float
) -> None:
    """Time the game, its peers and search on this machine, and print the tables."""
    limit_bytes = math.ceil(memory_limit * (1 << 30))
    sizes: tuple[tuple[int, ...], ...]
    if quick:
        effort = Effort(run_seconds=0.1, memory_limit_bytes=limit_bytes)
        sizes = (512,), (64,), (512,)
    else:
        effort = Effort(memory_limit_bytes=limit_bytes)
        sizes = NUM_DECISIONS, BATCH_SIZES, SEARCH_DECISIONS

    def progress(text):
        if sys.stderr.isatty():
            click.echo(f"measuring {text}", err=True)

    # A peer's, under every new JAX; it says nothing about the measurement.
    warnings.filterwarnings("ignore", "scatter inputs have incompatible types", FutureWarning)
    report = run(*sizes, effort, progress=progress)
    text = markdown(report)
    click.echo(text, nl=False)
    try:
        if json_path:
            files.write_json(json_path, dataclasses.asdict(report))
        if markdown_path:
            files.write_bytes(markdown_path, text.encode())
    except mg.MallocGameError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
