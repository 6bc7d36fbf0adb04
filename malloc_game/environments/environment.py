"""The game as an environment with `reset` and `step`, in the manner of jumanji and dm_env.

It is a thin layer over `game` and `observe`: what it adds is rewards as floats, specs, games that
start anew by themselves, and a choice among several problems.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import chex
import dm_env.specs
import jax
import jax.numpy as jnp
import numpy as np

from malloc_game.errors import MallocGameError, ProblemError
from malloc_game.game.encoding import encode
from malloc_game.game.observation import OBSERVATION_SIZE, observe
from malloc_game.game.rules import init, legal_actions, step
from malloc_game.game.state import NUM_ACTIONS, GameState, Program
from malloc_game.problem.definition import Problem
from malloc_game.problem.files import load_problem

FIRST, MID, LAST = 0, 1, 2  # dm_env's and jumanji's numbers
REWARD_UNITS = ("cycles", "share")
OBSERVATION_BOUND = 2.0  # no feature is larger; `observe` clips there

ProblemLike = Problem | Program | str | os.PathLike[str]


class Observation(NamedTuple):
    """What an agent sees."""

    features: chex.Array  # float32[OBSERVATION_SIZE], see `observe`
    action_mask: chex.Array  # bool[3], True = legal; all True after the end


@chex.dataclass(frozen=True)
class EnvState:
    """A game in progress, and what its successor starts from."""

    key: chex.PRNGKey  # draws the next problem where games start anew by themselves
    problem: chex.Array  # int32[], index of the problem that is played
    game: GameState


@chex.dataclass(frozen=True)
class TimeStep:
    """What one call of `reset` or `step` tells the agent; fields as in jumanji's TimeStep."""

    step_type: chex.Array  # int8[]: FIRST, MID or LAST
    reward: chex.Array  # float32[], 0 from `reset`
    discount: chex.Array  # float32[], 0 where the game ended, else 1
    observation: Observation
    extras: dict[str, chex.Array]  # latency: int32[], cycles; problem: int32[], its index

    def first(self) -> chex.Array:
        """Whether a game begins: bool[]."""
        return self.step_type == FIRST

    def mid(self) -> chex.Array:
        """Whether a game goes on: bool[]."""
        return self.step_type == MID

    def last(self) -> chex.Array:
        """Whether a game has ended: bool[]."""
        return self.step_type == LAST


def _observe(program: Program, game: GameState) -> Observation:
    return Observation(observe(program, game), legal_actions(program, game))


def _extras(problem: chex.Array, game: GameState) -> dict[str, chex.Array]:
    return {"latency": game.latency, "problem": problem}


@jax.jit
@jax.vmap
def _start(program: Program) -> tuple[GameState, Observation]:
    game = init(program)
    return game, _observe(program, game)


def _stack(programs: Sequence[Program]) -> Program:
    """Programs of the same padded shapes with a leading axis.

    Raises:
      ProblemError: shapes differ.
    """
    shapes = [
        {name: None if x is None else jnp.shape(x) for name, x in vars(program).items()}
        for program in programs
    ]
    for i, other in enumerate(shapes):
        for name, shape in other.items():
            if shape != shapes[0][name]:
                raise ProblemError(
                    f"problem {i} is padded differently than problem 0: {name} has shape {shape},"
                    f" not {shapes[0][name]}; one environment needs problems of one padded shape"
                )
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *programs)


