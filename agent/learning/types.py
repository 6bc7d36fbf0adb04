"""Data that passes between the agent's parts; every shape in one place.

Letters: `B` games or windows of a batch, `T` moves (padded: `program.max_decisions`), `K` unroll
steps, `A` actions, `O` observation size, `H` hidden size. Rewards and values are scaled:
`return_scale * cycles / reward unit` (see `config.TrainConfig`).
"""

import chex
import optax


@chex.dataclass(frozen=True)
class NetworkOutput:
    """What one inference predicts for a batch of (latent) states."""

    hidden: chex.Array  # float32[B, H], in [0, 1]
    reward_logits: chex.Array  # float32[B, bins], of the move that led here; zeros at the root
    policy_logits: chex.Array  # float32[B, A], not masked
    value_logits: chex.Array  # float32[B, bins]


@chex.dataclass(frozen=True)
class Trajectory:
    """A batch of whole games, time first. Rows at and after `length` are meaningless."""

    observation: chex.Array  # float32[T, B, O], before the move
    action: chex.Array  # int32[T, B], the action as executed (illegal ones have become DROP)
    reward: chex.Array  # float32[T, B], scaled, of that move
    policy: chex.Array  # float32[T, B, A], improved policy of the search, or one-hot of the action
    policy_weight: chex.Array  # float32[T, B], 1 where the search chose, 0 where it was told
    value: chex.Array  # float32[T, B], value at the root: of the search where it chose
    length: chex.Array  # int32[B], moves played
    cycles_saved: chex.Array  # int32[B], the exact return


@chex.dataclass(frozen=True)
class Windows:
    """Training windows: a start and the K moves after it. Leading axes `...` vary by use.

    After the end of the game states are absorbing: reward and value 0, no policy target.
    """

    observation: chex.Array  # float32[..., O], at the start
    action: chex.Array  # int32[..., K]
    reward: chex.Array  # float32[..., K]
    policy: chex.Array  # float32[..., K + 1, A]
    policy_weight: chex.Array  # float32[..., K + 1]
    value: chex.Array  # float32[..., K + 1], n-step returns


@chex.dataclass(frozen=True)
class StreamWindows(Windows):
    """Windows of a stream, which may be cut: weights are 0 where the target is not known."""

    value_weight: chex.Array  # float32[..., K + 1]
    reward_weight: chex.Array  # float32[..., K]


@chex.dataclass(frozen=True)
class Moves:
    """Moves of games that follow each other in a stream. Leading axes `...`, the last one time."""

    observation: chex.Array  # float16[..., O], before the move
    legal: chex.Array  # bool[..., A]
    action: chex.Array  # int8[...], as executed
    reward: chex.Array  # float32[...], scaled, of that move
    policy: chex.Array  # float32[..., A], of the search, or one-hot of an imitated action
    is_searched: chex.Array  # bool[...], whether search chose
    is_target: chex.Array  # bool[...], whether the policy is to be learned: not of random moves
    value: chex.Array  # float32[...], value at the root
    is_last: chex.Array  # bool[...], the game ends with this move
    is_cut: chex.Array  # bool[...], what follows in the stream is not what followed in the game


@chex.dataclass(frozen=True)
class TrainState:
    """Everything that learning changes."""

    params: chex.ArrayTree
    target_params: chex.ArrayTree  # exponential average of params
    opt_state: optax.OptState
    num_updates: chex.Array  # int32[]
