"""Network and game as mctx sees them: root and recurrent functions, learned or true dynamics.

With learned dynamics (the default) the tree below the root knows neither legality nor the end of
the game: the policy head learns to give illegal actions no weight (its targets never do), and
states after the end are absorbing, with rewards and values near 0. With `dynamics="env"` nodes hold
game states; legality, rewards and the end are exact, and the networks supply priors and values.
"""

import chex
import jax
import jax.numpy as jnp
import mctx

import malloc_game
from agent.learning.config import AgentConfig
from agent.learning.features import (
    HINT_SIZE,
    OUTLOOK_SIZE,
    Outlook,
    make_hint,
    make_outlook,
    outlook_features,
    simple_plays,
)
from agent.learning.networks import make_network
from agent.learning.types import NetworkOutput
from agent.learning.value_support import logits_to_scalar
from malloc_game.jitted import jit


@chex.dataclass(frozen=True)
class Networks:
    """What the search is given as `params` where it knows no program: learned dynamics alone."""

    params: chex.ArrayTree


@chex.dataclass(frozen=True)
class Model(Networks):
    """The networks and what is being played.

    One program for all games of a batch, or one for each: then its arrays have a leading axis B.
    """

    program: malloc_game.Program
    outlook: Outlook | None = None  # of the program; needed by what `config` asks for, see below

    @classmethod
    def of(
        cls,
        config: AgentConfig,
        params: chex.ArrayTree,
        program: malloc_game.Program,
        relaxed: chex.Array | None = None,
    ) -> "Model":
        """The model of one program, with its outlook if `config` needs that."""
        return cls(params=params, program=program, outlook=outlook_for(config, program, relaxed))


# Traced apart, so that who has let greedy play already does not compile it again.
_make_outlook = jit()(make_outlook)
_make_hint = jit()(make_hint)


def outlook_for(
    config: AgentConfig, program: malloc_game.Program, relaxed: chex.Array | None = None
) -> Outlook | None:
    """The outlook of one program, None where `config` has no use for it.

    relaxed: float32[D], for hints, see `features.make_hint`."""
    features = config.network.features
    if features == "game" and config.train.reward_unit != "stake":
        return None
    outlook = _make_outlook(program)
    if features != "hints":
        return outlook
    latency, actions = simple_plays(program, relaxed)
    return outlook.replace(hint=_make_hint(program, latency, actions, relaxed))


def outlooks_for(
    config: AgentConfig, programs: malloc_game.Program, relaxed: chex.Array | None
) -> chex.ArrayTree:
    """Outlooks of programs [P], None where `config` has no use for them; relaxed: float32[P, D]."""

    # One after the other: an outlook looks at all pairs of decisions.
    def one(row: tuple) -> Outlook | None:
        return outlook_for(config, *row)

    return jax.lax.map(one, (programs, relaxed))


def _over_games(function, program: malloc_game.Program):
    """Lifts `function(program, ...)` over games of one program, or of one program each."""
    axis = None if jnp.ndim(program.num_decisions) == 0 else 0

    def lifted(program, *games):
        return jax.vmap(function, in_axes=(axis, *[0] * len(games)))(program, *games)

    return lifted


def observe(program: malloc_game.Program, state: malloc_game.GameState) -> chex.Array:
    """The game's observations float32[B, O] of a batch of states."""
    return _over_games(malloc_game.observe, program)(program, state)


def observe_for(config: AgentConfig, model: Model, state: malloc_game.GameState) -> chex.Array:
    """What the networks of `config` see of a batch of states: float32[B, O]."""
    observation = observe(model.program, state)
    if config.network.features == "game":
        return observation
    seen = _over_games(outlook_features, model.program)
    extra = seen((model.program, model.outlook), state)
    return jnp.concatenate([observation, extra], axis=-1)


def observation_size(config: AgentConfig) -> int:
    """Length O of what the networks of `config` see."""
    extra = {"game": 0, "outlook": OUTLOOK_SIZE, "hints": OUTLOOK_SIZE + HINT_SIZE}[
        config.network.features
    ]
    return malloc_game.OBSERVATION_SIZE + extra


def legal_actions(program: malloc_game.Program, state: malloc_game.GameState) -> chex.Array:
    """Legality bool[B, A] of a batch of states."""
    return _over_games(malloc_game.legal_actions, program)(program, state)


def step(
    program: malloc_game.Program, state: malloc_game.GameState, action: chex.Array
) -> malloc_game.GameState:
    """One move int32[B] in each game of a batch."""
    return _over_games(malloc_game.step, program)(program, state, action)


def scaled_reward(
    program: malloc_game.Program, cycles: chex.Array, return_scale: float
) -> chex.Array:
    """Cycles int32[...] -> reward float32[...] in units of the default latency / return_scale."""
    scale = return_scale / jnp.maximum(program.default_cycles, 1).astype(jnp.float32)
    return cycles.astype(jnp.float32) * scale


def reward_for(config: AgentConfig, model: Model, cycles: chex.Array) -> chex.Array:
    """Cycles saved int32[B] -> reward float32[B] in the unit that `config.train` names."""
    reward = scaled_reward(model.program, cycles, config.train.return_scale)
    if config.train.reward_unit == "default":
        return reward
    assert model.outlook is not None, "a stake is a program's outlook: make models by Model.of"
    return reward / model.outlook.stake


def initial_inference(
    config: AgentConfig, params: chex.ArrayTree, observation: chex.Array
) -> tuple[NetworkOutput, chex.Array]:
    """Observation float32[B, O] -> predictions and the scalar value float32[B]."""
    network = make_network(config.network, malloc_game.NUM_ACTIONS)
    output = network.apply(params, observation, method="initial")
    return output, logits_to_scalar(output.value_logits, config.network.value_bound)


def make_recurrent_fn(config: AgentConfig) -> mctx.RecurrentFn:
    """The recurrent function for `config.search.dynamics`.

    The embedding is the latent state float32[B, H] ("learned") or the GameState ("env")."""
    return {"learned": _learned_recurrent_fn, "env": _env_recurrent_fn}[config.search.dynamics](
        config
    )


def _learned_recurrent_fn(config: AgentConfig) -> mctx.RecurrentFn:
    network = make_network(config.network, malloc_game.NUM_ACTIONS)

    def recurrent_fn(model, rng_key, action, embedding):
        del rng_key  # The model is deterministic.
        output = network.apply(model.params, embedding, action, method="recurrent")
        return mctx.RecurrentFnOutput(
            reward=logits_to_scalar(output.reward_logits, config.network.reward_bound),
            discount=jnp.full(action.shape, config.train.discount, jnp.float32),
            prior_logits=output.policy_logits,
            value=logits_to_scalar(output.value_logits, config.network.value_bound),
        ), output.hidden

    return recurrent_fn


def _env_recurrent_fn(config: AgentConfig) -> mctx.RecurrentFn:
    def recurrent_fn(model, rng_key, action, embedding):
        del rng_key  # The game is deterministic.
        state = step(model.program, embedding, action)
        observation = observe_for(config, model, state)
        output, value = initial_inference(config, model.params, observation)
        legal = legal_actions(model.program, state)
        lowest = jnp.finfo(output.policy_logits.dtype).min
        return mctx.RecurrentFnOutput(
            reward=reward_for(config, model, state.reward),
            discount=jnp.where(state.done, 0.0, config.train.discount),
            prior_logits=jnp.where(legal, output.policy_logits, lowest),
            value=jnp.where(state.done, 0.0, value),
        ), state

    return recurrent_fn
