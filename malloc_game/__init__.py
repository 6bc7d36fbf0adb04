"""mallocGame: which tensor lives in fast memory, when and where, as a game for agents."""

from malloc_game.platform import configure_platform

configure_platform()

from malloc_game.assignment import EVICTION, PREFETCH, Assignment, Chunk, Copy, all_default
from malloc_game.baselines import follow, greedy, random_play, replay
from malloc_game.check import Violation, check
from malloc_game.encode import encode
from malloc_game.errors import AssignmentError, MallocGameError, ProblemError
from malloc_game.evaluate import Latency, latency
from malloc_game.fileio import (
    load_assignment,
    load_problem,
    load_reference,
    save_assignment,
    save_problem,
)
from malloc_game.game import init, legal_actions, step, to_assignment
from malloc_game.generators import random_problem
from malloc_game.minimalloc import (
    PackingInstance,
    check_offsets,
    first_fit,
    load_minimalloc_csv,
)
from malloc_game.observe import OBSERVATION_SIZE, observe
from malloc_game.problem import (
    CostTable,
    Exclusion,
    Instruction,
    Position,
    Problem,
    Value,
)
from malloc_game.state import (
    ACTION_NAMES,
    COPY,
    DROP,
    NO_COPY,
    NUM_ACTIONS,
    UNPLACED,
    GameState,
    Program,
)
from malloc_game.target import TARGETS, Target
from malloc_game.timeline import Timeline

__version__ = "0.1.0"

__all__ = [
    "ACTION_NAMES",
    "COPY",
    "DROP",
    "EVICTION",
    "NO_COPY",
    "NUM_ACTIONS",
    "OBSERVATION_SIZE",
    "PREFETCH",
    "TARGETS",
    "UNPLACED",
    "Assignment",
    "AssignmentError",
    "Chunk",
    "Copy",
    "CostTable",
    "Exclusion",
    "GameState",
    "Instruction",
    "Latency",
    "MallocGameError",
    "PackingInstance",
    "Position",
    "Problem",
    "ProblemError",
    "Program",
    "Target",
    "Timeline",
    "Value",
    "Violation",
    "all_default",
    "check",
    "check_offsets",
    "encode",
    "first_fit",
    "follow",
    "greedy",
    "init",
    "latency",
    "legal_actions",
    "load_assignment",
    "load_minimalloc_csv",
    "load_problem",
    "load_reference",
    "observe",
    "random_play",
    "random_problem",
    "replay",
    "save_assignment",
    "save_problem",
    "step",
    "to_assignment",
]