@jax.tree_util.register_pytree_node_class
class MallocGame:
    """The mallocGame as an environment over one problem, or over several of one padded shape.

        env = MallocGame(problem)
        state, timestep = jax.jit(env.reset)(key)
        state, timestep = jax.jit(env.step)(state, action)

    `reset` and `step` are pure and work under `jit`, `vmap` and `scan`. An environment is a pytree
    of its encoded problems; passed to a jitted function as an argument, as in
    `jax.jit(MallocGame.step)(env, state, action)`, it is not compiled in as constants, and
    environments of the same shapes share one compilation.

    Attributes:
      num_problems: number of problems P.
      auto_reset: whether a new game starts when one ends.
      reward_unit: "cycles" or "share".
    """

    def __init__(
        self,
        problem: ProblemLike | Sequence[ProblemLike],
        *,
        auto_reset: bool = False,
        reward_unit: str = "cycles",
    ):
        """Encode the problems and work out where their games start.

        problem: a problem, an encoded one or a problem file; or a sequence of these, which must
          have the same padded shapes. `reset` draws one of them, uniformly.
        auto_reset: `step` starts a new game when one ends. The state and the observation are then
          the new game's; step type (LAST), reward, discount and extras are the ended game's.
        reward_unit: "cycles" saved, or the "share" of the all-default latency that is saved.
          Floats hold cycles exactly up to 2**24; `state.game.reward` is always exact.

        Raises:
          ProblemError: there is no problem, or they have different shapes.
          MallocGameError: a problem file cannot be read, or `reward_unit` is unknown.
        """
        if reward_unit not in REWARD_UNITS:
            known = ", ".join(REWARD_UNITS)
            raise MallocGameError(f"reward_unit is {reward_unit!r}; need one of: {known}")
        if isinstance(problem, Problem | Program | str | os.PathLike):
            problem = [problem]
        problems = list(problem)
        if not problems:
            raise ProblemError("an environment needs at least one problem; the sequence is empty")
        self.auto_reset = auto_reset
        self.reward_unit = reward_unit
        self._programs = _stack([_encoded(p) for p in problems])
        self._starts = _start(self._programs)

    @property
    def num_problems(self) -> int:
        """Number of problems P."""
        return self._programs.num_decisions.shape[0]

    @property
    def max_decisions(self) -> int:
        """Padded number of decisions: no game is longer."""
        return self._programs.max_decisions

    def _of(self, stacked: Any, problem: chex.Array) -> Any:
        # One problem is taken by a constant index: then batches of games share its arrays.
        index = 0 if self.num_problems == 1 else problem
        return jax.tree.map(lambda x: x[index], stacked)

    def program(self, state: EnvState) -> Program:
        """The encoded problem that `state` plays."""
        return self._of(self._programs, state.problem)

    def reset(self, key: chex.PRNGKey) -> tuple[EnvState, TimeStep]:
        """Start a game of a problem drawn by `key`."""
        problem_key, next_key = jax.random.split(key)
        problem = jax.random.randint(problem_key, (), 0, self.num_problems, jnp.int32)
        game, observation = self._of(self._starts, problem)
        return EnvState(key=next_key, problem=problem, game=game), TimeStep(
            step_type=jnp.int8(FIRST),
            reward=jnp.float32(0),
            discount=jnp.float32(1),
            observation=observation,
            extras=_extras(problem, game),
        )

    def step(self, state: EnvState, action: chex.Array) -> tuple[EnvState, TimeStep]:
        """Take `action` (int32[]) for the decision at hand; an illegal one counts as DROP.

        Without `auto_reset`, steps after the end change nothing: reward 0, discount 0, LAST.
        """
        program = self.program(state)
        game = step(program, state.game, action)
        reward = game.reward.astype(jnp.float32)
        if self.reward_unit == "share":
            reward = reward / jnp.maximum(program.default_cycles, 1).astype(jnp.float32)
        ended = game.done
        state = state.replace(game=game)
        timestep = TimeStep(
            step_type=jnp.where(ended, jnp.int8(LAST), jnp.int8(MID)),
            reward=reward,
            discount=1.0 - ended.astype(jnp.float32),
            observation=_observe(program, game),
            extras=_extras(state.problem, game),
        )
        return self._restart(state, timestep) if self.auto_reset else (state, timestep)

    def _restart(self, state: EnvState, timestep: TimeStep) -> tuple[EnvState, TimeStep]:
        def new_game() -> tuple[EnvState, Observation]:
            fresh, first = self.reset(state.key)
            return fresh, first.observation

        state, observation = jax.lax.cond(
            timestep.last(), new_game, lambda: (state, timestep.observation)
        )
        return state, timestep.replace(observation=observation)

    @property
    def observation_spec(self) -> Observation:
        """dm_env specs of an observation's parts."""
        bound, shape = OBSERVATION_BOUND, (OBSERVATION_SIZE,)
        return Observation(
            dm_env.specs.BoundedArray(shape, np.float32, -bound, bound, "features"),
            dm_env.specs.BoundedArray((NUM_ACTIONS,), np.bool_, False, True, "action_mask"),
        )

    @property
    def action_spec(self) -> dm_env.specs.DiscreteArray:
        """dm_env spec of an action: COPY, NO_COPY or DROP."""
        return dm_env.specs.DiscreteArray(NUM_ACTIONS, np.int32, "action")

    @property
    def reward_spec(self) -> dm_env.specs.Array:
        """dm_env spec of a reward."""
        return dm_env.specs.Array((), np.float32, "reward")

    @property
    def discount_spec(self) -> dm_env.specs.BoundedArray:
        """dm_env spec of a discount."""
        return dm_env.specs.BoundedArray((), np.float32, 0.0, 1.0, "discount")

    @property
    def unwrapped(self) -> MallocGame:
        """This environment; wrappers ask for it."""
        return self

    def tree_flatten(self) -> tuple[tuple, tuple]:
        """Arrays, and what is static."""
        return (self._programs, self._starts), (self.auto_reset, self.reward_unit)

    @classmethod
    def tree_unflatten(cls, static: tuple, arrays: tuple) -> MallocGame:
        """The inverse of `tree_flatten`."""
        env = object.__new__(cls)
        env._programs, env._starts = arrays
        env.auto_reset, env.reward_unit = static
        return env


def _encoded(problem: ProblemLike) -> Program:
    if isinstance(problem, str | os.PathLike):
        problem = load_problem(problem)
    return encode(problem)
