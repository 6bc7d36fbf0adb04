"""Programs of different sizes in a few padded shapes, so that few traces serve many of them.

`malloc_game.encode` pads a program for itself. Here programs whose larger side (decisions or
instructions) rounds up to the same power of two form a bucket, and all their arrays are padded to
one shape. The size of alternate memory is a shape too: it differs by at most 4 of 2048 granules
between targets, and the smallest of a bucket is used for all, in training only.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

import malloc_game
from agent.learning.config import ConfigError
from malloc_game import Problem, Program
from malloc_game.game.decisions import wanted_by
from malloc_game.solvers.relaxation.bounds import lower_bound
from malloc_game.solvers.relaxation.lp_rounding import fractions

_DECISIONS = (
    *("asked_at", "decision_time", "decision_value", "is_parameter", "is_use", "may_copy"),
    *("must_stay", "previous", "next_time", "size", "copy_units", "end", "reserved"),
    *("reserved_before", "write_back", "is_refused", "exclusion_group", "static_gain"),
    *("first_effect", "num_effects"),
)
_TIMES = (
    *("table_start", "trip_count", "may_start_copy", "time_fraction", "demand"),
    "position_decision",
)
_TABLES = ("cycles", "idle")
_EFFECTS = ("effect_time", "effect_bits")
_EXCLUSIONS = ("excluding_group", "excluding_use", "excluded_output")


@dataclasses.dataclass(frozen=True)
class Gap:
    """What lies between the latency of a task's reference and the bound below it."""

    reference_cycles: float
    bound_cycles: float  # less than that

    def closed(self, cycles: float) -> float:
        """(reference - cycles) / (reference - bound)."""
        return (self.reference_cycles - cycles) / (self.reference_cycles - self.bound_cycles)


@dataclasses.dataclass(frozen=True)
class Task:
    """A problem to learn from or to be judged by."""

    name: str  # of the problem and its target
    problem: Problem
    program: Program
    wanted: np.ndarray | None  # bool[D], decisions that the reference has in alternate memory
    # Of the reference, usually XLA's default mapping; None without both or where there is none.
    gap: Gap | None
    relaxed: np.ndarray | None = None  # float32[D], for hints: see `relaxed_choices`

    def saved(self, cycles: float) -> float:
        """Share of the all-default latency that is saved."""
        default = float(self.program.default_cycles)
        return (default - cycles) / max(default, 1.0)


def load_task(path: str | pathlib.Path, has_hints: bool = False) -> Task:
    """The task of a problem file. Raises: MallocGameError for a file that cannot be used."""
    problem = malloc_game.load_problem(path)
    return make_task(problem, malloc_game.load_reference(path, problem), has_hints)


def relaxed_choices(problem: Problem, program: Program, seconds: float = np.inf) -> np.ndarray:
    """What the linear relaxation has in alternate memory: float32[D], from 0 to 1.

    NaN where it was not solved in so many seconds."""
    bound = lower_bound(problem, expressible=True, time_limit=seconds)
    found = fractions(problem, program.max_decisions, bound)
    unknown = np.full(program.max_decisions, np.nan)
    return np.asarray(unknown if found is None else found, np.float32)


def make_task(
    problem: Problem, reference: malloc_game.Assignment | None = None, has_hints: bool = False
) -> Task:
    """The task of a problem; its provenance may give `bound_cycles`. has_hints: `relaxed` too."""
    program = jax.tree.map(np.asarray, malloc_game.encode(problem))
    wanted = gap = None
    if reference is not None:
        wanted = wanted_by(problem, reference, program.max_decisions)
        bound = problem.provenance.get("bound_cycles")
        cycles = float(malloc_game.latency(problem, reference).cycles)
        if isinstance(bound, int | float) and cycles > bound:
            gap = Gap(cycles, float(bound))
    return Task(
        name=f"{problem.name}-{problem.target.name}",
        problem=problem,
        program=program,
        wanted=wanted,
        gap=gap,
        relaxed=relaxed_choices(problem, program) if has_hints else None,
    )


@dataclasses.dataclass(frozen=True)
class Bucket:
    """Tasks of one padded shape, their programs stacked in the order of the tasks."""

    tasks: tuple[Task, ...]
    programs: Program  # NumPy arrays with a leading axis P
    relaxed: np.ndarray | None = None  # float32[P, D], if all tasks have it

    @property
    def max_decisions(self) -> int:
        """Padded number of decisions D."""
        return self.programs.decision_time.shape[-1]


