"""mallocGame: which tensor lives in fast memory, when and where, as a game for agents."""

from malloc_game.platform import configure_platform

configure_platform()

import importlib.metadata
from typing import Any

from malloc_game.environments.environment import EnvState, MallocGame, Observation, TimeStep
from malloc_game.errors import AssignmentError, MallocGameError, ProblemError
from malloc_game.game.encoding import encode
from malloc_game.game.observation import OBSERVATION_SIZE, observe
from malloc_game.game.playing import (
    admitting_plays,
    follow,
    greedy,
    greedy_plays,
    random_play,
    replay,
)
from malloc_game.game.rules import init, legal_actions, placement_masks, step, to_assignment
from malloc_game.game.state import (
    ACTION_NAMES,
    COPY,
    DROP,
    NO_COPY,
    NUM_ACTIONS,
    RULES,
    UNPLACED,
    GameState,
    Program,
)
from malloc_game.problem.assignment import EVICTION, PREFETCH, Assignment, Chunk, Copy, all_default
from malloc_game.problem.checker import Violation, check
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
from malloc_game.problem.minimalloc import (
    PackingInstance,
    check_offsets,
    load_minimalloc_csv,
)
from malloc_game.problem.target import TARGETS, Target
from malloc_game.problem.timeline import Timeline
from malloc_game.render.image import render_image, save_image
from malloc_game.render.text import render_text
from malloc_game.solvers.packing import first_fit

__version__ = "0.1.0"

# Packages that build on this one can offer names here (`malloc_game.optimize`, say), as entry
# points of this group. They are loaded when they are first asked for, and are not in `__all__`, so
# that a star import loads nothing more.
_EXTENSIONS = "malloc_game.extensions"

__all__ = [
    "ACTION_NAMES",
    "COPY",
    "DROP",
    "EVICTION",
    "NO_COPY",
    "NUM_ACTIONS",
    "OBSERVATION_SIZE",
    "PREFETCH",
    "RULES",
    "TARGETS",
    "UNPLACED",
    "Assignment",
    "AssignmentError",
    "Chunk",
    "Copy",
    "CostTable",
    "EnvState",
    "Exclusion",
    "GameState",
    "Instruction",
    "Latency",
    "MallocGame",
    "MallocGameError",
    "Observation",
    "PackingInstance",
    "Position",
    "Problem",
    "ProblemError",
    "Program",
    "Target",
    "TimeStep",
    "Timeline",
    "Value",
    "Violation",
    "all_default",
    "check",
    "check_offsets",
    "encode",
    "first_fit",
    "follow",
    "admitting_plays",
    "greedy",
    "greedy_plays",
    "init",
    "latency",
    "legal_actions",
    "load_assignment",
    "load_minimalloc_csv",
    "load_problem",
    "load_reference",
    "observe",
    "placement_masks",
    "random_play",
    "random_problem",
    "render_image",
    "render_text",
    "replay",
    "save_assignment",
    "save_image",
    "save_problem",
    "step",
    "to_assignment",
]


def __getattr__(name: str) -> Any:
    offered = importlib.metadata.entry_points(group=_EXTENSIONS, name=name)
    if not offered:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = next(iter(offered)).load()
    globals()[name] = value  # asked once
    return value


def __dir__() -> list[str]:
    offered = importlib.metadata.entry_points(group=_EXTENSIONS)
    return sorted({*globals(), *offered.names})
