"""The command `doctor`: what is installed, and whether the compiler compiles."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import sys
import time
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from agent.cli.diagnosis import Finding

_TARGET = "v5e"


@click.command("doctor")
@click.option("--compile-timeout", type=click.FloatRange(1, 1e6), default=120.0, show_default=True,
              help="Seconds for the compile of a small program.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def command(compile_timeout: float, as_json: bool) -> None:
    """Say what this machine has, what is missing, and what to do about it.

    Versions, devices, a small program through the real compiler (in a child process, past the
    cache), optional parts, directories. Exit code 3 if something is broken; what is optional and
    missing breaks nothing.

    Example: mallocgame doctor
    """
    from agent.cli.diagnosis import BROKEN

    findings = _examine(compile_timeout)
    if as_json:
        print(json.dumps([dataclasses.asdict(each) for each in findings], indent=2))
    else:
        _show(findings)
    broken = [each.name for each in findings if each.status == BROKEN]
    if broken:
        sys.exit(3)


def _examine(timeout: float) -> list[Finding]:
    from agent.cli import diagnosis
    from workloads.compiler.cache import cache_directory
    from workloads.compiler.session import versions

    error, seconds = _try_compiler(timeout)
    directory = cache_directory()
    return [
        diagnosis.system(),
        diagnosis.package_versions(versions()),
        diagnosis.devices(),
        diagnosis.tpu(),
        diagnosis.compiler(error, seconds, _TARGET),
        *diagnosis.extras(),
        diagnosis.cache(directory, *_size_of(directory)),
        diagnosis.scratch(),
    ]


def _try_compiler(timeout: float) -> tuple[str | None, float]:
    """What the compiler said of a small program, None if it compiled, and the seconds it took."""
    import jax
    import jax.numpy as jnp

    import workloads

    began = time.monotonic()
    try:
        workloads.compile(
            lambda x: jnp.tanh(x @ x), jax.ShapeDtypeStruct((128, 128), jnp.bfloat16),
            target=_TARGET, timeout=timeout, cache=False,
        )  # fmt: skip
    except (workloads.CompileError, workloads.WorkloadError) as failure:
        return " ".join(str(failure).split()), time.monotonic() - began
    return None, time.monotonic() - began


def _size_of(directory: pathlib.Path) -> tuple[int, int]:
    """Number of files, and their bytes; what vanishes or cannot be read does not count."""
    num_files, num_bytes = 0, 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                num_bytes += os.stat(os.path.join(folder, name)).st_size
            except OSError:
                continue
            num_files += 1
    return num_files, num_bytes


def _show(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = {"ok": "green", "optional": "yellow", "broken": "red"}
    console = Console()
    console = console if console.is_terminal else Console(width=140)
    table = Table(title="mallocgame doctor")
    for column in ("", "status", "found"):
        table.add_column(column)
    for each in findings:
        text = each.text + (f"\n-> {each.advice}" if each.advice else "")
        table.add_row(each.name, Text(each.status, style=colours[each.status]), Text(text))
    console.print(table)
