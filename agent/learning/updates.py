"""Learning on the device: optimiser, initial state, and a scan of updates from replay."""

import chex
import jax
import jax.numpy as jnp
import optax

import malloc_game
from agent.learning.config import AgentConfig
from agent.learning.inference import observation_size
from agent.learning.loss import loss_fn
from agent.learning.networks import init_params, make_network
from agent.learning.replay import make_replay, sample_mixed
from agent.learning.types import TrainState, Windows


def make_optimizer(config: AgentConfig) -> optax.GradientTransformation:
    """AdamW behind gradient clipping by global norm."""
    return optax.chain(
        optax.clip_by_global_norm(config.train.max_grad_norm),
        optax.adamw(learning_rate(config), weight_decay=config.train.weight_decay),
    )


def learning_rate(config: AgentConfig) -> optax.Schedule:
    """Learning rate by number of updates: warm-up, then cosine decay."""
    train = config.train
    peak, warmup, decay = train.learning_rate, train.warmup_updates, train.decay_updates
    if not decay:
        return optax.warmup_constant_schedule(peak if not warmup else 0.0, peak, warmup)
    return optax.warmup_cosine_decay_schedule(
        0.0 if warmup else peak, peak, warmup, warmup + decay, peak * train.final_learning_rate
    )


def init_train_state(
    config: AgentConfig, params_key: chex.PRNGKey, params: chex.ArrayTree | None = None
) -> TrainState:
    """Fresh parameters, or `params`, and a fresh optimiser state. The key is consumed."""
    if params is None:
        network = make_network(config.network, malloc_game.NUM_ACTIONS)
        params = init_params(network, observation_size(config), params_key)
    # Copies, because all of it will be donated, and what is given is the caller's.
    return TrainState(
        params=jax.tree.map(jnp.copy, params),
        target_params=jax.tree.map(jnp.copy, params),
        opt_state=make_optimizer(config).init(params),
        num_updates=jnp.int32(0),
    )


def apply_gradients(
    config: AgentConfig, train_state: TrainState, grads: chex.ArrayTree
) -> TrainState:
    """One step of the optimiser, and of the target network behind it."""
    updates, opt_state = make_optimizer(config).update(
        grads, train_state.opt_state, train_state.params
    )
    params = optax.apply_updates(train_state.params, updates)
    return TrainState(
        params=params,
        target_params=optax.incremental_update(
            params, train_state.target_params, config.train.target_step_size
        ),
        opt_state=opt_state,
        num_updates=train_state.num_updates + 1,
    )


def update(
    config: AgentConfig, train_state: TrainState, batch: Windows
) -> tuple[TrainState, dict[str, chex.Array]]:
    """One gradient step on a batch of windows [B, ...]; also the loss terms before it."""
    grads, terms = jax.grad(lambda params: loss_fn(config, params, batch), has_aux=True)(
        train_state.params
    )
    return apply_gradients(config, train_state, grads), terms


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
