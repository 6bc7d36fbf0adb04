"""The command line: parse arguments, call one function, print. Mistakes are one line, exit code 2;
compiler failures are one line, exit code 3."""

from __future__ import annotations

import io
import json
import pathlib
import sys
import time
from typing import Any

import click

from agent import cli_doctor, cli_fidelity, cli_race, cli_report, cli_suite, cli_time, cli_train
from agent.cli_common import check_target, fail, need_target, say
from agent.entry import INTERRUPTED, importing

_PROBLEM_SUFFIXES = (".json", ".json.gz")


def main(command: click.Command | None = None) -> None:
    """Entry point of the console script `mallocgame`, or of a `command` with the same manners."""
    with importing():
        from agent.config import ConfigError
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


_target = click.option(
    "--target", metavar="T", callback=check_target, help="v4, v5e, v6e, v5p or tpu7x."
)


def _is_problem_file(program: str) -> bool:
    return program.endswith(_PROBLEM_SUFFIXES)


@cli.command()
@click.argument("program")
@_target
@click.option("--budget", type=click.FloatRange(1, 1e6), default=60.0, show_default=True,
              help="Seconds of planning, after the two compiles that every run needs.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=pathlib.Path), default=None,
              help="Directory for report.html, result.json, assignment.json, problem.json, and the"
              " long compiler options (*.textproto).")  # fmt: skip
@click.option("--compile-timeout", type=click.FloatRange(1, 1e6), default=600.0, show_default=True,
              help="Seconds for one compile.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print result.json instead of a table.")
def optimize(
    program: str,
    target: str | None,
    budget: float,
    seed: int,
    out: pathlib.Path | None,
    compile_timeout: float,
    as_json: bool,
) -> None:
    """Find a better memory mapping of PROGRAM and compile it.

    Example: mallocgame optimize my_model.py:step --target v5e --budget 120 --out out/step
    """
    with importing():
        from agent import report
        from agent.jit_cache import keep_compiled_code
        from agent.optimize import optimize as run
        from workloads.cache import cache_directory
        from workloads.compile import check_compiler
        from workloads.loader import resolve_spec

    began = time.monotonic()
    if out is not None:
        report.check_directory(out)
    keep_compiled_code(cache_directory() / "jax")
    if _is_problem_file(program):
        outcome = _optimize_file(program, target, budget, seed, began)
    else:
        target = need_target(program, target)
        check_compiler()
        resolve_spec(program)
        outcome = run(
            program,
            target,
            budget=budget,
            seed=seed,
            progress=lambda message: say(began, message),
            timeout=compile_timeout,
        )
    if out is not None:
        report.write(outcome, out)
    if as_json:
        print(json.dumps(report.result(outcome), indent=2))
    else:
        report.show(outcome, out)


def _optimize_file(program: str, target: str | None, budget: float, seed: int, began: float):
    from agent.optimize import plan_offline
    from malloc_game import MallocGameError, load_problem, load_reference

    problem = load_problem(program)
    if target is not None and target != problem.target.name:
        raise MallocGameError(
            f"{program} is a problem for {problem.target.name}, not {target}; leave --target out"
        )
    say(began, "a problem file has no program to compile: all numbers are predicted")
    return plan_offline(
        problem,
        load_reference(program, problem),
        budget=budget,
        seed=seed,
        progress=lambda message: say(began, message),
    )


@cli.command()
@click.argument("program")
@_target
@click.option("--out", type=click.Path(path_type=pathlib.Path), required=True,
              help="Problem file to write: *.json or *.json.gz.")  # fmt: skip
@click.option("--compile-timeout", type=click.FloatRange(1, 1e6), default=600.0, show_default=True,
              help="Seconds for one compile.")  # fmt: skip
def extract(program: str, target: str | None, out: pathlib.Path, compile_timeout: float) -> None:
    """Extract PROGRAM's memory-mapping problem with the real compiler.

    Example: mallocgame extract decode --target v4 --out decode-v4.json.gz
    """
    with importing():
        from agent import report
        from malloc_game import save_problem
        from workloads.compile import check_compiler
        from workloads.extract import extract as run
        from workloads.loader import resolve_spec

    target = need_target(program, target)
    if not _is_problem_file(str(out)):
        raise click.UsageError(f"--out {out}: a problem file is named *.json or *.json.gz")
    report.check_directory(out.parent)
    check_compiler()
    resolve_spec(program)
    problem, reference = run(program, target=target, timeout=compile_timeout)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_problem(problem, out, reference)
    print(
        f"{out}: {len(problem.instructions)} timed instructions, {len(problem.values)} values,"
        f" target {problem.target.name}; XLA's default mapping is included as the reference"
    )


@cli.command("import")
@click.argument("file")
@_target
@click.option("--out", type=click.Path(path_type=pathlib.Path), required=True,
              help="Problem file to write: *.json or *.json.gz.")  # fmt: skip
