"""Options that several commands share to choose pairs of the suite and seeds."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from agent.cli.common import with_options

if TYPE_CHECKING:
    from workloads.programs.suite_problems import Pair

_FILTERS = (
    click.option("--split", metavar="S", help="Only pairs of train, validation or test."),
    click.option("--family", metavar="F", help="Only pairs of one family of programs."),
    click.option("--target", metavar="T", help="Only pairs of v4, v5e, v6e, v5p or tpu7x."),
    click.option("--contended", is_flag=True, help="Only pairs with at least 1% to win."),
    click.option("--data", type=click.Path(path_type=pathlib.Path), default=None, metavar="DIR",
                 help="Problem files with their index.json, instead of those that ship."),
)  # fmt: skip


def pair_filters(command: Callable) -> Callable:
    """The options of a command that choose among pairs; `choose_pairs` takes them."""
    return with_options(command, _FILTERS)


def choose_pairs(
    data: pathlib.Path | None, names: tuple[str, ...], filters: dict[str, Any]
) -> list[Pair]:
    """The pairs of these names that pass the filters. Raises: WorkloadError: there are none."""
    from workloads.benchmark import select
    from workloads.programs.suite_problems import load_index, pairs

    return select(pairs() if data is None else load_index(data), names, **filters)


def read_seeds(text: str) -> list[int]:
    """The numbers of an option --seeds. Raises: click.UsageError: they are none, or repeated."""
    try:
        seeds = [int(word) for word in text.split(",")]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0 or max(seeds) >= 2**31 or len(set(seeds)) < len(seeds):
        raise click.UsageError(f"--seeds {text!r}: need different numbers like 0,1,2")
    return seeds
