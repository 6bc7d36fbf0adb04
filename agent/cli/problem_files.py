"""The commands that make, judge and draw problem files: extract, import, evaluate, render."""

from __future__ import annotations

import json
import pathlib

import click

from agent.cli.common import is_problem_file, need_target, target_option
from agent.cli.interrupts import importing


@click.command()
@click.argument("program")
@target_option
@click.option("--out", type=click.Path(path_type=pathlib.Path), required=True,
              help="Problem file to write: *.json or *.json.gz.")  # fmt: skip
@click.option("--compile-timeout", type=click.FloatRange(1, 1e6), default=600.0, show_default=True,
              help="Seconds for one compile.")  # fmt: skip
def extract(program: str, target: str | None, out: pathlib.Path, compile_timeout: float) -> None:
    """Extract PROGRAM's memory-mapping problem with the real compiler.

    Example: mallocgame extract decode --target v4 --out decode-v4.json.gz
    """
    with importing():
        from agent.report import results
        from malloc_game import save_problem
        from workloads.compiler.session import check_compiler
        from workloads.extraction.pipeline import extract as run
        from workloads.programs.loader import resolve_spec

    target = need_target(program, target)
    if not is_problem_file(str(out)):
        raise click.UsageError(f"--out {out}: a problem file is named *.json or *.json.gz")
    results.check_directory(out.parent)
    check_compiler()
    resolve_spec(program)
    problem, reference = run(program, target=target, timeout=compile_timeout)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_problem(problem, out, reference)
    print(
        f"{out}: {len(problem.instructions)} timed instructions, {len(problem.values)} values,"
        f" target {problem.target.name}; XLA's default mapping is included as the reference"
    )


@click.command("import")
@click.argument("file")
@target_option
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
    from agent.report import results
    from malloc_game import TARGETS, load_minimalloc_csv, save_problem

    if not is_problem_file(str(out)):
        raise click.UsageError(f"--out {out}: a problem file is named *.json or *.json.gz")
    results.check_directory(out.parent)
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
        from workloads.importers.pipeline import describe, import_file

        problem = import_file(file, need_target(file, target))
        said = describe(problem)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_problem(problem, out)
    print(
        f"{out}: {len(problem.instructions)} timed instructions, {len(problem.values)} values,"
        f" target {problem.target.name}\n{said}"
    )


@click.command()
@click.argument("problem_file", type=click.Path(path_type=pathlib.Path))
@click.argument("assignment_file", type=click.Path(path_type=pathlib.Path), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def evaluate(
    problem_file: pathlib.Path, assignment_file: pathlib.Path | None, as_json: bool
) -> None:
    """Predicted latency of mappings of a problem file: the baselines', and ASSIGNMENT_FILE's.

    Example: mallocgame evaluate decode-v4.json.gz out/decode/assignment.json
    """
    from agent.report import results
    from malloc_game import load_assignment, load_problem, load_reference

    problem = load_problem(problem_file)
    reference = load_reference(problem_file, problem)
    given = load_assignment(assignment_file, problem) if assignment_file else None
    rows = results.evaluate(problem, reference, given)
    if as_json:
        print(json.dumps({"problem": problem.name, "target": problem.target.name, "rows": rows}))
    else:
        results.show_evaluation(problem, rows)


@click.command()
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
    from agent.report import results
    from malloc_game import load_assignment, load_problem, render_text, save_image
    from malloc_game.errors import printable
    from malloc_game.render.image import image_format

    if out is not None:
        image_format(out)
        results.check_directory(out.parent)
    problem = load_problem(problem_file)
    if assignment_file is not None:
        mapping = load_assignment(assignment_file, problem)
    else:
        mapping = results.default_mapping(problem_file, problem)
    if out is None:
        print(render_text(problem, mapping), end="")
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        save_image(problem, mapping, out)
        drawn = f"{mapping.source or 'the mapping'} of {problem.name}"
        print(f"written to {out}: {printable(drawn)}")
