"""Steps per second, compile time and memory of an environment: mallocGame's and its peers' alike.

One loop for all: `lax.scan` over steps of a `vmap`ped batch, a random legal action drawn for each
game in each step from the game's own mask, a new game where one is over. The loop goes on where the
last one ended, in the same memory. `python -m agent.throughput` measures and prints
everything.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

import malloc_game as mg
from malloc_game.errors import MallocGameError
from malloc_game.throughput.environments import Environment, random_legal

RUNS = 3
_LONG_SECONDS = 5.0  # a call that takes longer is not repeated
_PEER_DECISIONS = 512  # peers take as many steps a call as our game of that size


@dataclasses.dataclass(frozen=True)
class Effort:
    """How long to measure."""

    run_seconds: float = 0.3  # shortest timed run: calls are repeated until then
    memory_limit_bytes: int = 8 << 30  # what needs more is not run


@dataclasses.dataclass(frozen=True)
class Speed:
    """One compiled loop, measured."""

    steps_per_second: float | None  # of the whole batch; None if it was not run
    compile_seconds: float  # tracing included
    memory_bytes: int  # of the executable's arguments, results and temporaries


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table. Speeds are steps per second of the whole batch, None if not run."""

    environment: str
    num_decisions: int | None  # None for peers
    batch_size: int
    state_bytes: int | None  # of one game
    speed: float | None  # with the observation
    speed_unobserved: float | None = None
    speed_given: float | None = None  # without the observation, actions not drawn but given
    compile_seconds: float | None = None  # of the loop with the observation
    memory_bytes: int | None = None  # of the whole batch, likewise
    note: str = ""


def play(
    environment: Environment,
    data: chex.ArrayTree,
    games: chex.ArrayTree,
    key: chex.PRNGKey,
    actions: chex.Array | None,
    *,
    num_steps: int,
) -> chex.ArrayTree:
    """Play `num_steps` steps of a batch of games; the key is consumed.

    actions: int32[num_steps, B] to be played instead of random legal ones.
    """

    def one(games, given):
        step_keys, action = given

        def of_game(game, key, action):
            action_key, step_key = jax.random.split(key)
            if action is None:
                action = random_legal(action_key, environment.legal(data, game))
            return environment.step(data, game, action, step_key)

        return jax.vmap(of_game)(games, step_keys, action), None

    batch_size = jax.tree.leaves(games)[0].shape[0]
    keys = jax.random.split(key, (num_steps, batch_size))
    return jax.lax.scan(one, games, (keys, actions))[0]


def start(environment: Environment, batch_size: int, data: chex.ArrayTree) -> chex.ArrayTree:
    """A batch of games."""
    keys = jax.random.split(jax.random.key(0), batch_size)
    return jax.vmap(environment.reset, in_axes=(None, 0))(data, keys)


