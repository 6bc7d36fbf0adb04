"""The mallocGame: pure functions `init` and `step` over one game; callers add `vmap` and `jit`.

One decision is asked at a time, in schedule order: for each use of a parameter COPY (prefetch it
in time), NO_COPY (keep using the chunk it has) or DROP (read default memory); for each computed
value, at its definition, NO_COPY (alternate memory for its whole life) or DROP. That is what
XLA:TPU can be told. A value that a plain copy of a parameter defines is asked at its first use:
COPY (a prefetch replaces that copy) or DROP. DROP is always legal, so no game dead-ends. The reward
is the number of cycles saved.

With `encode(problem, rules="moves")` computed values may also move: each use is asked, DROP in the
middle of a life evicts the value (only NO_COPY is legal where that cannot be done in time), COPY
brings it back. README.md beside this file is the whole of the rules.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np

from malloc_game.game import copies, heap
from malloc_game.game.decisions import list_decisions
from malloc_game.game.encoding import NUM_GRANULES, encode, granule_bytes
from malloc_game.game.state import (
    COMPILER,
    COPY,
    DROP,
    NEVER,
    NO_COPY,
    NUM_ACTIONS,
    UNPLACED,
    Evictions,
    GameState,
    Options,
    Program,
    Queue,
)
from malloc_game.problem.assignment import EVICTION, PREFETCH, Assignment, Chunk, Copy
from malloc_game.problem.definition import Problem

_WINDOW = 8  # effects of a decision that are worked out at once


def placement_masks(program: Program, state: GameState) -> chex.Array:
    """Positions in alternate memory, by bits, of each instruction as decided so far: int32[T]."""
    return copies.placement_masks(program, state.chunk_of, jnp.arange(program.max_times))


def _gain(program: Program, chunk_of: chex.Array, decision: chex.Array) -> chex.Array:
    """Cycles saved when `decision` puts its positions in alternate memory: int32[]."""
    first = program.first_effect[decision]
    end = first + program.num_effects[decision]

    def window(carry: tuple[chex.Array, chex.Array]) -> tuple[chex.Array, chex.Array]:
        now, gain = carry
        effects = now + jnp.arange(_WINDOW, dtype=jnp.int32)
        at = jnp.minimum(effects, program.effect_time.shape[-1] - 1)
        time, bits = program.effect_time[at], program.effect_bits[at]
        mask = copies.placement_masks(program, chunk_of, time)
        start = program.table_start[time]
        saved = program.cycles[start + mask] - program.cycles[start + (mask | bits)]
        saved = jnp.where(effects < end, program.trip_count[time] * saved, 0)
        return now + _WINDOW, gain + jnp.sum(saved)

    # Nearly always one window is enough.
    carry = window((first, jnp.int32(0)))
    return jax.lax.while_loop(lambda carry: carry[0] < end, window, carry)[1]


def _held_chunk(program: Program, chunk_of: chex.Array, decision: chex.Array) -> chex.Array:
    """The chunk that the value of `decision`, a use, still holds, or UNPLACED."""
    previous = program.previous[decision]
    return jnp.where(previous == UNPLACED, UNPLACED, chunk_of[previous])


def _is_excluded(program: Program, state: GameState, decision: chex.Array) -> chex.Array:
    """Whether the compiler cannot be asked for alternate memory here: bool[].

    Refused for good, or by an exclusion together with what has been decided.
    """
    group, use = program.excluding_group, program.excluding_use
    output = program.excluded_output
    use_in_default = (use == UNPLACED) | (state.chunk_of[use] == UNPLACED)
    excluded = (output == decision) & use_in_default & state.holds[group]
    here = program.exclusion_group[decision]
    output_inside = state.chunk_of[output] != UNPLACED
    excluded |= (group == here) & (use != decision) & use_in_default & output_inside
    return program.is_refused[decision] | (excluded & (group != UNPLACED)).any()


def _needs_eviction(program: Program, evictions: Evictions, decision: chex.Array) -> chex.Array:
    """Whether the value of `decision` is nowhere in default memory yet: bool[]."""
    previous = program.previous[decision]
    return (previous != UNPLACED) & (evictions.default_from[previous] == NEVER)


def _may_start(program: Program, state: GameState, use: chex.Array) -> chex.Array:
    """Times at which a copy for a use at `use` may start, bandwidth apart: bool[T]."""
    times = jnp.arange(program.max_times, dtype=jnp.int32)
    is_full = (state.outstanding >= program.max_outstanding) & (times < use)
    return program.may_start_copy & (times > jnp.max(jnp.where(is_full, times, -1)))


def _options(program: Program, state: GameState) -> Options:
    """Work out what the decision at hand could do."""
    decision = state.decision
    time, end = program.decision_time[decision], program.end[decision]
    units, reserved = program.copy_units[decision], program.reserved[decision]
    may_start = _may_start(program, state, time)
    times = jnp.arange(program.max_times, dtype=jnp.int32)
    held = _held_chunk(program, state.chunk_of, decision)
    can_drop = ~program.must_stay[decision] | (held == UNPLACED)
    evict_start = jnp.int32(UNPLACED)
    allowed = may_start
    if state.evictions is not None:
        # What was produced in alternate memory can leave it once it is there, and come back later.
        allowed &= times >= state.evictions.default_from[program.previous[decision]]
        after = may_start & (times > program.decision_time[held])
        evict_start = copies.latest_start(state.evictions.queue, units, time, after)
        needs_eviction = _needs_eviction(program, state.evictions, decision)
        evict_start = jnp.where(needs_eviction, evict_start, UNPLACED)
        can_drop = ~needs_eviction | (evict_start != UNPLACED)
    copy_start = copies.latest_start(state.reads, units, time, allowed)
    may_copy, is_use = program.may_copy[decision], program.is_use[decision]
    start = jnp.where(may_copy, copy_start, time)
    offset = heap.first_fit(state.free_from, program.size[decision], start, reserved)
    held_end = state.chunk_end[held]
    can_extend = (held_end >= end) | heap.is_free(
        state.free_from, state.chunk_offset[held], program.size[decision], held_end, reserved
    )
    may_be_asked = ~_is_excluded(program, state, decision)
    fits = (offset != UNPLACED) & may_be_asked
    # What is still in alternate memory is used from there; to copy it anew, DROP it first.
    can_copy = may_copy & (copy_start != UNPLACED) & fits & (held == UNPLACED)
    can_stay = jnp.where(is_use, (held != UNPLACED) & can_extend & may_be_asked, fits & ~may_copy)
    return Options(
        legal=jnp.stack([can_copy, can_stay, can_drop]) | state.done,
        copy_start=copy_start,
        offset=offset,
        gain=_gain(program, state.chunk_of, decision),
        evict_start=evict_start,
    )


def init(problem: Problem | Program) -> GameState:
    """The start of a game: everything undecided, and so in default memory."""
    program = encode(problem)
    unplaced = jnp.full(program.max_decisions, UNPLACED, jnp.int32)
    zeros = jnp.zeros(program.max_decisions, jnp.int32)
    nothing = Options(
        legal=jnp.ones(NUM_ACTIONS, bool),
        copy_start=jnp.int32(UNPLACED),
        offset=jnp.int32(UNPLACED),
        gain=jnp.int32(0),
        evict_start=jnp.int32(UNPLACED),
    )
    evictions = Evictions(
        queue=copies.empty_queue(program.max_times), start=unplaced, default_from=zeros
    )
    state = GameState(
        position=jnp.int32(0),
        chunk_of=unplaced,
        chunk_offset=unplaced,
        chunk_end=zeros,
        copy_start=unplaced,
        free_from=jnp.zeros(program.num_granules, jnp.int32),
        reads=copies.empty_queue(program.max_times),
        outstanding=jnp.zeros(program.max_times, jnp.int32),
        holds=jnp.zeros(program.excluding_group.shape[-1] + 1, bool),
        cycles=jnp.asarray(program.default_cycles, jnp.int32),
        write_back=jnp.int32(0),
        reward=jnp.int32(0),
        done=program.num_decisions == 0,
        options=nothing,
        evictions=evictions if program.has_moves else None,
    )
    return _move_on(program, state, jnp.int32(0))


def _move_on(program: Program, state: GameState, start: chex.Array) -> GameState:
    """Pass the instructions from `start` to the decision at hand, and look at that decision."""
    end = program.asked_at[state.decision]
    state = state.replace(
        reads=copies.advance(program, state.chunk_of, state.reads, start, end),
        free_from=heap.reserve(state.free_from, program.reserved_before[state.decision], end),
    )
    if state.evictions is not None:
        queue = copies.advance(program, state.chunk_of, state.evictions.queue, start, end)
        state = state.replace(evictions=state.evictions.replace(queue=queue))
    return state.replace(options=_options(program, state))


def legal_actions(problem: Problem | Program, state: GameState) -> chex.Array:
    """Legal actions of the decision at hand: bool[3], True = legal; all True after the end."""
    del problem
    return state.options.legal


def step(problem: Problem | Program, state: GameState, action: chex.Array) -> GameState:
    """Take `action` (int32[]) for the decision at hand.

    An illegal action, or a number that is none, counts as DROP (as NO_COPY, where only that is
    legal). After the end nothing changes and the reward is 0. Rewards of a game sum to exactly the
    default latency minus the final latency.
    """
    program = encode(problem)
    options, decision = state.options, state.decision
    is_action = (action >= 0) & (action < NUM_ACTIONS)
    instead = jnp.where(options.legal[NO_COPY] & ~options.legal[DROP], NO_COPY, DROP)
    action = jnp.where(is_action & options.legal[action], action, instead)
    action = jnp.where(state.done, DROP, action)
    is_use, time = program.is_use[decision], program.decision_time[decision]
    places = (action == COPY) | ((action == NO_COPY) & ~is_use)  # makes a chunk of its own
    stays = (action == NO_COPY) & is_use  # in the chunk that it has
    evicts = (action == DROP) & (options.evict_start != UNPLACED) & ~state.done
    held = _held_chunk(program, state.chunk_of, decision)
    # The chunk whose end changes: the new one, or the one held, which lasts until here if it is
    # used or written back.
    chunk = jnp.where(stays | evicts, held, decision)
    end = jnp.where(places, program.end[decision], state.chunk_end[chunk])
    end = jnp.where(stays, jnp.maximum(end, time + 1), jnp.where(evicts, time, end))
    offset = jnp.where(places, options.offset, state.chunk_offset[chunk])
    size = jnp.where(places | stays | evicts, program.size[decision], 0)

    # An eviction does what a write-back would have done.
    write_back = program.write_back[decision]
    charge = jnp.where(places & ~is_use, write_back, jnp.where(evicts, -write_back, 0))
    gain = jnp.where(action == DROP, 0, options.gain)
    is_inside = places | stays
    group = program.exclusion_group[decision]
    position = jnp.where(state.done, state.position, state.position + 1)
    # After the end, `decision` is padding and keeps the values that it has.
    after = state.replace(
        position=position,
        chunk_of=state.chunk_of.at[decision].set(jnp.where(is_inside, chunk, UNPLACED)),
        chunk_offset=state.chunk_offset.at[chunk].set(offset),
        chunk_end=state.chunk_end.at[chunk].set(end),
        free_from=heap.claim(state.free_from, offset, size, end),
        holds=state.holds.at[group].max(is_inside),
        cycles=state.cycles - gain,
        write_back=state.write_back + charge,
        reward=gain - charge,
        done=position >= program.num_decisions,
        **_book(program, state, is_inside, action == COPY, evicts),
    )
    return _move_on(program, after, program.asked_at[decision])


def _book(
    program: Program,
    state: GameState,
    is_inside: chex.Array,
    is_copied: chex.Array,
    evicts: chex.Array,
) -> dict[str, chex.ArrayTree]:
    """The fields of a state that a copy or an eviction for the decision at hand changes."""
    decision, options = state.decision, state.options
    units, time = program.copy_units[decision], program.decision_time[decision]
    times = jnp.arange(program.max_times, dtype=jnp.int32)

    def queue(
        queue: Queue, starts: chex.Array, start: chex.Array, is_booked: chex.Array
    ) -> tuple[Queue, chex.Array]:
        later_units = jnp.sum(jnp.where(starts > start, program.copy_units, 0))
        start = jnp.where(is_booked, start, UNPLACED)
        booked = copies.book(queue, units, start, time, later_units)
        return booked, starts.at[decision].set(start)

    reads, copy_start = queue(state.reads, state.copy_start, options.copy_start, is_copied)
    start = jnp.where(is_copied, options.copy_start, options.evict_start)
    is_under_way = (is_copied | evicts) & (times >= start) & (times < time)
    fields: dict[str, chex.ArrayTree] = dict(
        reads=reads, copy_start=copy_start, outstanding=state.outstanding + is_under_way
    )
    if state.evictions is not None:
        before = state.evictions
        writes, evict_start = queue(before.queue, before.start, options.evict_start, evicts)
        default_from = _default_from(program, state, before.default_from, is_inside, evicts)
        fields["evictions"] = Evictions(queue=writes, start=evict_start, default_from=default_from)
    return fields


def _default_from(
    program: Program,
    state: GameState,
    before: chex.Array,
    is_inside: chex.Array,
    evicts: chex.Array,
) -> chex.Array:
    """`Evictions.default_from` after the decision at hand, of what it was before: int32[D]."""
    decision = state.decision
    time = program.decision_time[decision]
    defined = jnp.where(is_inside, NEVER, time + 1)
    # Of a parameter there is no earlier decision, and then the last (padding) one says 0.
    used = jnp.where(evicts, time, before[program.previous[decision]])
    new = jnp.where(program.is_use[decision], used, defined)
    return before.at[decision].set(jnp.where(state.done, before[decision], new))


def to_assignment(
    problem: Problem,
    state: GameState,
    source: str = "game",
    *,
    num_granules: int = NUM_GRANULES,
    rules: str = COMPILER,
) -> Assignment:
    """The mapping that a (finished) game of `problem` stands for, in bytes.

    num_granules, rules: as given to `encode` for this game.
    """
    granule = granule_bytes(problem, num_granules)
    chunk_of, offsets, ends, copy_starts = (
        np.asarray(x).tolist()
        for x in (state.chunk_of, state.chunk_offset, state.chunk_end, state.copy_start)
    )
    evict_starts = [UNPLACED] * len(chunk_of)
    if state.evictions is not None:
        evict_starts = np.asarray(state.evictions.start).tolist()
    masks = [0] * len(problem.instructions)
    chunks, copied = [], []
    for d, decision in enumerate(list_decisions(problem, rules)):
        size, start = problem.values[decision.value].size_bytes, copy_starts[d]
        if chunk_of[d] != UNPLACED:
            for t, p in decision.positions:
                masks[t] |= 1 << p
        if chunk_of[d] == d:
            first = decision.time if start == UNPLACED else start
            chunks.append(Chunk(decision.value, offsets[d] * granule, size, first, ends[d]))
        if start != UNPLACED:
            copied.append(Copy(decision.value, start, decision.time, size, PREFETCH))
        if evict_starts[d] != UNPLACED:
            copied.append(Copy(decision.value, evict_starts[d], decision.time, size, EVICTION))
    return Assignment(tuple(masks), tuple(chunks), tuple(copied), source)
