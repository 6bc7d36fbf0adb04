"""The suite computes what its programs are named for; checked at toy sizes on the CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from workloads import programs
from workloads.programs import (
    decoding,
    encoders,
    language,
    memory_bound,
    recurrent,
    registry,
    tables,
    training,
    training_deep,
)

TOKENS = 16  # token and label values are below this


@pytest.fixture(autouse=True)
def _programs_promote_ranks():
    with jax.numpy_rank_promotion("allow"):  # models add biases as everybody does
        yield


def random_like(args, *, dtype=None, scale=None):
    """Concrete arrays for abstract ones: small integers, and floats scaled by their fan-in."""
    rng = np.random.default_rng(0)

    def draw(leaf):
        if jnp.issubdtype(leaf.dtype, jnp.integer):
            return jnp.asarray(rng.integers(0, TOKENS, leaf.shape), leaf.dtype)
        fan_in = leaf.shape[-2] if len(leaf.shape) > 1 else 1
        values = rng.normal(size=leaf.shape) * (fan_in**-0.5 if scale is None else scale)
        return jnp.asarray(values, dtype or leaf.dtype)

    return jax.tree.map(draw, args)


def close(found, expected, tolerance=1e-4):
    np.testing.assert_allclose(
        np.asarray(found, np.float32), np.asarray(expected, np.float32), tolerance, tolerance
    )


def test_every_name_is_that_of_its_factory():
    assert {name: factory.__name__ for name, factory in programs.SUITE.items()} == {
        name: name for name in programs.SUITE
    }
    assert all(getattr(registry, name) is factory for name, factory in programs.SUITE.items())


OUTPUT_SHAPES = {
    "vit": [(32, 1000)],
    "mixer": [(64, 1000)],
    "unet": [(4, 64, 64, 4)],
    "scan_transformer": [(4, 512, 1024)],
    "moe": [(4, 512, 768)],
    "prefill": [(1, 32000), *[(1, 1024, 2, 128)] * 4],
    "lstm": [(128, 16000), *[(128, 1024)] * 4],
    "mamba": [(8, 512, 768)],
    "wavenet": [(4, 8192, 256)],
    "dlrm": [(4096, 1)],
    "strassen": [(4096, 2048)],
    "vgg16": [(8, 1000)],
    "resnet101": [(16, 1000)],
    "efficientnet": [(16, 1000)],
    "convnext": [(16, 1000)],
    "text_to_image": [(2, 32, 32, 4)],
    "bert": [(16, 2)],
    "encoder_decoder": [(8, 128, 16000)],
    "prefill_long": [(1, 32000), *[(1, 4096, 1, 128)] * 4],
    "prefill_batch": [(4, 16000), *[(4, 384, 4, 128)] * 6],
    "decode_long": [(1, 1024), *[(1, 8192, 4, 64)] * 12],
    "decode_wide": [(32, 4096), *[(32, 1, 8, 128)] * 4],
    "decode_int8": [(16, 2048), *[(16, 1, 4, 128)] * 12],
    "strassen_wide": [(4096, 4096)],
    "winograd": [(2048, 2048)],
    "norm_chain": [(4096, 1024)],
    "sinkhorn": [(2048, 2048)],
    "heat": [(2048, 2048)],
}


@pytest.mark.parametrize("name", OUTPUT_SHAPES)
def test_outputs_have_the_documented_shapes(name):
    fn, args = programs.SUITE[name]()
    assert [leaf.shape for leaf in jax.tree.leaves(jax.eval_shape(fn, *args))] == (
        OUTPUT_SHAPES[name]
    )


# Of models with a published size: parameters in millions, biases and norms included.
PARAMETERS = {
    "vgg16": 138.4, "resnet50": 25.6, "resnet101": 44.5, "efficientnet": 5.3,
}  # fmt: skip


@pytest.mark.parametrize("name", PARAMETERS)
def test_models_have_their_published_numbers_of_parameters(name):
    _, (params, _) = programs.SUITE[name]()
    millions = sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e6
    assert abs(millions - PARAMETERS[name]) < 0.02 * PARAMETERS[name]


def test_int8_weights_times_their_scales_are_the_weights():
    sizes = dict(layers=2, width=16, heads=4, kv_heads=2, batch=3, cached=5, hidden=24)
    fn, (params, caches, x) = decoding.decode_int8(**sizes)
    params, caches, x = random_like((params, caches, x))
    plain, _ = decoding._decode_step(**sizes, in_place=False)

    def as_bf16(weight):
        values, scale = weight if isinstance(weight, tuple) else (weight, 1)
        return values.astype(jnp.bfloat16) * scale

    weights = [{name: as_bf16(weight) for name, weight in layer.items()} for layer in params]
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"int8", "bfloat16"}
    jax.tree.map(close, fn(params, caches, x), plain(weights, caches, x))


def test_a_decoder_sees_the_whole_source_and_its_own_past():
    fn, args = encoders.encoder_decoder(1, 16, 2, batch=2, source=6, length=4, vocabulary=TOKENS)
    params, source, tokens = random_like(args, dtype=jnp.float32)
    base = fn(params, source, tokens)
    other = fn(params, source.at[0, 5].set(1 - source[0, 5]), tokens)
    assert (np.asarray(jnp.any(other != base, axis=-1)) == [[True] * 4, [False] * 4]).all()
    later = fn(params, source, tokens.at[:, 2].set(1 - tokens[:, 2]))
    changed = np.asarray(jnp.any(later != base, axis=(0, 2)))
    assert changed.tolist() == [False, False, True, True]


def test_sinkhorn_makes_rows_and_columns_sum_to_one():
    fn, args = memory_bound.sinkhorn(rows=8, columns=8, rounds=50)
    plan = fn(*random_like(args))
    close(plan.sum(axis=0), np.ones(8))
    close(plan.sum(axis=1), np.ones(8), 1e-3)


def test_heat_is_conserved_and_spreads():
    fn, args = memory_bound.heat(steps=5, rows=8, columns=8)
    field, conductivity = random_like(args)
    after = fn(field, jnp.full_like(conductivity, 0.1))
    close(after.sum(), field.sum(), 1e-3)
    assert float(after.std()) < 0.7 * float(field.std())


def test_adam_moves_every_parameter_against_its_gradient():
    fn, (params, *_) = memory_bound.adam_step(matrices=2, width=8)
    gradient = random_like(params)
    first, second = (jax.tree.map(lambda g: jnp.zeros(g.shape), gradient) for _ in range(2))
    moved, *_ = fn(jax.tree.map(jnp.zeros_like, gradient), first, second, gradient)
    for after, g in zip(moved, gradient, strict=True):
        assert (np.sign(np.asarray(after)) == -np.sign(np.asarray(g))).all()


@pytest.mark.parametrize("product", [tables.strassen, tables.winograd])
def test_strassen_is_matrix_multiplication_with_seven_products_a_level(product):
    fn, args = product(rows=64, size=32)
    a, b = random_like(args, dtype=jnp.float32)
    close(fn(a, b), a @ b)
    assert str(jax.make_jaxpr(fn)(a, b)).count("dot_general") == 49


def test_dlrm_looks_up_each_feature_in_its_own_table():
    fn, args = tables.dlrm(batch=4)
    params, dense, _ = random_like(jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((min(leaf.shape[0], 512), *leaf.shape[1:]), leaf.dtype)
        if leaf.shape[-1:] == (128,) else leaf, args), dtype=jnp.float32)  # fmt: skip
    zero = jnp.zeros((4, 26), jnp.int32)
    base = fn(params, dense, zero)
    for feature in (0, 25):
        changed = fn(params, dense, zero.at[2, feature].set(1))
        assert (np.asarray(changed != base)[:, 0] == [False, False, True, False]).all()


def test_experts_without_dropped_tokens_are_a_weighted_sum():
    fn, (layers, x) = language.moe(
        layers=1, width=16, heads=2, hidden=8, experts=2, batch=2, length=8
    )
    (p,), x = random_like((layers, x), dtype=jnp.float32)
    p["output"] = jnp.zeros_like(p["output"])  # attention adds nothing
    h = language.rms_norm(x, p["gain_2"])
    weight = jax.nn.softmax(h @ p["router"])
    expected = x
    for e in range(2):
        y = (jax.nn.silu(h @ p["gate"][e]) * (h @ p["up"][e])) @ p["down"][e]
        expected = expected + weight[..., e : e + 1] * y
    close(fn([p], x), expected)


def test_an_expert_takes_no_more_tokens_than_its_capacity():
    fn, (layers, x) = language.moe(
        layers=1, width=16, heads=2, hidden=8, experts=8, batch=1, length=16
    )
    (p,), x = random_like((layers, x), dtype=jnp.float32)
    p["output"] = jnp.zeros_like(p["output"])
    x = jnp.broadcast_to(x[:, :1], x.shape)  # all tokens choose the same two experts
    moved = np.asarray(jnp.any(fn([p], x) != x, axis=-1))[0]
    assert moved.tolist() == [True] * 5 + [False] * 11  # 16 * 2 * 1.25 / 8 slots


CAUSAL = {
    "scan_transformer": lambda: language.scan_transformer(2, 16, 2, batch=1, length=8),
    "mamba": lambda: recurrent.mamba(layers=2, width=32, states=4, batch=1, length=8),
    "wavenet": lambda: recurrent.wavenet(1, 3, width=8, skip_width=8, batch=1, samples=8),
}


@pytest.mark.parametrize("name", CAUSAL)
def test_what_comes_later_changes_nothing_before(name):
    fn, args = CAUSAL[name]()
    params, x = random_like(args)
    before, after = fn(params, x), fn(params, x.at[:, 5].add(1))
    changed = np.asarray(jnp.any(before != after, axis=(0, 2)))
    assert not changed[:5].any() and changed[5:].any() and changed[5]


def test_an_lstm_carries_all_it_knows_in_its_state():
    fn, args = recurrent.lstm(layers=2, width=8, batch=3, length=6, vocabulary=TOKENS)
    params, states, tokens = random_like(args)
    whole, whole_states = fn(params, states, tokens)
    _, half_way = fn(params, states, tokens[:3])
    rest, rest_states = fn(params, half_way, tokens[3:])
    close(rest, whole)
    jax.tree.map(close, rest_states, whole_states)


TRAINING = {
    "train_mlp": lambda: training.train_mlp(layers=2, width=16, batch=8),
    "train_cnn": lambda: training.train_cnn(batch=8, size=8),
    "train_transformer": lambda: training.train_transformer(
        layers=1, width=16, heads=2, vocabulary=TOKENS, batch=2, length=8
    ),
    "train_resnet": lambda: training_deep.train_resnet(batch=8, size=8, blocks=1),
    "train_vit": lambda: training_deep.train_vit(layers=1, width=16, heads=2, batch=8, size=32),
}


@pytest.mark.parametrize("name", TRAINING)
def test_training_lowers_the_loss_and_overwrites_its_state(name):
    step, (params, *rest) = TRAINING[name]()
    moments = [each for each in rest if jax.tree.structure(each) == jax.tree.structure(params)]
    data = random_like(rest[len(moments) :])
    data[-1] = data[-1] % 8
    donated = jax.tree.leaves(step.trace(params, *rest).args_info[0])
    assert sum(leaf.donated for leaf in donated) == (1 + len(moments)) * len(
        jax.tree.leaves(params)
    )
    state = [random_like(params), *random_like(moments, scale=0.0)]
    losses = []
    for _ in range(20):
        *state, loss = step(*state, *data)
        losses.append(float(loss))
    assert losses[-1] < losses[0] - 0.01, losses
