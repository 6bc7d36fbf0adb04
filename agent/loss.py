"""MuZero's loss: the model unrolled K steps, with policy, value and reward terms."""

import chex
import jax
import jax.numpy as jnp
import optax

import malloc_game
from agent.config import AgentConfig
from agent.networks import make_network
from agent.types import Windows
from agent.value_support import scalar_to_two_hot


def loss_fn(
    config: AgentConfig, params: chex.ArrayTree, batch: Windows
) -> tuple[chex.Array, dict[str, chex.Array]]:
    """Mean loss of a batch of windows [B, ...], and its terms by name.

    The root counts 1 and the unrolled steps 1/K each; the gradient into each latent state is halved
    (MuZero, appendix G). Policy logits are not masked: illegal actions have target 0, which is how
    the model learns legality."""
    unroll_steps = config.train.unroll_steps
    chex.assert_rank([batch.observation, batch.action, batch.value], 2)
    chex.assert_axis_dimension(batch.action, 1, unroll_steps)
    network, net = make_network(config.network, malloc_game.NUM_ACTIONS), config.network
    value_target = scalar_to_two_hot(batch.value, net.value_bound, net.num_bins)
    reward_target = scalar_to_two_hot(batch.reward, net.reward_bound, net.num_bins)

    def prediction_terms(output, policy, policy_weight, value):
        policy_loss = optax.softmax_cross_entropy(output.policy_logits, policy) * policy_weight
        value_loss = optax.softmax_cross_entropy(output.value_logits, value)
        return {"policy": jnp.mean(policy_loss), "value": jnp.mean(value_loss)}

    def unroll_one(hidden, step):
        # A scan rather than a Python loop: it compiles several times faster.
        hidden = 0.5 * (hidden + jax.lax.stop_gradient(hidden))
        output = network.apply(params, hidden, step["action"], method="recurrent")
        terms = prediction_terms(output, *step["prediction"])
        reward_loss = optax.softmax_cross_entropy(output.reward_logits, step["reward"])
        return output.hidden, terms | {"reward": jnp.mean(reward_loss)}

    root = network.apply(params, batch.observation, method="initial")
    predictions = (batch.policy, batch.policy_weight, value_target)
    root_terms = prediction_terms(root, *(x[:, 0] for x in predictions))
    steps = {
        "action": batch.action.T,
        "reward": jnp.swapaxes(reward_target, 0, 1),
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
    return total, terms | {"total": total}
