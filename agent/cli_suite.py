"""The commands `suite` and `bench`: the pairs that ship, and solvers run on them or on your own."""

from __future__ import annotations

import json
import os
import pathlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from agent.cli_common import farm_options, open_farm, with_options
from agent.entry import importing
from malloc_game.errors import printable

if TYPE_CHECKING:
    from malloc_game.solvers import Solver
    from workloads.contest import Case, Progress, Results
    from workloads.farm import Farm
    from workloads.suite_data import Pair


def extra_solvers() -> dict[str, Solver]:
    """Solvers for `bench` that `malloc_game.solvers` does not have, by name; see its `Solver`."""
    from agent.solver import agent, zero_shot

    return {"agent": agent, "zero_shot": zero_shot}


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
    from workloads.contest import select
    from workloads.suite_data import load_index, pairs

    return select(pairs() if data is None else load_index(data), names, **filters)


@click.command()
@pair_filters
@click.option("--build", "builds", is_flag=True,
              help="Extract missing pairs with the real compiler first, those named by PAIR or all"
              " of suite.json.")  # fmt: skip
@click.argument("names", nargs=-1, metavar="[PAIR]...")
@click.option("--compile-timeout", type=click.FloatRange(1, 1e6), default=600.0, show_default=True,
              help="Seconds for one compile.")  # fmt: skip
@farm_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def suite(
    data: pathlib.Path | None,
    builds: bool,
    names: tuple[str, ...],
    compile_timeout: float,
    as_json: bool,
    workers: int,
    ray_address: str | None,
    task_seconds: float | None,
    task_memory: float | None,
    **filters: Any,
) -> None:
    """List the pairs of a program and a target that ship as problem files.

    headroom: the share of XLA's default latency that a proven lower bound leaves to be won.

    Example: mallocgame suite --split test --contended
    """
    if builds:
        with open_farm(workers, ray_address, task_seconds, task_memory) as farm:
            _build(names, data, compile_timeout, farm)
    found = choose_pairs(data, names, filters)
    fields = ["program", "family", "split", "target", "decisions", "contended", "headroom"]
    rows = [{name: getattr(pair, name) for name in fields} for pair in found]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    contended = sum(row["contended"] for row in rows)
    lines = [
        [*(str(row[n]) for n in fields[:5]), "yes" if row["contended"] else "no",
         f"{row['headroom']:.1%}"]
        for row in rows
    ]  # fmt: skip
    _print_table(f"{len(rows)} pairs, {contended} contended", fields, lines, num_left=4)


def _build(
    names: tuple[str, ...], data: pathlib.Path | None, timeout: float, farm: Farm | None
) -> None:
    """Build the pairs that are missing; a pair that fails is named on stderr."""
    from workloads.errors import CompileError
    from workloads.suite_data import DATA, build_all, wanted

    began = time.monotonic()

    def say(message: str) -> None:
        print(f"[{time.monotonic() - began:7.1f} s] {message}", file=sys.stderr, flush=True)

    failures = build_all(wanted(names), data or DATA, timeout=timeout, farm=farm, progress=say)
    if failures:
        raise CompileError("; ".join(f"{name}: {why}" for name, why in failures.items()))


@click.command()
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
def bench(
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
        from agent import report
        from workloads import contest

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
    results = contest.load(out).only(
        None if is_all or chosen is None else [case.name for case in chosen], solvers or None
    )
    if not results.runs:
        raise click.UsageError(f"--out {out} holds no results of these pairs and solvers")
    contest.write(results, out)
    if as_json:
        print(json.dumps(results.joined(), indent=2))
    else:
        _show(results)
        print(f"written to {out}: report.md, report.html, results.jsonl")


def read_seeds(text: str) -> list[int]:
    """The numbers of an option --seeds. Raises: click.UsageError: they are none, or repeated."""
    try:
        seeds = [int(word) for word in text.split(",")]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0 or max(seeds) >= 2**31 or len(set(seeds)) < len(seeds):
        raise click.UsageError(f"--seeds {text!r}: need different numbers like 0,1,2")
    return seeds


def _cases(
    problems: tuple[str, ...], data: pathlib.Path | None, filters: dict[str, Any]
) -> list[Case]:
    """Problem files as they are named, then the pairs that are named and pass the filters."""
    from workloads.contest import PROBLEM_SUFFIXES, Case
    from workloads.suite_data import DATA

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
    from workloads import contest
    from workloads.compile import check_compiler

    solvers = contest.choose_solvers(names, extra_solvers())
    if compile_timeout is not None:
        check_compiler()
    try:
        with show_progress("solving") as progress:
            options: dict[str, Any] = {"farm": farm, "progress": progress}
            _in_thread(lambda: contest.run(cases, solvers, seconds, seeds, out, **options))
        if compile_timeout is not None:
            with show_progress("compiling") as progress:
                contest.compile_mappings(
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


def _show(results: Results) -> None:
    """Print the solvers' table, and the compiled one if there is one."""
    from workloads.contest import cells_of, comparable, compiled_table, standings_table

    cells = comparable(cells_of(results.runs))
    if cells:
        table = standings_table(cells)
        _print_table("predicted", table.header, table.rows, table.num_left)
    else:
        print("no pair was run by every solver, so there are no means: see the report's pairs")
    if results.compiled:
        table = compiled_table(results.compiled)
        _print_table("compiled", table.header, table.rows, table.num_left)


def _print_table(
    title: str, header: Sequence[str], lines: Sequence[Sequence[str]], num_left: int
) -> None:
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