def make_buckets(tasks: Sequence[Task], most: int, smallest: int = 64) -> list[Bucket]:
    """Buckets of at most `most` tasks each, the smallest programs first.

    smallest: the padded length of the shortest programs, a power of two."""
    by_size: dict[int, list[Task]] = {}
    for task in tasks:
        by_size.setdefault(_size_class(task.program, smallest), []).append(task)
    buckets = []
    for size, same in sorted(by_size.items()):
        programs = [task.program for task in same]
        shape = _common_shape(programs, size)
        padded = [pad_program(program, shape) for program in programs]
        for first in range(0, len(same), most):
            part = slice(first, first + most)
            stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *padded[part])
            relaxed = _stack_relaxed(same[part], shape.decisions)
            buckets.append(Bucket(tuple(same[part]), stacked, relaxed))
    return buckets


def _stack_relaxed(tasks: Sequence[Task], length: int) -> np.ndarray | None:
    stacked = np.zeros((len(tasks), length), np.float32)
    for row, task in zip(stacked, tasks, strict=True):
        if task.relaxed is None:
            return None
        number = int(task.program.num_decisions)
        row[:number] = task.relaxed[:number]
    return stacked


def leave_out_long(tasks: Sequence[Task], most: int) -> tuple[list[Task], list[str]]:
    """Tasks of 1 to `most` decisions, and a line about each of the others.

    Raises: ConfigError if none is left."""
    kept, lines = [], []
    for task in tasks:
        count = int(task.program.num_decisions)
        if 1 <= count <= most:
            kept.append(task)
        else:
            lines.append(f"{task.name}: {count} decisions, left out (need 1 to {most})")
    if not kept:
        raise ConfigError(
            f"no problem to train on: none of {len(tasks)} has 1 to {most} decisions;"
            " see TrainingConfig.max_decisions"
        )
    return kept, lines


def _power_of_two(size: int, smallest: int) -> int:
    return max(smallest, 1 << (size - 1).bit_length())


def _size_class(program: Program, smallest: int) -> int:
    # One more entry than there are: it stands for what lies beyond the end.
    needed = max(int(program.num_decisions), int(program.num_times)) + 1
    return _power_of_two(needed, smallest)


@dataclasses.dataclass(frozen=True)
class PaddedShape:
    """Padded sizes, see `malloc_game.Program`."""

    decisions: int
    times: int
    tables: int
    effects: int
    exclusions: int
    granules: int


def _common_shape(programs: Sequence[Program], size: int) -> PaddedShape:
    def largest(name: str) -> int:
        return max(getattr(program, name).shape[-1] for program in programs)

    return PaddedShape(
        decisions=size,
        times=size,
        tables=_power_of_two(largest("cycles"), 256),
        effects=_power_of_two(largest("effect_time"), 128),
        exclusions=_power_of_two(largest("excluding_group"), 8),
        granules=min(program.num_granules for program in programs),
    )


def pad_program(program: Program, shape: PaddedShape) -> Program:
    """The same game in other padding: every play has the same actions, rewards and end.

    Only fewer granules than the program has make a difference: then memory is smaller.
    """
    none = program.max_decisions - 1  # stands for no decision
    program = jax.tree.map(np.asarray, program)
    sized = {
        **dict.fromkeys(_DECISIONS, shape.decisions),
        **dict.fromkeys(_TIMES, shape.times),
        **dict.fromkeys(_TABLES, shape.tables),
        **dict.fromkeys(_EFFECTS, shape.effects),
        **dict.fromkeys(_EXCLUSIONS, shape.exclusions),
    }
    # The last decision and the last time are padding already.
    fills = {
        **dict.fromkeys((*_TABLES, *_EFFECTS), 0),
        **dict.fromkeys(_EXCLUSIONS, malloc_game.UNPLACED),
    }
    columns = {}
    for name, length in sized.items():
        old = getattr(program, name)
        fill = np.full_like(old[-1:], fills[name]) if name in fills else old[-1:]
        columns[name] = np.concatenate([old, np.repeat(fill, length - len(old), axis=0)])
    placed_by = columns["position_decision"]
    columns["position_decision"] = np.where(placed_by == none, shape.decisions - 1, placed_by)
    return program.replace(granules=np.ones(shape.granules, bool), **columns)


def spread(stacked: chex.ArrayTree, num_games: int) -> chex.ArrayTree:
    """Arrays [P, ...] -> [num_games, ...]: game b has row b mod P."""
    rows = np.arange(num_games) % jax.tree.leaves(stacked)[0].shape[0]
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x)[rows]), stacked)
