"""Training steps of deeper models: a residual CNN and an LSTM with SGD, a ViT with Adam."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from workloads.programs.common import (
    Shape,
    Workload,
    bf16,
    convolution,
    cross_entropy,
    float32_like,
)
from workloads.programs.flax_models import VisionTransformer, forward_pass
from workloads.programs.recurrent import lstm
from workloads.programs.training import adam, sgd


def train_resnet(batch: int = 256, size: int = 32, blocks: int = 2) -> Workload:
    """Training step of a CIFAR ResNet-14: batch norm, SGD with momentum, 256 x 32x32x3, donated."""
    widths = (16, 32, 64)

    def normed(p, x, stride=1):
        x = convolution(x, p["kernel"], stride).astype(jnp.float32)
        mean = jnp.mean(x, axis=(0, 1, 2))
        variance = jnp.mean(x * x, axis=(0, 1, 2)) - mean * mean
        x = (x - mean) * lax.rsqrt(variance + 1e-5) * p["scale"] + p["shift"]
        return x.astype(jnp.bfloat16)

    def loss(params, images, labels):
        x = jax.nn.relu(normed(params["stem"], images))
        for p in params["blocks"]:
            stride = 2 if "project" in p else 1
            y = normed(p["second"], jax.nn.relu(normed(p["first"], x, stride)))
            x = normed(p["project"], x, stride) if "project" in p else x
            x = jax.nn.relu(x + y)
        return cross_entropy(jnp.mean(x, axis=(1, 2)) @ params["classifier"], labels)

    def step(params, velocity, images, labels):
        value, gradient = jax.value_and_grad(loss)(params, images, labels)
        return *sgd(params, gradient, velocity), value

    def conv(k, i, o):
        return {"kernel": bf16(k, k, i, o), "scale": bf16(o), "shift": bf16(o)}

    layers, channels = [], widths[0]
    for width in widths:
        for _ in range(blocks):
            block = {"first": conv(3, channels, width), "second": conv(3, width, width)}
            if channels != width:
                block["project"] = conv(1, channels, width)
            layers.append(block)
            channels = width
    params = {"stem": conv(3, 3, widths[0]), "blocks": layers, "classifier": bf16(channels, 10)}
    fn = jax.jit(step, donate_argnums=(0, 1))
    arrays = (bf16(batch, size, size, 3), Shape((batch,), jnp.int32))
    return fn, (params, float32_like(params), *arrays)


def train_vit(
    layers: int = 2, width: int = 192, heads: int = 3, batch: int = 32, size: int = 224
) -> Workload:
    """Training step of 2 layers of ViT-Ti/16 with Adam, batch 32, 224x224x3, donated."""
    images = bf16(batch, size, size, 3)
    apply, (params, _) = forward_pass(VisionTransformer(layers, width, heads), images)

    def loss(params, images, labels):
        return cross_entropy(apply(params, images), labels)

    def step(params, first_moment, second_moment, images, labels):
        value, gradient = jax.value_and_grad(loss)(params, images, labels)
        return *adam(params, gradient, first_moment, second_moment), value

    moment = float32_like(params)
    fn = jax.jit(step, donate_argnums=(0, 1, 2))
    return fn, (params, moment, moment, images, Shape((batch,), jnp.int32))


def train_lstm(
    layers: int = 2, width: int = 512, batch: int = 64, length: int = 32, vocabulary: int = 8000
) -> Workload:
    """Training step of an LSTM language model with SGD: 2 layers, width 512, 64 x 32 tokens.

    The loss is that of the token after the last; gradients go back through all steps of the loop.
    """
    apply, (params, states, _) = lstm(layers, width, batch, length, vocabulary)

    def loss(params, states, tokens):
        logits, states = apply(params, states, tokens[:-1])
        return cross_entropy(logits, tokens[-1]), states

    def step(params, velocity, states, tokens):
        (value, _), gradient = jax.value_and_grad(loss, has_aux=True)(params, states, tokens)
        return *sgd(params, gradient, velocity), value

    fn = jax.jit(step, donate_argnums=(0, 1))
    tokens = Shape((length + 1, batch), jnp.int32)
    return fn, (params, float32_like(params), states, tokens)
