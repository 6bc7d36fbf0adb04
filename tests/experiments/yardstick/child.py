"""One run of `tests.experiments.yardstick`: the script's compiles, kept and then judged.

    python -m tests.experiments.yardstick.child SCRIPT CONTENDER PROGRAM TARGET SECONDS SEED BEGAN

As `agent.racing.child`, with a program of the suite only.
"""

from __future__ import annotations

import json
import os
import pathlib
import runpy
import shutil
import sys
import tempfile
import time
import traceback

import jax

from malloc_game import TARGETS
from workloads.compiler.child import read_module
from workloads.costs.judge import compiled_latency
from workloads.hlo.module import Module

# What the script is told is the program: of the suite, by its name.
_PROGRAM = """
from workloads.programs.loader import load_program

def program():
    found = load_program({name!r})
    return found.fn, found.args
"""


def run(script: str, program: str, target: str, seconds: float, began: float) -> dict:
    """Seconds and judged cycles of what the script compiled; its first compile is XLA's default.

    Where the script fails, what it had compiled by then counts.
    """
    compiled: list[tuple[float, bytes]] = []
    jit, compile_ = jax.jit, jax.stages.Lowered.compile

    def keep_donations(*args, **options):
        is_jitted = args and hasattr(args[0], "lower") and not options
        return args[0] if is_jitted else jit(*args, **options)

    with tempfile.TemporaryDirectory(prefix="mallocgame-yardstick-") as name:
        folder = pathlib.Path(name)

        def keep(self, *args, **options):
            shutil.rmtree(folder / "dump", ignore_errors=True)
            done = compile_(self, *args, **options)
            at = time.monotonic() - began
            if module := read_module(folder / "dump"):  # else JAX had this one
                compiled.append((round(at, 2), module))
            return done

        jax.jit, jax.stages.Lowered.compile = keep_donations, keep  # type: ignore[method-assign]
        os.environ["XLA_FLAGS"] = f"--xla_dump_to={folder}/dump --xla_dump_hlo_as_proto"
        path = folder / "program.py"
        path.write_text(_PROGRAM.format(name=program))
        left = str(seconds - (time.monotonic() - began))
        sys.argv = [script, f"{path}:program", target, "--rounds", "1000000", "--seconds", left]
        try:
            runpy.run_path(script, run_name="__main__")
        except (Exception, SystemExit):
            if not compiled:
                raise
            traceback.print_exc()
    judged = [
        (at, compiled_latency(Module(hlo), TARGETS[target]).cycles)
        for at, hlo in compiled
        if at <= seconds or hlo is compiled[0][1]
    ]
    return {"history": judged, "xla_default": judged[0][1]}


def main(arguments: list[str]) -> None:
    """The command line of the module."""
    script, _, program, target, seconds, _, began = arguments
    print(json.dumps(run(script, program, target, float(seconds), float(began))))


if __name__ == "__main__":
    main(sys.argv[1:])
