"""Training steps: gradients and the optimizer, the old state donated to the new."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from workloads.programs.common import (
    Shape,
    Workload,
    bf16,
    causal_attention,
    convolution,
    cross_entropy,
    float32_like,
    rms_norm,
)


def sgd(params: Any, gradient: Any, velocity: Any) -> tuple[Any, Any]:
    """One step of SGD with momentum: parameters, velocity; the latter is float32."""
    rate, momentum = 0.1, 0.9
    velocity = jax.tree.map(lambda v, g: momentum * v + g.astype(jnp.float32), velocity, gradient)
    return jax.tree.map(lambda p, v: (p - rate * v).astype(p.dtype), params, velocity), velocity


def adam(params: Any, gradient: Any, first_moment: Any, second_moment: Any) -> tuple[Any, ...]:
    """One step of Adam; moments are float32, parameters keep their dtype."""
    rate, decay_1, decay_2 = 1e-3, 0.9, 0.999

    def update(p, g, m, v):
        g = g.astype(jnp.float32)
        m = decay_1 * m + (1 - decay_1) * g
        v = decay_2 * v + (1 - decay_2) * g * g
        return (p - rate * m * lax.rsqrt(v + 1e-8)).astype(p.dtype), m, v

    leaves, tree = jax.tree.flatten(params)
    others = (tree.flatten_up_to(other) for other in (gradient, first_moment, second_moment))
    updated = [update(*each) for each in zip(leaves, *others, strict=True)]
    return tuple(tree.unflatten(column) for column in zip(*updated, strict=True))


def train_mlp(layers: int = 4, width: int = 2048, batch: int = 2048) -> Workload:
    """Training step of a residual MLP, 4 layers, width 2048, batch 2048: gradients and Adam."""

    def loss(params, x, labels):
        for p in params["blocks"]:
            x = x + jax.nn.relu(x @ p["kernel"] + p["bias"])
        logits = (x @ params["classifier"]).astype(jnp.float32)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=-1)
        return -jnp.mean(chosen)

    def step(params, first_moment, second_moment, x, labels):
        value, gradient = jax.value_and_grad(loss)(params, x, labels)
        return *adam(params, gradient, first_moment, second_moment), value

    block = {"kernel": bf16(width, width), "bias": bf16(width)}
    params = {"blocks": [block] * layers, "classifier": bf16(width, 1024)}
    moment = float32_like(params)
    # Donated, as in every real training loop: the new state is written over the old.
    fn = jax.jit(step, donate_argnums=(0, 1, 2))
    return fn, (params, moment, moment, bf16(batch, width), Shape((batch,), jnp.int32))


def train_transformer(
    layers: int = 2,
    width: int = 256,
    heads: int = 4,
    vocabulary: int = 8192,
    batch: int = 8,
    length: int = 256,
) -> Workload:
    """Training step of a decoder with Adam: 2 layers, width 256, 8 x 256 tokens, donated."""

    def logits_of(params, tokens):
        x = params["embedding"][tokens]
        for p in params["layers"]:
            h = rms_norm(x, p["gain_1"])
            q, k, v = jnp.split(h @ p["qkv"], 3, axis=-1)
            q, k, v = (a.reshape(batch, length, heads, width // heads) for a in (q, k, v))
            mixed = causal_attention(q[:, :, :, None], k, v)
            x = x + mixed @ p["output"]
            x = x + jax.nn.gelu(rms_norm(x, p["gain_2"]) @ p["up"]) @ p["down"]
        return rms_norm(x, params["gain"]) @ params["embedding"].T

    def loss(params, tokens):
        return cross_entropy(logits_of(params, tokens[:, :-1]), tokens[:, 1:])

    def step(params, first_moment, second_moment, tokens):
        value, gradient = jax.value_and_grad(loss)(params, tokens)
        return *adam(params, gradient, first_moment, second_moment), value

    layer = {
        "gain_1": bf16(width),
        "qkv": bf16(width, 3 * width),
        "output": bf16(width, width),
        "gain_2": bf16(width),
        "up": bf16(width, 4 * width),
        "down": bf16(4 * width, width),
    }
    params = {
        "embedding": bf16(vocabulary, width),
        "layers": [layer] * layers,
        "gain": bf16(width),
    }
    moment = float32_like(params)
    fn = jax.jit(step, donate_argnums=(0, 1, 2))
    return fn, (params, moment, moment, Shape((batch, length + 1), jnp.int32))


def train_cnn(batch: int = 512, size: int = 32) -> Workload:
    """Training step of a 3-layer CNN: batch norm, SGD with momentum, 512 x 32x32x3, donated."""
    convolutions = ((3, 64, 2), (64, 128, 2), (128, 128, 1))  # in, out, stride

    def normed(p, x, stride):
        x = convolution(x, p["kernel"], stride).astype(jnp.float32)
        mean = jnp.mean(x, axis=(0, 1, 2))
        variance = jnp.mean(x * x, axis=(0, 1, 2)) - mean * mean
        x = (x - mean) * lax.rsqrt(variance + 1e-5) * p["scale"] + p["shift"]
        return x.astype(jnp.bfloat16)

    def loss(params, images, labels):
        x = images
        for p, (_, _, stride) in zip(params["layers"], convolutions, strict=True):
            x = jax.nn.relu(normed(p, x, stride))
        return cross_entropy(jnp.mean(x, axis=(1, 2)) @ params["classifier"], labels)

    def step(params, velocity, images, labels):
        value, gradient = jax.value_and_grad(loss)(params, images, labels)
        return *sgd(params, gradient, velocity), value

    params = {
        "layers": [
            {"kernel": bf16(3, 3, i, o), "scale": bf16(o), "shift": bf16(o)}
            for i, o, _ in convolutions
        ],
        "classifier": bf16(convolutions[-1][1], 10),
    }
    fn = jax.jit(step, donate_argnums=(0, 1))
    arrays = (bf16(batch, size, size, 3), Shape((batch,), jnp.int32))
    return fn, (params, float32_like(params), *arrays)
