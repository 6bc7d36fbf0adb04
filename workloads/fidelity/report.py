"""Fidelity measurements as files, as a report for people, and as tables of `docs/fidelity.md`."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from malloc_game import MallocGameError
from malloc_game.errors import printable
from malloc_game.problem.files import from_json, is_of_result, read_json, write_bytes, write_json
from workloads.benchmark.document import code, plain
from workloads.compiler.session import versions
from workloads.errors import CompileError, WorkloadError
from workloads.farm import Farm, Task, TaskLost
from workloads.fidelity.measurement import Fidelity, Sample
from workloads.progress import Progress, silent

SCHEMA_VERSION = 1
BEGIN = "<!-- measured: begin -->"
END = "<!-- measured: end -->"
_FINAL_AIM = 0.005  # for the error of the plan that a correction loop ends with
_NUM_WORST = 12  # instructions in the tables


# -- files -----------------------------------------------------------------------------------


def cell_path(directory: pathlib.Path, program: str, target: str) -> pathlib.Path:
    """The file of one measurement in a directory of many."""
    return directory / f"{program}-{target}.json"


def save(fidelity: Fidelity, path: pathlib.Path) -> None:
    """Write one measurement as JSON. Raises: MallocGameError: it cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"schema_version": SCHEMA_VERSION, "fidelity": dataclasses.asdict(fidelity)})


def load(path: pathlib.Path) -> Fidelity:
    """Read a measurement. Raises: MallocGameError: no such file, or not one of ours."""
    content = read_json(path)
    if not isinstance(content, dict) or content.get("schema_version") != SCHEMA_VERSION:
        raise MallocGameError(f"{path}: not a fidelity measurement of this release")
    found = from_json(Fidelity, content.get("fidelity"), str(path))
    samples = [s for s in (found.xla_default, found.final, *found.random) if s is not None]
    numbers = [n for s in samples for n in (s.predicted, s.compiled, s.honoured, s.wait_cycles)]
    numbers += [found.deviation, found.seconds, *(w.error for w in found.worst)]
    is_good = all(n is None or is_of_result(n) for n in numbers)
    if not is_good or not found.xla_default.compiled:
        raise MallocGameError(f"{path}: a number is out of range, or XLA's default has none")
    return dataclasses.replace(found, versions=dict(found.versions))


def load_all(directory: pathlib.Path) -> list[Fidelity]:
    """All measurements of a directory, whatever they were made with. Needs no compiler.

    Raises: MallocGameError: no such directory, nothing in it, or a file that is not one of ours.
    """
    if not directory.is_dir():
        raise MallocGameError(f"{directory}: no such directory")
    cells = [load(path) for path in sorted(directory.glob("*.json"))]
    if not cells:
        raise MallocGameError(f"{directory}: no measurements (*.json) here; name programs to make")
    return cells


def load_same(path: pathlib.Path, *, num_random: int, seed: int) -> Fidelity | None:
    """An earlier measurement with these settings and the compiler that is installed, or None."""
    try:
        known = load(path)
    except MallocGameError:
        return None
    is_same = known.seed == seed and len(known.random) == num_random
    return known if is_same and known.versions == versions() else None


# -- one program -----------------------------------------------------------------------------


def _percent(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}%}"


def _rank(rho: float | None) -> str:
    return "-" if rho is None else f"{rho:.3f}"


def _quantile(errors: np.ndarray, q: float) -> float | None:
    return float(np.quantile(errors, q)) if len(errors) else None


def _sample_row(sample: Sample) -> str:
    compiled = "-" if sample.compiled is None else f"{sample.compiled:,.0f}"
    error = "-" if sample.error is None else f"{sample.error:+.3%}"
    how = sample.mode + (f", {sample.repairs} repaired" if sample.repairs else "")
    return (
        f"  {sample.source:14} {sample.predicted:>14,.0f} {compiled:>14} {error:>9}"
        f" {_percent(sample.honoured):>8}  {how}"
    )


