"""A program's problem with its costs learned: extraction, calibration, and the correction loop."""

from __future__ import annotations

import dataclasses
import time

import malloc_game as mg
from malloc_game.solvers.decode import greedy_assignment
from workloads.compiler.session import CompilerSession
from workloads.costs.store import CostStore
from workloads.extraction.pipeline import Extracted, extract_session
from workloads.loop.calibration import Calibration, calibrate
from workloads.loop.correction import Correction, correct
from workloads.progress import Progress, silent

NUM_COMPILES = 12  # extraction, calibration and the correction loop together
_FOR_CORRECTION = 1 / 3  # of the compiles, at least


@dataclasses.dataclass(frozen=True)
class Learned:
    """An extracted program, and what was compiled to learn its costs.

    `found.extraction.problem` has all costs learned; `xla_default_predicted` is what the problem
    said of XLA's default before any of it, when only the extraction's two compiles were known.
    """

    found: Extracted
    xla_default_predicted: float
    calibration: Calibration
    correction: Correction
    compiles: int
    seconds: float


def learn_costs(
    session: CompilerSession,
    *,
    compiles: int = NUM_COMPILES,
    seed: int = 0,
    store: CostStore | None = None,
    progress: Progress = silent,
) -> Learned:
    """Extract a program and learn its costs with at most `compiles` compiles in all.

    The correction loop, with greedy as its planner, takes what calibration leaves: costs are then
    right where a planner looks first. store: as for `extract_session`.

    Raises:
      WorkloadError: the program cannot be loaded. CompileError: it cannot be compiled.
    """
    began = time.monotonic()
    found = extract_session(session, progress, store)
    extraction = found.extraction
    predicted = mg.latency(extraction.problem, found.xla_default).cycles
    calibration = calibrate(
        session,
        extraction,
        compiles=max(compiles - round(compiles * _FOR_CORRECTION), 2),
        seed=seed,
        progress=progress,
    )
    rounds = max(compiles - 2 - len(calibration.steps), 1)
    correction = correct(session, extraction, greedy_assignment, rounds=rounds, progress=progress)
    return Learned(
        found,
        predicted,
        calibration,
        correction,
        compiles=2 + len(calibration.steps) + len(correction.rounds),
        seconds=time.monotonic() - began,
    )
