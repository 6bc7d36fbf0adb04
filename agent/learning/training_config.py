"""Settings of training on many programs; see `config` for those of the agent itself."""

from __future__ import annotations

import dataclasses

from agent.learning.config import (
    FRACTION,
    AgentConfig,
    ConfigError,
    NetworkConfig,
    SearchConfig,
    SelfPlayConfig,
    TrainConfig,
    at_least,
    check,
    from_json,
    to_json,
)


@dataclasses.dataclass(frozen=True)
class PrioritisedReplayConfig:
    """Replay of moves; sequences are drawn by |value error| ** priority_exponent.

    importance_exponent: of the weights that make up for that (1 does fully, 0 does not).
    """

    capacity: int = 131072  # moves
    priority_exponent: float = 0.6
    importance_exponent: float = 0.4

    def __post_init__(self):
        check(
            self,
            capacity=at_least(1),
            priority_exponent=FRACTION,
            importance_exponent=FRACTION,
        )


@dataclasses.dataclass(frozen=True)
class ReanalyseConfig:
    """The fraction of each learning batch that gets fresh targets from the target network.

    Policies come from a search without noise, values that n-step returns end in from one inference.
    Needs learned dynamics: a root is then the stored observation and what was legal.
    """

    fraction: float = 0.25

    def __post_init__(self):
        check(self, fraction=FRACTION)


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """Games of the validation problems without noise, with the averaged parameters."""

    every_iterations: int = 50  # 0: never
    num_simulations: int = 32

    def __post_init__(self):
        check(self, every_iterations=at_least(0), num_simulations=at_least(1))


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When training can be resumed from. The last checkpoints are kept, older ones removed."""

    every_iterations: int = 50
    keep: int = 2

    def __post_init__(self):
        check(self, every_iterations=at_least(1), keep=at_least(1))


@dataclasses.dataclass(frozen=True)
class VariantsConfig:
    """Problems made of the given ones, to learn from as well (see `variants`).

    Each is up to `most_programs` of one target in a row. The factors are the most by which the
    capacity of alternate memory, its bandwidth to default memory, the cycles of a computation and
    the share of them that alternate memory saves go up or down.
    """

    count: int = 0
    most_programs: int = 3
    capacity_factor: float = 2.0
    bandwidth_factor: float = 1.5
    cycles_factor: float = 1.5
    saving_factor: float = 1.5

    def __post_init__(self):
        factors = ("capacity_factor", "bandwidth_factor", "cycles_factor", "saving_factor")
        check(
            self,
            count=at_least(0),
            most_programs=at_least(1),
            **{name: at_least(1.0) for name in factors},
        )


def _default_agent() -> AgentConfig:
    return AgentConfig(
        network=NetworkConfig(features="outlook"),
        search=SearchConfig(num_simulations=8, value_scale=0.2),
        self_play=SelfPlayConfig(num_games=64, chunk_moves=64),
        train=TrainConfig(
            batch_size=256,
            updates_per_iteration=16,
            learning_rate=1e-3,
            warmup_updates=100,
            decay_updates=20000,
            td_steps=16,
            discount=0.95,
            reward_unit="stake",
            return_scale=10.0,
        ),
        imitate_fraction=0.25,
    )


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """Everything that training is told, apart from the problems and the seed.

    agent: of its parts `replay` and the perturbations of `self_play` are the planner's alone.
      `imitate_best` lets a fraction of the games of every batch play the best game known of their
      program again, with its moves as policy targets (self-imitation).
    seed_games: the best games are at first those of greedy, of the linear relaxation (with hints)
      and of the reference mapping that a file has; otherwise the agent has only its own.
    return_fraction: of the games of every batch, which play the best game known of their program up
      to a random move and are free from there. Free games rarely come to where it is good.
    max_decisions: longer programs are left out.
    smallest_bucket: padded length of the shortest programs. Fewer buckets are fewer traces, which
      pays where padding costs nothing (on a GPU).
    """

    agent: AgentConfig = dataclasses.field(default_factory=_default_agent)
    replay: PrioritisedReplayConfig = dataclasses.field(default_factory=PrioritisedReplayConfig)
    reanalyse: ReanalyseConfig = dataclasses.field(default_factory=ReanalyseConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    variants: VariantsConfig = dataclasses.field(default_factory=VariantsConfig)
    seed_games: bool = True
    return_fraction: float = 0.25
    max_decisions: int = 1500
    smallest_bucket: int = 64

    def __post_init__(self):
        check(
            self,
            max_decisions=at_least(1),
            smallest_bucket=at_least(1),
            return_fraction=FRACTION,
        )
        agent = self.agent
        if agent.rules != "compiler":
            raise ConfigError(
                f'TrainingConfig.agent.rules: {agent.rules!r} given; training needs "compiler"'
            )
        if agent.search.dynamics == "env" and self.reanalyse.fraction > 0:
            raise ConfigError(
                'ReanalyseConfig.fraction: with SearchConfig.dynamics="env" need 0, since replay'
                " holds no game states to search from"
            )
        if agent.self_play.chunk_moves < self.sequence_moves:
            raise ConfigError(
                f"SelfPlayConfig.chunk_moves: {agent.self_play.chunk_moves} given; need at least"
                f" {self.sequence_moves} = unroll_steps + td_steps + 1"
            )
        if self.num_imitating + self.num_returning >= agent.self_play.num_games:
            raise ConfigError(
                f"TrainingConfig.return_fraction: {self.return_fraction} given; with"
                f" imitate_fraction {agent.imitate_fraction} no game is free"
            )
        if self.row_moves < agent.self_play.chunk_moves:
            raise ConfigError(
                f"PrioritisedReplayConfig.capacity: {self.replay.capacity} given; need at least"
                f" num_games * chunk_moves ="
                f" {agent.self_play.num_games * agent.self_play.chunk_moves}"
            )

    @property
    def sequence_moves(self) -> int:
        """Moves that the targets of one window are made of."""
        return self.agent.train.unroll_steps + self.agent.train.td_steps + 1

    @property
    def row_moves(self) -> int:
        """Moves that replay keeps of each game of a batch."""
        return self.replay.capacity // self.agent.self_play.num_games

    @property
    def num_returning(self) -> int:
        """Games of a batch that play the best game known up to a random move."""
        return round(self.agent.self_play.num_games * self.return_fraction)

    @property
    def num_imitating(self) -> int:
        """Games of a batch that play the best game known."""
        agent = self.agent
        if not agent.imitate_best:
            return 0
        return round(agent.self_play.num_games * agent.imitate_fraction)

    def to_json(self) -> str:
        """The config as JSON text; `from_json` reads it back to an equal config."""
        return to_json(self)

    @classmethod
    def from_json(cls, text: str) -> TrainingConfig:
        """Reads `to_json` text; missing fields take their defaults.

        Raises: ConfigError for text that is not JSON, unknown names, and bad values."""
        return from_json(cls(), text, "training config")
