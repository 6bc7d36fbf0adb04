"""The game against the rules written out once more, and against all games there are."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import malloc_game as mg
from tests.helpers.reference import Play, best_latency
from tests.helpers.toy import RANDOM_PADDING, jit_init, jit_step, pad

MAX_DECISIONS = 7
_all_games = jax.jit(jax.vmap(mg.replay, in_axes=(None, 0)))


def _tiny(seed: int) -> mg.Problem | None:
    """A random problem of few decisions, None if this seed has none or too many."""
    problem = mg.random_problem(seed, 6)
    return problem if 1 <= int(mg.encode(problem).num_decisions) <= MAX_DECISIONS else None


TINY = [seed for seed in range(60) if _tiny(seed) is not None][:12]
_FEW = 6  # of them, but for `make test-all`


@pytest.mark.parametrize("seed", range(8))
def test_each_step_is_what_the_rules_say(seed):
    """Legal actions and latencies along random games, the reference playing the same moves."""
    problem = mg.random_problem(seed, 24)
    program = pad(mg.encode(problem), RANDOM_PADDING)
    rng = np.random.default_rng(seed)
    state, play = jit_init(program), Play(problem)
    while not state.done:
        after = play.continuations()
        legal = set(np.flatnonzero(mg.legal_actions(program, state)).tolist())
        assert legal == set(after)
        # Rather not DROP, so that memory and bandwidth become scarce.
        action = int(rng.choice(sorted(legal)[: 1 + (rng.random() < 0.3)]))
        state, play = jit_step(program, state, action), after[action]
        assert int(state.latency) == play.cycles
    assert not play.continuations()
    assert mg.to_assignment(problem, state).masks == play.masks


def _best_of_all_games(problem: mg.Problem) -> int:
    program = mg.encode(problem)  # as large as all that small: compiled once
    moves = itertools.product(range(3), repeat=MAX_DECISIONS)  # those after the last are ignored
    states = _all_games(program, jnp.asarray(list(moves), jnp.int32))
    assert states.done.all()
    return int(states.latency.min())


@functools.cache
def _optimum(seed: int) -> int:
    return best_latency(Play(_tiny(seed)))


@pytest.mark.parametrize(
    "seed", [*TINY[:_FEW], *(pytest.param(seed, marks=pytest.mark.slow) for seed in TINY[_FEW:])]
)
def test_the_best_game_is_the_optimum_over_its_action_space(seed):
    assert _best_of_all_games(_tiny(seed)) == _optimum(seed)


def test_tiny_problems_have_something_to_win():
    """Else the optimum above would be everything in default memory."""
    default = [mg.latency(p, mg.all_default(p)).cycles for p in map(_tiny, TINY[:_FEW])]
    gains = [cycles - _optimum(seed) for cycles, seed in zip(default, TINY[:_FEW], strict=True)]
    assert sum(gain > 0 for gain in gains) >= _FEW - 1
