"""Transformers that read in both directions: an encoder alone, and an encoder with a decoder."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from workloads.programs.common import Shape, Workload, bf16, rms_norm


def _attend(p, x: jax.Array, memory: jax.Array, heads: int, *, causal: bool = False) -> jax.Array:
    """Multi-head attention from x [batch, to, width] to memory [batch, from, width]."""
    batch, to, width = x.shape
    query = (x @ p["query"]).reshape(batch, to, heads, -1)
    key = (memory @ p["key"]).reshape(batch, memory.shape[1], heads, -1)
    value = (memory @ p["value"]).reshape(batch, memory.shape[1], heads, -1)
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key).astype(jnp.float32)
    scores = scores * query.shape[-1] ** -0.5
    if causal:
        seen = jnp.tril(jnp.ones((to, memory.shape[1]), bool))
        scores = jnp.where(seen, scores, -1e9)
    mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores, axis=-1).astype(x.dtype), value)
    return mixed.reshape(batch, to, width) @ p["output"]


def _attention_weights(width: int) -> dict[str, Shape]:
    names = ("query", "key", "value", "output")
    return {"gain": bf16(width), **{name: bf16(width, width) for name in names}}


def _mlp(p, x: jax.Array) -> jax.Array:
    return jax.nn.gelu(rms_norm(x, p["gain"]) @ p["up"] + p["bias"]) @ p["down"]


def _mlp_weights(width: int) -> dict[str, Shape]:
    wide = 4 * width
    return {
        "gain": bf16(width), "up": bf16(width, wide), "bias": bf16(wide), "down": bf16(wide, width)
    }  # fmt: skip


def _encode(layers, x: jax.Array, heads: int) -> jax.Array:
    for p in layers:
        normed = rms_norm(x, p["self"]["gain"])
        x = x + _attend(p["self"], normed, normed, heads)
        x = x + _mlp(p["mlp"], x)
    return x


def bert(
    layers: int = 4,
    width: int = 768,
    heads: int = 12,
    batch: int = 16,
    length: int = 256,
    vocabulary: int = 30522,
) -> Workload:
    """BERT-like encoder, inference: 4 of 12 layers, width 768, batch 16, 256 tokens."""

    def forward(params, tokens):
        x = params["embedding"][tokens] + params["position"]
        x = _encode(params["layers"], x, heads)
        return jnp.tanh(x[:, 0] @ params["pool"]) @ params["classifier"]

    layer = {"self": _attention_weights(width), "mlp": _mlp_weights(width)}
    params = {
        "embedding": bf16(vocabulary, width),
        "position": bf16(length, width),
        "layers": [layer] * layers,
        "pool": bf16(width, width),
        "classifier": bf16(width, 2),
    }
    return forward, (params, Shape((batch, length), jnp.int32))


def encoder_decoder(
    layers: int = 2,
    width: int = 768,
    heads: int = 12,
    batch: int = 8,
    source: int = 384,
    length: int = 128,
    vocabulary: int = 16000,
) -> Workload:
    """Translation transformer, forward: 2 + 2 layers, width 768, 8 x 384 tokens in, 8 x 128 out."""

    def forward(params, source_tokens, tokens):
        memory = _encode(params["encoder"], params["embedding"][source_tokens], heads)
        x = params["embedding"][tokens]
        for p in params["decoder"]:
            normed = rms_norm(x, p["self"]["gain"])
            x = x + _attend(p["self"], normed, normed, heads, causal=True)
            x = x + _attend(p["cross"], rms_norm(x, p["cross"]["gain"]), memory, heads)
            x = x + _mlp(p["mlp"], x)
        return rms_norm(x, params["gain"]) @ params["embedding"].T

    encoder = {"self": _attention_weights(width), "mlp": _mlp_weights(width)}
    params = {
        "embedding": bf16(vocabulary, width),
        "encoder": [encoder] * layers,
        "decoder": [{**encoder, "cross": _attention_weights(width)}] * layers,
        "gain": bf16(width),
    }
    tokens = (Shape((batch, n), jnp.int32) for n in (source, length))
    return forward, (params, *tokens)
