"""Settings of the agent: one frozen, validated dataclass per part, with a JSON round trip.

Every field is checked when a config is built: `ConfigError` names the field, its value, the rule.
Configs are hashable, so that a jitted function can take one as a static argument.
"""

import dataclasses
import json
from collections.abc import Callable
from typing import Any


class ConfigError(ValueError):
    """A setting has a value, name or type that the agent cannot use."""


_Rule = tuple[Callable[[Any], bool], str]


def _at_least(low: float) -> _Rule:
    return lambda value: value >= low, f"need >= {low}"


def _above(low: float) -> _Rule:
    return lambda value: value > low, f"need > {low}"


_FRACTION: _Rule = (lambda value: 0 <= value <= 1, "need a number from 0 to 1")


def _check(config: Any, **rules: _Rule) -> None:
    """Checks each field's type against its default's, then its rule if it has one."""
    where = type(config).__name__
    for field in dataclasses.fields(config):
        value, wanted = getattr(config, field.name), type(field.default)
        if field.default is dataclasses.MISSING:
            wanted = field.default_factory
        if wanted is float and type(value) is int:
            value = float(value)
            object.__setattr__(config, field.name, value)
        if type(value) is not wanted or value != value:  # NaN differs from itself
            raise ConfigError(f"{where}.{field.name}: {value!r} given; need a {wanted.__name__}")
        is_kept, text = rules.get(field.name, (lambda _: True, ""))
        if not is_kept(value):
            raise ConfigError(f"{where}.{field.name}: {value!r} given; {text}")


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the three networks and the supports of their two-hot heads (in scaled cycles)."""

    hidden_size: int = 128
    representation_blocks: int = 1
    dynamics_blocks: int = 1
    num_bins: int = 61
    value_bound: float = 30.0  # values are represented in [-value_bound, value_bound]
    reward_bound: float = 10.0  # rewards of one move, likewise

    def __post_init__(self):
        _check(
            self,
            hidden_size=_at_least(8),
            representation_blocks=_at_least(0),
            dynamics_blocks=_at_least(1),
            num_bins=(lambda value: value >= 3 and value % 2 == 1, "need an odd number >= 3"),
            value_bound=_above(0),
            reward_bound=_above(0),
        )


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """Gumbel MuZero search (mctx.gumbel_muzero_policy).

    Q-values are not rescaled to [0, 1] within a node, mctx's default: with two or three legal moves
    that turns every small error of the learned value into a confident choice. Their weight against
    the prior logits is `(maxvisit_init + visits) * value_scale`, in scaled cycles.
    """

    num_simulations: int = 8
    max_num_considered_actions: int = 3
    gumbel_scale: float = 1.0  # of the noisiest game of a batch; 0 plays the best move found
    dynamics: str = "learned"  # "env" plans with the true game instead of the learned model
    value_scale: float = 0.5
    maxvisit_init: float = 50.0
    rescale_values: bool = False

    def __post_init__(self):
        _check(
            self,
            num_simulations=_at_least(1),
            max_num_considered_actions=_at_least(1),
            gumbel_scale=_at_least(0),
            dynamics=(lambda value: value in ("learned", "env"), 'need "learned" or "env"'),
            value_scale=_above(0),
            maxvisit_init=_at_least(0),
        )


@dataclasses.dataclass(frozen=True)
class SelfPlayConfig:
    """Batches of games, and how much of them restarts from the best game so far.

    A perturbation batch follows the actions of the best game except in a few windows of moves,
    where search (with Gumbel noise) decides. Long games need it: it costs little, since moves
    outside the windows are not searched, and it explores near the best game.
    """

    num_games: int = 16  # games of a batch, played in lockstep
    chunk_moves: int = 256  # moves between two looks at the clock
    perturbation_batches: int = 2  # perturbation batches after each batch of free games; 0: none
    perturbation_windows: int = 4  # the most windows of a perturbation batch (at least one is used)
    perturbation_window_moves: int = 16  # the longest window
    random_move_probability: float = 0.05  # of a random legal move inside a window
    # Under piecemeal rules: times that what follows a dead end of a batch is chosen anew. Later
    # dead ends only drop the value that is stuck.
    drop_backups: int = 8

    def __post_init__(self):
        _check(
            self,
            num_games=_at_least(2),
            chunk_moves=_at_least(1),
            perturbation_batches=_at_least(0),
            perturbation_windows=_at_least(1),
            perturbation_window_moves=_at_least(1),
            random_move_probability=_FRACTION,
            drop_backups=_at_least(0),
        )


@dataclasses.dataclass(frozen=True)
class ReplayConfig:
    """Replay of training windows (a start move and the `unroll_steps` moves after it)."""

    capacity: int = 65536  # windows, >= num_games * max_decisions to hold one batch of games

    def __post_init__(self):
        _check(self, capacity=_at_least(1))


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Losses and optimiser.

    The game's return is not discounted, and the best game is chosen by it. Learning and search do
    discount: a decision matters mostly to those that follow it soon, and what comes later is noise
    next to the differences that search must see.
    """

    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    max_grad_norm: float = 5.0
    batch_size: int = 128
    updates_per_iteration: int = 24
    unroll_steps: int = 4
    td_steps: int = 32  # n of the n-step return; >= the game's length gives the full return
    discount: float = 0.9
    return_scale: float = 20.0  # scaled reward = return_scale * cycles saved / default cycles
    policy_weight: float = 1.0
    value_weight: float = 0.5
    reward_weight: float = 1.0

    def __post_init__(self):
        _check(
            self,
            learning_rate=_above(0),
            weight_decay=_at_least(0),
            max_grad_norm=_above(0),
            batch_size=_at_least(1),
            updates_per_iteration=_at_least(1),
            unroll_steps=_at_least(1),
            td_steps=_at_least(1),
            discount=_FRACTION,
            return_scale=_above(0),
            policy_weight=_at_least(0),
            value_weight=_at_least(0),
            reward_weight=_at_least(0),
        )


