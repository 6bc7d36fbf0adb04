"""Offsets for buffers that are to share one memory, in which nothing else counts."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from malloc_game.game.encoding import encode
from malloc_game.game.rules import init, legal_actions, step, to_assignment
from malloc_game.game.state import DROP, NO_COPY, GameState, Program
from malloc_game.jitted import jit
from malloc_game.problem.minimalloc import PackingInstance

_MAX_GRANULES = 1 << 16


def first_fit(instance: PackingInstance) -> tuple[int | None, ...]:
    """The game's own packing: in the order of `lower`, the lowest offset that is free.

    Bytes for each buffer in the order of `instance.ids`; None for those that found no place. Sizes
    are rounded up where the memory has more than 65536 of their common units.
    """
    problem = instance.to_problem()
    num_granules = min(instance.capacity_bytes // problem.target.alignment_bytes, _MAX_GRANULES)
    final = _place_all(encode(problem, num_granules))
    chunks = to_assignment(problem, final, num_granules=num_granules).chunks
    found = {problem.values[chunk.value].name: chunk.offset for chunk in chunks}
    return tuple(found.get(name) for name in instance.ids)


@jit()
def _place_all(program: Program) -> GameState:
    """The final state of the game that never leaves out what fits."""

    def one(_: int, state: GameState) -> GameState:
        fits = legal_actions(program, state)[NO_COPY]
        return step(program, state, jnp.where(fits, NO_COPY, DROP).astype(jnp.int32))

    return jax.lax.fori_loop(0, program.num_decisions, one, init(program))
