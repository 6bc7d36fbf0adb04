"""The command `train`: one agent for many problems."""

from __future__ import annotations

import pathlib
from typing import NoReturn

import click

from agent.cli.common import fail
from agent.cli.interrupts import importing

_files = click.Path(path_type=pathlib.Path, exists=True)


@click.command("train")
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
@click.option("--distributed", is_flag=True,
              help="Be one of the processes of a cluster, as JAX finds it in the environment: a TPU"
              " pod slice, Slurm, Open MPI, Kubernetes.")  # fmt: skip
@click.option("--coordinator", metavar="HOST:PORT", default=None,
              help="Be one of several processes; where the first of them listens.")  # fmt: skip
@click.option("--process-count", type=click.IntRange(1), default=None,
              help="How many there are, with --coordinator.")  # fmt: skip
@click.option("--process-id", type=click.IntRange(0), default=None,
              help="Which of them this one is, with --coordinator.")  # fmt: skip
def command(
    config_file: pathlib.Path | None,
    problems: tuple[pathlib.Path, ...],
    validation: tuple[pathlib.Path, ...],
    out: pathlib.Path,
    iterations: int | None,
    minutes: float | None,
    seed: int,
    resume: bool,
    distributed: bool,
    coordinator: str | None,
    process_count: int | None,
    process_id: int | None,
) -> None:
    """Train one agent on many problems.

    On several machines the same command runs on each, with --distributed or --coordinator, and
    --out on a file system that they share (docs/scaling.md).

    Example: mallocgame train --problems data/train --validation data/validation --minutes 10
    --out out/agent
    """
    with importing():
        import jax

        from agent.learning import hosts, training_run

    if iterations is None and minutes is None:
        raise click.UsageError("say how long: --iterations or --minutes")
    _check_processes(distributed, coordinator, process_count, process_id)
    config = training_run.read_config(config_file)
    if not problems:
        problems, validation = _suite_problems("train"), _suite_problems("validation")
    files = training_run.list_problems(problems)
    judged = training_run.list_problems(validation) if validation else []
    if distributed or coordinator is not None:
        hosts.connect(coordinator, process_count, process_id)
    try:
        training_run.train(
            config,
            files,
            judged,
            out,
            iterations=iterations,
            minutes=minutes,
            seed=seed,
            resume=resume,
        )
    except KeyboardInterrupt:
        _fail_alone("interrupted; --resume goes on from the last checkpoint", 130)
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        _fail_alone(
            f"the processes cannot go on: {reason[:200]}; start all of them again with --resume", 1
        )


def _fail_alone(message: str, code: int) -> NoReturn:
    """Ends with one line, without waiting for other processes, which wait for this one."""
    from agent.learning import hosts

    try:
        fail(message, code)
    finally:
        hosts.leave(code)


def _check_processes(
    distributed: bool, coordinator: str | None, count: int | None, number: int | None
) -> None:
    """Raises: click.UsageError for flags that do not say which of how many processes this is."""
    given = [coordinator is not None, count is not None, number is not None]
    if any(given) and not all(given):
        raise click.UsageError("--coordinator, --process-count and --process-id go together")
    if distributed and any(given):
        raise click.UsageError("--distributed finds the processes itself: leave --coordinator out")
    if count is not None and number is not None and number >= count:
        raise click.UsageError(f"--process-id {number}: need less than --process-count {count}")
    host, colon, port = (coordinator or "").rpartition(":")
    if coordinator is not None and not (host and colon and port.isdecimal()):
        raise click.UsageError(f"--coordinator {coordinator!r}: need HOST:PORT")


def _suite_problems(split: str) -> tuple[pathlib.Path, ...]:
    """The suite's problem files of one split."""
    from workloads.programs.suite_problems import pairs

    found = tuple(pair.path() for pair in pairs() if pair.split == split)
    if not found:
        raise click.UsageError(f"the suite has no {split} problems: give --problems")
    return found
