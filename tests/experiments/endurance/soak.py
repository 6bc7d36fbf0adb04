"""`optimize` for hours in one process: random programs and targets, one after another.

    python -m tests.endurance.soak --minutes 120           # or: make soak SOAK_MINUTES=120

After each run: the mapping keeps the game's rules, the compiled program is not slower than XLA's
default, no process and no file in the temporary directory is left. Memory, compiled functions and
open descriptors of this process are noted after each run; the first third is given to it for what
is kept by design (compiled code of the latest few sizes of a problem), then their growth is
measured.

`out/soak/soak.jsonl` has a line for each run. Exit code 1 if anything was lost.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import pathlib
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence

import click
from jax.extend.backend import get_backend

import malloc_game as mg
from tests.experiments.endurance.processes import kill, marked, new_mark, own_mark, wait_until
from tests.helpers.paths import ROOT

CHAIN = f"{ROOT / 'tests' / 'helpers' / 'programs_for_tests.py'}:chain"
# Programs that compile within seconds, so that there are many runs in an hour.
PROGRAMS = (CHAIN, "lstm", "heat", "sinkhorn", "adam_step", "train_mlp", "scan_transformer",
            "alexnet", "transformer", "decode")  # fmt: skip
FLAT = 0.05  # memory may grow by so much of itself from the middle third to the last


def resident_mib() -> float:
    """Memory of this process, in MiB, after what is free has been given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def one(program: str, target: str, seed: int, budget: float, mark: dict[str, str]) -> dict:
    """One run, and what was wrong with it."""
    lost: list[str] = []
    files = set(os.listdir(tempfile.gettempdir()))
    began = time.monotonic()
    result = mg.optimize(program, target=target, budget=budget, seed=seed)
    seconds = time.monotonic() - began
    # What the compiler made of it: XLA's own mapping has slices and evictions.
    for broken in mg.check(result.problem, result.assignment, expressible=False)[:3]:
        lost.append(f"a rule is broken: {broken}"[:300])
    if result.compiled_speedup < 1:
        lost.append(f"{result.compiled_speedup}x: slower than XLA's default")
    compiles = result.outcome.num_compiles
    speedup = result.compiled_speedup
    del result
    if not wait_until(lambda: marked(mark) == [os.getpid()], 20):
        lost.append(f"{len(marked(mark)) - 1} processes are left")
        kill([pid for pid in marked(mark) if pid != os.getpid()])
    if left := sorted(set(os.listdir(tempfile.gettempdir())) - files):
        lost.append(f"left in the temporary directory: {', '.join(left)[:200]}")
    return {
        "program": program.rpartition("/")[2],
        "target": target,
        "seed": seed,
        "seconds": round(seconds, 1),
        "compiles": compiles,
        "speedup": speedup,
        "lost": lost,
        "resident_mib": round(resident_mib(), 1),
        "executables": len(get_backend().live_executables()),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
    }


def growth(records: Sequence[dict], name: str) -> float:
    """Median of the last third over that of the middle third, less one."""
    third = len(records) // 3
    if third == 0:
        return 0.0
    middle = statistics.median(r[name] for r in records[third : 2 * third])
    return statistics.median(r[name] for r in records[2 * third :]) / middle - 1


@click.command()
@click.option("--minutes", type=click.FloatRange(0.1), default=120.0, show_default=True)
@click.option("--budget", type=click.FloatRange(1), default=15.0, show_default=True,
              help="Seconds of one run, after its first two compiles.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=pathlib.Path), default="out/soak",
              show_default=True)  # fmt: skip
def main(minutes: float, budget: float, seed: int, out: pathlib.Path) -> None:
    """Runs optimize until the time is up."""
    mark = own_mark()
    if mark is None:  # the kernel shows the environment that a process began with
        os.environ.update(new_mark())
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    out.mkdir(parents=True, exist_ok=True)
    scratch = (out / "tmp").absolute()
    scratch.mkdir(exist_ok=True)
    tempfile.tempdir = os.environ["TMPDIR"] = str(scratch)
    os.environ.setdefault("MALLOCGAME_CACHE", str((out / "cache").absolute()))
    rng = random.Random(seed)
    records: list[dict] = []
    deadline = time.monotonic() + 60 * minutes
    with (out / "soak.jsonl").open("w") as journal:
        while time.monotonic() < deadline:
            program, target = rng.choice(PROGRAMS), rng.choice(sorted(mg.TARGETS))
            record = one(program, target, len(records), budget, mark)
            records.append(record)
            journal.write(json.dumps(record) + "\n")
            journal.flush()
            click.echo(
                f"[{len(records)}] {record['program']} on {target}: {record['speedup']:.3f}x,"
                f" {record['resident_mib']:.0f} MiB, {record['executables']} executables,"
                f" {record['descriptors']} descriptors,"
                f" {record['threads']} threads; {'; '.join(record['lost']) or 'nothing lost'}"
            )
    grown = growth(records, "resident_mib")
    opened = growth(records, "descriptors")
    lost = sum(len(r["lost"]) for r in records)
    click.echo(
        f"{len(records)} runs in {minutes:g} minutes, {sum(r['compiles'] for r in records)}"
        f" compiles, {lost} losses; memory of the last third over that of the middle third:"
        f" {grown:+.1%}, open descriptors {opened:+.1%}"
    )
    sys.exit(bool(lost) or grown > FLAT or opened > 0)


if __name__ == "__main__":
    main()
