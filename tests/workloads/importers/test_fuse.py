"""Simple fusion: what a user alone reads becomes part of it, and nothing is lost or goes round."""

import jax
import jax.numpy as jnp
import pytest

from workloads.hlo.module import Module
from workloads.importers.fusion import fused
from workloads.importers.normalization import normalized
from workloads.importers.roofline import flops
from workloads.programs import SUITE


@pytest.fixture(autouse=True)
def _programs_promote_ranks():
    with jax.numpy_rank_promotion("allow"):  # models add biases as everybody does
        yield


def module_of(fn, *args):
    """A function in normal form, serialized."""
    jitted = fn if hasattr(fn, "trace") else jax.jit(fn)
    lowered = jitted.trace(*args).lower(lowering_platforms=("tpu",))
    return normalized(lowered.compiler_ir("hlo").as_serialized_hlo_module_proto())[0]


def entry(serialized):
    """Opcodes of the entry computation, those of fusions as a set of what is in them."""
    module = Module(fused(serialized)[0])
    found = []
    for instruction in module.sequence(module.entry_id):
        if instruction.opcode == "fusion":
            inside = module.sequence(instruction.proto.called_computation_ids[0])
            found.append({i.opcode for i in inside} - {"parameter", "constant", "bitcast"})
        elif instruction.opcode not in ("parameter", "constant", "tuple", "bitcast"):
            found.append(instruction.opcode)
    return found


def array(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


SQUARE = array(64, 64)


def test_a_product_takes_the_elementwise_work_before_and_after_it():
    assert entry(module_of(lambda a, b: jnp.tanh(jnp.sin(a) @ b) * 2.0, SQUARE, SQUARE)) == [
        {"sine", "dot", "tanh", "multiply", "broadcast"}
    ]


def test_two_products_are_two_fusions():
    opcodes = entry(module_of(lambda a: jnp.sin(jnp.tanh(a @ a) @ a), SQUARE))
    assert opcodes == ["dot", {"tanh", "dot", "sine"}]


def test_what_two_read_is_computed_once():
    def fn(a):
        shared = jnp.sin(a)
        return jnp.sum(shared, axis=0), shared @ a

    assert entry(module_of(fn, SQUARE)).count("sine") == 1


def test_a_broadcast_is_repeated_but_what_it_spreads_is_not():
    def fn(a, b):
        scale = jnp.broadcast_to(jnp.sin(b), (64, 64))
        return jnp.sum(a * scale, axis=0), jnp.sum(a + scale, axis=1)

    assert entry(module_of(fn, SQUARE, array())) == [
        "sine", {"broadcast", "multiply", "reduce"}, {"broadcast", "add", "reduce"}
    ]  # fmt: skip


def test_a_reduction_ends_a_fusion():
    opcodes = entry(module_of(lambda a: jnp.exp(jnp.sum(jnp.sin(a), axis=0)), SQUARE))
    assert opcodes == [{"sine", "reduce"}, "exponential"]


@pytest.mark.parametrize("name", ["lstm", "train_transformer", "mamba", "dlrm", "strassen"])
def test_programs_keep_their_arithmetic_and_their_order(name):
    fn, args = SUITE[name]()
    serialized = module_of(fn, *args)
    after, number = fused(serialized)
    assert number > 10 or name == "lstm"
    normalized(after)  # operands exist, and come first

    def products(module):
        total = 0.0
        for instruction, trips in module.flattened():
            parts = [instruction]
            if instruction.opcode == "fusion":
                parts = module.sequence(instruction.proto.called_computation_ids[0])
            total += trips * sum(
                flops(i) for i in parts if i.opcode in ("dot", "convolution", "reduce")
            )
        return total

    assert products(Module(after)) == products(Module(serialized)) > 0
