"""The suite: real programs as plain JAX functions with abstract arguments, and their problems.

`registry` names the programs, each module beside it has a kind of them. `loader` makes a program of
what a user typed, `families` says what each family may be used for (`suite.json`), and
`suite_problems` loads the problem files that ship in `data`. Start at `registry`.
"""

from workloads.programs.families import suite
from workloads.programs.loader import load_program, resolve_spec
from workloads.programs.registry import SUITE
from workloads.programs.suite_problems import Pair, pairs

__all__ = ["SUITE", "load_program", "pairs", "resolve_spec", "suite", "Pair"]
