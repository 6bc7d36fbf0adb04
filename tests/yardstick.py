"""Races a stand-alone loop, a script of somebody else's, on the pairs that `mallocgame race` has.

    python -m tests.yardstick path/to/greedy_loop.py --out docs/rivals

The script is given `path/to/file.py:function TARGET --seconds S`, where `function()` returns a JAX
function and its abstract arguments, and compiles it as it likes, by `Lowered.compile`. What it
compiles in time is kept, and judged afterwards as every contender's programs are. A row for each
pair goes to `race.jsonl`; what is there is not run again.
"""

from __future__ import annotations

import pathlib

import click

from agent import race
from workloads.contest import rows
from workloads.suite_data import pairs


@click.command()
@click.argument("script", type=click.Path(exists=True, dir_okay=False, path_type=pathlib.Path))
@click.option("--out", type=click.Path(path_type=pathlib.Path), required=True)
@click.option("--seconds", type=click.FloatRange(min=1), default=120.0, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True, help="Of the rows to compare with.")
@click.option("--pair", "only", multiple=True, help="By default all contended pairs of tests.")
def main(
    script: pathlib.Path, out: pathlib.Path, seconds: float, seed: int, only: tuple[str, ...]
) -> None:
    """Race SCRIPT, which draws by a seed of its own."""
    chosen = [
        pair
        for pair in pairs()
        if (pair.name in only if only else pair.split == "test" and pair.contended)
    ]
    child = ("tests.yardstick_child", str(script.resolve()))
    with rows.race_results(out) as journal:
        done = {row.key for row in journal.read() if not row.error}
        for number, pair in enumerate(chosen, 1):
            if (pair.name, script.stem, seed, seconds) in done:
                continue
            row = race.run_one(pair, script.stem, seconds, seed, child)
            journal.append(row)
            what = row.error or f"{row.speedup:.4f}x XLA's default"
            click.echo(f"[{number}/{len(chosen)}] {pair.name}: {what}")


if __name__ == "__main__":
    main()
