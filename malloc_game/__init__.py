"""mallocGame: which tensor lives in fast memory, when and where, as a game for agents."""

from malloc_game.platform import configure_platform

configure_platform()

import importlib
from typing import Any

from malloc_game.assignment import EVICTION, PREFETCH, Assignment, Chunk, Copy, all_default
from malloc_game.baselines import (
    admitting_plays,
    follow,
    greedy,
    greedy_plays,
    random_play,
    replay,
)
from malloc_game.check import Violation, check
from malloc_game.encode import encode
from malloc_game.env import EnvState, MallocGame, Observation, TimeStep
from malloc_game.errors import AssignmentError, MallocGameError, ProblemError
from malloc_game.evaluate import Latency, latency
from malloc_game.fileio import (
    load_assignment,
    load_problem,
    load_reference,
    save_assignment,
    save_problem,
)
from malloc_game.game import init, legal_actions, placement_masks, step, to_assignment
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
from malloc_game.render import render_image, render_text, save_image
from malloc_game.state import (
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
from malloc_game.target import TARGETS, Target
from malloc_game.timeline import Timeline

__version__ = "0.1.0"

# The main job, under the name that people import. It lives above this package, which does not need
# it: the module is loaded when it is first asked for. Not in `__all__`, so that a star import loads
# nothing more.
_ABOVE = {"optimize": "agent.api", "OptimizeResult": "agent.api"}

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
    if name not in _ABOVE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_ABOVE[name]), name)
    globals()[name] = value  # asked once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_ABOVE})
