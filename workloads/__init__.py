"""Real programs, the genuine XLA:TPU compiler in the loop, and the way to problems and back."""

from workloads.calibrate import calibrate
from workloads.compile import Compiled, CompilerSession, compile
from workloads.correct import correct
from workloads.costs import CostStore
from workloads.errors import (
    CompileError,
    CompilerKilled,
    CompilerUnavailable,
    CompileTimeout,
    OverrideError,
    WorkloadError,
)
from workloads.extract import Extracted, Extraction, extract, extract_session
from workloads.hlo import Module
from workloads.importing import import_hlo, import_jax, import_stablehlo
from workloads.judge import CompiledLatency, compiled_latency
from workloads.loader import load_program
from workloads.overrides import overrides
from workloads.programs import SUITE
from workloads.suite import suite
from workloads.verify import Preview, Verification, preview, verify

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
