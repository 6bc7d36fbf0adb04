"""The program with everything in default memory: what it is before memory-space assignment.

One override that matches every name does it for most programs. In some the compiler gives a few
values alternate memory by itself (buffers of SparseCore calls on tpu7x) and aborts when they are to
be kept out; there, the values that the dump of its assignment lists are named one by one.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any, Protocol

from workloads.compiler.session import OVERRIDES_OPTION, Compiled
from workloads.errors import CompileError, CompilerKilled, CompileTimeout
from workloads.extraction.buffers import asynchronous_names, parse_dump
from workloads.hlo.module import Module
from workloads.overrides.text import EXACT_OPTIONS, KEEP_EVERYTHING, keep

_LABEL = "all-default-1"


class Compiler(Protocol):
    """What is needed of a compiler session, or of who stands before one and counts."""

    def compile(self, options: Mapping[str, str]) -> Compiled:
        """As `CompilerSession.compile`."""

    def remembered(self, label: str) -> dict[str, Any] | None:
        """As `CompilerSession.remembered`."""

    def remember(self, label: str, fields: dict[str, Any]) -> None:
        """As `CompilerSession.remember`."""


_on_the_way: weakref.WeakKeyDictionary[Compiler, Compiled] = weakref.WeakKeyDictionary()


def all_default_options(session: Compiler) -> dict[str, str]:
    """Compiler options under which the program has everything in default memory that can be.

    Compiles, if that has not been done before.

    Raises:
      CompileError: the program cannot be compiled in any way.
    """
    everything = {**EXACT_OPTIONS, OVERRIDES_OPTION: KEEP_EVERYTHING}
    if session.remembered(_LABEL) is None:
        try:
            session.compile(everything)
            return everything
        except (CompilerKilled, CompileTimeout):
            raise
        except CompileError:
            session.remember(_LABEL, {"is_listed": True})
    default = _on_the_way[session] = session.compile(EXACT_OPTIONS)
    module = Module(default.placed or default.hlo)
    asynchronous = asynchronous_names(module)
    # What an asynchronous call moves on chip cannot be moved within default memory instead.
    names = sorted(
        name
        for buffer in parse_dump(default.msa).buffers.values()
        if asynchronous.isdisjoint(buffer.instructions)
        for name in buffer.names
    )
    return {**EXACT_OPTIONS, OVERRIDES_OPTION: "\n".join(map(keep, names))}


def compiled_on_the_way(session: Compiler) -> Compiled | None:
    """XLA's own mapping under `EXACT_OPTIONS`, where finding the all-default program took it.

    It may be faster than XLA's default, and costs nothing any more.
    """
    return _on_the_way.get(session)
