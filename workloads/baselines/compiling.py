"""What a way of choosing needs of the compiler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from malloc_game import Assignment
from workloads.compiler.session import Compiled
from workloads.extraction.extraction import Extraction


class Compiling(Protocol):
    """The compiler behind a run, which judges and remembers what it compiles; `Race` is one."""

    @property
    def extraction(self) -> Extraction:
        """The program as the game sees it, with the costs that compiles have shown."""

    @property
    def xla_default(self) -> Assignment:
        """XLA's default mapping."""

    @property
    def xla_default_cycles(self) -> float:
        """Its compiled latency."""

    @property
    def best_cycles(self) -> float:
        """Compiled latency of the fastest compile so far."""

    def compile(self, options: Mapping[str, str]) -> Compiled:
        """Compile. Raises: CompileError."""

    def learn(self, compiled: Compiled) -> tuple[float, Assignment]:
        """Learn from such a compile; how fast it is, in cycles, and what it does."""

    def try_options(self, options: Mapping[str, str]) -> tuple[float, Assignment] | None:
        """Both; None if the compiler fails, or is not asked: a result is always a compile's."""
