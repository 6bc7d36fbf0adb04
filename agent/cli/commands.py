"""The command line: parse arguments, call one function, print.

Mistakes are one line, exit code 2; compiler failures are one line, exit code 3.
"""

from __future__ import annotations

import io
import sys

import click

from agent.cli import (
    bench,
    doctor,
    fidelity,
    optimizing,
    problem_files,
    race,
    report,
    suite,
    timing,
    train,
)
from agent.cli.common import fail
from agent.cli.interrupts import INTERRUPTED, importing


def main(command: click.Command | None = None) -> None:
    """Entry point of the console script `mallocgame`, or of a `command` with the same manners."""
    with importing():
        from agent.learning.config import ConfigError
        from malloc_game.errors import MallocGameError
        from workloads.errors import CompileError, WorkloadError

    for stream in (sys.stdout, sys.stderr):  # names may hold what the terminal's encoding lacks
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        sys.exit((command or cli)(standalone_mode=False) or 0)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        fail(error.format_message(), 2)
    except (MallocGameError, WorkloadError, ConfigError) as error:
        fail(error, 2)
    except CompileError as error:
        fail(error, 3)
    except BrokenPipeError:
        sys.exit(0)
    except (KeyboardInterrupt, click.Abort):
        fail(INTERRUPTED, 130)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="mallocgame")
def cli() -> None:
    """Play the mallocGame on real programs and hand better memory mappings to XLA:TPU.

    PROGRAM is a suite name (see `mallocgame programs`), `path/to/file.py:function` (a function
    without arguments that returns `(fn, args)`; the file is executed), or a problem file (*.json,
    *.json.gz).

    Example: mallocgame optimize decode --target v4 --budget 60 --out out/decode
    """


for command in (
    optimizing.command,
    problem_files.extract,
    problem_files.import_,
    problem_files.evaluate,
    problem_files.render,
    suite.programs,
    fidelity.command,
    report.command,
    suite.pairs,
    bench.command,
    race.command,
    train.command,
    timing.command,
    doctor.command,
):
    cli.add_command(command)
