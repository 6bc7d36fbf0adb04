"""Transformer language models over whole sequences: forward, prefill, looped layers, experts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from workloads.programs.common import (
    Shape,
    Workload,
    attention_weights,
    bf16,
    causal_attention,
    gated,
    gated_weights,
    rms_norm,
)


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
            x = x + attention(p, rms_norm(x, p["gain_1"]))
            x = x + jax.nn.gelu(rms_norm(x, p["gain_2"]) @ p["up"]) @ p["down"]
        return x

    square = bf16(width, width)
    layer = {
        **{name: square for name in "qkvo"},
        "up": bf16(width, 4 * width),
        "down": bf16(4 * width, width),
        "gain_1": bf16(width),
        "gain_2": bf16(width),
    }
    return forward, ([layer] * layers, bf16(batch, length, width))


def _rotate(x: jax.Array) -> jax.Array:
    """Rotary position embedding; x is [batch, length, heads, head_width], positions from 0."""
    half = x.shape[-1] // 2
    frequency = 10000.0 ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = jnp.arange(x.shape[1], dtype=jnp.float32)[:, None, None] * frequency
    sine, cosine = jnp.sin(angle).astype(x.dtype), jnp.cos(angle).astype(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return jnp.concatenate(
        [first * cosine - second * sine, second * cosine + first * sine], axis=-1
    )


def _self_attention(
    p: dict[str, jax.Array], x: jax.Array, heads: int, kv_heads: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Attention of one layer on x [batch, length, width]; also its keys and values."""
    batch, length, width = x.shape
    split = (batch, length, -1, width // heads)
    h = rms_norm(x, p["gain_1"])
    query = _rotate((h @ p["query"]).reshape(split))
    key = _rotate((h @ p["key"]).reshape(split))
    value = (h @ p["value"]).reshape(split)
    grouped = query.reshape(batch, length, kv_heads, heads // kv_heads, width // heads)
    return causal_attention(grouped, key, value) @ p["output"], key, value


def prefill(
    layers: int = 2,
    width: int = 1024,
    heads: int = 8,
    kv_heads: int = 2,
    hidden: int = 2816,
    vocabulary: int = 32000,
    length: int = 1024,
    batch: int = 1,
) -> Workload:
    """LLM prefill: 2 layers, width 1024, 8 heads on 2 kv heads, 1024 tokens in, KV cache out."""

    def forward(params, tokens):
        x = params["embedding"][tokens]
        cache = []
        for p in params["layers"]:
            mixed, key, value = _self_attention(p, x, heads, kv_heads)
            x = x + mixed
            x = x + gated(p, rms_norm(x, p["gain_2"]))
            cache.append((key, value))
        last = rms_norm(x[:, -1], params["gain"])
        return last @ params["embedding"].T, cache

    layer = attention_weights(width, heads, kv_heads) | gated_weights(width, hidden)
    params = {
        "embedding": bf16(vocabulary, width),
        "layers": [layer] * layers,
        "gain": bf16(width),
    }
    return forward, (params, Shape((batch, length), jnp.int32))


def prefill_long() -> Workload:
    """LLM prefill, long: 2 layers, width 1024, 8 heads on 1 kv head, 4096 tokens in."""
    return prefill(width=1024, heads=8, kv_heads=1, hidden=4096, length=4096)


def prefill_batch() -> Workload:
    """LLM prefill, 4 requests: 3 layers, width 1536, 12 heads on 4 kv heads, 4 x 384 tokens in."""
    return prefill(
        layers=3, width=1536, heads=12, kv_heads=4, hidden=4096, vocabulary=16000, length=384,
        batch=4,
    )  # fmt: skip


def scan_transformer(
    layers: int = 12, width: int = 1024, heads: int = 16, batch: int = 4, length: int = 512
) -> Workload:
    """Transformer decoder, forward, lax.scan over 12 stacked layers, width 1024, 4 x 512 tokens."""

    def layer(x, p):
        x = x + _self_attention(p, x, heads, heads)[0]
        return x + gated(p, rms_norm(x, p["gain_2"])), None

    def forward(params, x):
        x, _ = lax.scan(layer, x, params["layers"])
        return rms_norm(x, params["gain"])

    one = attention_weights(width, heads, heads) | gated_weights(width, 2816)
    stacked = {name: bf16(layers, *leaf.shape) for name, leaf in one.items()}
    return forward, ({"layers": stacked, "gain": bf16(width)}, bf16(batch, length, width))


def moe(
    layers: int = 2,
    width: int = 768,
    heads: int = 12,
    hidden: int = 2048,
    experts: int = 8,
    batch: int = 4,
    length: int = 512,
) -> Workload:
    """Mixture of experts, forward: 2 layers, width 768, top 2 of 8 experts, 4 x 512 tokens."""
    chosen_experts = 2
    capacity = length * chosen_experts * 5 // (4 * experts)  # tokens per expert and sequence

    def route(p, x):
        """Dispatch mask and combine weights, [batch, token, expert, slot] (as in GShard)."""
        scores = jax.nn.softmax((x @ p["router"]).astype(jnp.float32))
        weights, chosen = lax.top_k(scores, chosen_experts)
        weights = weights / jnp.sum(weights, axis=-1, keepdims=True)
        hot = jax.nn.one_hot(chosen, experts, dtype=jnp.float32)  # [batch, token, choice, expert]
        # First choices of all tokens take their slots before any second choice does.
        order = hot.transpose(0, 2, 1, 3).reshape(batch, -1, experts)
        slot = (jnp.cumsum(order, axis=1) - order).reshape(batch, chosen_experts, length, experts)
        slot = jnp.sum(slot.transpose(0, 2, 1, 3) * hot, axis=-1).astype(jnp.int32)
        # A slot past the capacity has no column in the one-hot: that token is dropped.
        place = jax.nn.one_hot(slot, capacity, dtype=jnp.float32)
        combine = jnp.einsum("btk,btke,btkc->btec", weights, hot, place)
        return (combine > 0).astype(x.dtype), combine.astype(x.dtype)

    def expert_layer(p, x):
        dispatch, combine = route(p, x)
        slots = jnp.einsum("btec,btd->ebcd", dispatch, x)
        gate = jnp.einsum("ebcd,edh->ebch", slots, p["gate"])
        up = jnp.einsum("ebcd,edh->ebch", slots, p["up"])
        out = jnp.einsum("ebch,ehd->ebcd", jax.nn.silu(gate) * up, p["down"])
        return jnp.einsum("btec,ebcd->btd", combine, out)

    def forward(params, x):
        for p in params:
            x = x + _self_attention(p, x, heads, heads)[0]
            x = x + expert_layer(p, rms_norm(x, p["gain_2"]))
        return x

    one = gated_weights(width, hidden)
    layer = attention_weights(width, heads, heads) | {
        "router": bf16(width, experts),
        **{name: bf16(experts, *leaf.shape) for name, leaf in one.items()},
    }
    return forward, ([layer] * layers, bf16(batch, length, width))
