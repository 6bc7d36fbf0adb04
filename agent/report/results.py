"""Results for people and scripts: the table, the snippet to paste, and the files of a run."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import tempfile
from typing import Any

import jax
from rich.console import Console
from rich.table import Table
from rich.text import Text

import malloc_game as mg
from agent.report.page import to_html
from agent.report.run_files import ASSIGNMENT, PAGE, PROBLEM, RESULT, Run
from agent.tuning.main_job import OVERRIDES_OPTION, SORT_ORDER_OPTION
from agent.tuning.outcome import LABELS, SOURCES, Candidate, Outcome
from malloc_game.errors import MallocGameError, printable
from malloc_game.estimator import ESTIMATOR, NO_CLAIM

# Long compiler options, each in a file of its own.
OPTION_FILES = {
    OVERRIDES_OPTION: "overrides.textproto",
    SORT_ORDER_OPTION: "sort_order.textproto",
}
_FILES = (RESULT, ASSIGNMENT, *OPTION_FILES.values(), PROBLEM, PAGE)


def result(outcome: Outcome) -> dict[str, Any]:
    """The content of result.json. Latencies are in cycles; None where nothing was compiled."""
    agent = outcome.candidates["agent"]

    def pair(candidate: Candidate) -> dict[str, float | None]:
        return {"predicted": candidate.predicted, "compiled": candidate.compiled}

    cycles = {source: pair(outcome.candidates[source]) for source in _sources(outcome)}
    return {
        "program": outcome.program,
        "target": outcome.target.name,
        "decisions": outcome.decisions,
        "versions": {"malloc_game": mg.__version__, **outcome.versions},
        "seed": outcome.seed,
        "seconds": round(outcome.seconds, 3),
        "best_source": outcome.best.source,
        "compiled_speedup": outcome.compiled_speedup,
        "compiled_speedup_monotone": outcome.compiled_speedup_monotone,
        "honoured": agent.honoured,
        "best_honoured": outcome.best.honoured,
        "latency_cycles": {**cycles, "best": pair(outcome.best)},
        "clock_hz": outcome.target.clock_hz,
        "estimator": ESTIMATOR,
        "compiles": outcome.num_compiles,
        "agent_found_by": outcome.agent_found_by,
        "agent_games": outcome.agent_stats.get("games", 0),
        "not_honoured": list(agent.not_honoured),
        "best_not_honoured": list(outcome.best.not_honoured),
        "compiler_options": dict(outcome.best.options),
    }


def run_of(outcome: Outcome) -> Run:
    """What a report of an outcome is made of."""
    return Run(
        result=result(outcome),
        problem=outcome.problem,
        reference=outcome.candidates["xla_default"].assignment,
        assignment=outcome.best.assignment or mg.all_default(outcome.problem),
    )


def _sources(outcome: Outcome) -> list[str]:
    """Sources of the outcome's candidates, in their order; some need the compiler."""
    return [source for source in SOURCES if source in outcome.candidates]


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=110)


def _title(text: str) -> Text:
    """A title that names what a file calls itself: no markup, nothing for the terminal to do."""
    return Text(printable(text))


