"""Commands killed at random moments, again and again, on the same files and the same cache.

    python -m tests.endurance.faults --faults 100          # or: make faults FAULTS=100

A fault is one of these, at a moment drawn from the time that the command takes: SIGKILL to the
command alone, to one of the processes that it started, or to all of them; SIGINT or SIGTERM to the
command; or the same command started a second time beside it. After each, no process of it may
live on, and every file under its final name must be one that the readers accept. After some, the
command runs to its end, on what the faults left: it must succeed.

`out/faults/faults.jsonl` has a line for each fault; a run goes on where the file ends. Exit code 1
if anything was lost.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import click

import malloc_game as mg
from tests.experiments.endurance.processes import kill, marked, new_mark, wait_until
from tests.helpers.paths import ROOT

# Relative frequencies of what is done to a command.
KINDS = {"kill command": 5, "kill all": 2, "kill child": 3, "interrupt": 1, "terminate": 1,
         "second run": 2}  # fmt: skip
_SIGNALS = {"kill command": signal.SIGKILL, "interrupt": signal.SIGINT,
            "terminate": signal.SIGTERM}  # fmt: skip
_TOO_LATE = "too late"  # the command had ended: does not count
_FINISH = 1 / 3  # of the faults are followed by a run to the end
_END_SECONDS = 45.0  # for processes to notice that they are orphans, and for an orderly end
_LONGEST = 900.0  # no run takes longer than this


@dataclasses.dataclass(frozen=True)
class Subject:
    """A command. check: raises if a file under its final name in the directory is no such file."""

    name: str
    arguments: Callable[[pathlib.Path], Sequence[str]]  # of its directory
    check: Callable[[pathlib.Path], None]
    results: tuple[str, ...]  # what a run to the end leaves in its directory


@dataclasses.dataclass
class Ended:
    """How a command ended."""

    code: int
    output: str


def _check_run(out: pathlib.Path) -> None:
    """`optimize`: all files or none, and a mapping that the game's rules allow."""
    from agent.report.run_files import RESULT, load_run

    if (out / RESULT).exists():
        run = load_run(out)
        if broken := mg.check(run.problem, run.assignment, expressible=False):
            raise AssertionError(f"a rule is broken: {broken[0]}")
        if run.result["compiled_speedup"] < 1:
            raise AssertionError("slower than XLA's default")
    elif out.exists() and any(not x.name.startswith(".") for x in out.iterdir()):
        raise AssertionError(f"files without {RESULT}: {sorted(x.name for x in out.iterdir())}")


def _check_problem(out: pathlib.Path) -> None:
    path = out / "problem.json.gz"
    if path.exists():
        problem = mg.load_problem(path)
        mg.load_reference(path, problem)


def _check_bench(out: pathlib.Path) -> None:
    from workloads.benchmark import rows

    for row in rows.results(out).read():
        if row.error is not None:
            raise AssertionError(f"{row.pair}, {row.solver}: {row.error}")


def _check_training(out: pathlib.Path) -> None:
    """What can be read without training: the agent. Checkpoints are read by the runs to the end."""
    from agent.learning.weights import load_agent

    if (out / "agent.msgpack").exists():
        load_agent(out / "agent.msgpack")


def subjects(work: pathlib.Path) -> dict[str, Subject]:
    """The commands, on inputs that are written to `work`."""
    from tests.helpers import training_for_tests

    chain = f"{ROOT / 'tests' / 'helpers' / 'programs_for_tests.py'}:chain"
    inputs = work / "inputs"
    inputs.mkdir(parents=True, exist_ok=True)
    (inputs / "config.json").write_text(training_for_tests.SMALL.to_json())
    problems = [
        word
        for path in training_for_tests.problem_files(inputs)
        for word in ("--problems", str(path))
    ]
    bench = ["heat-v4", "sinkhorn-v4", "adam_step-v4", "--seconds", "4"]
    for solver in ("greedy", "cpsat", "beam"):
        bench += ["--solver", solver]
    found = [
        Subject(
            "extract",
            lambda out: [
                "extract",
                chain,
                "--target",
                "v5e",
                "--out",
                str(out / "problem.json.gz"),
            ],
            _check_problem,
            ("problem.json.gz",),
        ),
        Subject(
            "optimize",
            lambda out: ["optimize", chain, "--target", "v4", "--budget", "8", "--out", str(out)],
            _check_run,
            ("result.json", "problem.json", "assignment.json", "report.html"),
        ),
        Subject(
            "bench",
            lambda out: ["bench", *bench, "--out", str(out)],
            _check_bench,
            ("results.jsonl", "report.md", "report.html"),
        ),
        Subject(
            "bench on a farm",
            lambda out: ["bench", *bench, "--workers", "2", "--out", str(out)],
            _check_bench,
            ("results.jsonl", "report.md", "report.html"),
        ),
        Subject(
            "train",
            lambda out: [
                *("train", "--config", str(inputs / "config.json")),
                *problems,
                *("--iterations", "14", "--resume", "--out", str(out)),
            ],
            _check_training,
            ("agent.msgpack", "config.json", "metrics.jsonl"),
        ),
    ]
    return {subject.name: subject for subject in found}


