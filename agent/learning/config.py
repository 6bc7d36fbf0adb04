"""Settings of the agent: one frozen, validated dataclass per part, with a JSON round trip.

Every field is checked when a config is built: `ConfigError` names the field, its value, the rule.
Configs are hashable, so that a jitted function can take one as a static argument.
"""

import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any

from malloc_game.errors import one_line
from malloc_game.problem.files import parse_json


class ConfigError(ValueError):
    """A setting has a value, name or type that the agent cannot use."""

    def __str__(self) -> str:
        return one_line(super().__str__(), most=1000)  # some list what is known


# Bounds of settings, far above what is of use: one number in a file must not fill the memory.
MOST = 10_000_000  # of whatever is counted
MOST_UNITS = 16_384  # of a layer, of bins
MOST_LAYERS = 256

Rule = tuple[Callable[[Any], bool], str]


def at_least(low: float) -> Rule:
    """A rule: the number is at least `low`."""
    return lambda value: value >= low, f"need >= {low}"


def between(low: int, high: int) -> Rule:
    """A rule: the number is from `low` to `high`."""
    return lambda value: low <= value <= high, f"need {low} to {high}"


def above(low: float) -> Rule:
    """A rule: the number is above `low`."""
    return lambda value: value > low, f"need > {low}"


def one_of(*names: str) -> Rule:
    """A rule: the text is one of `names`."""
    return lambda value: value in names, "need " + " or ".join(f'"{name}"' for name in names)


FRACTION: Rule = (lambda value: 0 <= value <= 1, "need a number from 0 to 1")


