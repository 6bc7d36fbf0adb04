"""Learning on the device: optimiser, initial state, and a scan of updates from replay."""

import chex
import jax
import jax.numpy as jnp
import optax

import malloc_game
from agent.config import AgentConfig
from agent.loss import loss_fn
from agent.networks import init_params, make_network
from agent.replay import make_replay, sample_mixed
from agent.types import TrainState, Windows


def make_optimizer(config: AgentConfig) -> optax.GradientTransformation:
    """AdamW behind gradient clipping by global norm."""
    return optax.chain(
        optax.clip_by_global_norm(config.train.max_grad_norm),
        optax.adamw(config.train.learning_rate, weight_decay=config.train.weight_decay),
    )


def init_train_state(config: AgentConfig, params_key: chex.PRNGKey) -> TrainState:
    """Fresh parameters and optimiser state. The key is consumed."""
    network = make_network(config.network, malloc_game.NUM_ACTIONS)
    params = init_params(network, malloc_game.OBSERVATION_SIZE, params_key)
    opt_state = make_optimizer(config).init(params)
    return TrainState(params=params, opt_state=opt_state, num_updates=jnp.int32(0))


def update(
    config: AgentConfig, train_state: TrainState, batch: Windows
) -> tuple[TrainState, dict[str, chex.Array]]:
    """One gradient step on a batch of windows [B, ...]; also the loss terms before it."""
    grads, terms = jax.grad(lambda params: loss_fn(config, params, batch), has_aux=True)(
        train_state.params
    )
    updates, opt_state = make_optimizer(config).update(
        grads, train_state.opt_state, train_state.params
    )
    return TrainState(
        params=optax.apply_updates(train_state.params, updates),
        opt_state=opt_state,
        num_updates=train_state.num_updates + 1,
    ), terms


def learn(
    config: AgentConfig,
    train_state: TrainState,
    replay_state: chex.ArrayTree,
    best: Windows,
    learn_key: chex.PRNGKey,
) -> tuple[TrainState, dict[str, chex.Array]]:
    """`config.train.updates_per_iteration` updates; loss terms are averaged over them.

    best: windows [T, ...] of the best game, mixed into every batch (see `sample_mixed`)."""
    replay = make_replay(config, num_moves=best.action.shape[0])

    def one_update(train_state, sample_key):
        batch = sample_mixed(config, replay, replay_state, best, sample_key)
        return update(config, train_state, batch)

    keys = jax.random.split(learn_key, config.train.updates_per_iteration)
    train_state, terms = jax.lax.scan(one_update, train_state, keys)
    return train_state, jax.tree.map(jnp.mean, terms)
