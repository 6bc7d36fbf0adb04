"""The benchmark of solvers on problems: runs that can be resumed, compiled mappings, a report.

    cases = [Case.of_pair(pair) for pair in suite_data.pairs()]
    run(cases, choose_solvers(["greedy", "cpsat"]), seconds=60, seeds=[0], out=Path("out/bench"))
    write(load(Path("out/bench")), Path("out/bench"))

`mallocgame bench` is the same from the command line.
"""

from workloads.benchmark.cases import PROBLEM_SUFFIXES, Case, Opened, select
from workloads.benchmark.compiling import compile_mappings
from workloads.benchmark.keeping import Progress
from workloads.benchmark.report import Results, compiled_table, load, standings_table, write
from workloads.benchmark.rows import CompiledRow, JudgedCompiledRow, JudgedRow, Row
from workloads.benchmark.runner import choose_solvers, run
from workloads.benchmark.scores import cells_of, comparable

__all__ = [
    "PROBLEM_SUFFIXES",
    "Case",
    "CompiledRow",
    "JudgedCompiledRow",
    "JudgedRow",
    "Opened",
    "Progress",
    "Results",
    "Row",
    "cells_of",
    "choose_solvers",
    "comparable",
    "compile_mappings",
    "compiled_table",
    "load",
    "run",
    "select",
    "standings_table",
    "write",
]