def check(config: Any, **rules: Rule) -> None:
    """Checks each field's type against its default's, then its rule if it has one."""
    where = type(config).__name__
    for field in dataclasses.fields(config):
        value: Any = getattr(config, field.name)
        wanted: type = type(field.default)
        if field.default_factory is not dataclasses.MISSING:
            wanted = type(field.default_factory())
        if wanted is float and type(value) is int:
            value = float(value) if abs(value) < 1 << 53 else math.inf
            object.__setattr__(config, field.name, value)
        is_finite = wanted is not float or (type(value) is float and math.isfinite(value))
        if type(value) is not wanted or not is_finite:
            raise ConfigError(f"{where}.{field.name}: {value!r} given; need a {wanted.__name__}")
        if isinstance(value, int) and abs(value) > MOST:
            raise ConfigError(f"{where}.{field.name}: {value!r} given; need at most {MOST}")
        is_kept, text = rules.get(field.name, (lambda _: True, ""))
        if not is_kept(value):
            raise ConfigError(f"{where}.{field.name}: {value!r} given; {text}")


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the three networks and the supports of their two-hot heads (in scaled cycles).

    features: what the networks see: "game", the game's own observation, "outlook", that and where
    the decision stands among all others of its program, or "hints", both and what greedy and the
    linear relaxation would do (see `features`).
    hint_weight: added to the root's logit of what the best simple play does, with hints only. The
    networks learn where to differ from it.
    dtype: "float32" or "bfloat16", of activations; parameters and outputs are float32 always.
    """

    features: str = "game"
    hint_weight: float = 0.0
    dtype: str = "float32"
    hidden_size: int = 128
    representation_blocks: int = 1
    dynamics_blocks: int = 1
    num_bins: int = 61
    value_bound: float = 30.0  # values are represented in [-value_bound, value_bound]
    reward_bound: float = 10.0  # rewards of one move, likewise

    def __post_init__(self):
        check(
            self,
            features=one_of("game", "outlook", "hints"),
            hint_weight=at_least(0),
            dtype=one_of("float32", "bfloat16"),
            hidden_size=between(8, MOST_UNITS),
            representation_blocks=between(0, MOST_LAYERS),
            dynamics_blocks=between(1, MOST_LAYERS),
            num_bins=(
                lambda value: 3 <= value <= MOST_UNITS and value % 2 == 1,
                f"need an odd number from 3 to {MOST_UNITS}",
            ),
            value_bound=above(0),
            reward_bound=above(0),
        )
        if self.hint_weight > 0 and self.features != "hints":
            raise ConfigError(
                f"NetworkConfig.hint_weight: {self.hint_weight!r} given; need 0 without hints"
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
        check(
            self,
            num_simulations=at_least(1),
            max_num_considered_actions=at_least(1),
            gumbel_scale=at_least(0),
            dynamics=one_of("learned", "env"),
            value_scale=above(0),
            maxvisit_init=at_least(0),
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
    random_move_probability: float = 0.05  # of a random legal move where search may decide
    # Under piecemeal rules: times that what follows a dead end of a batch is chosen anew. Later
    # dead ends only drop the value that is stuck.
    drop_backups: int = 8
    # Calls of simulated annealing around the best game after each batch; 0: none. What it flips is
    # drawn by how much the policy disagrees with the game. Not under piecemeal rules.
    annealing_rounds: int = 0
    # Windows of the schedule that CP-SAT solves anew after each batch (large-neighbourhood search),
    # where the problem is known; 0: none.
    lns_windows: int = 0

    def __post_init__(self):
        check(
            self,
            num_games=at_least(2),
            chunk_moves=at_least(1),
            perturbation_batches=at_least(0),
            perturbation_windows=at_least(1),
            perturbation_window_moves=at_least(1),
            random_move_probability=FRACTION,
            drop_backups=at_least(0),
            annealing_rounds=at_least(0),
            lns_windows=at_least(0),
        )


@dataclasses.dataclass(frozen=True)
class ReplayConfig:
    """Replay of training windows (a start move and the `unroll_steps` moves after it)."""

    capacity: int = 65536  # windows, >= num_games * max_decisions to hold one batch of games

    def __post_init__(self):
        check(self, capacity=at_least(1))


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Losses and optimiser.

    The game's return is not discounted, and the best game is chosen by it. Learning and search do
    discount: a decision matters mostly to those that follow it soon, and what comes later is noise
    next to the differences that search must see.

    The learning rate rises over `warmup_updates`, then falls by a cosine over `decay_updates` to
    `final_learning_rate` times its peak; 0 leaves a phase out.
    reward_unit: cycles saved are divided by the program's "default" latency, or by its "stake", an
    estimate of what there is to save at all (see `features`). One network for many programs needs
    the latter: between programs the share that can be saved differs tenfold.
    target_step_size: of the target network's exponential average, at each update.
    """

    learning_rate: float = 1e-3
    warmup_updates: int = 0
    decay_updates: int = 0
    final_learning_rate: float = 0.1
    weight_decay: float = 1e-4
    max_grad_norm: float = 5.0
    batch_size: int = 128
    updates_per_iteration: int = 24
    unroll_steps: int = 4
    td_steps: int = 32  # n of the n-step return; >= the game's length gives the full return
    discount: float = 0.9
    reward_unit: str = "default"
    return_scale: float = 20.0  # scaled reward = return_scale * cycles saved / reward unit
    target_step_size: float = 0.01
    policy_weight: float = 1.0
    value_weight: float = 0.5
    reward_weight: float = 1.0

    def __post_init__(self):
        check(
            self,
            learning_rate=above(0),
            weight_decay=at_least(0),
            max_grad_norm=above(0),
            batch_size=at_least(1),
            updates_per_iteration=at_least(1),
            unroll_steps=at_least(1),
            td_steps=at_least(1),
            discount=FRACTION,
            return_scale=above(0),
            warmup_updates=at_least(0),
            decay_updates=at_least(0),
            final_learning_rate=FRACTION,
            reward_unit=one_of("default", "stake"),
            target_step_size=FRACTION,
            policy_weight=at_least(0),
            value_weight=at_least(0),
            reward_weight=at_least(0),
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
        check(
            self,
            imitate_fraction=FRACTION,
            rules=one_of("compiler", "piecemeal"),
        )

    @property
    def num_imitated(self) -> int:
        """Windows of a learning batch that come from the best game."""
        return round(self.train.batch_size * self.imitate_fraction) if self.imitate_best else 0

    def to_json(self) -> str:
        """The config as JSON text; `from_json` reads it back to an equal config."""
        return to_json(self)

    @classmethod
    def from_json(cls, text: str) -> "AgentConfig":
        """Reads `to_json` text; missing fields take their defaults.

        Raises: ConfigError for text that is not JSON, unknown names, and bad values."""
        return from_json(cls(), text, "agent config")


def to_json(config: Any) -> str:
    """A config of any of these classes as JSON text."""
    return json.dumps(dataclasses.asdict(config), indent=2)


# Fields by their former names, which files of then have: agents, checkpoints, configs.
_FORMERLY = {"stretches": "lns_windows"}


def from_json(default: Any, text: str, where: str) -> Any:
    """`default` with the fields that JSON text gives, at any depth. where: named in errors.

    Fields may have their former names: `self_play.stretches` is `self_play.lns_windows`.
    Raises: ConfigError for text that is not JSON, unknown names, and bad values."""
    try:
        data = parse_json(text)
    except ValueError as error:
        raise ConfigError(f"{where} is not JSON: {error}") from error
    return _overlay(default, data, where)


def _overlay(default: Any, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: need an object, got {type(data).__name__}")
    names = [field.name for field in dataclasses.fields(default)]
    for former, name in _FORMERLY.items():
        if name in names and former in data and name not in data:
            data = {**data, name: data[former]}
            del data[former]
    unknown = sorted(set(data) - set(names))
    if unknown:
        raise ConfigError(f"{where}: unknown field {unknown[0]!r}; known: {', '.join(names)}")
    values = {}
    for name, value in data.items():
        old = getattr(default, name)
        is_part = dataclasses.is_dataclass(old)
        values[name] = _overlay(old, value, f"{where}.{name}") if is_part else value
    return dataclasses.replace(default, **values)