@click.option("--capacity", type=click.IntRange(1, 1 << 50), default=None,
              help="Bytes of the memory, for MiniMalloc CSV; by default the target's.")  # fmt: skip
def import_(file: str, target: str | None, out: pathlib.Path, capacity: int | None) -> None:
    """Make a problem file of FILE, without the TPU compiler.

    FILE is HLO (text or proto, scheduled or not), StableHLO, a JAX function
    (`path/to/file.py:function`, executed, or a suite name) or a MiniMalloc CSV. What FILE does not
    tell is stood in for, costs by a roofline; the problem's provenance says so.

    Example: mallocgame import module.hlo --target v5e --out module.json.gz
    """
    from agent import report
    from malloc_game import TARGETS, load_minimalloc_csv, save_problem

    if not _is_problem_file(str(out)):
        raise click.UsageError(f"--out {out}: a problem file is named *.json or *.json.gz")
    report.check_directory(out.parent)
    if file.endswith(".csv"):
        if capacity is None:
            named = need_target(f"{file} without --capacity", target)
            capacity = TARGETS[named].alternate_memory_bytes
        instance = load_minimalloc_csv(file, capacity)
        problem = instance.to_problem()
        said = f"a packing test: {instance.lower_bound_bytes()} of {capacity} bytes at the peak"
    else:
        if capacity is not None:
            raise click.UsageError("--capacity is for MiniMalloc CSV; the target has its own")
        from workloads.importing import describe, import_file

        problem = import_file(file, need_target(file, target))
        said = describe(problem)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_problem(problem, out)
    print(
        f"{out}: {len(problem.instructions)} timed instructions, {len(problem.values)} values,"
        f" target {problem.target.name}\n{said}"
    )


@cli.command()
@click.argument("problem_file", type=click.Path(path_type=pathlib.Path))
@click.argument("assignment_file", type=click.Path(path_type=pathlib.Path), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def evaluate(
    problem_file: pathlib.Path, assignment_file: pathlib.Path | None, as_json: bool
) -> None:
    """Predicted latency of mappings of a problem file: the baselines', and ASSIGNMENT_FILE's.

    Example: mallocgame evaluate decode-v4.json.gz out/decode/assignment.json
    """
    from agent import report
    from malloc_game import load_assignment, load_problem, load_reference

    problem = load_problem(problem_file)
    reference = load_reference(problem_file, problem)
    given = load_assignment(assignment_file, problem) if assignment_file else None
    rows = report.evaluate(problem, reference, given)
    if as_json:
        print(json.dumps({"problem": problem.name, "target": problem.target.name, "rows": rows}))
    else:
        report.show_evaluation(problem, rows)


@cli.command()
@click.argument("problem_file", type=click.Path(path_type=pathlib.Path))
@click.argument("assignment_file", type=click.Path(path_type=pathlib.Path), required=False)
@click.option("--out", type=click.Path(path_type=pathlib.Path), default=None,
              help="Picture to write (*.png, *.svg or *.pdf) instead of text.")  # fmt: skip
def render(
    problem_file: pathlib.Path, assignment_file: pathlib.Path | None, out: pathlib.Path | None
) -> None:
    """Draw a mapping of a problem file: alternate memory over logical time.

    Without ASSIGNMENT_FILE it is the mapping that travels with the problem (usually XLA's default),
    or greedy's if there is none.

    Example: mallocgame render decode-v4.json.gz out/decode/assignment.json --out decode.png
    """
    from agent import report
    from malloc_game import load_assignment, load_problem, render_text, save_image
    from malloc_game.errors import printable
    from malloc_game.render import image_format

    if out is not None:
        image_format(out)
        report.check_directory(out.parent)
    problem = load_problem(problem_file)
    if assignment_file is not None:
        mapping = load_assignment(assignment_file, problem)
    else:
        mapping = report.default_mapping(problem_file, problem)
    if out is None:
        print(render_text(problem, mapping), end="")
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        save_image(problem, mapping, out)
        drawn = f"{mapping.source or 'the mapping'} of {problem.name}"
        print(f"written to {out}: {printable(drawn)}")


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def programs(as_json: bool) -> None:
    """List the suite's programs.

    Example: mallocgame programs
    """
    from workloads.programs import SUITE
    from workloads.suite import suite

    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "family": suite()[name].family,
            "split": suite()[name].split,
            "description": (factory.__doc__ or "").strip().splitlines()[0],
        }
        for name, factory in SUITE.items()
    ]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        print(f"{row['name']:18} {row['split']:11} {row['description']}")


for command in (
    cli_fidelity.fidelity, cli_report.report, cli_suite.suite, cli_suite.bench, cli_race.race,
    cli_train.train, cli_time.time_, cli_doctor.doctor,
):  # fmt: skip
    cli.add_command(command)


if __name__ == "__main__":
    main()
