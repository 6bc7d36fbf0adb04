"""The environments of the benchmark behind one interface: mallocGame and its peers.

Everyone gets the same loop (`malloc_game.throughput.measurement`) and the same way to draw a legal
action, starts anew when a game is over, and pays for that. jumanji and pgx build the observation as
part of a step; ours is measured with and without it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np

import malloc_game as mg
from malloc_game.problem.generators import TOY_TARGET

PEERS = ("BinPack-v2", "JobShop-v0", "chess", "go_9x9")
_JUMANJI = ("BinPack-v2", "JobShop-v0")
# Ten times the usual toy bandwidth: 32k instructions must add up to less than 2**31 cycles.
_TARGET = dataclasses.replace(TOY_TARGET, name="bench", default_bandwidth_bytes_per_second=1e12)
_SEED = 0
_MAX_OPENING = 4096  # moves before the first measured one


@dataclasses.dataclass(frozen=True)
class Environment:
    """One game's functions; the loop adds `vmap`. All are pure.

    data: arrays that all games of a batch share, an argument so that they are no constants of the
      executable.
    reset: (data, key) -> game in progress, any pytree; its observation is part of it, if there is
      one, so that the compiler cannot leave it out.
    step: (data, game, action, key) -> game; one that ends is replaced by a new one at once.
    legal: (data, game) -> bool[..., A]; an action is one number below A for each leading entry.
    stored: game -> the part that a search must keep for each node, that is without observation.
    """

    name: str
    data: chex.ArrayTree
    reset: Callable[[chex.ArrayTree, chex.PRNGKey], chex.ArrayTree]
    step: Callable[[chex.ArrayTree, chex.ArrayTree, chex.Array, chex.PRNGKey], chex.ArrayTree]
    legal: Callable[[chex.ArrayTree, chex.ArrayTree], chex.Array]
    stored: Callable[[chex.ArrayTree], chex.ArrayTree]


def random_legal(key: chex.PRNGKey, legal: chex.Array) -> chex.Array:
    """A legal action, uniformly: bool[..., A] -> int32[...]. 0 where nothing is legal.

    The largest of uniform numbers, rather than `jax.random.categorical`: chess has 4,672 actions,
    and two logarithms for each of them would be charged to chess.
    """
    uniform = jax.random.uniform(key, legal.shape)
    return jnp.argmax(jnp.where(legal, uniform, -1.0), axis=-1).astype(jnp.int32)


def problem_with(num_decisions: int) -> mg.Problem:
    """A random problem of exactly `num_decisions` decisions, at about 0.8 instructions for each.

    It is drawn a little too large; then values drawn at random are kept in default memory.
    """
    num_instructions = max(8, round(0.8 * num_decisions))
    while True:
        problem = mg.random_problem(_SEED, num_instructions, _TARGET, loop=False)
        program = mg.encode(problem)
        surplus = int(program.num_decisions) - num_decisions
        if surplus >= 0:
            break
        num_instructions += max(1, num_instructions // 16)
    asked = np.asarray(program.decision_value)[: int(program.num_decisions)]
    count = np.bincount(asked, minlength=len(problem.values))
    dropped = set()
    for v in np.random.default_rng(_SEED).permutation(np.unique(asked)):
        if count[v] <= surplus:
            dropped.add(int(v))
            surplus -= int(count[v])
    values = tuple(
        dataclasses.replace(value, may_be_in_alternate=False) if v in dropped else value
        for v, value in enumerate(problem.values)
    )
    return problem.replace(name=f"bench-{num_decisions}", values=values)


def malloc_environment(program: mg.Program, *, observed: bool) -> Environment:
    """Our game; one program, so a new game is a copy of its first state.

    A batch starts half-way through a game of random legal moves, or 4,096 moves into it: nothing
    is placed in the opening, and a short measurement of a long game would see nothing else.
    """
    first, middle, observation = _first_and_middle(program)

    def reset(data, key):
        del key  # The same game for all.
        return data["middle"]

    def step(data, game, action, key):
        del key  # The game is deterministic.
        state = mg.step(data["program"], game[0], action)
        state = jax.tree.map(lambda new, old: jnp.where(state.done, new, old), data["first"], state)
        return state, mg.observe(data["program"], state) if observed else ()

    middle = (middle, observation if observed else ())
    return Environment(
        name="mallocGame",
        data={"program": program, "first": first, "middle": middle},
        reset=reset,
        step=step,
        legal=lambda data, game: mg.legal_actions(data["program"], game[0]),
        stored=lambda game: game[0],
    )


@jax.jit
def _first_and_middle(program: mg.Program) -> tuple[mg.GameState, mg.GameState, chex.Array]:
    """The first state, one in the middle of a game, and the latter's observation."""

    def move(i, state):
        key = jax.random.fold_in(jax.random.key(_SEED), i)
        return mg.step(program, state, random_legal(key, mg.legal_actions(program, state)))

    first = mg.init(program)
    opening = jnp.minimum(program.num_decisions // 2, _MAX_OPENING)
    middle = jax.lax.fori_loop(0, opening, move, first)
    return first, middle, mg.observe(program, middle)


def peer_environment(name: str) -> Environment:
    """One of `PEERS`.

    Raises:
      ImportError: its package is not installed.
    """
    return _jumanji_environment(name) if name in _JUMANJI else _pgx_environment(name)


def _jumanji_environment(name: str) -> Environment:
    import jumanji
    from jumanji.wrappers import AutoResetWrapper

    environment = AutoResetWrapper(jumanji.make(name))

    def legal(data, game):
        del data
        mask = game[1].observation.action_mask
        # BinPack's actions are pairs (space, item); JobShop's are one job for each machine.
        return mask.reshape(-1) if name == "BinPack-v2" else mask

    def step(data, game, action, key):
        del data, key  # jumanji keeps a key in the state.
        state, timestep = game
        if name == "BinPack-v2":
            shape = timestep.observation.action_mask.shape
            action = jnp.stack(jnp.unravel_index(action, shape))
        return environment.step(state, action)

    return Environment(
        name=f"jumanji {name}",
        data=(),
        reset=lambda data, key: environment.reset(key),
        step=step,
        legal=legal,
        stored=lambda game: game[0],
    )


def _pgx_environment(name: str) -> Environment:
    import pgx
    from pgx.experimental import auto_reset

    environment = pgx.make(name)
    step = auto_reset(environment.step, environment.init)
    return Environment(
        name=f"pgx {name}",
        data=(),
        reset=lambda data, key: environment.init(key),
        step=lambda data, game, action, key: step(game, action, key),
        legal=lambda data, game: game.legal_action_mask,
        stored=lambda game: game.replace(observation=()),
    )
