"""One run of `tests.yardstick`: the script in this process, its compiles kept and then judged.

    python -m tests.yardstick_child SCRIPT CONTENDER PROGRAM TARGET SECONDS SEED BEGAN

As `agent.race_child`, with a program of the suite only.
"""

from __future__ import annotations

import json
import pathlib
import runpy
import sys
import tempfile
import time

import jax

from malloc_game import TARGETS
from workloads.hlo import Module
from workloads.judge import compiled_latency

# What the script is told is the program: of the suite, by its name.
_PROGRAM = """
from workloads.loader import load_program

def program():
    found = load_program({name!r})
    return found.fn, found.args
"""


def run(script: str, program: str, target: str, seconds: float, began: float) -> dict:
    """Seconds and judged cycles of what the script compiled; its first compile is XLA's default."""
    compiled: list[tuple[float, bytes]] = []
    compile_ = jax.stages.Lowered.compile

    def keep(self, *args, **options):
        done = compile_(self, *args, **options)
        [module] = done.runtime_executable().hlo_modules()
        at = time.monotonic() - began
        compiled.append((round(at, 2), module.as_serialized_hlo_module_proto()))
        return done

    jax.stages.Lowered.compile = keep  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory(prefix="mallocgame-yardstick-") as folder:
        path = pathlib.Path(folder) / "program.py"
        path.write_text(_PROGRAM.format(name=program))
        left = seconds - (time.monotonic() - began)
        sys.argv = [
            script,
            f"{path}:program",
            target,
            "--rounds",
            "1000000",
            "--seconds",
            str(left),
        ]
        runpy.run_path(script, run_name="__main__")
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
