"""One run of one contender, alone in its process: what `race` starts.

    python -m agent.racing.child CONTENDER PROGRAM TARGET SECONDS SEED BEGAN

BEGAN is `time.monotonic()` where the clock started. Prints one JSON object: "history", the seconds
and the cycles of every improvement, and "xla_default", cycles, all compiled.
"""

from __future__ import annotations

import json
import sys
import time

from malloc_game.solvers import SOLVERS

OPTIMIZE = "optimize"


def run(contender: str, program: str, target: str, seconds: float, seed: int, began: float) -> dict:
    """What the contender had the compiler make; see the module."""
    if contender == OPTIMIZE:
        from agent.tuning.main_job import optimize

        offset = time.monotonic() - began
        found = optimize(program, target, seed=seed, deadline=began + seconds)
        history, xla_default = found.history, found.candidates["xla_default"].compiled
    elif contender in SOLVERS:
        from agent.racing.solver import solve_and_compile

        offset = time.monotonic() - began
        solved = solve_and_compile(contender, program, target, seed=seed, deadline=began + seconds)
        history, xla_default = solved.history, solved.xla_default
    else:
        from workloads.baselines import run as run_rival
        from workloads.compiler.session import CompilerSession

        with CompilerSession(program, target) as session:
            offset = time.monotonic() - began
            raced = run_rival(contender, session, max(0.0, seconds - offset), seed)
        history, xla_default = raced.history, raced.xla_default_cycles
    shifted = [(round(at + offset, 2), cycles) for at, cycles in history]
    return {"history": shifted, "xla_default": xla_default}


def main(arguments: list[str]) -> None:
    """The command line of the module."""
    contender, program, target, seconds, seed, began = arguments
    found = run(contender, program, target, float(seconds), int(seed), float(began))
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
