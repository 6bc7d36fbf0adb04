"""XLA's own mapping as an assignment: complete, physical, and predicted as it was compiled."""

from __future__ import annotations

import collections
import dataclasses

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import malloc_game
from malloc_game import EVICTION, PREFETCH, TARGETS, check
from workloads.compiler.session import CompilerSession
from workloads.costs.judge import compiled_latency, copy_size
from workloads.costs.store import CostStore
from workloads.extraction.buffers import parse_dump
from workloads.extraction.extraction import Extraction
from workloads.extraction.mapping import allocated_value, mask_of, replaced_copies
from workloads.extraction.placed import placed_module
from workloads.overrides.text import EXACT_OPTIONS, KEEP_EVERYTHING
from workloads.programs import SUITE

pytestmark = pytest.mark.requires_libtpu

# What the compiler's message for a pin that does not fit calls the available heap size.
HEAP_BYTES = {
    "v4": 64 << 20,
    "v5e": 112 << 20,
    "v6e": (96 << 20) - (64 << 10),
    "v5p": (48 << 20) - (64 << 10),
    "tpu7x": (32 << 20) - (64 << 10),
}


def _shape(*dimensions):
    return jax.ShapeDtypeStruct(dimensions, jnp.bfloat16)


def lstm(w, u, b, xs, h, c):
    def cell(state, x):
        h, c = state
        i, f, g, o = jnp.split(x @ w + h @ u + b, 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    return lax.scan(cell, (h, c), xs)


def stacked(weights, x):
    def layer(x, w):
        return x + jax.nn.gelu(x @ w["up"]) @ w["down"], jnp.mean(x.astype(jnp.float32))

    return lax.scan(layer, x, weights)


def gated(x, enter, taps, leave, rate):
    signal, gate = jnp.split(x @ enter, 2, -1)
    signal = lax.conv_general_dilated(
        signal, taps, (1,), [(3, 0)],
        dimension_numbers=("NWC", "WIO", "NWC"), feature_group_count=signal.shape[-1],
    )  # fmt: skip
    signal = signal / (1 + jnp.max(jnp.abs(signal), 1, keepdims=True))
    return x + (signal * jax.nn.silu(gate)) @ leave, -jnp.exp(rate)


def dense(layers, x):
    for w, b in layers:
        x = jax.nn.relu(x @ w + b)
    return x


PROGRAMS = {
    "lstm": (
        lstm,
        (
            *(_shape(1024, 4096), _shape(1024, 4096), _shape(4096)),
            *(_shape(64, 128, 1024), _shape(128, 1024), _shape(128, 1024)),
        ),
    ),
    "stacked layers": (
        stacked,
        ({"up": _shape(6, 512, 2048), "down": _shape(6, 2048, 512)}, _shape(512, 512)),
    ),
    "gated": (
        gated,
        (
            *(_shape(8, 512, 1024), _shape(1024, 4096), _shape(4, 1, 2048), _shape(2048, 1024)),
            jax.ShapeDtypeStruct((1536, 16), jnp.float32),
        ),
    ),
    "dense": (
        dense,
        (
            [(_shape(m, n), _shape(n)) for m, n in ((9216, 4096), (4096, 4096), (4096, 1000))],
            _shape(32, 9216),
        ),
    ),
    "alexnet": "alexnet",
    "train_mlp": "train_mlp",
}
# Together they have slices, prefetches across programs, evictions, in-place updates, copies inside
# loops, copies that prefetches replace, starts before ends, plain slices that asynchronous ones
# replace, and values that two cores hold a half each of.
CASES = [
    ("gated", "v5p"),
    ("dense", "v4"),
    ("lstm", "v5e"),
    ("lstm", "tpu7x"),
    ("stacked layers", "v6e"),
]
LARGE = [("alexnet", "v4"), ("train_mlp", "v5e")]  # more of the same, some evictions among it
slow = pytest.mark.slow
case = pytest.mark.parametrize(
    "case", [*CASES, *(pytest.param(large, marks=slow) for large in LARGE)], ids="-".join
)


class Mapped:
    """A program's problem, XLA's default compile of it, and that as an assignment."""

    def __init__(self, program, target):
        with CompilerSession(PROGRAMS.get(program, program), target) as session:
            self.default = session.compile({})
            kept = session.compile(EXACT_OPTIONS, overrides=KEEP_EVERYTHING)
        self.extraction = Extraction(kept, program, CostStore())
        self.module = placed_module(self.default)
        self.extraction.learn(self.module)
        self.problem = self.extraction.refresh()
        self.assignment = self.extraction.assignment_of(self.default, "xla_default")

    def kinds(self, **changes) -> set[str]:
        """Kinds of physical violations after damage."""
        damaged = dataclasses.replace(self.assignment, **changes)
        return {v.kind for v in check(self.problem, damaged, expressible=False)}


@pytest.fixture(scope="module")
def mapped():
    """mapped((program, target)), each made once."""
    made = {}

    def make(key):
        if key not in made:
            made[key] = Mapped(*key)
        return made[key]

    return make


def _without(records, index):
    return records[:index] + records[index + 1 :]


@case
def test_xlas_default_is_predicted_as_it_was_compiled(mapped, case):
    m = mapped(case)
    judged = compiled_latency(m.module, m.extraction.target)
    predicted = malloc_game.latency(m.problem, m.assignment)
    assert predicted.cycles == pytest.approx(judged.cycles, rel=1e-3)
    # Waits depend on sizes and times alone, but for tables that hold whole cycles.
    assert predicted.wait_cycles == pytest.approx(judged.wait_cycles, rel=1e-3, abs=5)
    assert predicted.write_back_cycles == 0


@case
def test_xlas_default_is_physical(mapped, case):
    m = mapped(case)
    assert check(m.problem, m.assignment, expressible=False) == []


@case
def test_every_copy_and_every_allocation_is_in_the_assignment(mapped, case):
    m = mapped(case)
    target = m.extraction.target
    sizes = collections.Counter()
    for instruction, trips in m.module.flattened():
        if instruction.is_async_done:
            size, is_read = copy_size(instruction.operands[0], target)
            sizes[PREFETCH if is_read else EVICTION, size, trips] += 1
    del sizes[PREFETCH, 0, 1]
    found = collections.Counter((c.direction, c.size, c.trip_count) for c in m.assignment.copies)
    assert found == sizes
    replaced = replaced_copies(m.extraction.structure, {i.name for i, _ in m.module.flattened()})
    dump = parse_dump(m.default.msa)
    assert dump.allocations
    schedule = [instruction.schedule_time for instruction in m.problem.instructions]
    for buffer_id, size, offset, start, end in dump.allocations:
        value = allocated_value(m.extraction.structure, dump, buffer_id)
        owners = {value} | {v for v, source in replaced.items() if source == value}
        values = [m.problem.values[v] for v in owners]
        assert size in {each for v in values for each in (v.size_bytes, v.split_bytes)}
        pieces = [
            c
            for c in m.assignment.chunks
            if c.value in owners and offset == c.offset - c.value_offset
        ]
        inside = [t for t, time in enumerate(schedule) if start <= time <= end]
        for t in inside:
            held = sum(c.size for c in pieces if c.start <= t < c.end)
            if t == inside[-1] or not any(c.value_offset for c in pieces):
                assert held >= size
            else:  # slices begin one after another
                assert held > 0


def test_the_cases_have_what_they_are_meant_to_have(mapped):
    every = {key: mapped(key) for key in CASES}
    copies = {key: m.assignment.copies for key, m in every.items()}
    slices = [c for c in copies["dense", "v4"] if c.value_offset]
    assert slices and all(c.direction == PREFETCH for c in slices)
    (crossing,) = [c for c in copies["dense", "v4"] if c.is_cross_program]
    assert crossing.start == 0 and crossing.size == 4096 * 4096 * 2
    for name, target in (("lstm", "v5e"), ("stacked layers", "v6e")):
        assert sum(c.direction == EVICTION for c in copies[name, target]) > 1
    assert any(c.start_order or c.end_order for c in copies["gated", "v5p"])
    assert any(c.start == c.end for c in copies["gated", "v5p"])
    assert {c.trip_count for c in copies["lstm", "v5e"]} == {1, 64}
    replaced = every["lstm", "tpu7x"]
    names = {i.name for i, _ in replaced.module.flattened()}
    assert any(i.name not in names for i in replaced.problem.instructions)
    halved = [v for v in every["gated", "v5p"].problem.values if v.split_bytes]
    assert [(v.name, v.size_bytes, v.split_bytes) for v in halved] == [("rate.1", 98304, 49152)]


@slow
def test_the_large_cases_have_more_of_it(mapped):
    copies = {key: mapped(key).assignment.copies for key in LARGE}
    assert any(c.value_offset for c in copies["alexnet", "v4"])
    assert sum(c.direction == EVICTION for c in copies["train_mlp", "v5e"]) > 20
    assert any(c.start_order or c.end_order for c in copies["train_mlp", "v5e"])


def test_an_asynchronous_slice_stands_for_the_plain_one(mapped):
    m = mapped(("gated", "v5p"))
    ((v, source),) = replaced_copies(
        m.extraction.structure, {i.name for i, _ in m.module.flattened()}
    ).items()
    value = m.problem.values[v]
    assert value.sliced_from == source and m.problem.values[source].size_bytes == 32 << 20
    assert m.problem.instructions[value.sliced_at].opcode == "slice"
    (copy,) = [c for c in m.assignment.copies if c.value == v]
    (chunk,) = [c for c in m.assignment.chunks if c.value == v]
    assert copy.size == chunk.size == value.size_bytes == 16 << 20
    assert chunk.start <= copy.start <= value.sliced_at <= copy.end < chunk.end <= value.end
    # It is a copy of the slice: what is sliced has neither a copy nor memory from it.
    assert all(c.value != source for c in (*m.assignment.copies, *m.assignment.chunks))
    values = list(m.problem.values)
    values[v] = dataclasses.replace(value, sliced_at=-1, sliced_from=-1)
    unaware = m.problem.replace(values=tuple(values))
    assert {x.kind for x in check(unaware, m.assignment, expressible=False)} >= {"no_eviction"}
    with_the_slice = malloc_game.latency(unaware, m.assignment).cycles
    assert with_the_slice > malloc_game.latency(m.problem, m.assignment).cycles


def _is_for_the_next_run(m, copy):
    """Whether a prefetch fetches again, after the last use, what a prefetch across programs has."""
    is_crossing = any(c.is_cross_program and c.value == copy.value for c in m.assignment.copies)
    return is_crossing and copy.end >= m.problem.values[copy.value].end


@case
def test_no_copy_can_be_left_out(mapped, case):
    m = mapped(case)
    for i, copy in enumerate(m.assignment.copies):
        kinds = m.kinds(copies=_without(m.assignment.copies, i))
        value = m.problem.values[copy.value]
        damaged = dataclasses.replace(m.assignment, copies=_without(m.assignment.copies, i))
        latency = malloc_game.latency(m.problem, damaged)
        if copy.direction == EVICTION and value.write_back_cycles:
            # Then the result is written back at the end, and that costs.
            assert kinds or latency.write_back_cycles > 0
        elif _is_for_the_next_run(m, copy):
            continue
        elif value.sliced_at >= 0:  # then the plain slice is there again
            whole = malloc_game.latency(m.problem, m.assignment)
            assert kinds or latency.instruction_cycles > whole.instruction_cycles
        else:
            assert kinds >= {"no_eviction"} or kinds & {"no_copy", "size"}, copy


@case
def test_half_a_copy_is_too_little(mapped, case):
    m = mapped(case)
    for i, copy in enumerate(m.assignment.copies):
        if m.problem.values[copy.value].is_live_out and copy.start >= len(m.problem.instructions):
            continue
        if _is_for_the_next_run(m, copy):
            continue
        half = dataclasses.replace(copy, size=copy.size // 2)
        copies = (*m.assignment.copies[:i], half, *m.assignment.copies[i + 1 :])
        assert "size" in m.kinds(copies=copies), copy


@case
def test_chunks_stay_apart_and_inside(mapped, case):
    m = mapped(case)
    chunks = m.assignment.chunks
    moved = lambda i, offset: (  # noqa: E731
        *chunks[:i], dataclasses.replace(chunks[i], offset=offset), *chunks[i + 1 :])  # fmt: skip
    met = 0
    for i, chunk in enumerate(chunks):
        beyond = m.problem.target.alternate_memory_bytes - chunk.size + 1024
        assert "capacity" in m.kinds(chunks=moved(i, beyond))
        for other in chunks:
            if other.value != chunk.value and max(other.start, chunk.start) < min(
                other.end, chunk.end
            ):
                met += 1
                assert "overlap" in m.kinds(chunks=moved(i, other.offset))
                break
    assert met


@case
def test_no_use_is_without_its_chunk(mapped, case):
    m = mapped(case)
    chunks = m.assignment.chunks
    bases = collections.Counter((c.value, c.offset - c.value_offset) for c in chunks)
    for i, chunk in enumerate(chunks):
        is_used = any(
            chunk.start <= t < chunk.end and m.assignment.in_alternate(t, p)
            for t, p in m.problem.positions_of_value[chunk.value]
        )
        if is_used and bases[chunk.value, chunk.offset - chunk.value_offset] == 1:
            assert "uncovered" in m.kinds(chunks=_without(chunks, i)), chunk


@case
def test_masks_agree_with_the_compiled_module(mapped, case):
    m = mapped(case)
    theirs = {i.name: i for i, _ in m.module.flattened()}
    for row, mask in zip(m.extraction.structure.rows, m.assignment.masks, strict=True):
        other = theirs.get(row.instruction.name)
        if other is not None:
            assert mask == mask_of(other, row.slots, m.extraction.target)
    assert any(m.assignment.masks)


def test_the_capacity_of_every_target_is_the_compilers():
    assert {name: t.alternate_memory_bytes for name, t in TARGETS.items()} == HEAP_BYTES


@pytest.mark.requires_libtpu
@pytest.mark.whole_suite
@pytest.mark.parametrize("target", HEAP_BYTES)
@pytest.mark.parametrize("program", SUITE)
def test_xlas_default_of_the_suite_is_physical_and_predicted(program, target):
    m = Mapped(program, target)
    judged = compiled_latency(m.module, m.extraction.target)
    predicted = malloc_game.latency(m.problem, m.assignment)
    assert predicted.cycles == pytest.approx(judged.cycles, rel=1e-3)
    assert check(m.problem, m.assignment, expressible=False) == []
    num_copies = sum(
        instruction.is_async_done and copy_size(instruction.operands[0], m.extraction.target)[0] > 0
        for instruction, _ in m.module.flattened()
    )
    assert len(m.assignment.copies) == num_copies
