"""Simulations per second of self-play next to those of search alone, with the same network."""

from __future__ import annotations

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import mctx

import malloc_game as mg
from agent.learning.config import AgentConfig
from agent.learning.inference import Model, observation_size
from agent.learning.networks import init_params, make_network
from agent.learning.search import Plan, plan
from agent.learning.self_play import FREE, play, start_games
from malloc_game.throughput.measurement import Effort, median_seconds


@dataclasses.dataclass(frozen=True)
class SearchRow:
    """Simulations per second of the whole batch, with and without the game around the search."""

    num_decisions: int
    num_games: int
    num_simulations: int
    bare: float  # mctx.gumbel_muzero_policy on fixed random roots
    self_play: float  # step, legality, observation, root inference, records, and the same search

    @property
    def ratio(self) -> float:
        """Share of the speed of bare search that self-play keeps."""
        return self.self_play / self.bare


def measure_search(config: AgentConfig, program: mg.Program, effort: Effort) -> SearchRow:
    """Time self-play of `program`, every move searched, against search alone.

    Both search with learned dynamics: bare mctx has no game to search in.
    """
    assert config.search.dynamics == "learned"
    params_key, root_key, play_key = jax.random.split(jax.random.key(0), 3)
    network = make_network(config.network, mg.NUM_ACTIONS)
    params = jax.jit(lambda key: init_params(network, observation_size(config), key))(params_key)
    model = Model.of(config, params, program)
    num_games = config.self_play.num_games
    num_moves = min(config.self_play.chunk_moves, int(program.num_decisions))
    gumbel_scale = jnp.linspace(0.0, config.search.gumbel_scale, num_games)

    roots = _random_roots(config, root_key)
    search = jax.jit(functools.partial(_bare_search, config, num_moves=num_moves))
    bare = search.lower(model, roots, gumbel_scale, play_key).compile()
    bare_seconds = median_seconds(
        lambda: bare(model, roots, gumbel_scale, play_key), effort.run_seconds
    )

    script = jnp.full((program.max_decisions, num_games), FREE, jnp.int32)
    new_games = jax.jit(functools.partial(start_games, config)).lower(program).compile()
    played = jax.jit(functools.partial(play, config), donate_argnums=1)
    chunk = played.lower(model, new_games(program), script, gumbel_scale, play_key).compile()
    play_seconds = median_seconds(
        lambda: chunk(model, new_games(program), script, gumbel_scale, play_key),
        effort.run_seconds,
    )
    num_simulations = num_moves * num_games * config.search.num_simulations
    return SearchRow(
        num_decisions=int(program.num_decisions),
        num_games=num_games,
        num_simulations=config.search.num_simulations,
        bare=num_simulations / bare_seconds,
        self_play=num_simulations / play_seconds,
    )


def _random_roots(config: AgentConfig, root_key: chex.PRNGKey) -> mctx.RootFnOutput:
    policy_key, value_key, latent_key = jax.random.split(root_key, 3)
    num_games = config.self_play.num_games
    return mctx.RootFnOutput(
        prior_logits=jax.random.normal(policy_key, (num_games, mg.NUM_ACTIONS)),
        value=jax.random.normal(value_key, (num_games,)),
        embedding=jax.random.uniform(latent_key, (num_games, config.network.hidden_size)),
    )


def _bare_search(
    config: AgentConfig,
    model: Model,
    roots: mctx.RootFnOutput,
    gumbel_scale: chex.Array,
    key: chex.PRNGKey,
    *,
    num_moves: int,
) -> Plan:
    """Search from the same roots `num_moves` times, with fresh noise: what was found each time."""
    legal = jnp.ones(roots.prior_logits.shape, bool)

    def one(_, search_key):
        return None, plan(config, model, roots, legal, gumbel_scale, search_key)

    return jax.lax.scan(one, None, jax.random.split(key, num_moves))[1]
