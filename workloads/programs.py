"""The suite: real programs as plain JAX functions with abstract arguments.

Every entry of `SUITE` is a function without arguments that returns `(fn, args)`: a JAX function and
a tuple of pytrees of `jax.ShapeDtypeStruct`. Nothing is computed or compiled here. Weights are bf16
unless said otherwise, as in deployment. Batch norms of the image networks are in inference form
(one scale and one shift per channel).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Workload = tuple[Callable[..., Any], tuple[Any, ...]]
Shape = jax.ShapeDtypeStruct

CONV_LAYOUT = ("NHWC", "HWIO", "NHWC")


def _bf16(*shape: int) -> Shape:
    return Shape(shape, jnp.bfloat16)


def _convolution(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: Any = "SAME"):
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=CONV_LAYOUT
    )


def _max_pool(x: jax.Array, window: int, stride: int, padding: str = "VALID") -> jax.Array:
    shape, strides = (1, window, window, 1), (1, stride, stride, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, shape, strides, padding)


def _rms_norm(x: jax.Array, gain: jax.Array) -> jax.Array:
    """Root-mean-square norm over the last axis; the sum is float32, the result has x's dtype."""
    wide = x.astype(jnp.float32)
    scale = lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + 1e-6)
    return (wide * scale).astype(x.dtype) * gain


def alexnet(batch: int = 32) -> Workload:
    """AlexNet image classification, inference, batch 32, 224x224x3."""
    convolutions = (  # kernel, input channels, output channels, stride, max pool after it
        (11, 3, 64, 4, True),
        (5, 64, 192, 1, True),
        (3, 192, 384, 1, False),
        (3, 384, 256, 1, False),
        (3, 256, 256, 1, True),
    )
    dense = ((6 * 6 * 256, 4096), (4096, 4096), (4096, 1000))

    def forward(params, images):
        x = images
        for (_, _, _, stride, pool), (kernel, bias) in zip(
            convolutions, params["convolutions"], strict=True
        ):
            padding = [(2, 2), (2, 2)] if stride == 4 else "SAME"  # 224 -> 55, as published
            x = jax.nn.relu(_convolution(x, kernel, stride, padding) + bias)
            x = _max_pool(x, 3, 2) if pool else x
        x = x.reshape(x.shape[0], -1)
        for index, (kernel, bias) in enumerate(params["dense"]):
            x = x @ kernel + bias
            x = jax.nn.relu(x) if index < len(dense) - 1 else x
        return x

    params = {
        "convolutions": [(_bf16(k, k, i, o), _bf16(o)) for k, i, o, _, _ in convolutions],
        "dense": [(_bf16(i, o), _bf16(o)) for i, o in dense],
    }
    return forward, (params, _bf16(batch, 224, 224, 3))


def resnet50(batch: int = 8) -> Workload:
    """ResNet-50 image classification, inference, batch 8, 224x224x3."""
    stages = ((3, 64), (4, 128), (6, 256), (3, 512))  # blocks, inner width; output is 4x as wide

    def block(x, params, stride):
        y = jax.nn.relu(normed(x, params["reduce"]))
        y = jax.nn.relu(normed(y, params["spatial"], stride))
        y = normed(y, params["expand"])
        skip = normed(x, params["project"], stride) if "project" in params else x
        return jax.nn.relu(y + skip)

    def normed(x, params, stride=1):
        kernel, scale, shift = params
        return _convolution(x, kernel, stride) * scale + shift

    def forward(params, images):
        x = _max_pool(jax.nn.relu(normed(images, params["stem"], 2)), 3, 2, "SAME")
        for stage, blocks in enumerate(params["stages"]):
            for index, block_params in enumerate(blocks):
                x = block(x, block_params, 2 if stage > 0 and index == 0 else 1)
        x = jnp.mean(x.astype(jnp.float32), axis=(1, 2)).astype(x.dtype)
        return x @ params["classifier"][0] + params["classifier"][1]

    def conv(k, i, o):
        return _bf16(k, k, i, o), _bf16(o), _bf16(o)

    params: dict[str, Any] = {"stem": conv(7, 3, 64), "stages": []}
    channels = 64
    for count, width in stages:
        blocks = []
        for index in range(count):
            weights = {
                "reduce": conv(1, channels, width),
                "spatial": conv(3, width, width),
                "expand": conv(1, width, 4 * width),
            }
            if index == 0:
                weights["project"] = conv(1, channels, 4 * width)
            blocks.append(weights)
            channels = 4 * width
        params["stages"].append(blocks)
    params["classifier"] = (_bf16(channels, 1000), _bf16(1000))
    return forward, (params, _bf16(batch, 224, 224, 3))


def transformer(
    layers: int = 4, width: int = 1024, heads: int = 16, batch: int = 4, length: int = 512
) -> Workload:
    """Transformer decoder stack, forward, 4 layers, width 1024, batch 4, 512 tokens."""
    head_width = width // heads

    def attention(params, x):
        q, k, v = ((x @ params[name]).reshape(batch, length, heads, head_width) for name in "qkv")
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k).astype(jnp.float32) * head_width**-0.5
        causal = jnp.tril(jnp.ones((length, length), bool))
        weights = jax.nn.softmax(jnp.where(causal, scores, -1e9), axis=-1).astype(x.dtype)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(batch, length, width)
        return mixed @ params["o"]

    def forward(params, x):
        for p in params:
            x = x + attention(p, _rms_norm(x, p["gain_1"]))
            x = x + jax.nn.gelu(_rms_norm(x, p["gain_2"]) @ p["up"]) @ p["down"]
        return x

    square = _bf16(width, width)
    layer = {
        **{name: square for name in "qkvo"},
        "up": _bf16(width, 4 * width),
        "down": _bf16(4 * width, width),
        "gain_1": _bf16(width),
        "gain_2": _bf16(width),
    }
    return forward, ([layer] * layers, _bf16(batch, length, width))


