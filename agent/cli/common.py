"""What the commands share: targets and farms as options, lines of progress, the end with a line."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import click

from malloc_game.errors import one_line, printable

if TYPE_CHECKING:
    from workloads.benchmark import Progress
    from workloads.farm import Farm

_PROBLEM_SUFFIXES = (".json", ".json.gz")
MAX_MESSAGE = 2000  # characters of the one line


def fail(message: object, code: int) -> NoReturn:
    """Ends the program with one line on stderr."""
    print(f"mallocgame: error: {one_line(message, MAX_MESSAGE)}", file=sys.stderr)
    sys.exit(code)


def check_target(context: click.Context, parameter: click.Parameter, value: str | None):
    """Callback of an option --target: a known target, or none."""
    from malloc_game.problem.target import TARGETS

    del context, parameter
    if value is not None and value not in TARGETS:
        raise click.BadParameter(f"unknown target {value!r}; known: {', '.join(TARGETS)}")
    return value


def check_targets(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]):
    """The same for an option that may be given several times."""
    return tuple(check_target(context, parameter, one) for one in value)


def need_target(program: str, target: str | None) -> str:
    """The target. Raises: click.UsageError: there is none."""
    from malloc_game.problem.target import TARGETS

    if target is None:
        raise click.UsageError(f"{program} needs --target, one of: {', '.join(TARGETS)}")
    return target


target_option = click.option(
    "--target", metavar="T", callback=check_target, help="v4, v5e, v6e, v5p or tpu7x."
)


def say(began: float, message: str) -> None:
    """A line of progress: seconds since `began`, and the message."""
    line = printable(f"[{time.monotonic() - began:6.1f} s] {message}")
    print(line, file=sys.stderr, flush=True)


_FARM = (
    click.option("--workers", type=click.IntRange(1, 1024), default=1, show_default=True,
                 help="Pairs at a time on this machine, each in processes of its own."),
    click.option("--ray", "ray_address", metavar="ADDRESS", default=None,
                 help="Run pairs on the Ray cluster that this machine is of: auto, or HOST:PORT of"
                 " its head."),
    click.option("--task-seconds", type=click.FloatRange(1), default=None,
                 help="A pair that takes longer is given up."),
    click.option("--task-memory", type=click.FloatRange(0.1), default=None, metavar="GIB",
                 help="A pair that takes more memory is given up."),
)  # fmt: skip


def with_options(command: Callable, options: Sequence[Callable]) -> Callable:
    """The command with these options of click's, in this order in its help."""
    for option in reversed(options):
        command = option(command)
    return command


def farm_options(command: Callable) -> Callable:
    """The options of a command whose pairs run on a farm; `open_farm` takes them."""
    return with_options(command, _FARM)


@contextlib.contextmanager
def open_farm(
    workers: int, ray_address: str | None, task_seconds: float | None, task_memory: float | None
) -> Iterator[Farm | None]:
    """The farm of a command's options; None where the command does all itself, one by one."""
    from workloads import farm

    memory = None if task_memory is None else int(task_memory * 2**30)
    opened = farm.open_farm(workers, ray_address, farm.Limits(task_seconds, memory))
    with opened if opened is not None else contextlib.nullcontext() as found:
        yield found


def is_problem_file(program: str) -> bool:
    """Whether a program is named that is a problem file."""
    return program.endswith(_PROBLEM_SUFFIXES)


@contextmanager
def show_progress(what: str) -> Iterator[Progress]:
    """A progress bar on stderr for people, plain lines for files."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:

        def say(done: int, total: int, message: str) -> None:
            print(printable(f"[{done}/{total}] {message}"), file=sys.stderr, flush=True)

        yield say
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task(what, total=None)

        def show(done: int, total: int, message: str) -> None:
            text = printable(f"{what}: {message}")
            bar.update(task, completed=done, total=total, description=text)

        yield show


def print_table(
    title: str, header: Sequence[str], lines: Sequence[Sequence[str]], num_left: int
) -> None:
    """Print a table; all but the first columns are numbers."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    table = Table(title=title)
    for number, name in enumerate(header):
        table.add_column(name, justify="left" if number < num_left else "right")
    for line in lines:
        table.add_row(*(Text(printable(cell)) for cell in line))
    console.print(table)
