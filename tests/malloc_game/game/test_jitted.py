"""`malloc_game.jitted`: compiled code of the latest few sizes."""

from __future__ import annotations

import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.backend import get_backend

import malloc_game as mg
from malloc_game.jitted import jit


def _executables() -> int:
    gc.collect()
    return len(get_backend().live_executables())


@pytest.fixture
def traced():
    """A function that notes the sizes for which it is traced, and the list of these."""
    sizes = []

    @jit(most_sizes=2, static_argnames="times")
    def scaled(x, times=2):
        sizes.append(x.size)
        return x * times

    return scaled, sizes


def test_the_code_of_the_latest_sizes_is_kept_and_no_other(traced):
    scaled, sizes = traced
    for size in (1, 2, 3, 3, 2, 1):
        assert scaled(np.ones(size, np.float32)).tolist() == [2.0] * size
    assert sizes == [1, 2, 3, 1]


def test_executables_of_earlier_sizes_are_freed(traced):
    scaled, _ = traced
    arrays = [np.ones(size, np.float32) for size in range(1, 9)]
    for array in arrays[:2]:
        scaled(array)
    before = _executables()
    for array in arrays:
        scaled(array)
    assert _executables() <= before


def test_dtypes_static_values_and_structures_are_told_apart(traced):
    scaled, _ = traced
    x = np.ones(3, np.float32)
    assert scaled(x, times=3).tolist() == [3.0] * 3
    assert scaled(x, 4).tolist() == [4.0] * 3  # static by name, given by position
    assert scaled(x.astype(np.int32)).dtype == jnp.int32

    @jit()
    def total(tree):
        return sum(jax.tree.leaves(tree))

    assert total({"a": 1, "b": 2}) == 3 and total([1, 2, 4]) == 7


def test_it_can_be_transformed_and_donated_to(traced):
    scaled, _ = traced
    rows = jnp.ones((3, 2))
    assert jax.vmap(scaled)(rows).shape == (3, 2)
    assert jax.jit(lambda x: scaled(x) + 1)(rows).tolist() == [[3.0, 3.0]] * 3

    @jit(donate_argnames="x")
    def add(x, y):
        return x + y

    given = jnp.ones(4)
    assert add(x=given, y=jnp.ones(4)).tolist() == [2.0] * 4
    assert given.is_deleted()


def test_it_looks_like_the_function():
    @jit()
    def named(x):
        """Says what it does."""
        return x

    assert named.__name__ == "named" and named.__doc__ == "Says what it does."


def test_a_program_of_a_new_size_makes_jax_compile_nothing_that_would_be_kept():
    # JAX compiles a single operation for each shape, and keeps it as long as the process lives.
    compiled = []

    def note(event, seconds, **more):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(more)

    def play(size):
        compiled.clear()
        problem = mg.random_problem(3, size)
        program = mg.encode(problem)
        state, _ = mg.greedy(program)
        mg.follow(problem, mg.to_assignment(problem, state, "greedy"))
        return program.max_decisions

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        assert play(70) != play(150)
        # What greedy admits, its plays, the best of them, a mapping followed: all `jitted`.
        assert len(compiled) == 4, compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(note)
