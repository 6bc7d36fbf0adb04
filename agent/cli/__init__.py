"""The command line `mallocgame`.

`entry` is where it begins, `commands` the group; a command is a module that parses arguments, calls
one function and prints. `common` and `choosing` have what commands share. Start at `commands`.
"""

__all__ = [
    "bench",
    "choosing",
    "commands",
    "common",
    "diagnosis",
    "doctor",
    "entry",
    "fidelity",
    "interrupts",
    "jit_cache",
    "optimizing",
    "problem_files",
    "race",
    "report",
    "suite",
    "timing",
    "train",
]
