"""Real programs, the genuine XLA:TPU compiler in the loop, and the way to problems and back."""

from workloads.compile import Compiled, CompilerSession, compile
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
from workloads.judge import CompiledLatency, compiled_latency
from workloads.loader import load_program
from workloads.overrides import overrides
from workloads.programs import SUITE
from workloads.verify import Verification, verify

__all__ = [
    "SUITE",
    "CompileError",
    "CompileTimeout",
    "Compiled",
    "CompiledLatency",
    "CompilerKilled",
    "CompilerSession",
    "CompilerUnavailable",
    "Extracted",
    "Extraction",
    "Module",
    "OverrideError",
    "Verification",
    "WorkloadError",
    "compile",
    "compiled_latency",
    "extract",
    "extract_session",
    "load_program",
    "overrides",
    "verify",
]
