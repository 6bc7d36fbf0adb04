"""The agent that ships: trained by `make train` with the config and seed beside this file."""

from __future__ import annotations

import dataclasses
import functools
import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np

import malloc_game
from agent.buckets import relaxed_choices
from agent.config import AgentConfig, SelfPlayConfig
from agent.features import simple_plays
from agent.planning import Planner
from agent.weights import Agent, load_agent

AGENT_FILE = pathlib.Path(__file__).parent / "agent.msgpack"
TRAINING_FILE = pathlib.Path(__file__).parent / "training.json"

# Of all the relaxation's plays and greedy's, those that the planner learns from.
_NUM_FIRST_GAMES = 4


@functools.cache
def load_pretrained() -> Agent:
    """The config and parameters that ship. Raises: ConfigError if the file is damaged."""
    return load_agent(AGENT_FILE)


def planning_config(agent: AgentConfig) -> AgentConfig:
    """How to plan for one program with a trained agent: its networks, units and search.

    What the planner does with its time is that of a planner: few games at once, some near the best
    one, annealing in between. Learning goes on more slowly than it began."""
    own = AgentConfig()
    network = agent.network
    if jax.default_backend() == "cpu":  # where bfloat16 is emulated
        network = dataclasses.replace(network, dtype="float32")
    train = dataclasses.replace(
        own.train,
        learning_rate=3e-4,
        discount=agent.train.discount,
        td_steps=agent.train.td_steps,
        reward_unit=agent.train.reward_unit,
        return_scale=agent.train.return_scale,
    )
    return dataclasses.replace(
        own,
        network=network,
        search=agent.search,
        train=train,
        self_play=SelfPlayConfig(annealing_rounds=4),
    )


def first_games(
    program: malloc_game.Program, relaxed: np.ndarray, count: int = _NUM_FIRST_GAMES
) -> list[np.ndarray]:
    """The best few plays, actions int32[D], of greedy and of the relaxation by thresholds.

    relaxed: float32[D], see `buckets.relaxed_choices`."""
    cycles, actions = map(np.asarray, simple_plays(program, jnp.asarray(relaxed)))
    return [actions[i] for i in np.argsort(cycles, kind="stable")[:count]]


def make_planner(
    problem: malloc_game.Problem,
    seed: int = 0,
    config: AgentConfig | None = None,
    params: chex.ArrayTree | None = None,
    known: tuple[malloc_game.Assignment, ...] = (),
) -> Planner:
    """A planner for one program that knows the first games and the mappings given.

    config, params: of a planner; those of the pretrained agent by default."""
    if config is None:
        agent, params = load_pretrained()
        config = planning_config(agent)
    program = malloc_game.encode(problem, rules=config.rules)
    relaxed = relaxed_choices(problem, program)
    planner = Planner(program, config, seed, params, relaxed)
    games = first_games(program, relaxed)
    games += [
        np.asarray(malloc_game.follow(problem, mapping, rules=config.rules)[1]) for mapping in known
    ]
    planner.seed_games(games)
    return planner