def _decode_step(
    layers: int,
    width: int,
    heads: int,
    kv_heads: int,
    batch: int,
    cached: int,
    hidden: int,
    *,
    in_place: bool,
) -> Workload:
    """One token through an LLM with a key-value cache.

    Shapes: x bf16[batch, width]; each layer's cache 2 x bf16[batch, cached, kv_heads, head_width];
    position int32[]. in_place: the caches are donated and returned with the token's key and value
    written at `position`; otherwise they are read only, all of them, and the new keys and values
    are returned for the caller to store (as a paged cache does), without `position`.
    """
    head_width = width // heads

    def step(params, caches, x, position=None):
        new_caches = []
        for p, (cached_keys, cached_values) in zip(params, caches, strict=True):
            h = _rms_norm(x, p["gain_1"])
            query = (h @ p["query"]).reshape(batch, kv_heads, heads // kv_heads, head_width)
            key = (h @ p["key"]).reshape(batch, 1, kv_heads, head_width)
            value = (h @ p["value"]).reshape(batch, 1, kv_heads, head_width)
            if in_place:
                keys = lax.dynamic_update_slice(cached_keys, key, (0, position, 0, 0))
                values = lax.dynamic_update_slice(cached_values, value, (0, position, 0, 0))
            else:
                keys = jnp.concatenate([cached_keys, key], axis=1)
                values = jnp.concatenate([cached_values, value], axis=1)
            scores = jnp.einsum("bkgd,blkd->bkgl", query, keys).astype(jnp.float32)
            scores = scores * head_width**-0.5
            if in_place:
                scores = jnp.where(jnp.arange(cached) <= position, scores, -1e9)
            weights = jax.nn.softmax(scores, axis=-1).astype(x.dtype)
            mixed = jnp.einsum("bkgl,blkd->bkgd", weights, values)
            x = x + mixed.reshape(batch, width) @ p["output"]
            h = _rms_norm(x, p["gain_2"])
            x = x + (jax.nn.silu(h @ p["gate"]) * (h @ p["up"])) @ p["down"]
            new_caches.append((keys, values) if in_place else (key, value))
        return x, new_caches

    layer = {
        "gain_1": _bf16(width),
        "gain_2": _bf16(width),
        "query": _bf16(width, width),
        "key": _bf16(width, kv_heads * head_width),
        "value": _bf16(width, kv_heads * head_width),
        "output": _bf16(width, width),
        "gate": _bf16(width, hidden),
        "up": _bf16(width, hidden),
        "down": _bf16(hidden, width),
    }
    cache = (_bf16(batch, cached, kv_heads, head_width),) * 2
    args = ([layer] * layers, [cache] * layers, _bf16(batch, width))
    if in_place:
        return jax.jit(step, donate_argnums=1), (*args, Shape((), jnp.int32))
    return step, args


def decode() -> Workload:
    """One-token LLM decode step, 8 layers, width 2048, 16 heads, batch 8, 1024 cached tokens."""
    return _decode_step(
        layers=8, width=2048, heads=16, kv_heads=16, batch=8, cached=1024, hidden=8192,
        in_place=True,
    )  # fmt: skip


def decode_gqa() -> Workload:
    """One-token LLM decode step, grouped queries: 10 layers, width 1536, 12 heads on 4 kv heads."""
    return _decode_step(
        layers=10, width=1536, heads=12, kv_heads=4, batch=12, cached=768, hidden=4096,
        in_place=False,
    )  # fmt: skip


def train_mlp(layers: int = 4, width: int = 2048, batch: int = 2048) -> Workload:
    """Training step of a residual MLP, 4 layers, width 2048, batch 2048: gradients and Adam."""
    rate, decay_1, decay_2 = 1e-3, 0.9, 0.999

    def loss(params, x, labels):
        for p in params["blocks"]:
            x = x + jax.nn.relu(x @ p["kernel"] + p["bias"])
        logits = (x @ params["classifier"]).astype(jnp.float32)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=-1)
        return -jnp.mean(chosen)

    def update(p, g, m, v):
        g = g.astype(jnp.float32)
        m = decay_1 * m + (1 - decay_1) * g
        v = decay_2 * v + (1 - decay_2) * g * g
        return (p - rate * m * lax.rsqrt(v + 1e-8)).astype(p.dtype), m, v

    def step(params, first_moment, second_moment, x, labels):
        value, gradient = jax.value_and_grad(loss)(params, x, labels)
        leaves, tree = jax.tree.flatten(params)
        updated = [
            update(*each)
            for each in zip(
                leaves,
                tree.flatten_up_to(gradient),
                tree.flatten_up_to(first_moment),
                tree.flatten_up_to(second_moment),
                strict=True,
            )
        ]
        params, first_moment, second_moment = (
            tree.unflatten(column) for column in zip(*updated, strict=True)
        )
        return params, first_moment, second_moment, value

    block = {"kernel": _bf16(width, width), "bias": _bf16(width)}
    params = {"blocks": [block] * layers, "classifier": _bf16(width, 1024)}
    moment = jax.tree.map(lambda s: Shape(s.shape, jnp.float32), params)
    # Donated, as in every real training loop: the new state is written over the old.
    fn = jax.jit(step, donate_argnums=(0, 1, 2))
    return fn, (params, moment, moment, _bf16(batch, width), Shape((batch,), jnp.int32))


SUITE: dict[str, Callable[[], Workload]] = {
    "alexnet": alexnet,
    "resnet50": resnet50,
    "transformer": transformer,
    "decode": decode,
    "decode_gqa": decode_gqa,
    "train_mlp": train_mlp,
}
