"""The mallocGame: pure functions `init` and `step` over one game; callers add `vmap` and `jit`.

One decision is asked at a time, in schedule order: for each use of a parameter COPY (prefetch it
in time), NO_COPY (keep using the chunk it has) or DROP (read default memory); for each computed
value, at its definition, NO_COPY (alternate memory for its whole life) or DROP. That is what
XLA:TPU can be told. A value that a plain copy of a parameter defines is asked at its first use:
COPY (a prefetch replaces that copy) or DROP. DROP is always legal, so no game dead-ends. The reward
is the number of cycles saved.
"""

from __future__ import annotations

import chex
import jax.numpy as jnp
import numpy as np

from malloc_game import copies, heap
from malloc_game.assignment import PREFETCH, Assignment, Chunk, Copy
from malloc_game.encode import NUM_GRANULES, encode, granule_bytes
from malloc_game.problem import Problem
from malloc_game.state import (
    COPY,
    DROP,
    NO_COPY,
    NUM_ACTIONS,
    UNPLACED,
    GameState,
    Options,
    Program,
)


def latency_cycles(program: Program, mask: chex.Array) -> chex.Array:
    """Cycles of all instructions under `mask` (int32[T]); copies of a game never wait: int32[]."""
    return jnp.sum(program.trip_count * program.cycles[program.table_start + mask])


def _mask_in_alternate(program: Program, mask: chex.Array, decision: chex.Array) -> chex.Array:
    """`mask` with the positions of `decision` in alternate memory: int32[T]."""
    value = program.decision_value[decision]
    is_own = (program.position_value == value) & ~program.is_parameter[decision]
    mask = mask.at[program.position_time].add(jnp.where(is_own, program.position_bits, 0))
    return mask.at[program.decision_time[decision]].add(program.bits[decision])


def _held_chunk(program: Program, state: GameState, decision: chex.Array) -> chex.Array:
    """The chunk that the parameter of `decision` still holds, or UNPLACED."""
    previous = program.previous[decision]
    return jnp.where(previous == UNPLACED, UNPLACED, state.chunk_of[previous])


def _is_excluded(program: Program, state: GameState, decision: chex.Array) -> chex.Array:
    """Whether the compiler cannot be asked for alternate memory here: bool[].

    Refused for good, or by an exclusion together with what has been decided.
    """
    in_alternate = state.chunk_of != UNPLACED  # bool[D]
    group, use = program.excluding_group, program.excluding_use
    output = program.excluded_output
    holds = jnp.zeros(program.max_decisions + 1, bool)
    holds = holds.at[program.exclusion_group].max(in_alternate)  # by group: bool[D + 1]
    use_in_default = (use == UNPLACED) | ~in_alternate[use]
    here = program.exclusion_group[decision]
    excluded = (output == decision) & use_in_default & holds[group]
    excluded |= (group == here) & (use != decision) & use_in_default & in_alternate[output]
    return program.is_refused[decision] | (excluded & (group != UNPLACED)).any()


def _options(program: Program, state: GameState) -> Options:
    """Work out what the decision at hand could do."""
    decision = state.decision
    time, is_parameter = program.decision_time[decision], program.is_parameter[decision]
    end, size = program.end[decision], program.size[decision]
    copy_start, ahead = copies.latest_start(program, state, program.copy_units[decision], time)
    may_copy = program.may_copy[decision]
    start = jnp.where(may_copy, copy_start, time)
    offset = heap.first_fit(program, state, size, start, end)
    held = _held_chunk(program, state, decision)
    can_extend = (held != UNPLACED) & heap.is_free(program, state, held, state.chunk_end[held], end)
    in_alternate = _mask_in_alternate(program, state.mask, decision)
    may_be_asked = ~_is_excluded(program, state, decision)
    fits = (offset != UNPLACED) & may_be_asked
    legal = jnp.stack(
        [
            # What is still in alternate memory is used from there; to copy it anew, DROP it first.
            may_copy & (copy_start != UNPLACED) & fits & (held == UNPLACED),
            jnp.where(is_parameter, can_extend & may_be_asked, fits & ~may_copy),
            jnp.bool_(True),
        ]
    )
    return Options(
        legal=legal | state.done,
        copy_start=copy_start,
        copy_ahead=ahead,
        offset=offset,
        gain=state.cycles - latency_cycles(program, in_alternate),
    )


