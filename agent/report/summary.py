"""A run in words and numbers: the headline of a report, what is behind it, and its tables."""

from __future__ import annotations

import dataclasses

from agent.planner import finders
from agent.report.data import Map, known_share
from agent.report.run_files import Run
from agent.tuning.outcome import LABELS, PLANNED
from malloc_game.estimator import NO_CLAIM
from malloc_game.problem.target import MIB


def cycles_text(cycles: float | None) -> str:
    """Cycles with thousands separators; a dash for none."""
    return "–" if cycles is None else f"{cycles:,.0f}"


def time_text(seconds: float | None) -> str:
    """A time in the unit that suits it; a dash for none."""
    if seconds is None:
        return "–"
    for unit, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= unit:
            return f"{seconds / unit:.4g}\u00a0{name}"
    return f"{seconds * 1e9:.3g}\u00a0ns"


def size_text(size: float) -> str:
    """Bytes in the unit that suits them."""
    for unit, name in ((1 << 30, "GiB"), (MIB, "MiB"), (1024, "KiB")):
        if size >= unit:
            return f"{size / unit:,.4g}\u00a0{name}"
    return f"{size:,.0f}\u00a0B"


def signed_text(cycles: float) -> str:
    """A difference in cycles with its sign."""
    text = f"{abs(cycles):,.0f}"
    if text == "0":
        return "0"
    return ("+" if cycles > 0 else "−") + text


def share_text(share: float) -> str:
    """A share in percent, rounded down: 100% is all."""
    tenths = int(share * 1000)
    return f"{tenths // 10}%" if tenths % 10 == 0 else f"{tenths / 10:.1f}%"


def _percent(ratio: float) -> str:
    """How far a ratio is from 1."""
    text = f"{abs(ratio - 1.0):.2%}"
    if text == "0.00%":
        return text
    return ("+" if ratio > 1.0 else "−") + text


@dataclasses.dataclass(frozen=True)
class Fact:
    """A number with its name, and a sentence about it."""

    name: str
    number: str
    text: str


@dataclasses.dataclass(frozen=True)
class Headline:
    """The result in one line; tone: "good", "even" or "open" (predicted only)."""

    number: str
    text: str
    detail: str
    tone: str


def headline(run: Run) -> Headline:
    """What a reader should know first. No speed-up is claimed: see `malloc_game.estimator`."""
    latencies = run.latencies
    best, reference = latencies["best"], latencies["xla_default"]
    speedup = run.result["compiled_speedup"]
    seconds = run.problem.target.seconds
    if speedup is None or best.compiled is None or reference.compiled is None:
        before = latencies["xla_default" if run.reference else "all_default"]
        name = "XLA’s default" if run.reference is not None else "everything in default memory"
        detail = f"Best mapping: {cycles_text(best.predicted)} cycles predicted"
        if before.predicted:
            share = (best.predicted or 0.0) / before.predicted
            detail += f", {share:.1%} of {name} ({cycles_text(before.predicted)})"
        text = "nothing was compiled, so no speed-up is claimed"
        return Headline("Predicted only", text, detail + ".", "open")
    if run.result["best_source"] == "xla_default":
        detail = (
            f"{cycles_text(reference.compiled)} cycles compiled"
            f" ({time_text(seconds(reference.compiled))})."
        )
        if not any(latencies[s].compiled for s in PLANNED if s in latencies):
            text = "no other mapping was compiled, so XLA’s default stands"
            return Headline("Nothing is known", text, detail, "open")
        text = "XLA’s default mapping has the fewest estimated cycles of all that was compiled"
        return Headline("Nothing to change", text, detail, "even")
    detail = (
        f"{cycles_text(reference.compiled)} → {cycles_text(best.compiled)} cycles compiled"
        f" ({time_text(seconds(reference.compiled))} → {time_text(seconds(best.compiled))})."
    )
    detail += f" By that estimate {speedup:.3f} times as fast as under XLA’s default."
    return Headline("No speed-up is claimed", NO_CLAIM.partition(": ")[2], detail, "open")


