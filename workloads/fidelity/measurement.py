"""How well predictions for a program hold in the compiler, on mappings they were not fitted to.

One measurement: extract and probe the program, calibrate its costs with a few compiles, let greedy
plan in the correction loop, then compile random legal games that nothing was learned from. What a
prediction says is fixed before the compile that it is compared with.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

import malloc_game as mg
from malloc_game import Assignment, Problem
from workloads.compiler.session import CompilerSession
from workloads.costs.store import CostStore
from workloads.errors import CompileError, CompilerKilled
from workloads.extraction.dry_run import dry_run_of
from workloads.extraction.extraction import Extraction
from workloads.loop.calibration import RandomGames
from workloads.loop.learned_costs import NUM_COMPILES, learn_costs
from workloads.loop.verification import EXACT, RELAXED, Verification, verify
from workloads.progress import Progress, silent

NUM_RANDOM = 10
# The random games of a measurement are drawn with other keys than those of a calibration.
_FRESH = 1_000_003
_NUM_WORST = 5


@dataclasses.dataclass(frozen=True)
class Sample:
    """One mapping, predicted and compiled."""

    source: str
    predicted: float  # cycles
    compiled: float | None  # cycles; None: the compiler would not have it in any way
    honoured: float | None  # fraction of decisions that hold
    mode: str  # how the compiler had to be asked
    repairs: int  # values that were no longer demanded
    wait_cycles: float | None  # part of `compiled` spent waiting for copies

    @property
    def error(self) -> float | None:
        """Predicted / compiled - 1."""
        return self.predicted / self.compiled - 1.0 if self.compiled else None

    @property
    def fits(self) -> bool:
        """Whether the compiler could be asked for its copies and pins, with repairs or without."""
        return self.compiled is not None and self.mode in (EXACT.name, RELAXED.name)


@dataclasses.dataclass(frozen=True)
class CompiledSample(Sample):
    """One that the compiler had no say about: a mapping of its own."""

    compiled: float
    honoured: float
    wait_cycles: float

    @property
    def error(self) -> float:
        """Predicted / compiled - 1."""
        return self.predicted / self.compiled - 1.0


@dataclasses.dataclass(frozen=True)
class WorstInstruction:
    """An instruction whose cycles were predicted worst, over the random mappings."""

    name: str
    opcode: str
    trip_count: int
    error: float  # mean |predicted - compiled| cycles of all its executions / compiled latency


@dataclasses.dataclass(frozen=True)
class Fidelity:
    """What was measured of one program on one target."""

    program: str
    target: str
    versions: dict[str, str]
    seed: int
    instructions: int
    decisions: int
    refused: int  # of these, decisions that the compiler was found to refuse
    is_fast: bool  # whether the compiler can be stopped after memory-space assignment
    xla_default: CompiledSample
    final: Sample | None  # the plan that the correction loop ends with; None: there is no plan
    random: tuple[Sample, ...]
    compiles: int  # before the random mappings: extraction, calibration and correction loop
    checks: int  # placement dry runs of the probing
    deviation: float  # what the cost model expected of its own error, as a share of latency
    seconds: float  # up to the random mappings
    worst: tuple[WorstInstruction, ...]

    @property
    def errors(self) -> np.ndarray:
        """Absolute errors of the random mappings: float64[n]."""
        return np.abs([s.error for s in self.random if s.error is not None])

    @property
    def honoured(self) -> float:
        """Mean fraction of decisions that held, over the random mappings."""
        return float(np.mean([s.honoured or 0.0 for s in self.random])) if self.random else 1.0

    @property
    def rank_correlation(self) -> float | None:
        """Spearman's, predicted against compiled; None where all latencies are the same."""
        pairs = [(s.predicted, s.compiled) for s in self.random if s.compiled]
        if len({c for _, c in pairs}) < 2 or len({p for p, _ in pairs}) < 2:
            return None
        from scipy import stats

        return float(stats.spearmanr(*zip(*pairs, strict=True)).statistic)


