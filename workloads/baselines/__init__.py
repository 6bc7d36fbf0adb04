"""Baselines of the agent that compile whatever they try: the compiler itself judges every step.

from workloads.baselines import run
with CompilerSession("decode", "v4") as session:
    result = run("learned_greedy", session, seconds=120)
"""

from __future__ import annotations

from collections.abc import Callable

from workloads.baselines.clocked_run import BaselineResult, Race, TimeIsUp
from workloads.baselines.greedy_by_costs import learned_greedy
from workloads.baselines.hill_climber import hill_climbing
from workloads.baselines.xla_options import knobs
from workloads.compiler.session import CompilerSession
from workloads.errors import WorkloadError
from workloads.progress import Progress, silent

# (race, seed): starts the race and compiles until there is nothing to try, or TimeIsUp is raised.
COMPILER_BASELINES: dict[str, Callable[[Race, int], None]] = {
    "learned_greedy": learned_greedy,
    "knobs": knobs,
    "hill_climbing": hill_climbing,
}


def run(
    name: str,
    session: CompilerSession,
    seconds: float,
    seed: int = 0,
    progress: Progress = silent,
    max_compiles: int | None = None,
) -> BaselineResult:
    """Give a baseline (a key of `COMPILER_BASELINES`) so many seconds on the session's program.

    The clock starts now and includes everything. A compile that begins in time may end after it; it
    does not count then, but for the first two (everything in default memory, and XLA's default),
    without which there is no result. max_compiles: at most so many, those two included. What the
    compiler refuses, does not survive or does not answer in time is a failed try.

    Raises:
      WorkloadError: no such baseline, or the program cannot be loaded. CompileError: it cannot be
        compiled.
    """
    if name not in COMPILER_BASELINES:
        raise WorkloadError(f"no baseline {name!r}; there are {', '.join(COMPILER_BASELINES)}")
    race = Race(session, seconds, max_compiles, progress)
    try:
        COMPILER_BASELINES[name](race, seed)
    except TimeIsUp:
        pass
    return race.result(name)


__all__ = ["COMPILER_BASELINES", "Progress", "BaselineResult", "run"]
