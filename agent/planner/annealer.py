"""Simulated annealing around the best game, led by the policy: the planner's local search.

Games with search are slow and see the whole; annealing plays a hundred times as many and sees only
whether a game became faster. Decisions where the policy would not do what the game does are
flipped most. Chains stay at their temperatures, from cold to hot, and the worst goes on from where
the best one is.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor

import chex
import jax
import jax.numpy as jnp
import numpy as np

import malloc_game
from agent.learning.config import AgentConfig
from agent.learning.inference import Model, initial_inference, legal_actions, observe_for, step
from malloc_game.jitted import jit
from malloc_game.solvers.play.simulated_annealing import (
    anneal,
    replace_worst,
    share_best,
    start_chains,
)

_MOVES = 4  # of every chain in one call
_NUM_CHAINS = 32
_COLD, _HOT = 1e-6, 5e-4  # temperatures, as shares of the default latency
_FAR = (1 << 31) - 1  # cycles of a game that was not played yet
_SMALLEST_WEIGHT = 0.05  # of a decision on which the policy and the game agree


@jit(static_argnames="config")
def disagreement(config: AgentConfig, model: Model, actions: chex.Array) -> chex.Array:
    """How unlikely the policy finds where a game has each decision: float32[D], 0 for padding.

    model: of one program. actions: int32[D]."""
    program = model.program

    def move(state: malloc_game.GameState, action: chex.Array) -> tuple:
        legal = legal_actions(program, state)
        output, _ = initial_inference(config, model.params, observe_for(config, model, state))
        policy = jax.nn.softmax(jnp.where(legal, output.policy_logits, -jnp.inf))[0]
        is_inside = action != malloc_game.DROP
        inside = 1.0 - policy[malloc_game.DROP]
        surprise = jnp.where(is_inside, 1.0 - inside, inside)
        return step(program, state, action[None]), surprise

    start = jax.tree.map(lambda x: x[None], malloc_game.init(program))
    surprise: chex.Array = jax.lax.scan(move, start, actions)[1]
    exists = jnp.arange(program.max_decisions) < program.num_decisions
    return jnp.where(exists, jnp.maximum(surprise, _SMALLEST_WEIGHT), 0.0)


class Annealer:
    """Annealing of one program, in a thread of its own beside the games with search.

    What it finds depends on its keys and on the games it is given only, not on how fast it is: one
    `start` is followed by one `finish`."""

    def __init__(self, config: AgentConfig, model: Model, actions: np.ndarray):
        """actions: int32[D], the game that all chains begin at."""
        self._config, self._model = config, model
        self._chains = start_chains(actions, _FAR, _NUM_CHAINS)
        shares = np.geomspace(_COLD, _HOT, _NUM_CHAINS)
        self._temperature = jnp.asarray(shares * int(model.program.default_cycles), jnp.float32)
        self._thread = ThreadPoolExecutor(1, "annealing")
        self._running: Future | None = None

    def go_on_from(self, actions: np.ndarray, cycles: int) -> None:
        """Lets the worst chain go on from a game found elsewhere."""
        wanted = actions != malloc_game.DROP
        self._chains = replace_worst(self._chains, wanted, np.int32(cycles))

    def start(
        self,
        rounds: int,
        params: chex.ArrayTree,
        key: chex.PRNGKey,
        deadline: float | None = None,
    ) -> None:
        """Begins so many calls. params: of the policy that leads them. The key is consumed.

        deadline: of `time.monotonic()`, after which no call begins."""
        model = self._model.replace(params=params)
        self._running = self._thread.submit(self._run, rounds, model, key, deadline)

    def finish(self) -> tuple[np.ndarray, int]:
        """Waits for what `start` began; the best game so far, actions int32[D] and cycles."""
        assert self._running is not None, "nothing was started"
        running, self._running = self._running, None
        running.result()
        return np.asarray(self._chains.best_actions), int(self._chains.best_cycles)

    def close(self) -> None:
        """Ends the thread once it is done with what was started."""
        self._thread.shutdown(wait=True)

    def _run(self, rounds: int, model: Model, key: chex.PRNGKey, deadline: float | None) -> None:
        weights = disagreement(self._config, model, self._chains.best_actions)
        for round_key in jax.random.split(key, rounds):
            if deadline is not None and time.monotonic() >= deadline:
                break
            chains = anneal(
                model.program, self._chains, self._temperature, round_key, _MOVES, weights
            )
            self._chains = jax.block_until_ready(share_best(chains))