@dataclasses.dataclass(frozen=True)
class AgentConfig:
    """Everything the agent can be told, apart from the program and the seed.

    rules: what the game asks of computed values, see `malloc_game.encode`: "compiler", or
    "piecemeal" as in the paper, where games that are stuck go back (drop-backup).
    imitate_best: self-imitation. A fixed fraction of every learning batch comes from the best game
    found so far (by whatever means, seed games included), with its actions as policy targets.
    """

    network: NetworkConfig = dataclasses.field(default_factory=NetworkConfig)
    search: SearchConfig = dataclasses.field(default_factory=SearchConfig)
    self_play: SelfPlayConfig = dataclasses.field(default_factory=SelfPlayConfig)
    replay: ReplayConfig = dataclasses.field(default_factory=ReplayConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    rules: str = "compiler"
    imitate_best: bool = True
    imitate_fraction: float = 0.25

    def __post_init__(self):
        _check(
            self,
            imitate_fraction=_FRACTION,
            rules=(lambda v: v in ("compiler", "piecemeal"), 'need "compiler" or "piecemeal"'),
        )

    @property
    def num_imitated(self) -> int:
        """Windows of a learning batch that come from the best game."""
        return round(self.train.batch_size * self.imitate_fraction) if self.imitate_best else 0

    def to_json(self) -> str:
        """The config as JSON text; `from_json` reads it back to an equal config."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "AgentConfig":
        """Reads `to_json` text; missing fields take their defaults.

        Raises: ConfigError for text that is not JSON, unknown names, and bad values."""
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(f"agent config is not JSON: {error}") from error
        return _from_dict(cls, data, "agent config")


def _from_dict(cls: type, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: need an object, got {data!r}")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = sorted(set(data) - set(fields))
    if unknown:
        raise ConfigError(f"{where}: unknown field {unknown[0]!r}; known: {', '.join(fields)}")
    values = {}
    for name, value in data.items():
        part = fields[name].default_factory
        is_part = part is not dataclasses.MISSING
        values[name] = _from_dict(part, value, f"{where}.{name}") if is_part else value
    return cls(**values)
