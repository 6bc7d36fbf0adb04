"""What a run of the main job hands back: the mappings it has, and why others are missing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import malloc_game as mg

# Where mappings come from. planner: plans of our own, whoever found them; guided: what XLA places
# under the restrictions of a search, see `guided` and `permitting`.
PLANNED = ("greedy", "guided", "planner")
SOURCES = ("all_default", "xla_default", *PLANNED)
# What people call them; "best" is one of them.
LABELS = {
    "all_default": "all default",
    "xla_default": "XLA default",
    "greedy": "greedy",
    "guided": "guided",
    "planner": "planner",
    "best": "best",
}

# Why there is no mapping of a source.
NOT_TRIED = "not tried"
REFUSED = "refused"
CRASHED = "crashed the compiler"
TIMED_OUT = "took the compiler too long"
FAILED = "failed"  # planning did


@dataclasses.dataclass(frozen=True)
class Planned:
    """One way of mapping the program, as planned; no compiler has seen it."""

    source: str  # one of SOURCES
    found_by: str  # what really found it: a name in `agent.planner.finders`, or a solver's
    assignment: mg.Assignment  # as compiled, where it was and the game can express that
    predicted: float  # cycles, by the cost model as it was before compiling this
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Compiled(Planned):
    """One that was compiled, too."""

    compiled: float = dataclasses.field(kw_only=True)  # cycles, judged from the compiled module
    honoured: float = dataclasses.field(kw_only=True)
    not_honoured: tuple[str, ...] = ()


class Improvement(NamedTuple):
    """A compile that was faster than all before it."""

    seconds: float  # since the run began
    cycles: float
    found_by: str


@dataclasses.dataclass(frozen=True)
class Missing:
    """Why a source has no mapping."""

    status: str  # one of the above, of its last try
    reason: str = ""  # what the compiler said


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What `optimize` found. `best` has the fewest cycles as compiled (as predicted, without a
    compiler)."""

    problem: mg.Problem
    program: str
    decisions: int
    versions: Mapping[str, str]
    seed: int
    seconds: float
    candidates: Mapping[str, Planned]  # by source, those that there are
    missing: Mapping[str, Missing]  # the other sources of PLANNED that could be
    best: Planned
    # Different sets of options that the compiler was asked to compile to the end, whether it did or
    # not, and whether it had to or the answer was in the cache.
    num_compiles: int
    planner_stats: Mapping[str, object]
    # As `compiled_speedup`, if alternate memory never cost more than default memory.
    compiled_speedup_monotone: float | None = None
    history: tuple[Improvement, ...] = ()
    # Why the run ended before its time: an interruption or a fault; what was found until then is
    # all here.
    stopped: str | None = None
    is_interrupted: bool = False

    @property
    def target(self) -> mg.Target:
        """What the program was compiled for."""
        return self.problem.target

    @property
    def xla_default_cycles(self) -> float | None:
        """Compiled latency of XLA's default; None if nothing was compiled."""
        default = self.candidates.get("xla_default")
        return default.compiled if isinstance(default, Compiled) else None

    @property
    def compiled_speedup(self) -> float | None:
        """XLA default's compiled latency divided by the best's; None if nothing was compiled."""
        default = self.xla_default_cycles
        if default is None or not isinstance(self.best, Compiled) or not self.best.compiled:
            return None
        return default / self.best.compiled