def text(fidelity: Fidelity) -> str:
    """The report of one measurement, lines of at most 100 columns."""
    errors = fidelity.errors
    samples = [
        fidelity.xla_default,
        *([fidelity.final] if fidelity.final else []),
        *fidelity.random,
    ]
    head = ("mapping", "predicted", "compiled", "error", "honoured", "asked")
    unfit = sum(not s.fits for s in fidelity.random)
    lines = [
        f"{fidelity.program} on {fidelity.target}: {fidelity.instructions} timed instructions,"
        f" {fidelity.decisions} decisions ({fidelity.refused} refused by the compiler)",
        f"{fidelity.compiles} compiles and {fidelity.checks} checks before the random mappings, in"
        f" {fidelity.seconds:.0f} s; seed {fidelity.seed}; latencies in cycles",
        f"  {head[0]:14} {head[1]:>14} {head[2]:>14} {head[3]:>9} {head[4]:>8}  {head[5]}",
        *map(_sample_row, samples),
        f"random mappings: |error| median {_percent(_quantile(errors, 0.5))},"
        f" 95th percentile {_percent(_quantile(errors, 0.95))},"
        f" expected by the cost model {_percent(fidelity.deviation)};",
        f"  rank correlation {_rank(fidelity.rank_correlation)};"
        f" honoured {_percent(fidelity.honoured)}; {unfit} did not fit",
    ]
    if fidelity.worst:
        lines.append("worst instructions (share of the latency that was predicted wrongly, mean):")
    for row in fidelity.worst:
        trips = f" x {row.trip_count}" if row.trip_count > 1 else ""
        lines.append(f"  {row.error:8.3%}  {row.name} ({row.opcode}{trips})")
    return "\n".join(map(printable, lines))


# -- many programs ---------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Summary:
    """What some measurements say together; errors are absolute shares of the compiled latency."""

    pairs: int
    mappings: int  # random ones
    honoured: float  # mean over the pairs
    honoured_least: float
    error_median: float | None  # of the random mappings of all pairs; None: there are none
    error_p95: float | None
    final: float  # greatest error of a correction loop's last plan
    final_within: float  # share of these plans that were off by 0.5% at most
    default: float  # greatest error of XLA's default
    rank: float | None  # Spearman's, mean over the pairs that have one
    unfit: float  # share of the random mappings
    compiles: int  # most, before the random mappings
    seconds: float  # for these, median
    seconds_most: float


def summarize(cells: Sequence[Fidelity]) -> Summary:
    """The figures of one or more measurements together."""
    errors = np.concatenate([c.errors for c in cells])
    random = [s for c in cells for s in c.random]
    finals = [abs(c.final.error) for c in cells if c.final and c.final.error is not None]
    ranks = [c.rank_correlation for c in cells if c.rank_correlation is not None]
    honoured = [c.honoured for c in cells]
    seconds = [c.seconds for c in cells]
    return Summary(
        pairs=len(cells),
        mappings=len(random),
        honoured=float(np.mean(honoured)),
        honoured_least=min(honoured),
        error_median=_quantile(errors, 0.5),
        error_p95=_quantile(errors, 0.95),
        final=max(finals, default=0.0),
        final_within=float(np.mean([e <= _FINAL_AIM for e in finals])) if finals else 1.0,
        default=max(abs(c.xla_default.error) for c in cells),
        rank=float(np.mean(ranks)) if ranks else None,
        unfit=sum(not s.fits for s in random) / max(len(random), 1),
        compiles=max(c.compiles for c in cells),
        seconds=float(np.median(seconds)),
        seconds_most=max(seconds),
    )


