"""Learning from a stream of many programs' games: prioritised replay, reanalyse, data-parallel.

Parameters and optimiser are the same on every device of the mesh (see `mesh`), learning batches are
split over all of them. On one device it is the same code.
"""

from __future__ import annotations

import functools

import chex
import jax
import jax.numpy as jnp
import mctx
from jax.sharding import Mesh

from agent.learning.inference import Networks, initial_inference
from agent.learning.loss import loss_fn
from agent.learning.mesh import BY_DEVICE, EVERYWHERE, GAMES, HOSTS
from agent.learning.search import plan
from agent.learning.stream_replay import sample_moves, set_priorities
from agent.learning.targets import stream_windows
from agent.learning.training_config import TrainingConfig
from agent.learning.types import Moves, TrainState
from agent.learning.updates import apply_gradients

_SMALLEST_PRIORITY = 1e-2
_LARGEST_PRIORITY = 10.0


def learn_from_stream(
    config: TrainingConfig,
    mesh: Mesh,
    train_state: TrainState,
    replay_state: chex.ArrayTree,
    learn_key: chex.PRNGKey,
) -> tuple[TrainState, chex.ArrayTree, dict[str, chex.Array]]:
    """`updates_per_iteration` updates; priorities change with them, loss terms are averaged.

    The key is consumed."""
    gradients = jax.shard_map(
        functools.partial(_gradients, config),
        mesh=mesh,
        in_specs=(EVERYWHERE, EVERYWHERE, BY_DEVICE, BY_DEVICE, EVERYWHERE),
        out_specs=(EVERYWHERE, EVERYWHERE, BY_DEVICE),
        check_vma=False,
    )

    def one_update(carry, update_key):
        train_state, replay_state = carry
        sample_key, fresh_key = jax.random.split(update_key)
        sample = sample_moves(config, mesh, replay_state, sample_key)
        importance = _importance(config, sample.probabilities)
        grads, terms, priorities = gradients(
            train_state.params, train_state.target_params, sample.experience, importance, fresh_key
        )
        train_state = apply_gradients(config.agent, train_state, grads)
        replay_state = set_priorities(config, mesh, replay_state, sample.indices, priorities)
        return (train_state, replay_state), terms

    keys = jax.random.split(learn_key, config.agent.train.updates_per_iteration)
    carry, terms = jax.lax.scan(one_update, (train_state, replay_state), keys)
    return *carry, jax.tree.map(jnp.mean, terms)


def _importance(config: TrainingConfig, probabilities: chex.Array) -> chex.Array:
    """Weights float32[B] of samples drawn with `probabilities`, the largest of them 1."""
    weights = (1.0 / jnp.maximum(probabilities, 1e-12)) ** config.replay.importance_exponent
    return weights / jnp.max(weights)


def _gradients(config, params, target_params, moves: Moves, importance, fresh_key):
    """Gradients and loss terms, averaged over devices, and this device's priorities.

    moves: [b, sequence], this device's part of the batch."""
    fresh_key = jax.random.fold_in(fresh_key, jax.lax.axis_index((HOSTS, GAMES)))
    moves = reanalyse(config, target_params, moves, fresh_key)
    windows = jax.vmap(functools.partial(stream_windows, config.agent))(moves)
    grads, terms = jax.grad(
        lambda params: loss_fn(config.agent, params, windows, importance), has_aux=True
    )(params)
    error = terms.pop("value_error") * windows.value_weight[:, 0]
    priorities = jnp.clip(error, _SMALLEST_PRIORITY, _LARGEST_PRIORITY)
    terms["value_error"] = jnp.mean(error)
    return *_mean_of_all((grads, terms)), priorities


def _mean_of_all(tree: chex.ArrayTree) -> chex.ArrayTree:
    """The mean over all devices: first over those of a host, which is fast, then over hosts.

    So the slow links carry it once a host and not once a device."""
    tree = jax.lax.pmean(tree, GAMES)
    return jax.lax.pmean(tree, HOSTS) if jax.lax.axis_size(HOSTS) > 1 else tree


def reanalyse(
    config: TrainingConfig, target_params: chex.ArrayTree, moves: Moves, search_key: chex.PRNGKey
) -> Moves:
    """Sequences [b, L] whose first ones have the target network's policies and values.

    Policies are those of a search without noise at the moves of the unroll, where search chose;
    values, in which n-step returns end, are the network's own. The key is consumed.
    Source: MuZero, appendix H."""
    agent = config.agent
    num_fresh = round(moves.action.shape[0] * config.reanalyse.fraction)
    if num_fresh == 0:
        return moves
    num_roots = agent.train.unroll_steps + 1
    part = jax.tree.map(lambda x: x[:num_fresh], moves)
    observation = part.observation.astype(jnp.float32)
    _, value = initial_inference(agent, target_params, _merge(observation))
    value = value.reshape(part.value.shape)

    roots = jax.tree.map(lambda x: _merge(x[:, :num_roots]), part)
    output, root_value = initial_inference(
        agent, target_params, roots.observation.astype(jnp.float32)
    )
    found = plan(
        agent,
        Networks(params=target_params),
        mctx.RootFnOutput(
            prior_logits=output.policy_logits, value=root_value, embedding=output.hidden
        ),
        roots.legal,
        jnp.zeros_like(root_value),
        search_key,
    )
    fresh = found.policy.reshape(num_fresh, num_roots, -1)
    old = part.policy[:, :num_roots]
    policy = jnp.where(part.is_searched[:, :num_roots, None], fresh, old)
    return moves.replace(
        value=moves.value.at[:num_fresh].set(value),
        policy=moves.policy.at[:num_fresh, :num_roots].set(policy),
    )


def _merge(x: chex.Array) -> chex.Array:
    return x.reshape(-1, *x.shape[2:])
