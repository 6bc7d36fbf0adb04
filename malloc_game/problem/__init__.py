"""The memory-mapping problem and its mappings, host side: bytes, cycles, plain records.

`definition` has the records of a problem, `assignment` those of a mapping, `files` reads and writes
both. A mapping is judged by two modules that share no code with the game: `checker` (which rules it
breaks; `physical` and `dataflow` are those of memory) and `latencies` (how long it takes, by
`timeline`). `generators` makes random problems, `minimalloc` reads packing tests. Start at
`definition`.
"""

from malloc_game.problem.assignment import EVICTION, PREFETCH, Assignment, Chunk, Copy, all_default
from malloc_game.problem.checker import check
from malloc_game.problem.definition import (
    CostTable,
    Exclusion,
    Instruction,
    Position,
    Problem,
    Value,
)
from malloc_game.problem.files import (
    load_assignment,
    load_problem,
    load_reference,
    save_assignment,
    save_problem,
)
from malloc_game.problem.generators import random_problem
from malloc_game.problem.latencies import Latency, latency
from malloc_game.problem.target import TARGETS, Target
from malloc_game.problem.timeline import Timeline
from malloc_game.problem.violation import Violation

__all__ = [
    "EVICTION",
    "PREFETCH",
    "TARGETS",
    "all_default",
    "check",
    "latency",
    "load_assignment",
    "load_problem",
    "load_reference",
    "random_problem",
    "save_assignment",
    "save_problem",
    "Assignment",
    "Chunk",
    "Copy",
    "CostTable",
    "Exclusion",
    "Instruction",
    "Latency",
    "Position",
    "Problem",
    "Target",
    "Timeline",
    "Value",
    "Violation",
]
