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
from agent.planner import finders
from agent.report.page import to_html
from agent.report.run_files import ASSIGNMENT, PAGE, PROBLEM, RESULT, Run
from agent.tuning.outcome import LABELS, PLANNED, SOURCES, Compiled, Outcome, Planned
from malloc_game.errors import MallocGameError, printable
from malloc_game.estimator import ESTIMATOR, NO_CLAIM
from workloads.compiler.session import OVERRIDES_OPTION
from workloads.overrides.packing import SORT_ORDER_OPTION

# Long compiler options, each in a file of its own.
OPTION_FILES = {
    OVERRIDES_OPTION: "overrides.textproto",
    SORT_ORDER_OPTION: "sort_order.textproto",
}
# Sources of mappings that XLA placed; "guided" is an earlier version's.
_PLACED_BY_XLA = (
    "xla_default", finders.XLA_DEFAULT, finders.GUIDED, finders.PERMISSIONS, "guided"
)  # fmt: skip
_FILES = (RESULT, ASSIGNMENT, *OPTION_FILES.values(), PROBLEM, PAGE)


def result(outcome: Outcome) -> dict[str, Any]:
    """The content of result.json. Latencies are in cycles; None where nothing was compiled.

    `found_by` says of each source what really found its mapping (`agent.planner.finders`),
    `missing` why there is none."""
    best = outcome.best

    def pair(candidate: Planned) -> dict[str, float | None]:
        return {"predicted": candidate.predicted, "compiled": _compiled(candidate)}

    candidates = [outcome.candidates[source] for source in _sources(outcome)]
    planner = outcome.candidates.get("planner")
    nothing = {"xla_default": {"predicted": None, "compiled": None}}  # where no file brings it
    return {
        "program": outcome.program,
        "target": outcome.target.name,
        "decisions": outcome.decisions,
        "versions": {"malloc_game": mg.__version__, **outcome.versions},
        "seed": outcome.seed,
        "seconds": round(outcome.seconds, 3),
        "stopped": outcome.stopped,
        "best_source": best.source,
        "compiled_speedup": outcome.compiled_speedup,
        "compiled_speedup_monotone": outcome.compiled_speedup_monotone,
        "best_honoured": best.honoured if isinstance(best, Compiled) else None,
        "best_not_honoured": list(best.not_honoured) if isinstance(best, Compiled) else [],
        "latency_cycles": {
            **nothing,
            **{c.source: pair(c) for c in candidates},
            "best": pair(best),
        },
        "found_by": {c.source: c.found_by for c in candidates},
        "honoured": planner.honoured if isinstance(planner, Compiled) else None,
        "missing": {
            source: {"status": missing.status, "reason": missing.reason}
            for source, missing in outcome.missing.items()
        },
        "clock_hz": outcome.target.clock_hz,
        "estimator": ESTIMATOR,
        "compiles": outcome.num_compiles,
        "planner_games": outcome.planner_stats.get("games", 0),
        "compiler_options": dict(best.options),
    }


def _compiled(candidate: Planned) -> float | None:
    """Its compiled latency in cycles, if it has one."""
    return candidate.compiled if isinstance(candidate, Compiled) else None


def run_of(outcome: Outcome) -> Run:
    """What a report of an outcome is made of."""
    default = outcome.candidates.get("xla_default")
    return Run(
        result=result(outcome),
        problem=outcome.problem,
        reference=None if default is None else default.assignment,
        assignment=outcome.best.assignment,
    )


def _sources(outcome: Outcome) -> list[str]:
    """Sources of the outcome's candidates, in their order; some need the compiler."""
    return [source for source in SOURCES if source in outcome.candidates]


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=140)


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
    table.add_column("found by")
    for column in ("predicted cycles", "predicted ms", "compiled cycles", "compiled ms"):
        table.add_column(column, justify="right")
    table.add_column("XLA default / this, estimated", justify="right")
    default = outcome.candidates.get("xla_default")
    reference = None if default is None else _compiled(default)
    for source in (*SOURCES, "best"):
        if source in outcome.missing:
            table.add_row(LABELS[source], outcome.missing[source].status, *["-"] * 5)
        candidate = outcome.best if source == "best" else outcome.candidates.get(source)
        if candidate is None:
            continue
        compiled = _compiled(candidate)
        milliseconds = [
            "-" if c is None else f"{outcome.target.seconds(c) * 1e3:.4f}"
            for c in (candidate.predicted, compiled)
        ]
        table.add_row(
            LABELS[source], candidate.found_by, _cycles(candidate.predicted), milliseconds[0],
            _cycles(compiled), milliseconds[1],
            f"{reference / compiled:.3f}" if reference and compiled else "-",
        )  # fmt: skip
    console.print(table)
    print(_effort(outcome))
    for line in verdict(outcome):
        print(printable(line))
    if outcome.best.options and outcome.best.source != "xla_default":
        print(_snippet(outcome, out))
    if out is not None:
        print(f"written to {out}: {', '.join(_FILES)}")


def _effort(outcome: Outcome) -> str:
    found = [f"decisions: {outcome.decisions}"]
    best = outcome.best
    if isinstance(best, Compiled) and best.source in PLANNED:
        found.append(f"the compiler honoured {best.honoured:.2%} of the best mapping's")
    games = outcome.planner_stats.get("games", 0)
    effort = f"{outcome.num_compiles} compiles, {games} games, {outcome.seconds:.0f} s"
    return "; ".join([*found, effort])


def verdict(outcome: Outcome) -> list[str]:
    """What came out, in a line or two. It says nothing of mappings that were not compiled."""
    lines = []
    if outcome.stopped is not None:
        lines.append(f"stopped early: {outcome.stopped}; this is what was found until then")
    ratio = outcome.compiled_speedup
    compiled = [s for s in PLANNED if isinstance(outcome.candidates.get(s), Compiled)]
    if ratio is None:
        lines.append("predicted only: nothing was compiled, so no speed-up is claimed")
    elif outcome.best.source != "xla_default":
        monotone = outcome.compiled_speedup_monotone
        also = "" if monotone is None else f" ({monotone:.3f} with monotone estimates)"
        lines.append(
            f"estimated cycles, XLA's default over the best, both compiled: {ratio:.3f}{also};"
            f" found by {outcome.best.found_by}"
        )
    elif compiled:
        lines.append("XLA's default mapping is the best that was found: nothing to change")
    elif outcome.decisions == 0:
        lines.append("there is nothing to decide: XLA's default is the only mapping")
    else:
        lines.append("no other mapping was compiled, so XLA's default stands: nothing is known")
    for source, missing in outcome.missing.items():
        if missing.reason:
            lines.append(f"{LABELS[source]}: {missing.status}: {missing.reason}")
    lines.append(NO_CLAIM)
    return lines


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
        is_xlas = assignment.source.startswith(_PLACED_BY_XLA)
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