def num_steps_of(num_decisions: int, batch_size: int) -> int:
    """Steps of one call: fewer where a step is slow, more where it is fast."""
    work = 1 << 22 if jax.default_backend() == "cpu" else 1 << 26
    return min(max(work // (num_decisions * batch_size), 2), 512)


def measure(
    environment: Environment,
    batch_size: int,
    num_steps: int,
    effort: Effort,
    *,
    given: bool = False,
) -> Speed:
    """Compile the loop and time it. given: play actions drawn beforehand, illegal ones as DROP."""
    data, key = environment.data, jax.random.key(1)
    actions = None
    if given:
        actions = jax.random.randint(key, (num_steps, batch_size), 0, mg.NUM_ACTIONS)

    def loop(data, games, key, actions):
        return play(environment, data, games, key, actions, num_steps=num_steps)

    def new_games(data):
        return start(environment, batch_size, data)

    shapes = jax.eval_shape(new_games, data)
    began = time.perf_counter()
    compiled = jax.jit(loop, donate_argnums=1).lower(data, shapes, key, actions).compile()
    compile_seconds = time.perf_counter() - began
    memory_bytes = executable_bytes(compiled)
    if memory_bytes > effort.memory_limit_bytes:
        return Speed(None, compile_seconds, memory_bytes)
    games = jax.jit(new_games)(data)

    def call():
        nonlocal games
        games = compiled(data, games, key, actions)
        return games

    seconds = median_seconds(call, effort.run_seconds)
    return Speed(batch_size * num_steps / seconds, compile_seconds, memory_bytes)


def median_seconds(call: Callable[[], chex.ArrayTree], run_seconds: float) -> float:
    """Wall time of one call: the median of `RUNS` runs of as many calls as fill `run_seconds`.

    call: compiled beforehand. The first call warms up and counts only if it is long.
    """

    def run(num_calls):
        began = time.perf_counter()
        for _ in range(num_calls):
            result = call()
        jax.block_until_ready(result)
        return (time.perf_counter() - began) / num_calls

    once = run(1)
    if once > _LONG_SECONDS:
        return once
    num_calls = max(1, round(run_seconds / once))
    return statistics.median(run(num_calls) for _ in range(RUNS))


def executable_bytes(compiled: jax.stages.Compiled) -> int:
    """Memory of a compiled function while it runs: arguments, results and temporaries.

    Raises:
      MallocGameError: JAX cannot tell on this device.
    """
    used = compiled.memory_analysis()
    if used is None:
        raise MallocGameError("JAX does not tell how much memory compiled code takes here")
    total = used.argument_size_in_bytes + used.output_size_in_bytes + used.temp_size_in_bytes
    return total - used.alias_size_in_bytes


def tree_bytes(tree: chex.ArrayTree) -> int:
    """Bytes of all arrays of a tree (or of their shapes)."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def state_bytes(environment: Environment) -> int:
    """Bytes of one game without its observation."""
    one = lambda data: environment.stored(environment.reset(data, jax.random.key(0)))  # noqa: E731
    return tree_bytes(jax.eval_shape(one, environment.data))


def step_bytes(program: mg.Program, batch_size: int) -> int:
    """Memory of one jitted step of a batch of our games, in place (donated)."""
    states = jax.eval_shape(
        lambda program: jax.tree.map(
            lambda x: jnp.broadcast_to(x, (batch_size, *x.shape)), mg.init(program)
        ),
        program,
    )
    actions = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
    step = jax.jit(jax.vmap(mg.step, in_axes=(None, 0, 0)), donate_argnums=1)
    return executable_bytes(step.lower(program, states, actions).compile())


def measure_peer(environment: Environment, batch_size: int, effort: Effort) -> Row:
    """A peer's line of the table."""
    speed = measure(environment, batch_size, num_steps_of(_PEER_DECISIONS, batch_size), effort)
    return Row(
        environment=environment.name,
        num_decisions=None,
        batch_size=batch_size,
        state_bytes=state_bytes(environment),
        speed=speed.steps_per_second,
        compile_seconds=speed.compile_seconds,
        memory_bytes=speed.memory_bytes,
        note=_note(speed, effort),
    )


def measure_game(
    observed: Environment, plain: Environment, batch_size: int, effort: Effort, *, given: bool
) -> Row:
    """Our game's line of the table: with and without the observation, and with given actions."""
    num_decisions = int(plain.data["program"].num_decisions)
    num_steps = num_steps_of(num_decisions, batch_size)
    speed = measure(observed, batch_size, num_steps, effort)
    unobserved = measure(plain, batch_size, num_steps, effort)
    row = Row(
        environment=observed.name,
        num_decisions=num_decisions,
        batch_size=batch_size,
        state_bytes=state_bytes(plain),
        speed=speed.steps_per_second,
        speed_unobserved=unobserved.steps_per_second,
        compile_seconds=speed.compile_seconds,
        memory_bytes=speed.memory_bytes,
        note=_note(speed, effort),
    )
    if not given:
        return row
    rate = measure(plain, batch_size, num_steps, effort, given=True).steps_per_second
    return dataclasses.replace(row, speed_given=rate)


def _note(speed: Speed, effort: Effort) -> str:
    if speed.steps_per_second is not None:
        return ""
    limit = effort.memory_limit_bytes / (1 << 30)
    return f"not run: needs {speed.memory_bytes / (1 << 30):.1f} GiB, limit {limit:g} GiB"