def _cycles(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def show(outcome: Outcome, out: pathlib.Path | None) -> None:
    """Print the table of latencies, the verdict, and the compiler options to paste."""
    console = _console()
    table = Table(title=_title(f"{outcome.program} on {outcome.target.name}"))
    table.add_column("mapping")
    for column in ("predicted cycles", "predicted ms", "compiled cycles", "compiled ms"):
        table.add_column(column, justify="right")
    table.add_column("XLA default / this, estimated", justify="right")
    reference = outcome.candidates["xla_default"].compiled
    for source in (*_sources(outcome), "best"):
        candidate = outcome.best if source == "best" else outcome.candidates[source]
        label = LABELS[source] + (f" ({LABELS[candidate.source]})" if source == "best" else "")
        speedup = "-"
        if reference and candidate.compiled:
            speedup = f"{reference / candidate.compiled:.3f}x"
        milliseconds = [
            "-" if c is None else f"{outcome.target.seconds(c) * 1e3:.4f}"
            for c in (candidate.predicted, candidate.compiled)
        ]
        table.add_row(
            label, _cycles(candidate.predicted), milliseconds[0], _cycles(candidate.compiled),
            milliseconds[1], speedup,
        )  # fmt: skip
    console.print(table)
    agent = outcome.candidates["agent"]
    if agent.honoured is not None:
        print(
            f"decisions: {outcome.decisions}; the compiler honoured {agent.honoured:.2%} of the"
            f" agent's; {outcome.num_compiles} compiles, {outcome.seconds:.0f} s"
        )
    speedup = outcome.compiled_speedup
    if speedup is None:
        print("predicted only: nothing was compiled, so no speed-up is claimed")
    elif outcome.best.source == "xla_default":
        print("XLA's default mapping is the best that was found: nothing to change")
    else:
        print(
            f"estimated cycles, XLA's default over the best, both compiled: {speedup:.3f}"
            f" ({outcome.compiled_speedup_monotone:.3f} with monotone estimates)"
        )
    print(NO_CLAIM)
    if outcome.best.options and outcome.best.source != "xla_default":
        print(_snippet(outcome, out))
    if out is not None:
        print(f"written to {out}: {', '.join(_FILES)}")


def _snippet(outcome: Outcome, out: pathlib.Path | None) -> str:
    lines = ["", "On a TPU, compile with:", "", "compiler_options = {"]
    for name, value in outcome.best.options.items():
        file = OPTION_FILES.get(name)
        if file is None:
            text = repr(value)
        elif out is not None:
            text = f"open({str(out / file)!r}).read()"
        else:
            text = f"open({file!r}).read()  # written with --out DIR"
        lines.append(f"    {name!r}: {text},")
    lines.append("}")
    lines += ["jax.jit(fn).lower(*args).compile(compiler_options=compiler_options)", ""]
    return "\n".join(lines)


def check_directory(path: pathlib.Path, option: str = "--out") -> None:
    """Check before long work that a directory can be made and written.

    Raises:
      MallocGameError: it cannot, and why.
    """
    existing = path
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise MallocGameError(f"{option} {path}: {existing} is not a directory")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise MallocGameError(f"{option} {path}: no permission to write in {existing}")


def write(outcome: Outcome, out: pathlib.Path) -> None:
    """Write the files of a run to `out`: all of them or none.

    Raises:
      MallocGameError: a file cannot be written; then `out` is as it was before.
    """
    staging = None
    created = []
    try:
        for parent in (*reversed(out.parents), out):
            if not parent.exists():
                parent.mkdir()
                created.append(parent)
        staging = pathlib.Path(tempfile.mkdtemp(prefix=".mallocgame-", dir=out))
        run = run_of(outcome)
        mg.save_problem(run.problem, staging / PROBLEM, run.reference)
        mg.save_assignment(run.assignment, run.problem, staging / ASSIGNMENT)
        for option, file in OPTION_FILES.items():
            (staging / file).write_text(outcome.best.options.get(option, ""))
        (staging / RESULT).write_text(json.dumps(run.result, indent=2) + "\n")
        (staging / PAGE).write_text(to_html(run, OPTION_FILES), encoding="utf-8")
        for name in _FILES:
            os.replace(staging / name, out / name)
        created = []
    except OSError as error:
        raise MallocGameError(f"cannot write to {out}: {error.strerror or error}") from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
        for directory in reversed(created):
            if directory.exists() and not any(directory.iterdir()):
                directory.rmdir()


def default_mapping(problem_file: pathlib.Path, problem: mg.Problem) -> mg.Assignment:
    """The mapping to show of a problem: the one that travels with its file, else greedy's."""
    reference = mg.load_reference(problem_file, problem)
    if reference is not None:
        return reference
    program = mg.encode(problem)
    if not int(program.num_decisions):
        return mg.all_default(problem)
    return mg.to_assignment(problem, mg.greedy(program)[0], "greedy")


def evaluate(
    problem: mg.Problem, reference: mg.Assignment | None, given: mg.Assignment | None
) -> list[dict[str, Any]]:
    """Predicted latencies of the baselines and of a given assignment, with violations."""
    program = mg.encode(problem)
    assignments = {"all_default": mg.all_default(problem)}
    if reference is not None:
        assignments["xla_default"] = reference
    if int(program.num_decisions):
        state, _ = mg.greedy(program)
        assignments["greedy"] = mg.to_assignment(problem, state, "greedy")
        state, _ = mg.random_play(program, jax.random.key(0), 16)
        assignments["random (best of 16)"] = mg.to_assignment(problem, state, "random")
    if given is not None:
        assignments["given"] = given
    rows = []
    for name, assignment in assignments.items():
        found = mg.latency(problem, assignment)
        # What XLA placed uses slices and other means that the game's rules do not know.
        is_xlas = assignment.source.startswith(("xla_default", "guided"))
        violations = mg.check(problem, assignment, expressible=not is_xlas)
        rows.append(
            {
                "mapping": name,
                "predicted_cycles": found.cycles,
                "predicted_ms": problem.target.seconds(found.cycles) * 1e3,
                "wait_cycles": found.wait_cycles,
                "violations": [str(v) for v in violations],
            }
        )
    return rows


def show_evaluation(problem: mg.Problem, rows: list[dict[str, Any]]) -> None:
    """Print the rows of `evaluate` as a table."""
    table = Table(title=_title(f"{problem.name} on {problem.target.name} (predicted)"))
    for column in ("mapping", "cycles", "ms", "of all default", "waiting", "violations"):
        table.add_column(column, justify="left" if column == "mapping" else "right")
    default = rows[0]["predicted_cycles"]
    for row in rows:
        table.add_row(
            LABELS.get(row["mapping"], row["mapping"]),
            _cycles(row["predicted_cycles"]),
            f"{row['predicted_ms']:.4f}",
            f"{row['predicted_cycles'] / default:.4f}" if default else "-",
            _cycles(row["wait_cycles"]),
            str(len(row["violations"])),
        )
    _console().print(table)
    for row in rows:
        for violation in row["violations"][:5]:
            print(printable(f"{row['mapping']}: {violation}"))
