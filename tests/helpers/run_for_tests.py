"""Runs as `optimize` would have left them, without a run: for tests of reports."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import numpy as np

import malloc_game as mg
from agent.planner import finders
from agent.report.run_files import ASSIGNMENT, PROBLEM, RESULT, Run
from agent.tuning.outcome import NOT_TRIED

KIB = 1024
TARGET = mg.Target("made-up", 8 << 20, 1024, 100e9, 1e9, 1, "for tests")


def layers(count: int, name: str = "op", seed: int = 0) -> tuple[mg.Problem, mg.Assignment]:
    """A chain of `count` instructions, each with a weight; and everything in alternate memory.

    Value 2t is the weight of instruction t, prefetched some instructions before; value 2t + 1 is
    its output, held up to a later one. There are two chunks and one copy for each instruction.
    """
    rng = np.random.default_rng(seed)
    lanes = 8
    width = TARGET.alternate_memory_bytes // (2 * lanes)
    size = (rng.integers(width // 4, width, 2 * count) // KIB * KIB).tolist()
    last = [min(t + int(rng.integers(1, lanes)), count - 1) for t in range(count)]
    values, instructions, chunks, copies, tables = [], [], [], [], []
    for t in range(count):
        values += [
            mg.Value(f"{name}.w.{t}", size[2 * t], 0, count, True, False, True,
                     shape=f"bf16[{size[2 * t] // 256},128]"),
            mg.Value(f"{name}.{t}", size[2 * t + 1], t, last[t] + 1, False, t == count - 1, True),
        ]  # fmt: skip
        start = max(0, t - lanes + 1)
        low = (t % lanes) * 2 * width
        chunks += [
            mg.Chunk(2 * t, low, size[2 * t], start, t + 1),
            mg.Chunk(2 * t + 1, low + width, size[2 * t + 1], t, last[t] + 1),
        ]
        copies.append(mg.Copy(2 * t, start, t, size[2 * t]))
        read = [2 * t] + ([2 * t - 1] if t else [])
        positions = [mg.Position(v, False, i, (), size[v]) for i, v in enumerate(read)]
        positions.append(mg.Position(2 * t + 1, True, 0, (), size[2 * t + 1]))
        base = int(rng.integers(5_000, 50_000))
        gain = rng.integers(-500, 3_000, len(positions))
        cycles = [
            max(1, base - int(sum(g for i, g in enumerate(gain) if mask >> i & 1)))
            for mask in range(1 << len(positions))
        ]
        tables.append(mg.CostTable(tuple(cycles), (True,) * len(cycles)))
        instructions.append(
            mg.Instruction(f"{name}.{t}", "fusion", t, 1, True, 0, tuple(positions), t)
        )
    problem = mg.Problem("layers", TARGET, tuple(instructions), tuple(values), tuple(tables))
    masks = tuple((1 << len(i.positions)) - 1 for i in instructions)
    return problem, mg.Assignment(masks, tuple(chunks), tuple(copies), "agent")


def weights_only(problem: mg.Problem, everything: mg.Assignment) -> mg.Assignment:
    """Of `layers`, the mapping with the weights alone in alternate memory: XLA's default, say."""
    return dataclasses.replace(
        everything,
        masks=tuple(1 for _ in problem.instructions),
        chunks=tuple(c for c in everything.chunks if c.value % 2 == 0),
        source="xla_default",
    )


def make_run(
    problem: mg.Problem,
    assignment: mg.Assignment,
    reference: mg.Assignment | None,
    *,
    best_source: str = "planner",
    compiled: bool = True,
    **changes: object,
) -> Run:
    """A run that found `assignment`. compiled: predictions are taken as what compiles gave."""
    cycles = {"all_default": mg.latency(problem, mg.all_default(problem)).cycles}
    cycles["xla_default"] = mg.latency(problem, reference).cycles if reference else None
    cycles["greedy"] = cycles["planner"] = mg.latency(problem, assignment).cycles
    cycles["best"] = cycles[best_source]
    speedup = cycles["xla_default"] / cycles["best"] if compiled and reference else None
    result = {
        "program": problem.name,
        "target": problem.target.name,
        "decisions": len(problem.values),
        "versions": {"malloc_game": mg.__version__},
        "seed": 0,
        "seconds": 12.5,
        "best_source": best_source,
        "compiled_speedup": speedup,
        "compiled_speedup_monotone": speedup,
        "best_honoured": 1.0 if compiled else None,
        "best_not_honoured": [],
        "latency_cycles": {
            source: {"predicted": n, "compiled": n if compiled else None}
            for source, n in cycles.items()
        },
        "compiles": 3 if compiled else 0,
        "found_by": {
            "all_default": finders.ALL_DEFAULT,
            "xla_default": finders.XLA_DEFAULT,
            "greedy": finders.GREEDY,
            "planner": finders.NETWORK_PLAY,
        },
        "missing": {"guided": {"status": NOT_TRIED, "reason": ""}},
        "stopped": None,
        "planner_games": 64,
        "compiler_options": {"xla_tpu_option": "true", "xla_long": "..."},
    }
    return Run({**result, **changes}, problem, reference, assignment)


def save_run(run: Run, directory: pathlib.Path) -> pathlib.Path:
    """Write the files that a report is made of."""
    directory.mkdir(parents=True, exist_ok=True)
    mg.save_problem(run.problem, directory / PROBLEM, run.reference)
    mg.save_assignment(run.assignment, run.problem, directory / ASSIGNMENT)
    (directory / RESULT).write_text(json.dumps(run.result))
    return directory
