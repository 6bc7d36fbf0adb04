"""The three networks of MuZero as one flax module: representation, dynamics, prediction.

Residual MLPs with layer normalisation: the observation is a flat vector, and games are long, so the
time of one inference decides. Latent states are scaled to [0, 1] (MuZero appendix G).
"""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

import malloc_game
from agent.learning.config import NetworkConfig
from agent.learning.features import is_hinted
from agent.learning.types import NetworkOutput


def _scale_latent(hidden: chex.Array) -> chex.Array:
    """Min-max scaling of each latent state, float32[B, H], to [0, 1]."""
    low = jnp.min(hidden, axis=-1, keepdims=True)
    high = jnp.max(hidden, axis=-1, keepdims=True)
    return (hidden - low) / (high - low + 1e-5)


class _Block(nn.Module):
    """Pre-normalised residual layer of constant width."""

    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: chex.Array) -> chex.Array:
        width = x.shape[-1]
        normalised = nn.LayerNorm(dtype=self.dtype)(x)
        return x + nn.Dense(width, dtype=self.dtype)(nn.relu(normalised))


class _Head(nn.Module):
    """One hidden layer, then logits that start at zero (a uniform prediction)."""

    hidden_size: int
    num_outputs: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: chex.Array) -> chex.Array:
        x = nn.Dense(self.hidden_size, dtype=self.dtype)(x)
        x = nn.relu(nn.LayerNorm(dtype=self.dtype)(x))
        x = nn.Dense(self.num_outputs, kernel_init=nn.initializers.zeros, dtype=self.dtype)(x)
        return x.astype(jnp.float32)


class MuZeroNetwork(nn.Module):
    """`initial` and `recurrent` inference; called once with both to create all parameters."""

    config: NetworkConfig
    num_actions: int

    def setup(self):
        """The layers, as flax wants them."""
        config = self.config
        size, dtype = config.hidden_size, config.dtype
        self.embed_observation = nn.Dense(size, dtype=dtype)
        self.representation = [_Block(dtype) for _ in range(config.representation_blocks)]
        self.embed_action = nn.Dense(size, dtype=dtype)
        self.dynamics = [_Block(dtype) for _ in range(config.dynamics_blocks)]
        self.reward_head = _Head(size, config.num_bins, dtype)
        self.policy_head = _Head(size, self.num_actions, dtype)
        self.value_head = _Head(size, config.num_bins, dtype)

    def initial(self, observation: chex.Array) -> NetworkOutput:
        """float32[B, O] -> the latent root state and its predictions."""
        hidden = self.embed_observation(observation)
        for block in self.representation:
            hidden = block(hidden)
        no_reward = jnp.zeros((observation.shape[0], self.config.num_bins), jnp.float32)
        output = self._predict(_scale_latent(hidden.astype(jnp.float32)), no_reward)
        if self.config.hint_weight == 0:
            return output
        hinted = self.config.hint_weight * self._hinted_actions(observation)
        return output.replace(policy_logits=output.policy_logits + hinted)

    def _hinted_actions(self, observation: chex.Array) -> chex.Array:
        """1 for what the best simple play does, in whichever legal way: float32[B, A]."""
        inside = is_hinted(observation)[:, None]
        is_drop = jnp.arange(self.num_actions) == malloc_game.DROP
        return jnp.where(is_drop, 1.0 - inside, inside)

    def recurrent(self, hidden: chex.Array, action: chex.Array) -> NetworkOutput:
        """Latent float32[B, H], action int32[B] -> the next latent state and its predictions."""
        one_hot = jax.nn.one_hot(action, self.num_actions)
        hidden = hidden + self.embed_action(jnp.concatenate([hidden, one_hot], axis=-1))
        for block in self.dynamics:
            hidden = block(hidden)
        return self._predict(_scale_latent(hidden.astype(jnp.float32)), self.reward_head(hidden))

    def _predict(self, hidden: chex.Array, reward_logits: chex.Array) -> NetworkOutput:
        return NetworkOutput(
            hidden=hidden,
            reward_logits=reward_logits,
            policy_logits=self.policy_head(hidden),
            value_logits=self.value_head(hidden),
        )

    def __call__(self, observation: chex.Array, action: chex.Array) -> NetworkOutput:
        """Both inferences in a row: what creates all parameters."""
        return self.recurrent(self.initial(observation).hidden, action)


def make_network(config: NetworkConfig, num_actions: int) -> MuZeroNetwork:
    """The module for `config`; its parameters come from `init_params`."""
    return MuZeroNetwork(config=config, num_actions=num_actions)


def init_params(
    network: MuZeroNetwork, observation_size: int, params_key: chex.PRNGKey
) -> chex.ArrayTree:
    """Fresh parameters. The key is consumed."""
    observation = jnp.zeros((1, observation_size), jnp.float32)
    return network.init(params_key, observation, jnp.zeros((1,), jnp.int32))
