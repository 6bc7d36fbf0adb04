"""One run of one contender, alone in its process: what `race` starts.

    python -m agent.racing.child CONTENDER PROGRAM TARGET SECONDS SEED BEGAN

BEGAN is `time.monotonic()` where the clock started. Prints one JSON object: "history", the seconds
and the cycles of every improvement, "found_by", what found each, and "xla_default", cycles, all
compiled.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable

from malloc_game.solvers import SOLVERS

OPTIMIZE = "optimize"


def run(contender: str, program: str, target: str, seconds: float, seed: int, began: float) -> dict:
    """What the contender had the compiler make; see the module."""
    found: Iterable[tuple[float, float, str]]
    if contender == OPTIMIZE:
        from agent.tuning.main_job import optimize

        offset = time.monotonic() - began
        outcome = optimize(program, target, seed=seed, deadline=began + seconds)
        found, xla_default = outcome.history, outcome.xla_default_cycles
    elif contender in SOLVERS:
        from agent.racing.solver import solve_and_compile

        offset = time.monotonic() - began
        solved = solve_and_compile(contender, program, target, seed=seed, deadline=began + seconds)
        found, xla_default = solved.history, solved.xla_default
    else:
        from workloads.baselines import run as run_baseline
        from workloads.compiler.session import CompilerSession

        with CompilerSession(program, target) as session:
            offset = time.monotonic() - began
            raced = run_baseline(contender, session, max(0.0, seconds - offset), seed)
        found = ((at, cycles, contender) for at, cycles in raced.history)
        xla_default = raced.xla_default_cycles
    improvements = [(round(at + offset, 2), cycles, name) for at, cycles, name in found]
    return {
        "history": [(at, cycles) for at, cycles, _ in improvements],
        "found_by": [name for *_, name in improvements],
        "xla_default": xla_default,
    }


def main(arguments: list[str]) -> None:
    """The command line of the module."""
    contender, program, target, seconds, seed, began = arguments
    found = run(contender, program, target, float(seconds), int(seed), float(began))
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