def _figures(s: Summary) -> list[tuple[str, str, str, bool | None]]:
    """What is measured, what is aimed at, the value, and whether it is met (None: no aim)."""
    rank = 1.0 if s.rank is None else s.rank
    return [
        ("decisions honoured, mean over random mappings", ">= 99.5%",
         _percent(s.honoured), s.honoured >= 0.995),
        ("the same, least of all programs", ">= 97%",
         _percent(s.honoured_least), s.honoured_least >= 0.97),
        ("absolute error of random mappings, median", "<= 2%",
         _percent(s.error_median), (s.error_median or 0.0) <= 0.02),
        ("the same, 95th percentile", "<= 5%",
         _percent(s.error_p95), (s.error_p95 or 0.0) <= 0.05),
        ("absolute error of the loop's last plan, greatest", f"<= {_FINAL_AIM:.1%}",
         f"{_percent(s.final)} ({s.final_within:.0%} of programs within)", s.final <= _FINAL_AIM),
        ("absolute error of XLA's default, greatest", "<= 2%",
         _percent(s.default), s.default <= 0.02),
        ("rank correlation within a program, mean", ">= 0.95", _rank(s.rank), rank >= 0.95),
        ("random mappings that the compiler cannot fit", "< 1%", _percent(s.unfit), s.unfit < 0.01),
        ("compiles before the random mappings, most", "<= 12", str(s.compiles), s.compiles <= 12),
        ("seconds for these, median and most", "reported",
         f"{s.seconds:.0f}, {s.seconds_most:.0f}", None),
    ]  # fmt: skip


def markdown(cells: Sequence[Fidelity], failures: Mapping[str, str] | None = None) -> str:
    """The summary, a row for each target and for each pair, and the instructions that err most.

    failures: pairs that could not be measured, and why.
    """
    if not cells:
        return "Nothing has been measured.\n"
    everything = summarize(cells)
    programs, targets = {c.program for c in cells}, sorted({c.target for c in cells})
    known = {", ".join(f"{k} {v}" for k, v in sorted(c.versions.items())) for c in cells}
    met = {True: "yes", False: "no", None: "-"}
    lines = [
        f"{everything.pairs} program-target pairs: {len(programs)} programs on"
        f" {plain(', '.join(targets))}; {everything.mappings} random mappings compiled;"
        f" {plain('; '.join(sorted(known)))}.",
        "",
        *_table("figure | aim | measured | met", "---|---|---|---",
                [(*figure, met[is_met]) for *figure, is_met in _figures(everything)]),
        "By target (errors, rank and unfit as above; *last plan* and *XLA default* are the"
        " greatest, *compiles* the most, *s* the median):",
        "",
        *_table("target | pairs | honoured | least | median error | 95th | last plan | XLA default"
                " | rank | unfit | compiles | s", "---|" + "---:|" * 10 + "---:",
                [_target_cells(t, summarize([c for c in cells if c.target == t]))
                 for t in targets]),
        "By program and target:",
        "",
        *_table("program | target | decisions | refused | honoured | median error | 95th |"
                " last plan | XLA default | rank | unfit | compiles | checks | s",
                "---|---|" + "---:|" * 11 + "---:",
                map(_pair_cells, sorted(cells, key=lambda c: (c.program, c.target)))),
        "Instructions that were predicted worst (mean share of the latency, random mappings):",
        "",
    ]  # fmt: skip
    worst = sorted(((row, c) for c in cells for row in c.worst), key=lambda pair: -pair[0].error)
    lines += _table(
        "program | target | instruction | error",
        "---|---|---|---:",
        (
            (
                plain(c.program),
                plain(c.target),
                f"{code(row.name)} ({plain(row.opcode)})",
                _percent(row.error),
            )
            for row, c in worst[:_NUM_WORST]
        ),
    )
    for pair, reason in sorted((failures or {}).items()):
        lines += [f"Not measured: {plain(pair)}: {plain(reason)}", ""]
    return "\n".join(lines[:-1]) + "\n"


def _table(head: str, rule: str, rows: Iterable[Iterable[Any]]) -> list[str]:
    """Lines of a Markdown table, and an empty one."""
    lines = [head, rule, *(" | ".join(map(str, row)) for row in rows)]
    return [f"|{line}|" if line is rule else f"| {line} |" for line in lines] + [""]


def _target_cells(target: str, s: Summary) -> tuple[Any, ...]:
    return (
        plain(target), s.pairs, _percent(s.honoured), _percent(s.honoured_least),
        _percent(s.error_median), _percent(s.error_p95), _percent(s.final), _percent(s.default),
        _rank(s.rank), _percent(s.unfit), s.compiles, f"{s.seconds:.0f}",
    )  # fmt: skip


