"""The command `train`: one agent for many problems."""

from __future__ import annotations

import pathlib

import click

from agent.cli_common import fail

_files = click.Path(path_type=pathlib.Path, exists=True)


@click.command()
@click.option("--config", "config_file", type=click.Path(path_type=pathlib.Path), default=None,
              help="JSON with the settings that differ from the defaults.")  # fmt: skip
@click.option("--problems", multiple=True, type=_files,
              help="Problem file or directory to learn from; may be given several times. By default"
              " the suite's training families.")  # fmt: skip
@click.option("--validation", multiple=True, type=_files,
              help="The same, to be judged by while training.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=pathlib.Path), required=True,
              help="Directory of checkpoints, metrics and the agent file.")  # fmt: skip
@click.option("--iterations", type=click.IntRange(1), default=None, help="Iterations in all.")
@click.option("--minutes", type=click.FloatRange(0.01, 1e6), default=None,
              help="Minutes of this run.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in --out.")
def train(
    config_file: pathlib.Path | None,
    problems: tuple[pathlib.Path, ...],
    validation: tuple[pathlib.Path, ...],
    out: pathlib.Path,
    iterations: int | None,
    minutes: float | None,
    seed: int,
    resume: bool,
) -> None:
    """Train one agent on many problems.

    Example: mallocgame train --problems data/train --validation data/validation --minutes 10
    --out out/agent
    """
    from agent import train_command

    if iterations is None and minutes is None:
        raise click.UsageError("say how long: --iterations or --minutes")
    config = train_command.read_config(config_file)
    if not problems:
        problems, validation = _suite_problems("train"), _suite_problems("validation")
    try:
        train_command.train(
            config,
            train_command.list_problems(problems),
            train_command.list_problems(validation) if validation else [],
            out,
            iterations=iterations,
            minutes=minutes,
            seed=seed,
            resume=resume,
        )
    except KeyboardInterrupt:
        fail("interrupted; --resume goes on from the last checkpoint", 130)


def _suite_problems(split: str) -> tuple[pathlib.Path, ...]:
    """The suite's problem files of one split."""
    from workloads.suite_data import pairs

    found = tuple(pair.path() for pair in pairs() if pair.split == split)
    if not found:
        raise click.UsageError(f"the suite has no {split} problems: give --problems")
    return found
