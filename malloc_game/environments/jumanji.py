"""`MallocGame` as a true jumanji environment, for code that wants jumanji's own specs and types.

jumanji's AutoResetWrapper and VmapWrapper take a plain `MallocGame` as well; wrappers that convert
specs (to Gymnasium, to dm_env) need this one.
"""

from __future__ import annotations

import functools
from typing import Any

import chex
import jax.numpy as jnp
from jumanji import specs
from jumanji.env import Environment
from jumanji.types import TimeStep

from malloc_game.environments import environment as functional
from malloc_game.environments.environment import EnvState, MallocGame, Observation
from malloc_game.game.observation import OBSERVATION_SIZE
from malloc_game.game.state import NUM_ACTIONS


class JumanjiMallocGame(Environment):
    """A `jumanji.env.Environment`; arguments as of `MallocGame`. Needs jumanji."""

    def __init__(self, problem: Any, **options: Any):
        """See `MallocGame`."""
        self._env = MallocGame(problem, **options)
        super().__init__()

    def __repr__(self) -> str:
        return f"JumanjiMallocGame(num_problems={self._env.num_problems})"

    def reset(self, key: chex.PRNGKey) -> tuple[EnvState, TimeStep]:
        """See `MallocGame.reset`."""
        return _converted(*self._env.reset(key))

    def step(self, state: EnvState, action: chex.Array) -> tuple[EnvState, TimeStep]:
        """See `MallocGame.step`."""
        return _converted(*self._env.step(state, action))

    @functools.cached_property
    def observation_spec(self) -> specs.Spec:
        """Spec of an `Observation`."""
        bound, shape = functional.OBSERVATION_BOUND, (OBSERVATION_SIZE,)
        return specs.Spec(
            Observation,
            "ObservationSpec",
            features=specs.BoundedArray(shape, jnp.float32, -bound, bound, "features"),
            action_mask=specs.BoundedArray((NUM_ACTIONS,), bool, False, True, "action_mask"),
        )

    @functools.cached_property
    def action_spec(self) -> specs.DiscreteArray:
        """Spec of an action: COPY, NO_COPY or DROP."""
        return specs.DiscreteArray(NUM_ACTIONS, name="action")


def _converted(state: EnvState, timestep: functional.TimeStep) -> tuple[EnvState, TimeStep]:
    return state, TimeStep(**vars(timestep))
