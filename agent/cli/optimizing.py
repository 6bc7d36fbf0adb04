"""The command `optimize`: the main job."""

from __future__ import annotations

import json
import os
import pathlib
import sys
import time

import click

from agent.cli.common import is_problem_file, need_target, say, target_option
from agent.cli.interrupts import importing


@click.command("optimize")
@click.argument("program")
@target_option
@click.option("--budget", type=click.FloatRange(1, 1e6), default=60.0, show_default=True,
              help="Seconds of planning, after the two compiles that every run needs.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=pathlib.Path), default=None,
              help="Directory for results.html, result.json, assignment.json, problem.json, and the"
              " long compiler options (*.textproto).")  # fmt: skip
@click.option("--compile-timeout", type=click.FloatRange(1, 1e6), default=600.0, show_default=True,
              help="Seconds for one compile.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print result.json instead of a table.")
def command(
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
        from agent.cli.jit_cache import keep_compiled_code
        from agent.report import results
        from agent.tuning.main_job import optimize
        from workloads.compiler.cache import cache_directory
        from workloads.compiler.session import check_compiler
        from workloads.programs.loader import resolve_spec

    began = time.monotonic()
    if out is not None:
        results.check_directory(out)
    keep_compiled_code(cache_directory() / "jax")
    if is_problem_file(program):
        outcome = _optimize_file(program, target, budget, seed, began)
    else:
        target = need_target(program, target)
        check_compiler()
        resolve_spec(program)
        outcome = optimize(
            program,
            target,
            budget=budget,
            seed=seed,
            progress=lambda message: say(began, message),
            timeout=compile_timeout,
        )
    if out is not None:
        results.write(outcome, out)
    if as_json:
        print(json.dumps(results.result(outcome), indent=2))
    else:
        results.show(outcome, out)
    if outcome.is_interrupted:
        # Planning is under way in a thread, which may take a minute to notice.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(130)


def _optimize_file(program: str, target: str | None, budget: float, seed: int, began: float):
    from agent.tuning.main_job import plan_offline
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
