"""What the suite's programs share: the type of a program, abstract arrays, a few layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

# A JAX function and its arguments: a tuple of pytrees of `Shape`.
Workload = tuple[Callable[..., Any], tuple[Any, ...]]
Shape = jax.ShapeDtypeStruct

CONV_LAYOUT = ("NHWC", "HWIO", "NHWC")


def bf16(*shape: int) -> Shape:
    """An abstract bfloat16 array of the given shape."""
    return Shape(shape, jnp.bfloat16)


def float32_like(tree: Any) -> Any:
    """The same tree of abstract arrays in float32, as optimizer moments are kept."""
    return jax.tree.map(lambda leaf: Shape(leaf.shape, jnp.float32), tree)


def convolution(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: Any = "SAME"):
    """Two-dimensional convolution; x [batch, height, width, channels], kernel [h, w, in, out]."""
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=CONV_LAYOUT
    )


def max_pool(x: jax.Array, window: int, stride: int, padding: str = "VALID") -> jax.Array:
    """Maximum over square windows; x is [batch, height, width, channels]."""
    shape, strides = (1, window, window, 1), (1, stride, stride, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, shape, strides, padding)


def rms_norm(x: jax.Array, gain: jax.Array) -> jax.Array:
    """Root-mean-square norm over the last axis; the sum is float32, the result has x's dtype."""
    wide = x.astype(jnp.float32)
    scale = lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + 1e-6)
    return (wide * scale).astype(x.dtype) * gain


def causal_attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Grouped-query attention in which a token sees itself and what is before it.

    q: [batch, length, kv_heads, group, head_width]; k, v: [batch, length, kv_heads, head_width].
    Returns [batch, length, kv_heads * group * head_width]. The softmax is float32.
    """
    batch, length, kv_heads, group, head_width = q.shape
    scores = jnp.einsum("bqhgd,bkhd->bhgqk", q, k).astype(jnp.float32) * head_width**-0.5
    causal = jnp.tril(jnp.ones((length, length), bool))
    weights = jax.nn.softmax(jnp.where(causal, scores, -1e9), axis=-1).astype(q.dtype)
    mixed = jnp.einsum("bhgqk,bkhd->bqhgd", weights, v)
    return mixed.reshape(batch, length, kv_heads * group * head_width)


def attention_weights(width: int, heads: int, kv_heads: int) -> dict[str, Shape]:
    """Weights of a layer's grouped-query attention and of both its norms."""
    head_width = width // heads
    return {
        "gain_1": bf16(width),
        "gain_2": bf16(width),
        "query": bf16(width, width),
        "key": bf16(width, kv_heads * head_width),
        "value": bf16(width, kv_heads * head_width),
        "output": bf16(width, width),
    }


def gated_weights(width: int, hidden: int) -> dict[str, Shape]:
    """Weights of a layer's gated MLP (see `gated`)."""
    return {"gate": bf16(width, hidden), "up": bf16(width, hidden), "down": bf16(hidden, width)}


def gated(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """Gated MLP with SiLU; x is [..., width], and so is the result."""
    return (jax.nn.silu(x @ p["gate"]) * (x @ p["up"])) @ p["down"]


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross-entropy, float32[]; logits [..., classes] of any float type, labels int32[...]."""
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -jnp.mean(jnp.take_along_axis(log_probabilities, labels[..., None], axis=-1))
