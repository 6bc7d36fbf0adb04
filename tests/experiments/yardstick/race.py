"""Races a stand-alone loop, a script of somebody else's, on the pairs that `mallocgame race` has.

    python -m tests.experiments.yardstick.race path/to/greedy_loop.py \\
        --split test --contended --out docs/baselines

The script is given `path/to/file.py:function TARGET --seconds S`, where `function()` returns a JAX
function and its abstract arguments, and compiles it as it likes, by `Lowered.compile`. What it
compiles in time is kept, and judged afterwards as every contender's programs are. A row for each
pair goes to `race.jsonl`, for `mallocgame race --report-only`; what is there is not run again.
"""

from __future__ import annotations

import pathlib
from typing import Any

import click

from agent.cli import commands
from agent.cli.choosing import choose_pairs, pair_filters
from agent.cli.common import show_progress
from agent.racing import contenders


@click.command()
@click.argument("script", type=click.Path(exists=True, dir_okay=False, path_type=pathlib.Path))
@click.argument("names", nargs=-1, metavar="[PAIR]...")
@pair_filters
@click.option("--out", type=click.Path(path_type=pathlib.Path), required=True)
@click.option("--seconds", type=click.FloatRange(1, 1e6), default=120.0, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True, help="Of the rows to compare with.")
def main(
    script: pathlib.Path,
    names: tuple[str, ...],
    data: pathlib.Path | None,
    out: pathlib.Path,
    seconds: float,
    seed: int,
    **filters: Any,
) -> None:
    """Race SCRIPT, which draws by a seed of its own, on PAIRs, by default all."""
    pairs = choose_pairs(data, names, filters)
    child = ("tests.experiments.yardstick.child", str(script.resolve()))
    with show_progress("racing") as progress:
        contenders.race(pairs, [script.stem], seconds, [seed], out, progress, child)


if __name__ == "__main__":
    commands.main(main)
