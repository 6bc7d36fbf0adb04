"""Contenders that use the compiler, on the same programs for the same time, each from a cold start.

Every run is a process of its own with an empty cache: it imports, loads the program, compiles it
as XLA maps it and with everything in default memory, and goes on until the time is up. What is
compiled after that does not count.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from typing import Any

from agent.racing.child import OPTIMIZE
from malloc_game.platform import num_cores
from malloc_game.solvers import SOLVERS
from workloads.baselines import COMPILER_BASELINES
from workloads.benchmark import rows
from workloads.benchmark.keeping import Keeper, Progress
from workloads.benchmark.rows import RaceRow
from workloads.errors import WorkloadError
from workloads.programs.suite_problems import Pair

CONTENDERS = (OPTIMIZE, *COMPILER_BASELINES)
# Seconds for the compile that is under way when the time is up, and for leaving.
_GRACE = 900.0


def choose_contenders(names: Sequence[str], others: Iterable[str] = ()) -> tuple[str, ...]:
    """The contenders of these names; `CONTENDERS`, and who else is there, if there are none.

    Any solver may be one, too (`agent.racing.solver`), if it is named.
    others: names of contenders that are not ours; once or more.

    Raises: WorkloadError: no such contender.
    """
    known = tuple(dict.fromkeys((*CONTENDERS, *others)))
    possible = tuple(dict.fromkeys((*known, *SOLVERS)))
    for name in names:
        if name not in possible:
            raise WorkloadError(f"no contender {name!r}; there are {', '.join(possible)}")
    return tuple(dict.fromkeys(names)) or known


def race(
    pairs: Sequence[Pair],
    contenders: Sequence[str],
    seconds: float,
    seeds: Sequence[int],
    out: pathlib.Path,
    progress: Progress,
    child: Sequence[str] = ("agent.racing.child",),
) -> list[RaceRow]:
    """Run every contender on every pair with every seed; all their rows.

    A row is in `out/race.jsonl` as soon as it is there; what is there already is not run again,
    unless it failed. progress: called with runs done, of how many, and a line. child: the module
    that is one run, and its first arguments; the rest, and what it prints: see
    `agent.racing.child`.

    Raises: MallocGameError: `out` cannot be written, or what is there cannot be read.
    """
    with rows.race_results(out) as journal:
        keeper = Keeper(journal, _describe, progress)
        done = keeper.done
        tasks = [(pair, name, seed) for pair in pairs for seed in seeds for name in contenders]

        def key(pair: Pair, name: str, seed: int) -> tuple:
            return pair.name, name, seed, seconds

        todo = [task for task in tasks if (row := done.get(key(*task))) is None or row.error]
        keeper.begin(len(tasks) - len(todo), len(tasks), "runs are there")
        for pair, name, seed in todo:
            keeper.say(f"{pair.name}: {name}, seed {seed}")
            keeper.keep(_run_one(pair, name, seconds, seed, child))
        return [done[key(*task)] for task in tasks]


def _describe(row: RaceRow) -> str:
    what = row.error or f"estimated ratio {row.speedup:.4f}, found by {row.found_by}"
    return f"{row.pair}: {row.contender}, seed {row.seed}: {what}"


def _run_one(pair: Pair, name: str, seconds: float, seed: int, child: Sequence[str]) -> RaceRow:
    """One run; it is not in the journal. What the child prints and how it ends are in the row."""
    began = time.monotonic()
    command = [sys.executable, "-m", *child, name, pair.program, pair.target]
    command += [str(seconds), str(seed), str(began)]
    error: Any = None
    found: dict[str, Any] = {"history": [], "xla_default": None}
    with tempfile.TemporaryDirectory(prefix="mallocgame-race-") as cache:
        try:
            done = subprocess.run(
                command,
                env={**os.environ, "MALLOCGAME_CACHE": cache},
                capture_output=True,
                text=True,
                timeout=seconds + _GRACE,
            )
            if done.returncode == 0:
                found = json.loads(done.stdout.splitlines()[-1])
            else:
                error = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        except subprocess.TimeoutExpired:
            error = f"still running {_GRACE:.0f} s after its time was up"
    history = tuple((at, cycles) for at, cycles in found["history"])
    default = found["xla_default"]
    in_time = [cycles for at, cycles in history if at <= seconds]
    # Who has compiled nothing in time leaves the program to XLA.
    best: Any = default if default is None else min([default, *in_time])
    speedup: Any = rows.ratio(default, best)
    # A contender that does not say has found all by itself.
    names = found.get("found_by") or [name] * len(history)
    found_by = [finder for (at, _), finder in zip(history, names, strict=True) if at <= seconds]
    return RaceRow(
        program=pair.program,
        target=pair.target,
        family=pair.family,
        split=pair.split,
        contender=name,
        seed=seed,
        seconds_limit=seconds,
        cores=num_cores(),
        xla_default=default,
        compiled=best,
        speedup=speedup,
        found_by=found_by[-1] if found_by else None,
        history=history,
        seconds=round(time.monotonic() - began, 2),
        error=error,
        versions=rows.versions(),
    )
