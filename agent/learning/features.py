"""What the agent sees beyond the game's own observation: a decision among all of its program.

The game shows a decision and what is near it. Whether it deserves its memory depends on all the
others that want the same memory at the same time, and on how much there is to win at all. Both can
be worked out before the game, from the program alone:

* the stake: cycles that could be saved, as a share of the default latency, if memory had no
  fragments and copies were free: a fractional knapsack of gains in capacity x time;
* for each decision, how large its gain is in that unit, and how much memory those want that overlap
  it in time and gain more per byte and time than it does (its competitors);
* hints, if asked for: what simple plays choose (greedy's, and those of the linear relaxation of
  the whole), in the best play and on average over the best few, and what the relaxation does.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np

import malloc_game
from malloc_game.game.playing import NUM_GREEDY_PLAYS
from malloc_game.jitted import jit

_AHEAD = 8  # decisions to come whose columns are seen as well
_NUM_COLUMNS = 6
OUTLOOK_SIZE = 5 + (1 + _AHEAD) * _NUM_COLUMNS
_GOOD_PLAYS = 8  # whose choices are averaged
HINT_SIZE = 1 + (1 + _AHEAD) * 3
_SMALLEST_STAKE = 1e-3  # of the default latency: less than that is not worth a scale of its own


@chex.dataclass(frozen=True)
class Outlook:
    """What is known of a program before the game. Letters as in `malloc_game.Program`."""

    stake: chex.Array  # float32[], an estimate of what can be saved / default latency, > 0
    columns: chex.Array  # float32[D, 6], of each decision, see `_columns`; 0 for padding
    hint: Hint | None = None  # where hints are asked for


@chex.dataclass(frozen=True)
class Hint:
    """What simpler ways of solving the whole make of a program."""

    saved: chex.Array  # float32[], share of the default latency that the best simple play saves
    # float32[D, 3], how much of each decision is in alternate memory: in the best simple play, in
    # the mean of the best few, in the linear relaxation.
    choices: chex.Array


def make_hint(
    program: malloc_game.Program,
    latency: chex.Array,
    actions: chex.Array,
    relaxed: chex.Array | None = None,
) -> Hint:
    """The hint of plays with latencies int32[N] and actions int32[N, D].

    relaxed: float32[D], what the linear relaxation has in alternate memory; the plays' mean stands
    in for it where it is NaN."""
    order = jnp.argsort(latency)[:_GOOD_PLAYS]
    in_alternate = (actions[order] != malloc_game.DROP).astype(jnp.float32)
    default = jnp.maximum(program.default_cycles, 1).astype(jnp.float32)
    exists = jnp.arange(program.max_decisions) < program.num_decisions
    mean = jnp.mean(in_alternate, axis=0)
    relaxed = mean if relaxed is None else jnp.where(jnp.isnan(relaxed), mean, relaxed)
    choices = jnp.stack([in_alternate[0], mean, relaxed], axis=1)
    return Hint(saved=1.0 - latency[order[0]] / default, choices=choices * exists[:, None])


def relaxation_plays(
    program: malloc_game.Program, relaxed: chex.Array
) -> tuple[malloc_game.GameState, chex.Array]:
    """Plays of what the linear relaxation has in alternate memory, by thresholds.

    relaxed: float32[D], NaN counts as 0. Returns final states [N] and actions, int32[N, D], as many
    as greedy has, so that both are one trace. Half of the plays take all that the relaxation does,
    half only what saves cycles when it is asked."""
    only_gains = np.arange(NUM_GREEDY_PLAYS) >= NUM_GREEDY_PLAYS // 2
    return malloc_game.admitting_plays(program, _admitted(relaxed), only_gains)


@jit()
def _admitted(relaxed: chex.Array) -> chex.Array:
    thresholds = jnp.tile(jnp.linspace(0.0, 0.98, NUM_GREEDY_PLAYS // 2), 2)
    return jnp.nan_to_num(relaxed)[None] > thresholds[:, None]


def simple_plays(
    program: malloc_game.Program, relaxed: chex.Array | None = None
) -> tuple[chex.Array, chex.Array]:
    """Greedy's plays, and those of the relaxation if there is one: latencies int32[N] in cycles and
    actions int32[N, D].

    relaxed: float32[D], see `relaxation_plays`."""
    states, actions = malloc_game.greedy_plays(program)
    if relaxed is None:
        return states.latency, actions
    more, more_actions = relaxation_plays(program, relaxed)
    return _joined((states.latency, actions), (more.latency, more_actions))


@jit()
def _joined(first: chex.ArrayTree, second: chex.ArrayTree) -> chex.ArrayTree:
    return jax.tree.map(lambda *rows: jnp.concatenate(rows), first, second)


def is_hinted(observation: chex.Array) -> chex.Array:
    """Whether the best simple play has the decision at hand in alternate memory: 0 or 1, [B].

    observation: float32[B, O], with hints."""
    return observation[:, 1 - HINT_SIZE]


def make_outlook(program: malloc_game.Program) -> Outlook:
    """The outlook of one program, without hint; pure, costs time D^2 and memory D."""
    number = jnp.arange(program.max_decisions)
    exists = number < program.num_decisions
    span = jnp.maximum(program.end - program.decision_time, 1).astype(jnp.float32)
    size = program.size.astype(jnp.float32) / program.num_granules
    can_gain = exists & ~program.is_refused
    gain = jnp.where(can_gain, jnp.maximum(program.static_gain, 0.0), 0.0)
    area = size * span / jnp.maximum(program.num_times, 1).astype(jnp.float32)
    density = gain / jnp.maximum(area, 1e-9)
    stake = jnp.maximum(_knapsack(gain, area, density), _SMALLEST_STAKE)
    columns = _columns(program, gain, size, span, density) * exists[:, None]
    share = program.static_gain / stake
    columns = jnp.concatenate([_root(share)[:, None] * exists[:, None], columns], axis=1)
    return Outlook(stake=stake, columns=columns.astype(jnp.float32))


def _root(share: chex.Array) -> chex.Array:
    return jnp.sign(share) * jnp.sqrt(jnp.abs(share))


def _knapsack(gain: chex.Array, area: chex.Array, density: chex.Array) -> chex.Array:
    """The gain that fits into area 1 if gains can be split: float32[]."""
    order = jnp.argsort(-density)
    area, gain = area[order], gain[order]
    before = jnp.cumsum(area) - area
    taken = jnp.clip((1.0 - before) / jnp.maximum(area, 1e-9), 0.0, 1.0)
    return jnp.sum(gain * taken)


def _columns(
    program: malloc_game.Program,
    gain: chex.Array,
    size: chex.Array,
    span: chex.Array,
    density: chex.Array,
) -> chex.Array:
    """Of each decision, all in about [0, 2]: float32[D, 5].

    Competitors' memory, averaged over its own time, over the capacity: those with more gain per
    size and time, with more gain per size, and all; share of all gain in decisions of higher
    density; the capacity that is left to it by denser ones over its own size.
    """
    start, end = program.decision_time, jnp.maximum(program.end, program.decision_time + 1)
    per_size = gain / jnp.maximum(size, 1e-9)
    wanted = size * (gain > 0)
    total = jnp.maximum(jnp.sum(gain), 1e-9)

    def one(decision: chex.Array) -> chex.Array:
        overlap = jnp.minimum(end, end[decision]) - jnp.maximum(start, start[decision])
        overlap = jnp.maximum(overlap, 0) / span[decision]
        is_other = program.decision_value != program.decision_value[decision]
        claim = wanted * overlap * is_other
        is_denser = density > density[decision]
        denser = jnp.sum(claim * is_denser)
        left = (1.0 - denser) / jnp.maximum(size[decision], 1e-3)
        return jnp.stack(
            [
                denser,
                jnp.sum(claim * (per_size > per_size[decision])),
                jnp.sum(claim) / 2.0,
                jnp.sum(gain * is_denser) / total,
                left / 4.0,
            ]
        )

    rows = jax.lax.map(one, jnp.arange(program.max_decisions), batch_size=32)
    return jnp.clip(rows, -1.0, 2.0)


def outlook_features(
    played: tuple[malloc_game.Program, Outlook], state: malloc_game.GameState
) -> chex.Array:
    """Features of the decision at hand and of those to come, in units of the stake.

    played: one program and its outlook. Returns float32[OUTLOOK_SIZE], and HINT_SIZE more if there
    is a hint; all within [-2, 2]."""
    program, outlook = played
    default = jnp.maximum(program.default_cycles, 1).astype(jnp.float32) * outlook.stake
    decision = state.decision
    gain = state.options.gain / default
    write_back = program.write_back[decision] / default
    saved = 1.0 - state.latency / jnp.maximum(program.default_cycles, 1).astype(jnp.float32)
    now = jnp.stack(
        [
            _root(gain - write_back),
            jnp.clip((gain - write_back) * 20.0, -1.0, 1.0),
            _root(write_back),
            saved / outlook.stake,
            jnp.log(outlook.stake) / 7.0,
        ]
    )
    index = state.position + jnp.arange(1 + _AHEAD)
    exists = index < program.num_decisions
    index = jnp.minimum(index, program.max_decisions - 1)
    parts = [now, (outlook.columns[index] * exists[:, None]).ravel()]
    if outlook.hint is not None:
        hint = outlook.hint
        parts += [hint.saved[None] / outlook.stake, (hint.choices[index] * exists[:, None]).ravel()]
    return jnp.clip(jnp.concatenate(parts), -2.0, 2.0).astype(jnp.float32)
