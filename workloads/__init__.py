"""Real programs, the genuine XLA:TPU compiler in the loop, and the way to problems and back."""

from workloads.compiler.session import Compiled, CompilerSession, compile
from workloads.costs.judge import CompiledLatency, compiled_latency
from workloads.costs.store import CostStore
from workloads.errors import (
    CompileError,
    CompilerKilled,
    CompilerUnavailable,
    CompileTimeout,
    OverrideError,
    WorkloadError,
)
from workloads.extraction.extraction import Extraction
from workloads.extraction.pipeline import Extracted, extract, extract_session
from workloads.hlo.module import Module
from workloads.importers.pipeline import import_hlo, import_jax, import_stablehlo
from workloads.loop.calibration import calibrate
from workloads.loop.correction import correct
from workloads.loop.verification import Preview, Verification, preview, verify
from workloads.overrides.text import overrides
from workloads.programs import SUITE
from workloads.programs.families import suite
from workloads.programs.loader import load_program

__all__ = [
    "SUITE",
    "CompileError",
    "CompileTimeout",
    "Compiled",
    "CompiledLatency",
    "CompilerKilled",
    "CompilerSession",
    "CompilerUnavailable",
    "CostStore",
    "Extracted",
    "Extraction",
    "Module",
    "OverrideError",
    "Preview",
    "Verification",
    "WorkloadError",
    "calibrate",
    "compile",
    "compiled_latency",
    "correct",
    "extract",
    "extract_session",
    "import_hlo",
    "import_jax",
    "import_stablehlo",
    "load_program",
    "overrides",
    "preview",
    "suite",
    "verify",
]
