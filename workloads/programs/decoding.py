"""One token through a language model with a key-value cache."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from workloads.programs.common import (
    Shape,
    Workload,
    attention_weights,
    bf16,
    gated,
    gated_weights,
    rms_norm,
)


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
            h = rms_norm(x, p["gain_1"])
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
            x = x + gated(p, rms_norm(x, p["gain_2"]))
            new_caches.append((keys, values) if in_place else (key, value))
        return x, new_caches

    layer = attention_weights(width, heads, kv_heads) | gated_weights(width, hidden)
    cache = (bf16(batch, cached, kv_heads, head_width),) * 2
    args = ([layer] * layers, [cache] * layers, bf16(batch, width))
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


def decode_long() -> Workload:
    """One-token LLM decode step, long cache: 6 layers, width 1024, one request, 8192 tokens."""
    return _decode_step(
        layers=6, width=1024, heads=16, kv_heads=4, batch=1, cached=8192, hidden=4096,
        in_place=True,
    )  # fmt: skip


def decode_wide() -> Workload:
    """One-token LLM decode step, layers of an 8B model: 2 of width 4096, batch 32, 512 tokens."""
    return _decode_step(
        layers=2, width=4096, heads=32, kv_heads=8, batch=32, cached=512, hidden=14336,
        in_place=False,
    )  # fmt: skip


def decode_int8(
    layers: int = 6,
    width: int = 2048,
    heads: int = 16,
    kv_heads: int = 4,
    batch: int = 16,
    cached: int = 512,
    hidden: int = 5632,
) -> Workload:
    """One-token LLM decode step, int8 weights: 6 layers, width 2048, batch 16, 512 cached tokens.

    Each weight is int8[in, out] with a bf16[out] scale for each output, as weight-only
    quantization stores it; it is made bf16 on the way into the product.
    """
    step, (params, *rest) = _decode_step(
        layers, width, heads, kv_heads, batch, cached, hidden, in_place=False
    )

    def quantized_step(params, caches, x):
        return step([jax.tree.map(_dequantized, p, is_leaf=_is_pair) for p in params], caches, x)

    def quantized(leaf: Shape):
        if len(leaf.shape) < 2:
            return leaf
        return Shape(leaf.shape, jnp.int8), bf16(leaf.shape[-1])

    return quantized_step, (jax.tree.map(quantized, params), *rest)


def _is_pair(node: object) -> bool:
    return isinstance(node, tuple)


def _dequantized(weight):
    if not _is_pair(weight):
        return weight
    values, scale = weight
    return values.astype(scale.dtype) * scale
