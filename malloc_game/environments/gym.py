"""The game for Gymnasium: importing this module registers `MallocGame-v0`.

    import gymnasium, malloc_game.environments.gym
    env = gymnasium.make("MallocGame-v0", problem="problem.json")

or, without the import, `gymnasium.make("malloc_game.environments.gym:MallocGame-v0")`. For more
than one game at a time use `malloc_game.MallocGame`, which is batched on the device.
"""

from __future__ import annotations

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from malloc_game.environments.environment import OBSERVATION_BOUND, MallocGame, TimeStep
from malloc_game.errors import MallocGameError
from malloc_game.game.observation import OBSERVATION_SIZE
from malloc_game.game.rules import to_assignment
from malloc_game.game.state import NUM_ACTIONS
from malloc_game.problem.definition import Problem
from malloc_game.problem.files import load_problem
from malloc_game.problem.generators import random_problem
from malloc_game.render.image import render_image
from malloc_game.render.text import render_text

try:
    import gymnasium
except ImportError as error:
    raise ImportError(
        "malloc_game.environments.gym needs gymnasium; install it with:"
        " pip install 'mallocgame[gym]'"
    ) from error

ENV_ID = "MallocGame-v0"
# Environments of the same shapes share these compilations.
_reset = jax.jit(MallocGame.reset)
_step = jax.jit(MallocGame.step)


class MallocGameEnv(gymnasium.Env[np.ndarray, np.int64]):
    """One game at a time: observations are the features of `malloc_game.observe`.

    `info` has `action_mask` (bool[3], True = legal) and `latency` (cycles so far). An illegal
    action counts as DROP. A game ends, never is truncated, after its last decision.
    """

    metadata = {"render_modes": ["rgb_array", "ansi"], "render_fps": 4}

    def __init__(
        self,
        problem: Problem | str | os.PathLike[str] | None = None,
        reward_unit: str = "cycles",
        render_mode: str | None = None,
    ):
        """Make the environment of one problem.

        problem: a problem, or a problem file; None: `random_problem(seed=0)`.
        reward_unit: "cycles" saved, or the "share" of the all-default latency that is saved.
        render_mode: "rgb_array" (uint8[H, W, 3]; needs matplotlib), "ansi" (text), or None.

        Raises:
          MallocGameError: the problem file cannot be read, or an option is unknown.
        """
        modes = self.metadata["render_modes"]
        if render_mode not in (None, *modes):
            raise MallocGameError(f"render_mode is {render_mode!r}; need one of {modes} or None")
        if problem is None:
            problem = random_problem(seed=0)
        elif not isinstance(problem, Problem):
            problem = load_problem(problem)
        self.problem = problem
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Box(
            -OBSERVATION_BOUND, OBSERVATION_BOUND, (OBSERVATION_SIZE,), np.float32
        )
        self.action_space = gymnasium.spaces.Discrete(NUM_ACTIONS)
        self._env = MallocGame(problem, reward_unit=reward_unit)
        self._state: Any = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start a new game. The game has no chance in it; `options` are not used."""
        super().reset(seed=seed, options=options)
        key = jax.random.key(int(self.np_random.integers(2**31)))
        self._state, timestep = _reset(self._env, key)
        return self._observed(timestep)

    def step(self, action: np.int64 | int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take `action` for the decision at hand."""
        self._state, timestep = _step(self._env, self._state, jnp.int32(action))
        observation, info = self._observed(timestep)
        return observation, float(timestep.reward), bool(timestep.last()), False, info

    def _observed(self, timestep: TimeStep) -> tuple[np.ndarray, dict[str, Any]]:
        observation = jax.device_get(timestep.observation)
        self._mask = np.array(observation.action_mask)
        info = {"action_mask": self._mask.copy(), "latency": int(timestep.extras["latency"])}
        return np.array(observation.features), info

    def action_masks(self) -> np.ndarray:
        """Legal actions of the decision at hand: bool[3]; sb3-contrib's maskable agents ask it."""
        return self._mask.copy()

    def render(self) -> np.ndarray | str | None:
        """The mapping so far, as an image or a text, depending on `render_mode`."""
        if self.render_mode is None:
            gymnasium.logger.warn(f"{ENV_ID} was made without render_mode; nothing is rendered")
            return None
        assignment = to_assignment(self.problem, self._state.game)
        if self.render_mode == "ansi":
            return render_text(self.problem, assignment)
        return render_image(self.problem, assignment)


gymnasium.register(id=ENV_ID, entry_point="malloc_game.environments.gym:MallocGameEnv")
