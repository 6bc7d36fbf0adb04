"""The genuine XLA:TPU compiler in a child process, ahead of time, with no TPU attached.

`session` is the parent's side: one process for a program and a target, results cached by `cache`.
`process` and `frames` keep a child that may abort, hang or print without end; `sending` says how a
program gets there, `child` is that process. `parsing` brings HLO and StableHLO to a proto in
another one. Start at `session`.
"""

from workloads.compiler.session import Compiled, CompilerSession, compile

__all__ = ["compile", "Compiled", "CompilerSession"]
