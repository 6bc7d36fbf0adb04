"""The command `time`: both executables of a program on the TPU of this machine, side by side."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from agent.cli.common import say
from malloc_game.errors import MallocGameError
from malloc_game.problem.files import read_bytes, read_json

if TYPE_CHECKING:
    from workloads.fidelity.timing import Comparison

_file = click.Path(path_type=pathlib.Path, exists=True)


@click.command("time")
@click.argument("program")
@click.option("--options", "options_file", type=_file, default=None, metavar="FILE",
              help="JSON with compiler options: what `optimize --out DIR` wrote (DIR or"
              " DIR/result.json), or an object of names and values.")  # fmt: skip
@click.option("--overrides", type=_file, default=None, metavar="FILE",
              help="MsaTensorOverrides text, alone or in place of the one in --options.",
              )  # fmt: skip
@click.option("--samples", type=click.IntRange(6, 100_000), default=30, show_default=True,
              help="Samples of each executable, taken in turn.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def command(
    program: str,
    options_file: pathlib.Path | None,
    overrides: pathlib.Path | None,
    samples: int,
    as_json: bool,
) -> None:
    """Time PROGRAM on this machine's TPU, under XLA's default mapping and under another.

    Both executables are built by the libtpu of this machine and run in turn on the same inputs;
    the speed-up is the median over neighbouring samples, with a 95% interval. Their outputs are
    compared, too. PROGRAM's file is executed in this process.

    Example: mallocgame time my_model.py:step --options out/step/result.json
    """
    from workloads.fidelity import timing
    from workloads.programs.loader import load_program, resolve_spec

    began = time.monotonic()
    options, made_for = _read_options(options_file) if options_file else ({}, {})
    if overrides is not None:
        options = {**options, **_read_overrides(overrides, alone=options_file is None)}
    if not options:
        raise click.UsageError(
            "nothing to compare: give --options or --overrides with something in it"
            " (where XLA's default is the best that was found, both are empty)"
        )
    resolve_spec(program)
    device = timing.tpu_device()
    _warn(made_for, device.device_kind)
    loaded = load_program(program)
    say(
        began, f"compiling {loaded.name} twice for {device.device_kind}, then {2 * samples} samples"
    )
    found = timing.compare(loaded.fn, loaded.args, options, device, samples=samples)
    if as_json:
        print(json.dumps(_result(loaded.name, found, options), indent=2))
    else:
        _show(loaded.name, found)


def _read_options(path: pathlib.Path) -> tuple[dict[str, str], dict[str, Any]]:
    """Compiler options of a file, and what else a result.json says.

    Raises: click.UsageError: it is no such file.
    """
    if path.is_dir():
        path = path / "result.json"
    try:
        content = read_json(path)
    except MallocGameError as error:
        raise click.UsageError(f"--options {path}: {error}") from error
    is_object = isinstance(content, dict)
    options = content.get("compiler_options", content) if is_object else None
    if not isinstance(options, dict) or any(
        not isinstance(value, str | int | float | bool) for value in options.values()
    ):
        raise click.UsageError(
            f"--options {path}: need an object of option names and values, or a result.json"
        )
    made_for = content if "compiler_options" in content else {}
    versions = made_for.get("versions", {})
    if not isinstance(versions, dict) or not isinstance(made_for.get("target", ""), str):
        raise click.UsageError(f"--options {path}: its target or versions are not a result.json's")
    return {name: str(value) for name, value in options.items()}, made_for


def _read_overrides(path: pathlib.Path, *, alone: bool) -> dict[str, str]:
    """The option of a text file; a word on stderr if it was made together with others."""
    from workloads.compiler.session import OVERRIDES_OPTION

    try:
        text = read_bytes(path).decode()
    except (MallocGameError, UnicodeDecodeError) as error:
        raise click.UsageError(f"--overrides {path}: {error}") from error
    beside = path.parent / "result.json"
    if alone and beside.is_file():
        options, _ = _read_options(beside)
        others = len(options) - 1
        if options.get(OVERRIDES_OPTION) == text and others > 0:
            print(
                f"mallocgame: note: {beside} has {others} more options that belong to these"
                f" overrides; --options {beside} times them all",
                file=sys.stderr,
            )
    return {OVERRIDES_OPTION: text} if text.strip() else {}


def _warn(made_for: dict[str, Any], kind: str) -> None:
    """Say on stderr what differs between the machine and what the options were made for."""
    from workloads.compiler.session import versions
    from workloads.fidelity.timing import DEVICE_KINDS

    target, ours = made_for.get("target"), versions()
    if target in DEVICE_KINDS and kind not in DEVICE_KINDS[target]:
        print(f"mallocgame: note: the options were made for {target}; this is a {kind}",
              file=sys.stderr)  # fmt: skip
    theirs = made_for.get("versions", {})
    other = [f"{n} {theirs[n]} (here {ours[n]})" for n in ours if theirs.get(n, ours[n]) != ours[n]]
    if other:
        print(
            f"mallocgame: note: the options were made with {', '.join(other)}; names that differ"
            " now are ignored by the compiler, or refused",
            file=sys.stderr,
        )


def _result(name: str, found: Comparison, options: dict[str, str]) -> dict[str, Any]:
    low, high = found.speedup_interval
    executables = {
        label: {"median_seconds": timing.median, "spread_seconds": timing.spread}
        | dataclasses.asdict(timing)
        for label, timing in (("default", found.default), ("options", found.other))
    }
    return {
        "program": name,
        "device": found.device,
        "speedup": found.speedup,
        "speedup_interval": [low, high],
        "output_difference": found.output_difference,
        "calls_per_sample": found.calls_per_sample,
        **executables,
        "compiler_options": options,
    }


def _show(name: str, found: Comparison) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    console = console if console.is_terminal else Console(width=110)
    table = Table(title=Text(f"{name} on {found.device}: measured"))
    table.add_column("mapping")
    for column in ("median, ms", "10% - 90%, ms", "samples"):
        table.add_column(column, justify="right")
    for label, timing in (("XLA default", found.default), ("with the options", found.other)):
        low, high = (1e3 * each for each in timing.spread)
        table.add_row(
            label, f"{1e3 * timing.median:.4f}", f"{low:.4f} - {high:.4f}", str(len(timing.seconds))
        )
    console.print(table)
    low, high = found.speedup_interval
    print(
        f"measured speed-up: {found.speedup:.3f}x (95%: {low:.3f} to {high:.3f});"
        f" {found.calls_per_sample} calls a sample"
    )
    if found.output_difference:
        print(
            "the outputs differ by at most"
            f" {found.output_difference:.3g}: a mapping alone should not change them"
        )
    else:
        print("the outputs are the same, to the last bit")
