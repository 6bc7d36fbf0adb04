"""MuZero's loss: the model unrolled K steps, with policy, value and reward terms."""

import chex
import jax
import jax.numpy as jnp
import optax

import malloc_game
from agent.learning.config import AgentConfig
from agent.learning.networks import make_network
from agent.learning.types import StreamWindows, Windows
from agent.learning.value_support import logits_to_scalar, scalar_to_two_hot


def loss_fn(
    config: AgentConfig,
    params: chex.ArrayTree,
    batch: Windows,
    importance: chex.Array | None = None,
) -> tuple[chex.Array, dict[str, chex.Array]]:
    """Mean loss of a batch of windows [B, ...], and its terms by name.

    importance: float32[B], weights of the windows, 1 by default. The term "value_error",
    float32[B], is each root's |predicted - target value|, for priorities; it is no loss.

    The root counts 1 and the unrolled steps 1/K each; the gradient into each latent state is halved
    (MuZero, appendix G). Policy logits are not masked: illegal actions have target 0, which is how
    the model learns legality."""
    unroll_steps = config.train.unroll_steps
    chex.assert_rank([batch.observation, batch.action, batch.value], 2)
    chex.assert_axis_dimension(batch.action, 1, unroll_steps)
    network, net = make_network(config.network, malloc_game.NUM_ACTIONS), config.network
    value_target = scalar_to_two_hot(batch.value, net.value_bound, net.num_bins)
    reward_target = scalar_to_two_hot(batch.reward, net.reward_bound, net.num_bins)

    value_weight, reward_weight = jnp.ones_like(batch.value), jnp.ones_like(batch.reward)
    if isinstance(batch, StreamWindows):
        value_weight, reward_weight = batch.value_weight, batch.reward_weight
    importance = jnp.ones_like(batch.value[:, 0]) if importance is None else importance

    def mean(logits, target, weight):
        return jnp.mean(optax.softmax_cross_entropy(logits, target) * weight * importance)

    def prediction_terms(output, policy, policy_weight, value, value_weight):
        return {
            "policy": mean(output.policy_logits, policy, policy_weight),
            "value": mean(output.value_logits, value, value_weight),
        }

    def unroll_one(hidden, step):
        # A scan rather than a Python loop: it compiles several times faster.
        hidden = 0.5 * (hidden + jax.lax.stop_gradient(hidden))
        output = network.apply(params, hidden, step["action"], method="recurrent")
        terms = prediction_terms(output, *step["prediction"])
        return output.hidden, terms | {"reward": mean(output.reward_logits, *step["reward"])}

    root = network.apply(params, batch.observation, method="initial")
    predictions = (batch.policy, batch.policy_weight, value_target, value_weight)
    root_terms = prediction_terms(root, *(x[:, 0] for x in predictions))
    steps = {
        "action": batch.action.T,
        "reward": (jnp.swapaxes(reward_target, 0, 1), reward_weight.T),
        "prediction": tuple(jnp.swapaxes(x[:, 1:], 0, 1) for x in predictions),
    }
    _, unrolled_terms = jax.lax.scan(unroll_one, root.hidden, steps)
    terms = {name: jnp.mean(value) for name, value in unrolled_terms.items()}
    terms = terms | {name: terms[name] + value for name, value in root_terms.items()}
    total = (
        config.train.policy_weight * terms["policy"]
        + config.train.value_weight * terms["value"]
        + config.train.reward_weight * terms["reward"]
    )
    predicted = logits_to_scalar(root.value_logits, net.value_bound)
    error = jax.lax.stop_gradient(jnp.abs(predicted - batch.value[:, 0]))
    return total, terms | {"total": total, "value_error": error}