def measure(
    program: Any,
    target: str,
    *,
    num_random: int = NUM_RANDOM,
    compiles: int = NUM_COMPILES,
    seed: int = 0,
    timeout: float = 600.0,
    progress: Progress = silent,
) -> Fidelity:
    """Measure one program on one target. Costs that other programs taught are not used.

    program: as for `CompilerSession`. num_random: fresh random legal games to compile. compiles: at
    most so many before those; the correction loop takes what calibration leaves.

    Raises:
      WorkloadError: the program or target cannot be used. CompileError: the compiler failed.
    """
    with CompilerSession(program, target, timeout=timeout) as session:
        learned = learn_costs(
            session, compiles=compiles, seed=seed, store=CostStore(), progress=progress
        )
        found, last = learned.found, learned.correction.final
        extraction = found.extraction
        default = CompiledSample(
            "xla_default",
            learned.xla_default_predicted,
            found.xla_default_latency.cycles,
            1.0, "default", 0, found.xla_default_latency.wait_cycles,
        )  # fmt: skip
        final = None
        if last is not None:
            final = _sample(last.assignment.source, last.predicted, last.verification)
        random, worst = _random(session, extraction, num_random, seed, progress)
        problem = extraction.problem
        program_ = mg.encode(problem)
        decisions = int(program_.num_decisions)
        return Fidelity(
            program=session.name,
            target=target,
            versions=dict(extraction.versions),
            seed=seed,
            instructions=len(problem.instructions),
            decisions=decisions,
            refused=int(np.asarray(program_.is_refused)[:decisions].sum()),
            is_fast=dry_run_of(session).is_fast,
            xla_default=default,
            final=final,
            random=random,
            compiles=learned.compiles,
            checks=found.num_checks,
            deviation=learned.calibration.deviation,
            seconds=learned.seconds,
            worst=worst,
        )


def _sample(source: str, predicted: float, found: Verification | None) -> Sample:
    if found is None:
        return Sample(source, predicted, None, None, "none", 0, None)
    return Sample(
        source, predicted, found.cycles, found.honoured, found.mode, found.num_repairs,
        found.latency.wait_cycles,
    )  # fmt: skip


def _random(
    session: CompilerSession,
    extraction: Extraction,
    num_random: int,
    seed: int,
    progress: Progress,
) -> tuple[tuple[Sample, ...], tuple[WorstInstruction, ...]]:
    """Predict all random mappings first, then compile them."""
    if not num_random:
        return (), ()
    before = extraction.problem
    games = RandomGames(before, num_random, seed=_FRESH + seed)
    wanted = [games.assignment(i) for i in range(num_random)]
    predicted = [mg.latency(before, assignment).cycles for assignment in wanted]
    samples, realised = [], []
    for i, (assignment, cycles) in enumerate(zip(wanted, predicted, strict=True)):
        verification: Verification | None = None
        try:
            verification = verify(session, extraction, assignment)
            realised.append((verification.assignment, verification.cycles))
        except CompilerKilled:
            raise
        except CompileError as error:
            progress(f"random mapping {i + 1}: the compiler would not have it ({error})")
        sample = _sample(f"random {i + 1}", cycles, verification)
        samples.append(sample)
        if sample.compiled:
            progress(
                f"random mapping {i + 1} of {num_random}: predicted {cycles:,.0f}, compiled"
                f" {sample.compiled:,.0f} cycles ({sample.error:+.2%}), {sample.honoured:.1%} held"
            )
    return tuple(samples), _worst(before, extraction.problem, realised)


def _worst(
    before: Problem, after: Problem, realised: list[tuple[Assignment, float]]
) -> tuple[WorstInstruction, ...]:
    """Instructions by what their tables said of the placements that came about, and now say."""
    rows = []
    for t, instruction in enumerate(before.instructions):
        errors = [
            abs(before.instruction_cycles(t, a.masks[t]) - after.instruction_cycles(t, a.masks[t]))
            * instruction.trip_count / cycles
            for a, cycles in realised
        ]  # fmt: skip
        error = float(np.mean(errors)) if errors else 0.0
        if error > 0:
            rows.append(
                WorstInstruction(
                    instruction.name, instruction.opcode, instruction.trip_count, error
                )
            )
    return tuple(sorted(rows, key=lambda row: -row.error)[:_NUM_WORST])
