"""Reading scheduled modules: sizes, schedules, trip counts, fingerprints, asynchronous work."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from malloc_game import TARGETS
from workloads.compiler.session import compile as compile_program
from workloads.costs.judge import compiled_latency, is_timed, traffic
from workloads.errors import CompileError, WorkloadError
from workloads.extraction.buffers import DataFlow, parse_dump
from workloads.hlo.module import Module, module_bytes
from workloads.overrides.text import EXACT_OPTIONS, KEEP_EVERYTHING

requires_libtpu = pytest.mark.requires_libtpu
SQUARE = jax.ShapeDtypeStruct((256, 256), jnp.bfloat16)


def all_default(fn, *args, target="v5e"):
    return compile_program(
        fn, *args, target=target, options=EXACT_OPTIONS, overrides=KEEP_EVERYTHING
    )


def odd_shapes(x, y, w):
    """Arrays of several ranks, widths and tilings, none a multiple of its tile."""
    z = jnp.cumsum(jnp.tanh(x @ w), axis=0)
    y = jnp.cumsum(y, axis=1)
    return z.astype(jnp.int8), jnp.sum(z.astype(jnp.float32), axis=1), (y * 2).astype(jnp.bfloat16)


ODD_ARGS = (
    jax.ShapeDtypeStruct((300, 200), jnp.bfloat16),
    jax.ShapeDtypeStruct((3, 77, 130), jnp.float32),
    jax.ShapeDtypeStruct((200, 100), jnp.bfloat16),
)


@requires_libtpu
@pytest.mark.parametrize("target", ["v4", "v6e"])
def test_sizes_are_the_compilers_own(target):
    compiled = all_default(odd_shapes, *ODD_ARGS, target=target)
    module, dump = Module(compiled.hlo), parse_dump(compiled.msa)
    by_name = {i.name: i for i in module.instructions.values()}
    ours = {k: by_name[b.instruction].leaves[b.index].size_bytes for k, b in dump.buffers.items()}
    assert len(ours) >= 5
    assert ours == {k: b.size_bytes for k, b in dump.buffers.items()}
    logical = {2 * 300 * 200, 4 * 3 * 77 * 130, 2 * 200 * 100}
    assert not logical & set(ours.values())  # every one of them is padded


@requires_libtpu
def test_the_schedule_is_the_one_in_the_dump():
    def looped(x, w):
        return lax.fori_loop(0, 3, lambda i, x: jnp.cumsum(jnp.tanh(x @ w), axis=0), x) @ w

    compiled = all_default(looped, SQUARE, SQUARE)
    names = [i.name for i, _ in Module(compiled.hlo).flattened()]
    in_dump = [n for n, _ in sorted(parse_dump(compiled.msa).schedule.items(), key=lambda r: r[1])]
    common = set(names) & set(in_dump)
    timed = {i.name for i, _ in Module(compiled.hlo).flattened() if i.estimated_cycles}
    assert timed <= common
    assert [n for n in names if n in common] == [n for n in in_dump if n in common]


def counted(first, last, compare):
    """A while loop that counts by 1 from `first` while compare(i, last)."""

    def fn(x, w):
        def body(carry):
            return carry[0] + 1, jnp.tanh(carry[1] @ w)

        return lax.while_loop(lambda carry: compare(carry[0], last), body, (first, x))[1]

    return fn


def nested(x, w):
    def inner(i, y):
        return jnp.tanh(y @ w) + jnp.cumsum(y, axis=0)

    return lax.scan(lambda c, _: (lax.fori_loop(0, 4, inner, c), None), x, length=6)[0]


@requires_libtpu
@pytest.mark.parametrize(
    ("fn", "trips"),
    [
        (lambda x, w: lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, length=6)[0], [6]),
        (nested, [4, 6]),
        (counted(3, 13, lambda i, n: i < n), [10]),
        (counted(0, 9, lambda i, n: i <= n), [10]),
        (counted(20, 3, lambda i, n: i > n), [1]),  # not a loop that can be read
    ],
    ids=["scan", "nested", "from 3 to 13", "up to and with 9", "compares the other way"],
)
def test_trip_counts(fn, trips):
    module = Module(compile_program(fn, SQUARE, SQUARE, target="v5e").hlo)
    loops = [i for i in module.instructions.values() if i.opcode == "while"]
    assert sorted(module.trip_count(loop) for loop in loops) == trips
    product = max(times for _, times in module.flattened())
    expected = 1
    for count in trips:
        expected *= count
    assert product == expected


@requires_libtpu
def test_fingerprints_are_equal_for_repeated_layers_and_for_nothing_else():
    def layers(x, weights, wide):
        for w in weights:
            x = jnp.cumsum(jnp.tanh(x @ w), axis=0)
        return x @ wide

    wide = jax.ShapeDtypeStruct((256, 512), jnp.bfloat16)
    module = Module(all_default(layers, SQUARE, [SQUARE] * 4, wide).hlo)
    kinds = {}
    for instruction, _ in module.flattened():
        if is_timed(instruction):
            kinds.setdefault(instruction.fingerprint, []).append(instruction)
    assert sorted(map(len, kinds.values()))[-1] >= 3  # the layers are one kind
    assert len(kinds) >= 2  # the last product, with its wider weights, is another
    for same in kinds.values():
        assert len({i.estimated_cycles for i in same}) == 1
        assert len({tuple(leaf.size_bytes for leaf in i.leaves.values()) for i in same}) == 1


@requires_libtpu
def test_fingerprints_do_not_depend_on_the_placement():
    def chain(x, w):
        for _ in range(3):
            x = jnp.cumsum(jnp.tanh(x @ w), axis=0)
        return x

    kept = Module(all_default(chain, SQUARE, SQUARE).hlo)
    placed = Module(compile_program(chain, SQUARE, SQUARE, target="v5e").hlo)
    theirs = {i.name: i for i, _ in placed.flattened()}
    moved = 0
    for instruction, _ in kept.flattened():
        other = theirs.get(instruction.name)
        if other is not None and instruction.opcode == "fusion":
            assert other.fingerprint == instruction.fingerprint
            moved += other.leaves != instruction.leaves
    assert moved > 0


@requires_libtpu
def test_a_call_on_another_core_is_timed_once_and_whatever_the_placement():
    def gather(table, index):
        return jnp.take_along_axis(table, index[:, None], axis=-1)

    table = jax.ShapeDtypeStruct((2048, 1024), jnp.float32)
    index = jax.ShapeDtypeStruct((2048,), jnp.int32)
    # XLA gives this gather to the SparseCore; its own check of the final module fails on that.
    compiled = compile_program(gather, table, index, target="v6e")
    module = Module(compiled.hlo)
    calls = [i for i, _ in module.flattened() if i.opcode.startswith("async-")]
    by_opcode = {i.opcode: i for i in calls if not (i.is_async_start or i.is_async_done)}
    if "async-update" not in by_opcode:
        pytest.skip("this compiler does not offload the gather")
    assert [is_timed(by_opcode[o]) for o in ("async-start", "async-update", "async-done")] == [
        False,
        False,
        True,
    ]
    done = by_opcode["async-done"]
    size = 2 * sum(leaf.size_bytes for leaf in done.leaves.values())
    assert traffic(done) == (size, size) and size > 0
    assert compiled_latency(module, TARGETS["v6e"]).cycles > 0
    DataFlow(module)  # follows it without stumbling


@pytest.mark.parametrize("read", [Module, module_bytes])
@pytest.mark.parametrize("garbage", [b"\xff" * 40, b"HloModule text, entry", b"\x0a\xff\xff\x7f"])
def test_garbage_is_refused_and_not_half_read(read, garbage):
    with pytest.raises(WorkloadError, match="not a serialized Hlo"):
        read(garbage)


def test_a_module_without_entry_is_refused():
    with pytest.raises(WorkloadError, match="no entry computation"):
        Module(b"")


@pytest.mark.parametrize(
    "msa",
    [
        {},
        {"scheduleinfo": "time,instruction_name\nx,y\n"},
        {"scheduleinfo": "time,instruction_name\n1,a\n", "bufferinfo": "id,name\n1,b\n"},
    ],
)
def test_a_dump_of_another_form_says_so(msa):
    with pytest.raises(CompileError, match="form that is not known here"):
        parse_dump(msa)


def test_memory_reserved_for_one_instruction_is_not_taken_for_a_value():
    head = "buffer_id,buffer_name,size,definition_time,use_times,use_names,is_scoped"
    row = '3,"<7 fusion.1>",4096,1,"","",'
    msa = {"scheduleinfo": "time,instruction_name\n1,fusion.1\n"}
    assert parse_dump({**msa, "bufferinfo": f"{head}\n{row}0\n"}).buffers[3].size_bytes == 4096
    with pytest.raises(CompileError, match="reserved for a single instruction"):
        parse_dump({**msa, "bufferinfo": f"{head}\n{row}1\n"})


def test_a_schedule_alone_means_that_there_is_nothing_to_place():
    dump = parse_dump({"scheduleinfo": "time,instruction_name\n0,a\n1,b\n"})
    assert (dump.schedule, dump.buffers, dump.allocations) == ({"a": 0, "b": 1}, {}, [])
