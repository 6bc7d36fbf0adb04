"""The command: measures what is missing, then makes the page anew."""

from __future__ import annotations

import json
import pathlib

import click

from agent.cli.jit_cache import keep_compiled_code
from malloc_game.problem.files import write_bytes
from tests.experiments.evidence import journal, page, pictures, runs
from tests.helpers.paths import ROOT
from workloads.compiler.cache import cache_directory


@click.command()
@click.argument("experiments", nargs=-1, metavar="[EXPERIMENT]...")
@click.option("--out", type=click.Path(path_type=pathlib.Path), default=ROOT / "docs" / "evidence")
@click.option("--most", type=click.IntRange(0), default=None, help="No more new runs than these.")
@click.option("--seeds", type=click.IntRange(1), default=99, help="Only the first so many seeds.")
def main(experiments: tuple[str, ...], out: pathlib.Path, most: int | None, seeds: int) -> None:
    """Measures EXPERIMENTs, all by default; goes on where it was stopped."""
    unknown = sorted(set(experiments) - set(runs.EXPERIMENTS))
    if unknown:
        raise click.UsageError(f"no experiment {unknown[0]!r}: {', '.join(runs.EXPERIMENTS)}")
    keep_compiled_code(cache_directory() / "jax")  # each run compiles anew, for memory's sake
    out.mkdir(parents=True, exist_ok=True)
    path = out / "evidence.jsonl"
    with path.open("a+b") as file:  # a line that was cut off is none
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
    rows = journal.read(path)
    done = {journal.key(row) for row in rows}
    wanted = [r for name in experiments or runs.EXPERIMENTS for r in runs.EXPERIMENTS[name]()]
    wanted = [run for run in wanted if run.seed < seeds]
    todo = [run for run in wanted if run.key not in done][:most]
    for number, run in enumerate(todo, 1):
        row = runs.record(run)
        rows.append(row)
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        click.echo(f"[{number}/{len(todo)}] {', '.join(map(str, run.key))}: {row['seconds']:.0f} s")
    text = page.markdown(rows, ROOT / "docs" / "baselines")
    write_bytes(out.parent / "evidence.md", text.encode())
    for name, picture in pictures.pictures(rows, ROOT / "docs" / "baselines").items():
        write_bytes(out / name, picture)


if __name__ == "__main__":
    main()
