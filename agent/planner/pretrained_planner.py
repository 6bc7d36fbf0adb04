"""The planner that ships: the pretrained agent, set up to plan for one program."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import chex
import jax

import malloc_game
from agent.learning.config import AgentConfig, SelfPlayConfig
from agent.learning.pretrained import load_pretrained
from agent.planner.problem_planner import ProblemPlanner


def planning_config(agent: AgentConfig) -> AgentConfig:
    """How to plan for one program with a trained agent: its networks, units and search.

    What the planner does with its time is that of a planner: few games at once, some near the best
    one, annealing and LNS windows beside them. Learning goes on more slowly than it began."""
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
        self_play=SelfPlayConfig(annealing_rounds=4, lns_windows=3),
    )


def make_planner(
    problem: malloc_game.Problem,
    seed: int = 0,
    config: AgentConfig | None = None,
    params: chex.ArrayTree | None = None,
    known: Sequence[malloc_game.Assignment] = (),
) -> ProblemPlanner:
    """A planner for one problem that knows the first games and the mappings given.

    config, params: of a planner; those of the pretrained agent by default."""
    if config is None:
        agent, params = load_pretrained()
        config = planning_config(agent)
    return ProblemPlanner(problem, config, seed, params, known)
