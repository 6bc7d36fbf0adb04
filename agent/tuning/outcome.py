"""What a run of the main job hands back: the candidates, and which of them is best."""

from __future__ import annotations

import dataclasses

import malloc_game as mg

# guided: what XLA places under the restrictions of a search; see `agent.tuning.guided`.
PLANNED = ("greedy", "guided", "agent")
SOURCES = ("all_default", "xla_default", *PLANNED)
# What found a plan of the agent's side that was made under costs drawn from what they may be.
DRAWN = "drawn costs"
# What people call them; "best" is one of them.
LABELS = {
    "all_default": "all default",
    "xla_default": "XLA default",
    "greedy": "greedy",
    "guided": "guided search",
    "agent": "agent",
    "best": "best",
}


@dataclasses.dataclass
class Candidate:
    """One way of mapping the program."""

    source: str
    assignment: mg.Assignment | None = None  # as compiled, where the game can express that
    predicted: float | None = None  # cycles, by the cost model as it was before compiling this
    compiled: float | None = None  # cycles, judged from the compiled module
    honoured: float | None = None
    not_honoured: tuple[str, ...] = ()
    options: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Outcome:
    """What `optimize` found. `best` is the fastest as compiled (as predicted, without compiler)."""

    problem: mg.Problem
    target: mg.Target
    program: str
    decisions: int
    versions: dict[str, str]
    seed: int
    seconds: float
    candidates: dict[str, Candidate]
    best: Candidate
    agent_found_by: str | None  # how the planner came by the agent's game
    num_compiles: int
    agent_stats: dict
    # As `compiled_speedup`, if alternate memory never cost more than default memory.
    compiled_speedup_monotone: float | None = None
    # Of each compile that was an improvement: when it was there, in seconds, and its cycles.
    history: tuple[tuple[float, float], ...] = ()

    @property
    def compiled_speedup(self) -> float | None:
        """XLA default's compiled latency divided by the best's; None if nothing was compiled."""
        default = self.candidates["xla_default"].compiled
        if default is None or not self.best.compiled:
            return None
        return default / self.best.compiled