def facts(run: Run, maps: tuple[Map, Map]) -> list[Fact]:
    """Where the result came from, and how sure it is."""
    result, found = run.result, []
    best = run.latencies["best"]
    source = result["best_source"]
    is_compiled = result["compiled_speedup"] is not None
    is_new = source != "xla_default"
    monotone = result["compiled_speedup_monotone"]
    if is_compiled and is_new and monotone is not None:
        text = (
            "what is left if estimates that call alternate memory slower than default memory are"
            " not believed"
        )
        found.append(Fact("Ratio, monotone", f"{monotone:.3f}", text))
    found.append(Fact("Found by", run.found_by, finders.MEANING.get(run.found_by, "")))
    if best.compiled and best.predicted is not None:
        now = maps[1].profile.total / best.compiled
        text = (
            f"{cycles_text(best.predicted)} cycles before the best mapping was compiled,"
            f" {cycles_text(best.compiled)} compiled; with what compiles have taught since:"
            f" {_percent(now)}"
        )
        found.append(Fact("Prediction off by", _percent(best.predicted / best.compiled), text))
    else:
        share = known_share(run.problem, maps[1])
        text = "of the best mapping’s cycles; a model or a roofline gave the rest"
        found.append(Fact("Known costs", share_text(share), text))
    if result["best_honoured"] is not None and is_new:
        text = f"of {result['decisions']:,} decisions hold in the compiled program"
        found.append(Fact("Honoured", share_text(result["best_honoured"]), text))
    else:
        text = "to take: which values are in alternate memory, and when"
        found.append(Fact("Decisions", f"{result['decisions']:,}", text))
    compiles = result["compiles"]
    text = f"{compiles:,} compile{'s' * (compiles != 1)}, {result['planner_games']:,} games"
    found.append(Fact("Effort", f"{result['seconds']:,.0f} s", f"{text}, seed {result['seed']}"))
    return found


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table of mappings; texts are ready to print."""

    label: str
    predicted: str
    predicted_time: str
    compiled: str
    compiled_time: str
    error: str  # of the prediction
    speedup: str  # XLA's default over this, compiled, by the estimate
    relative: str  # predicted, of what a run is compared with
    share: float  # of the slowest row, for a bar; 0 without a latency
    is_best: bool


def rows(run: Run) -> list[Row]:
    """One row for each candidate that was judged."""
    latencies = run.latencies
    reference = latencies["xla_default"].compiled
    before = latencies["xla_default" if run.reference else "all_default"].predicted
    shown = {
        source: (pair.predicted, pair.compiled)
        for source, pair in latencies.items()
        if source != "best" and pair.predicted is not None
    }
    slowest = max(compiled or predicted for predicted, compiled in shown.values()) or 1.0
    found = []
    for source, (predicted, compiled) in shown.items():
        found.append(
            Row(
                label=LABELS.get(source, source),
                predicted=cycles_text(predicted),
                predicted_time=_seconds(run, predicted),
                compiled=cycles_text(compiled),
                compiled_time=_seconds(run, compiled),
                error=_percent(predicted / compiled) if compiled else "–",
                speedup=f"{reference / compiled:.3f}" if reference and compiled else "–",
                relative=f"{predicted / before:.1%}" if before else "–",
                share=(compiled or predicted) / slowest,
                is_best=source == run.result["best_source"],
            )
        )
    return found


def missing(run: Run) -> list[str]:
    """Of the mappings that there are not, why; and why the run ended early, if it did."""
    found = [
        f"{LABELS.get(source, source)}: {why['status']}"
        + (f" ({why['reason']})" if why["reason"] else "")
        for source, why in run.result["missing"].items()
    ]
    if run.result["stopped"]:
        found.append(f"the run was stopped early: {run.result['stopped']}")
    return found


def _seconds(run: Run, cycles: float | None) -> str:
    return time_text(None if cycles is None else run.problem.target.seconds(cycles))


def breakdown(maps: tuple[Map, Map]) -> list[tuple[str, str, str, str]]:
    """Where the predicted cycles go, before and after: name, before, after, difference."""
    parts = [
        ("instructions", lambda m: float(m.profile.cycles.sum())),
        ("waiting for copies", lambda m: float(m.profile.wait_cycles.sum())),
        ("writing results back", lambda m: m.profile.write_back_cycles),
    ]
    parts.append(("total", lambda m: m.profile.total))
    found = [(name, *(part(one) for one in maps)) for name, part in parts]
    return [
        (name, cycles_text(old), cycles_text(new), signed_text(new - old))
        for name, old, new in found
    ]


def describe(run: Run, found: Map) -> str:
    """A mapping in one line: what is in alternate memory, and what is copied."""
    chunks, copies = found.assignment.chunks, found.copies
    if not chunks and not copies:
        return "Nothing is in alternate memory."
    held = len({c.value for c in chunks})
    times = len(run.problem.instructions)
    area = sum(c.size * (c.end - c.start) for c in chunks)
    used = area / (run.problem.target.alternate_memory_bytes * times)
    moved = sum(c.size for c in copies)
    return (
        f"{held:,} of {len(run.problem.values):,} tensors in alternate memory, {used:.0%} of it"
        f" used on average; {len(copies):,} asynchronous copies of {size_text(moved)}"
    )
