"""Observations: finite, bounded, the same under padding, and about the game at hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import malloc_game as mg
from malloc_game import COPY, DROP, NO_COPY, OBSERVATION_SIZE
from tests.helpers.toy import (
    NUM_STEPS,
    RANDOM_PADDING,
    WIDE_PADDING,
    Game,
    jit_observe,
    pad,
    random_game,
)

_observe_all = jax.jit(jax.vmap(mg.observe, in_axes=(None, 0)))


@settings(deadline=None, max_examples=20, derandomize=True, database=None)
@given(st.integers(0, 10_000), st.integers(5, 60), st.sampled_from([-9.0, 0.0]))
def test_every_observation_is_finite_and_bounded(seed, size, drop_logit):
    program = pad(mg.encode(mg.random_problem(seed, size)), RANDOM_PADDING)
    bias = jnp.array([0.0, 0.0, drop_logit])
    _, trace = random_game(program, jax.random.key(seed), bias)
    seen = np.asarray(_observe_all(program, trace.state))
    assert seen.shape == (NUM_STEPS, OBSERVATION_SIZE)
    assert seen.dtype == np.float32
    assert np.isfinite(seen).all()
    assert np.abs(seen).max() <= 2
    # Undecided games differ from one decision to the next.
    n = int(program.num_decisions)
    assert len(np.unique(seen[:n], axis=0)) == n


@pytest.mark.parametrize(("seed", "size"), [(0, 40), (1, 12), (2, 64), (3, 60)])
def test_padding_does_not_show(seed, size):
    """Also at the last of 64 instructions, a full bucket, and after the end."""
    program = mg.encode(mg.random_problem(seed, size))
    tight = pad(program, RANDOM_PADDING)
    wide = pad(program, WIDE_PADDING)
    key, bias = jax.random.key(seed), jnp.array([0.0, 0.0, -9.0])
    _, trace = random_game(tight, key, bias)
    _, wide_trace = random_game(wide, key, bias)
    np.testing.assert_allclose(
        _observe_all(tight, trace.state),
        _observe_all(wide, wide_trace.state),
        atol=1e-5,  # sums over padded axes round differently
    )


def test_using_memory_shows():
    text = """
        cycles         20  20  20  20
        a  4  temp     D1  -   u1  .
        b  4  temp     .   D1  u1  .
    """
    placed, dropped = Game(text), Game(text)
    placed.play(NO_COPY)
    dropped.play(DROP)
    with_chunk = np.asarray(jit_observe(placed.program, placed.state))
    without = np.asarray(jit_observe(dropped.program, dropped.state))
    assert np.abs(with_chunk - without).max() > 0.2
    # A quarter of the memory is used, or nothing.
    occupancy = slice(OBSERVATION_SIZE - 64, OBSERVATION_SIZE)
    assert without[occupancy].max() == 0
    assert with_chunk[occupancy].max() == 1


def test_what_is_legal_shows():
    text = """
        cycles         20  20  20
        a  10  temp    D3  u3  .
        b  10  temp    .   D1  u1
    """
    game, free = Game(text), Game(text)
    game.play(NO_COPY)
    free.play(DROP)
    assert game.legal != free.legal
    assert (jit_observe(game.program, game.state) != jit_observe(free.program, free.state)).any()


def test_what_is_excluded_shows():
    text = """
        cycles         20  20  20
        w  4  param    .   u1  u1
        y  4  temp     .   .   D1{}
    """
    excluded, free = Game(text.format("~w")), Game(text.format(""))
    for game in (excluded, free):
        game.play(COPY, DROP)
    assert (excluded.legal, free.legal) == ({DROP}, {NO_COPY, DROP})
    difference = np.asarray(
        jit_observe(excluded.program, excluded.state) - jit_observe(free.program, free.state)
    )
    # One number, that of the action, and by its full range.
    assert np.count_nonzero(difference) == 1 and difference.min() == -1


def test_observations_take_problems_as_well():
    game = Game("cycles 20 20\n x 4 temp D1 u1")
    np.testing.assert_allclose(
        jax.jit(lambda state: mg.observe(game.problem, state))(game.state),
        jit_observe(game.program, game.state),
        atol=1e-6,
    )