def _pair_cells(c: Fidelity) -> tuple[Any, ...]:
    return (
        plain(c.program), plain(c.target), c.decisions, c.refused, _percent(c.honoured),
        _percent(_quantile(c.errors, 0.5)), _percent(_quantile(c.errors, 0.95)),
        _percent(abs(c.final.error)) if c.final and c.final.error is not None else "-",
        _percent(abs(c.xla_default.error)), _rank(c.rank_correlation),
        sum(not s.fits for s in c.random), c.compiles, c.checks, f"{c.seconds:.0f}",
    )  # fmt: skip


def write_into(path: pathlib.Path, tables: str) -> None:
    """Put the tables between the two markers of a Markdown file; its other text stays.

    A file that does not exist is made. Raises: as `frame`; MallocGameError: it cannot be written.
    """
    before, after = frame(path)
    write_bytes(path, f"{before}{BEGIN}\n\n{tables}\n{END}{after}".encode(errors="replace"))


def frame(path: pathlib.Path) -> tuple[str, str]:
    """The text of a Markdown file before and after its tables, for one that is to be made as well.

    Raises: WorkloadError: the file has no markers, or cannot be read.
    """
    try:
        old = path.read_text() if path.exists() else f"# Fidelity\n\n{BEGIN}\n{END}\n"
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WorkloadError(f"{path}: {reason}") from error
    before, begin, rest = old.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise WorkloadError(f"{path}: needs the lines {BEGIN} and {END}, for the tables between")
    return before, after


def measure_all(
    pairs: Iterable[tuple[str, str]],
    measure: Callable[[str, str], Fidelity],
    directory: pathlib.Path | None,
    *,
    num_random: int,
    seed: int,
    farm: Farm | None = None,
    progress: Progress = silent,
) -> tuple[list[Fidelity], dict[str, str]]:
    """Measure pairs of program and target, each once: what `directory` holds is not done again.

    farm: measures pairs side by side; by default one after the other, here. Returns the
    measurements, and for each pair that the compiler failed on the reason.

    Raises:
      CompileError: the compiler failed on the only pair.
    """
    cells: dict[tuple[str, str], Fidelity] = {}
    failures: dict[str, str] = {}
    todo = list(dict.fromkeys(pairs))
    missing = []
    for pair in todo:
        path = cell_path(directory, *pair) if directory else None
        known = load_same(path, num_random=num_random, seed=seed) if path else None
        if known is None:
            missing.append(pair)
        else:
            cells[pair] = known
    for number, (pair, answer) in enumerate(_measured(missing, measure, farm, progress), 1):
        name = " on ".join(pair)
        if isinstance(answer, Fidelity):
            cells[pair] = answer
            if directory:
                save(answer, cell_path(directory, *pair))
            progress(f"{number} of {len(missing)} done: {name}")
        elif len(todo) == 1 or not isinstance(answer, (CompileError, TaskLost)):
            raise answer
        else:
            failures[name] = str(answer)
            progress(f"{name} cannot be measured: {answer}")
    return [cells[pair] for pair in todo if pair in cells], failures


def _measured(
    pairs: list[tuple[str, str]],
    measure: Callable[[str, str], Fidelity],
    farm: Farm | None,
    progress: Progress,
) -> Iterator[tuple[tuple[str, str], Fidelity | Exception]]:
    """Yields pairs with their measurements, or with why they have none."""
    if farm is not None:
        tasks = {Task.of(measure, *pair): pair for pair in pairs}
        for done in farm.map(tasks):
            yield tasks[done.task], done.error or done.value
        return
    for i, pair in enumerate(pairs):
        progress(f"{i + 1} of {len(pairs)}: {pair[0]} on {pair[1]}")
        try:
            answer: Fidelity | Exception = measure(*pair)
        except CompileError as error:
            answer = error
        yield pair, answer


def result(fidelity: Fidelity) -> str:
    """One measurement as JSON text, with the derived figures."""
    errors = fidelity.errors
    content = dataclasses.asdict(fidelity)
    content["summary"] = {
        "honoured": fidelity.honoured,
        "error_median": _quantile(errors, 0.5),
        "error_p95": _quantile(errors, 0.95),
        "rank_correlation": fidelity.rank_correlation,
    }
    return json.dumps(content, indent=2)
