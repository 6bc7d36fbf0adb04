"""Compiled programs as data: HLO modules as light records.

`module` reads XLA's serialized protos, `schema` is the part of them that is read, `xla_bindings`
has XLA's own parsers of text. Start at `module`.
"""

from workloads.hlo.module import Instruction, Module

__all__ = ["Instruction", "Module"]
