"""The benchmark of solvers on problems: runs that can be resumed, compiled mappings, a report.

    cases = [Case.of_pair(pair) for pair in suite_data.pairs()]
    run(cases, choose_solvers(["greedy", "cpsat"]), seconds=60, seeds=[0], out=Path("out/bench"))
    write(load(Path("out/bench")), Path("out/bench"))

`mallocgame bench` is the same from the command line.
"""

from workloads.contest.cases import Case, Opened, select
from workloads.contest.compiling import compile_mappings
from workloads.contest.report import Results, load, write
from workloads.contest.rows import CompiledRow, Row
from workloads.contest.runner import Progress, choose_solvers, run

__all__ = [
    "Case",
    "CompiledRow",
    "Opened",
    "Progress",
    "Results",
    "Row",
    "choose_solvers",
    "compile_mappings",
    "load",
    "run",
    "select",
    "write",
]