def init(problem: Problem | Program) -> GameState:
    """The start of a game: everything undecided, and so in default memory."""
    program = encode(problem)
    unplaced = jnp.full(program.max_decisions, UNPLACED, jnp.int32)
    zeros = jnp.zeros(program.max_decisions, jnp.int32)
    state = GameState(
        position=jnp.int32(0),
        mask=jnp.zeros(program.max_times, jnp.int32),
        chunk_offset=unplaced,
        chunk_start=zeros,
        chunk_end=zeros,
        chunk_of=unplaced,
        copy_start=unplaced,
        copy_ahead=zeros,
        cycles=jnp.asarray(program.default_cycles, jnp.int32),
        write_back=jnp.int32(0),
        reward=jnp.int32(0),
        done=program.num_decisions == 0,
        options=Options(
            legal=jnp.ones(3, bool),
            copy_start=jnp.int32(UNPLACED),
            copy_ahead=jnp.int32(0),
            offset=jnp.int32(UNPLACED),
            gain=jnp.int32(0),
        ),
    )
    return state.replace(options=_options(program, state))


def legal_actions(problem: Problem | Program, state: GameState) -> chex.Array:
    """Legal actions of the decision at hand: bool[3], True = legal; all True after the end."""
    del problem
    return state.options.legal


def step(problem: Problem | Program, state: GameState, action: chex.Array) -> GameState:
    """Take `action` (int32[]) for the decision at hand.

    An illegal action, or a number that is none, counts as DROP. After the end nothing changes and
    the reward is 0. Rewards of a game sum to exactly the default latency minus the final latency.
    """
    program = encode(problem)
    options = state.options
    decision = state.decision
    is_action = (action >= 0) & (action < NUM_ACTIONS)
    action = jnp.where(is_action & options.legal[action] & ~state.done, action, DROP)
    is_parameter = program.is_parameter[decision]
    copies_now = action == COPY
    places = copies_now | ((action == NO_COPY) & ~is_parameter)  # makes a chunk of its own
    extends = (action == NO_COPY) & is_parameter
    held = _held_chunk(program, state, decision)
    chunk = jnp.where(places, decision, jnp.where(extends, held, UNPLACED))

    time = program.decision_time[decision]
    mask = jnp.where(action == DROP, state.mask, _mask_in_alternate(program, state.mask, decision))
    write_back = jnp.where(places, program.write_back[decision], 0)
    reward = jnp.where(action == DROP, 0, options.gain - write_back)
    chunk_end = state.chunk_end.at[decision].set(
        jnp.where(places, program.end[decision], state.chunk_end[decision])
    )
    chunk_end = jnp.where(
        (jnp.arange(program.max_decisions) == held) & extends, time + 1, chunk_end
    )
    position = jnp.where(state.done, state.position, state.position + 1)
    state = state.replace(
        position=position,
        mask=mask,
        chunk_offset=state.chunk_offset.at[decision].set(
            jnp.where(places, options.offset, state.chunk_offset[decision])
        ),
        chunk_start=state.chunk_start.at[decision].set(
            jnp.where(
                places, jnp.where(copies_now, options.copy_start, time), state.chunk_start[decision]
            )
        ),
        chunk_end=chunk_end,
        chunk_of=state.chunk_of.at[decision].set(
            jnp.where(state.done, state.chunk_of[decision], chunk)
        ),
        copy_start=state.copy_start.at[decision].set(
            jnp.where(copies_now, options.copy_start, state.copy_start[decision])
        ),
        copy_ahead=state.copy_ahead.at[decision].set(
            jnp.where(copies_now, options.copy_ahead, state.copy_ahead[decision])
        ),
        cycles=state.cycles - reward - write_back,
        write_back=state.write_back + write_back,
        reward=reward,
        done=position >= program.num_decisions,
    )
    return state.replace(options=_options(program, state))


def to_assignment(
    problem: Problem,
    state: GameState,
    source: str = "game",
    *,
    num_granules: int = NUM_GRANULES,
) -> Assignment:
    """The mapping that a (finished) game of `problem` stands for, in bytes.

    num_granules: as given to `encode` for this game.
    """
    program = encode(problem, num_granules)
    granule = granule_bytes(problem, num_granules)
    column = lambda name, of: np.asarray(getattr(of, name)).tolist()  # noqa: E731
    chunk_of, offsets = column("chunk_of", state), column("chunk_offset", state)
    starts, ends = column("chunk_start", state), column("chunk_end", state)
    copy_starts, times = column("copy_start", state), column("decision_time", program)
    values, is_parameter = column("decision_value", program), column("is_parameter", program)
    masks = [0] * len(problem.instructions)
    chunks, copied = [], []
    for d in range(int(program.num_decisions)):
        value = values[d]
        if chunk_of[d] == UNPLACED:
            continue
        for t, p in problem.positions_of_value[value]:
            if not is_parameter[d] or t == times[d]:
                masks[t] |= 1 << p
        if chunk_of[d] == d:
            size = problem.values[value].size_bytes
            chunks.append(Chunk(value, offsets[d] * granule, size, starts[d], ends[d]))
        if copy_starts[d] != UNPLACED:
            size = problem.values[value].size_bytes
            copied.append(Copy(value, copy_starts[d], times[d], size, PREFETCH))
    return Assignment(tuple(masks), tuple(chunks), tuple(copied), source)
