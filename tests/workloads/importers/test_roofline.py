"""Arithmetic and traffic of instructions, counted as XLA's own cost analysis counts them."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from malloc_game import TARGETS
from workloads.hlo.module import Module
from workloads.importers.normalization import normalized
from workloads.importers.roofline import PEAK_FLOPS, flops, touched_bytes


def module_of(fn, *args):
    lowered = jax.jit(fn).trace(*args).lower(lowering_platforms=("tpu",))
    proto = lowered.compiler_ir("hlo").as_serialized_hlo_module_proto()
    return Module(normalized(proto)[0]), lowered


def array(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


CONVOLUTIONS = {
    "plain": dict(window_strides=(1, 1), padding="SAME"),
    "strided": dict(window_strides=(2, 2), padding="VALID"),
    "dilated": dict(window_strides=(1, 1), padding=[(4, 1), (0, 2)], rhs_dilation=(2, 3)),
    "transposed": dict(window_strides=(1, 1), padding=[(2, 2), (2, 2)], lhs_dilation=(2, 2)),
}
PROGRAMS = {
    "product": (lambda a, b: a @ b, array(64, 32), array(32, 16)),
    "batched": (lambda a, b: jnp.einsum("bij,bkj->bik", a, b), array(4, 8, 32), array(4, 16, 32)),
    "grouped": (
        lambda x, k: lax.conv_general_dilated(
            x, k, (1, 1), "SAME", feature_group_count=8, dimension_numbers=("NHWC", "HWIO", "NHWC")
        ),
        array(2, 9, 9, 8), array(3, 3, 1, 8),
    ),
    **{
        name: (
            lambda x, k, options=options: lax.conv_general_dilated(
                x, k, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options
            ),
            array(2, 11, 13, 4), array(3, 3, 4, 8),
        )
        for name, options in CONVOLUTIONS.items()
    },
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_products_and_convolutions_count_as_in_xla(name):
    fn, *args = PROGRAMS[name]
    module, lowered = module_of(fn, *args)
    ours = sum(flops(i) for i, _ in module.flattened() if i.opcode in ("dot", "convolution"))
    assert ours > 0
    assert ours == jax.jit(fn).lower(*args).cost_analysis()["flops"]


def test_a_slice_reads_what_it_returns():
    module, _ = module_of(lambda x, i: lax.dynamic_slice(x, (i, 0), (2, 128)), array(64, 128), 3)
    (found,) = (i for i, _ in module.flattened() if i.opcode == "dynamic-slice")
    moved = touched_bytes(found)
    assert moved[False, 0, ()] == moved[True, 0, ()] == 2 * 128 * 4


def test_every_target_has_a_peak():
    assert PEAK_FLOPS.keys() == TARGETS.keys()
