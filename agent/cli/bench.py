"""The command `bench`: solvers on the suite's pairs, or on problem files of your own."""

from __future__ import annotations

import json
import os
import pathlib
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from agent.cli.choosing import choose_pairs, pair_filters, read_seeds
from agent.cli.common import farm_options, open_farm, print_table, show_progress
from agent.cli.interrupts import importing

if TYPE_CHECKING:
    from malloc_game.solvers import Solver
    from workloads.benchmark import Case, Results
    from workloads.farm import Farm


def extra_solvers() -> dict[str, Solver]:
    """Solvers for `bench` that `malloc_game.solvers` does not have, by name; see its `Solver`."""
    from agent.planner.solvers import agent, zero_shot

    return {"agent": agent, "zero_shot": zero_shot}


@click.command("bench")
@click.argument("problems", nargs=-1, metavar="[PAIR|FILE]...")
@pair_filters
@click.option("--solver", "solvers", multiple=True, metavar="NAME",
              help="One of the solvers; several times for several. All by default.")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(0, 1e6, min_open=True), default=60.0,
              show_default=True, help="Time for one run, compiling of JAX code included.",
              )  # fmt: skip
@click.option("--seeds", default="0", show_default=True, metavar="N,N...",
              help="A run with each of them.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=pathlib.Path), default="out/bench",
              show_default=True, help="Directory of results; what is there is not run again.",
              )  # fmt: skip
@click.option("--compile", "compiles", is_flag=True,
              help="Also compile what was found by the real compiler.")  # fmt: skip
@click.option("--compile-timeout", type=click.FloatRange(1, 1e6), default=600.0, show_default=True,
              help="Seconds for one compile.")  # fmt: skip
@farm_options
@click.option("--report-only", is_flag=True, help="Run nothing: report what --out holds.")
@click.option("--json", "as_json", is_flag=True, help="Print all rows as JSON instead of a table.")
def command(
    problems: tuple[str, ...],
    data: pathlib.Path | None,
    solvers: tuple[str, ...],
    seconds: float,
    seeds: str,
    out: pathlib.Path,
    compiles: bool,
    compile_timeout: float,
    report_only: bool,
    as_json: bool,
    workers: int,
    ray_address: str | None,
    task_seconds: float | None,
    task_memory: float | None,
    **filters: Any,
) -> None:
    """Run solvers on the suite's pairs, or on problem files of your own, and compare them.

    A PAIR is `program-target`, or `program` for all its targets; a FILE is *.json or *.json.gz.
    Without any, all pairs of the suite that pass the filters. A run that is interrupted goes on
    where it ended when the same command is given again.

    --out gets results.jsonl, assignments/, report.md, report.html and profile.svg, and with
    --compile compiled.jsonl. The report is about what was chosen; without a choice, about all that
    --out holds.

    Example: mallocgame bench --split test --contended --solver greedy --solver cpsat --seconds 20
    """
    with importing():
        from agent.report import results as report
        from workloads import benchmark

    if report_only and compiles:
        raise click.UsageError("--report-only runs nothing: leave --compile out")
    is_all = not problems and not any(filters.values())
    numbers = read_seeds(seeds)
    chosen = None if report_only and is_all else _cases(problems, data, filters)
    if not report_only:
        report.check_directory(out)
        assert chosen is not None
        with open_farm(workers, ray_address, task_seconds, task_memory) as farm:
            timeout = compile_timeout if compiles else None
            _run(chosen, solvers, seconds, numbers, out, timeout, farm)
    results = benchmark.load(out).only(
        None if is_all or chosen is None else [case.name for case in chosen], solvers or None
    )
    if not results.runs:
        raise click.UsageError(f"--out {out} holds no results of these pairs and solvers")
    benchmark.write(results, out)
    if as_json:
        print(json.dumps(results.joined(), indent=2))
    else:
        _show(results)
        print(f"written to {out}: report.md, report.html, results.jsonl")


def _cases(
    problems: tuple[str, ...], data: pathlib.Path | None, filters: dict[str, Any]
) -> list[Case]:
    """Problem files as they are named, then the pairs that are named and pass the filters."""
    from workloads.benchmark import PROBLEM_SUFFIXES, Case
    from workloads.programs.suite_problems import DATA

    files = [name for name in problems if name.endswith(PROBLEM_SUFFIXES)]
    names = tuple(name for name in problems if name not in files)
    cases = [Case.of_file(pathlib.Path(file)) for file in dict.fromkeys(files)]
    if names or not files:
        cases += [Case.of_pair(pair, data or DATA) for pair in choose_pairs(data, names, filters)]
    return cases


def _run(
    cases: list[Case],
    names: tuple[str, ...],
    seconds: float,
    seeds: list[int],
    out: pathlib.Path,
    compile_timeout: float | None,
    farm: Farm | None,
) -> None:
    """Run solvers, then compile what they found if there is a `compile_timeout`."""
    from workloads import benchmark
    from workloads.compiler.session import check_compiler

    solvers = benchmark.choose_solvers(names, extra_solvers())
    if compile_timeout is not None:
        check_compiler()
    try:
        with show_progress("solving") as progress:
            options: dict[str, Any] = {"farm": farm, "progress": progress}
            _in_thread(lambda: benchmark.run(cases, solvers, seconds, seeds, out, **options))
        if compile_timeout is not None:
            with show_progress("compiling") as progress:
                benchmark.compile_mappings(
                    cases,
                    out,
                    solvers=list(solvers),
                    timeout=compile_timeout,
                    farm=farm,
                    progress=progress,
                )
    except KeyboardInterrupt:
        print(
            f"mallocgame: interrupted; what is done is kept in {out}, and the same command goes on"
            " from there",
            file=sys.stderr,
            flush=True,
        )
        os._exit(130)  # a solver's native code cannot be stopped, and crashes if it is torn down


def _in_thread(work: Callable[[], object]) -> None:
    """Do `work` in a thread and wait for it, so that Ctrl-C is heard while native code runs.

    Raises: what `work` raises; KeyboardInterrupt at once, and then `work` goes on.
    """
    failures: list[BaseException] = []

    def target() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def _show(results: Results) -> None:
    """Print the solvers' table, and the compiled one if there is one."""
    from workloads.benchmark import cells_of, comparable, compiled_table, standings_table

    cells = comparable(cells_of(results.runs))
    if cells:
        table = standings_table(cells)
        print_table("predicted", table.header, table.rows, table.num_left)
    else:
        print("no pair was run by every solver, so there are no means: see the report's pairs")
    if results.compiled:
        table = compiled_table(results.compiled)
        print_table("compiled", table.header, table.rows, table.num_left)
