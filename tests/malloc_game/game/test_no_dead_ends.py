"""Random problems by the hundred: something is always legal, and finished games are valid."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import malloc_game as mg
from tests.helpers.toy import pad

_BATCH = 250
_BATCHES = [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 8))]
_STEPS = 40  # more than any of these problems has decisions
_PADDING = {"T": 64, "D": 64, "C": 2048, "E": 96, "X": 64}


@jax.jit
@jax.vmap
def _play(program: mg.Program, key: jax.Array) -> tuple[mg.GameState, jax.Array]:
    """A random legal game, and whether DROP and something was legal at each state: bool[steps]."""

    def move(state, key):
        legal = mg.legal_actions(program, state)
        # Rather not DROP, so that memory and bandwidth become scarce.
        logits = jnp.where(legal, jnp.array([2.0, 2.0, 0.0]), -jnp.inf)
        after = mg.step(program, state, jax.random.categorical(key, logits).astype(jnp.int32))
        return after, legal.any() & legal[mg.DROP]

    return jax.lax.scan(move, mg.init(program), jax.random.split(key, _STEPS))


def _damages(assignment: mg.Assignment):
    """Ways to spoil a mapping that has a chunk: the rule that breaks, and the spoilt mapping."""
    chunk, *rest = assignment.chunks
    changed = {
        "capacity": dataclasses.replace(chunk, offset=1 << 40),
        "alignment": dataclasses.replace(chunk, offset=chunk.offset + 1),
        "size": dataclasses.replace(chunk, size=chunk.size + 1),
        "too_late": dataclasses.replace(chunk, end=chunk.end + 1000),
    }
    for kind, spoilt in changed.items():
        yield kind, dataclasses.replace(assignment, chunks=(spoilt, *rest))
    yield "uncovered", dataclasses.replace(assignment, chunks=())
    yield "overlap", dataclasses.replace(assignment, chunks=(chunk, *assignment.chunks))
    if assignment.copies:
        yield "no_copy", dataclasses.replace(assignment, copies=())


@pytest.mark.parametrize("number", _BATCHES)
def test_no_game_dead_ends_and_every_finished_one_is_valid(number):
    seeds = range(number * _BATCH, (number + 1) * _BATCH)
    problems = [mg.random_problem(seed, 8, limits=seed % 2 == 1) for seed in seeds]
    programs = [pad(mg.encode(problem), _PADDING) for problem in problems]
    batch = jax.tree.map(lambda *rows: np.stack(rows), *programs)
    states, is_legal = _play(batch, jax.random.split(jax.random.key(seeds[0]), _BATCH))
    assert np.asarray(is_legal).all() and np.asarray(states.done).all()
    states = jax.tree.map(np.asarray, states)
    num_damaged = num_chunks = 0
    for i, problem in enumerate(problems):
        state = jax.tree.map(lambda x, i=i: x[i], states)
        assignment = mg.to_assignment(problem, state)
        assert mg.check(problem, assignment) == [], problem.name
        judged = mg.latency(problem, assignment)
        assert (judged.cycles, judged.wait_cycles) == (int(state.latency), 0)
        num_chunks += len(assignment.chunks)
        for kind, spoilt in _damages(assignment) if assignment.chunks else ():
            assert kind in {v.kind for v in mg.check(problem, spoilt)}, (problem.name, kind)
            num_damaged += 1
    assert int(np.sum(batch.num_decisions)) > 1250 and num_damaged > 625 and num_chunks > 375
