"""The command `fidelity`: predicted against compiled, for programs and targets."""

from __future__ import annotations

import functools
import pathlib
import sys
import time
from typing import Any

import click

from agent.cli.common import check_targets, farm_options, need_target, open_farm, say


@click.command("fidelity")
@click.argument("program", nargs=-1)
@click.option("--target", "targets", metavar="T", multiple=True, callback=check_targets,
              help="v4, v5e, v6e, v5p or tpu7x; several times for several.")  # fmt: skip
@click.option("--random", "num_random", type=click.IntRange(0, 1000), default=10,
              show_default=True, help="Fresh random legal mappings to compile.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=pathlib.Path), default=None,
              help="Directory of one JSON file a measurement; what is there is not done again.",
              )  # fmt: skip
@click.option("--report", "report_file", type=click.Path(path_type=pathlib.Path), default=None,
              help="Markdown file to put tables into: of all that is in --out.")  # fmt: skip
@click.option("--compile-timeout", type=click.FloatRange(1, 1e6), default=600.0, show_default=True,
              help="Seconds for one compile.")  # fmt: skip
@farm_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the report.")
def command(
    program: tuple[str, ...],
    targets: tuple[str, ...],
    num_random: int,
    seed: int,
    out: pathlib.Path | None,
    report_file: pathlib.Path | None,
    compile_timeout: float,
    as_json: bool,
    **farm: Any,
) -> None:
    """Measure how well predictions for PROGRAM hold in the compiler.

    Calibrates the costs with at most 12 compiles, then compares predicted and compiled latency of
    XLA's default, of greedy's plan and of random legal mappings that nothing was learned from.
    `suite` stands for all programs of the suite. Without a PROGRAM nothing is measured: what --out
    holds is reported, which needs no compiler.

    Example: mallocgame fidelity decode --target v4 --random 10
    """
    from agent.report import results
    from workloads.fidelity import report as fidelity_report

    for directory in (out, report_file.parent if report_file else None):
        if directory is not None:
            results.check_directory(directory)
    if report_file is not None:
        fidelity_report.frame(report_file)  # a file without room for the tables fails now
    failures: dict[str, str] = {}
    if program:
        settings = {"num_random": num_random, "seed": seed}
        cells, failures = _measure(program, targets, out, compile_timeout, settings, farm)
    elif out is None or targets:
        raise click.UsageError("name a PROGRAM to measure, or --out alone to report what is there")
    else:
        cells = fidelity_report.load_all(out)
    if program or report_file is None:
        for cell in cells:
            print(fidelity_report.result(cell) if as_json else fidelity_report.text(cell) + "\n")
    if report_file is not None:
        shown = fidelity_report.load_all(out) if out and any(out.glob("*.json")) else cells
        fidelity_report.write_into(report_file, fidelity_report.markdown(shown, failures))
        print(f"{report_file}: {len(shown)} measurements", file=sys.stderr)


def _measure(
    program: tuple[str, ...],
    targets: tuple[str, ...],
    out: pathlib.Path | None,
    timeout: float,
    settings: dict[str, Any],
    farm_settings: dict[str, Any],
):
    """Measurements of programs on targets, and the reasons of those that failed."""
    from workloads.compiler.session import check_compiler
    from workloads.fidelity.measurement import measure
    from workloads.fidelity.report import measure_all
    from workloads.programs import SUITE
    from workloads.programs.loader import resolve_spec

    began = time.monotonic()
    chosen = [name for p in program for name in (SUITE if p == "suite" else (p,))]
    if not targets:
        need_target(" ".join(program), None)
    check_compiler()
    for name in chosen:
        resolve_spec(name)

    def tell(message: str) -> None:
        say(began, message)

    one = functools.partial(measure, timeout=timeout, **settings)
    pairs = [(name, target) for name in chosen for target in targets]
    with open_farm(**farm_settings) as farm:
        if farm is None:
            one = functools.partial(one, progress=tell)
        return measure_all(pairs, one, out, farm=farm, progress=tell, **settings)