class Victim:
    """One run of a command, in a session of its own, with its output in a file."""

    def __init__(self, subject: Subject, work: pathlib.Path, out: pathlib.Path, log: str):
        self.mark = new_mark()
        self._log = work / f"{log}.log"
        scratch = work / "tmp"
        scratch.mkdir(exist_ok=True)
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "agent.cli", *subject.arguments(out)],
                cwd=ROOT,
                env={
                    **os.environ,
                    **self.mark,
                    "PYTHONPATH": str(ROOT),
                    "TMPDIR": str(scratch),
                    "MALLOCGAME_CACHE": str(work / "cache"),
                    "JAX_COMPILATION_CACHE_DIR": str(work / "jax"),
                    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3",
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def children(self) -> list[int]:
        """Processes that it started, directly or not."""
        return [pid for pid in marked(self.mark) if pid != self.process.pid]

    def wait(self, seconds: float) -> Ended | None:
        """How it ended; None if it goes on."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        return Ended(code, self._log.read_text(errors="replace"))


def _fault(kind: str, victim: Victim, rng: random.Random) -> str:
    """Do it; returns what was done, for a child may not have been there."""
    children = victim.children()
    if kind == "kill child" and children:
        kill([rng.choice(children)])
    elif kind == "kill all":
        kill([victim.process.pid, *children])
    else:
        kind = kind if kind in _SIGNALS else "kill command"
        victim.process.send_signal(_SIGNALS[kind])
    return kind


def _losses_of(ended: Ended | None, kind: str) -> list[str]:
    """What is wrong with the end of a command."""
    if ended is None:
        return ["it did not end"]
    if "Traceback" in ended.output:
        return [f"a traceback: {ended.output.strip().splitlines()[-1][:200]}"]
    # An orderly end, an error of the compiler, pairs lost on the farm, or the signal itself.
    allowed = {
        "kill child": {0, 1, 2, 3},
        "second run": {0, 2},
        "interrupt": {0, 130, -2},
        "terminate": {0, 143, -15},
        "kill command": {0, -9},
        "kill all": {0, -9},
        _TOO_LATE: {0},
    }
    if ended.code not in allowed[kind]:
        return [f"exit code {ended.code}: {ended.output.strip()[-200:]}"]
    return []


def one(
    subject: Subject, kind: str, seconds: float, work: pathlib.Path, rng: random.Random
) -> dict:
    """One fault, and what was lost by it."""
    out = work / subject.name.replace(" ", "_")
    out.mkdir(parents=True, exist_ok=True)
    victim = Victim(subject, work, out, "first")
    moment = rng.uniform(0, seconds)
    ended = victim.wait(moment)
    runs = [victim]
    lost: list[str] = []
    if ended is not None:  # it was quicker this time: no fault
        kind = _TOO_LATE
    elif kind == "second run":
        second = Victim(subject, work, out, "second")
        runs.append(second)
        lost += _losses_of(second.wait(_LONGEST), kind)
        ended = victim.wait(_LONGEST)
    else:
        kind = _fault(kind, victim, rng)
        # Only after the loss of a child it has something left to do.
        ended = victim.wait(_LONGEST if kind == "kill child" else _END_SECONDS)
    lost += _losses_of(ended, kind)
    for run in runs:
        if not wait_until(lambda run=run: not marked(run.mark), _END_SECONDS):
            lost.append(f"orphans: {len(marked(run.mark))}")
            kill(marked(run.mark))
    try:
        subject.check(out)
    except Exception as error:
        lost.append(f"a file that cannot be used: {type(error).__name__}: {error}"[:300])
    left = sorted(x.name for x in (work / "tmp").iterdir())
    return {
        "subject": subject.name,
        "kind": kind,
        "at_seconds": round(moment, 2),
        "code": None if ended is None else ended.code,
        "lost": lost,
        "left_in_tmp": len(left),
    }


def finish(subject: Subject, work: pathlib.Path) -> tuple[float, list[str]]:
    """A run to the end on what is there: seconds, and what was wrong. Leaves nothing there."""
    out = work / subject.name.replace(" ", "_")
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    run = Victim(subject, work, out, "first")
    ended = run.wait(_LONGEST)
    seconds = time.monotonic() - began
    lost = _losses_of(ended, "kill command")
    if not lost and ended is not None and ended.code != 0:
        lost.append(f"exit code {ended.code}: {ended.output.strip()[-200:]}")
    try:
        subject.check(out)
        lost += [f"{name} is missing" for name in subject.results if not (out / name).exists()]
    except Exception as error:
        lost.append(f"a file that cannot be used: {type(error).__name__}: {error}"[:300])
    kill(marked(run.mark))
    if not lost:
        shutil.rmtree(out)
    return seconds, lost


def table(records: Sequence[dict]) -> str:
    """Faults by command and kind, and what was lost, as Markdown."""
    counts = collections.Counter((r["subject"], r["kind"]) for r in records)
    names = list(dict.fromkeys(r["subject"] for r in records))
    kinds = [kind for kind in [*KINDS, "run to the end"] if any(k == kind for _, k in counts)]
    lines = [f"| command | {' | '.join(kinds)} | lost |", "|---|" + "---:|" * (len(kinds) + 1)]
    for name in names:
        lost = sum(len(r["lost"]) for r in records if r["subject"] == name)
        cells = [str(counts[name, kind]) for kind in kinds]
        lines.append(f"| {name} | {' | '.join(cells)} | {lost} |")
    faults = sum(r["kind"] in KINDS for r in records)
    lost = sum(len(r["lost"]) for r in records)
    return "\n".join([*lines, "", f"{faults} faults, {lost} losses"])


@click.command()
@click.option("--faults", type=click.IntRange(1), default=100, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--only", multiple=True, help="Only these commands; all by default.")
@click.option("--out", type=click.Path(path_type=pathlib.Path), default="out/faults",
              show_default=True)  # fmt: skip
def main(faults: int, seed: int, only: tuple[str, ...], out: pathlib.Path) -> None:
    """Injects faults until `out/faults.jsonl` holds as many as are wanted."""
    # A shell's background job hands down that SIGINT is to be ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    out = out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    journal = out / "faults.jsonl"
    records = [json.loads(x) for x in journal.read_text().splitlines()] if journal.exists() else []
    chosen = [s for s in subjects(out).values() if not only or s.name in only]
    if not chosen:
        raise click.UsageError(f"--only: need some of {', '.join(subjects(out))}")

    def keep(record: dict) -> None:
        records.append(record)
        with journal.open("a") as file:
            file.write(json.dumps(record) + "\n")
        lost = "; ".join(record["lost"]) or "nothing lost"
        click.echo(
            f"[{len(records)}] {record['subject']}, {record['kind']}"
            f" at {record['at_seconds']} s: {lost}"
        )

    def end(subject: Subject) -> float:
        took, lost = finish(subject, out)
        keep({"subject": subject.name, "kind": "run to the end", "at_seconds": round(took, 2),
              "code": None, "lost": lost, "left_in_tmp": None})  # fmt: skip
        return took

    seconds = {subject.name: end(subject) for subject in chosen}
    while (done := sum(r["kind"] in KINDS for r in records)) < faults:
        rng = random.Random(f"{seed} {len(records)}")
        subject = chosen[done % len(chosen)]
        kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
        keep(one(subject, kind, seconds[subject.name], out, rng))
        if rng.random() < _FINISH:
            seconds[subject.name] = end(subject)
    for subject in chosen:
        end(subject)
    click.echo(table(records))
    sys.exit(any(record["lost"] for record in records))


if __name__ == "__main__":
    main()
