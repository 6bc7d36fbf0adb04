"""Text-to-image diffusion in flax.linen: a U-Net whose levels attend to a text."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from workloads.programs.common import Shape, Workload, bf16
from workloads.programs.flax_models import TYPES, ResidualBlock, forward_pass, time_embedding


class _TextAttention(nn.Module):
    """A transformer block over places: self-attention, attention to the text, gated MLP."""

    heads: int

    @nn.compact
    def __call__(self, x: jax.Array, text: jax.Array) -> jax.Array:
        width = x.shape[-1]
        y = nn.GroupNorm(32, **TYPES)(x).reshape(x.shape[0], -1, width)
        y = nn.Dense(width, **TYPES)(y)
        normed = nn.LayerNorm(**TYPES)(y)
        y = y + nn.MultiHeadDotProductAttention(self.heads, **TYPES)(normed, normed)
        normed = nn.LayerNorm(**TYPES)(y)
        y = y + nn.MultiHeadDotProductAttention(self.heads, **TYPES)(normed, text)
        value, gate = jnp.split(nn.Dense(8 * width, **TYPES)(nn.LayerNorm(**TYPES)(y)), 2, axis=-1)
        y = y + nn.Dense(width, **TYPES)(value * nn.gelu(gate))
        return x + nn.Dense(width, **TYPES)(y).reshape(x.shape)


class _TextUNet(nn.Module):
    widths: Sequence[int]

    @nn.compact
    def __call__(self, latents: jax.Array, steps: jax.Array, text: jax.Array) -> jax.Array:
        time = time_embedding(steps, self.widths[0]).astype(latents.dtype)
        time = nn.silu(nn.Dense(4 * self.widths[0], **TYPES)(time))
        time = nn.Dense(4 * self.widths[0], **TYPES)(time)
        x = nn.Conv(self.widths[0], (3, 3), **TYPES)(latents)
        skips = []
        for level, width in enumerate(self.widths):
            if level > 0:
                x = nn.Conv(width, (3, 3), strides=(2, 2), **TYPES)(x)
            x = _TextAttention(8)(ResidualBlock(width)(x, time), text)
            skips.append(x)
        x = ResidualBlock(self.widths[-1])(x, time)
        for level, width in reversed(list(enumerate(self.widths))):
            x = ResidualBlock(width)(jnp.concatenate([x, skips.pop()], axis=-1), time)
            x = _TextAttention(8)(x, text)
            if level > 0:
                batch, height, wide, features = x.shape
                x = jax.image.resize(x, (batch, 2 * height, 2 * wide, features), "nearest")
                x = nn.Conv(self.widths[level - 1], (3, 3), **TYPES)(x)
        return nn.Conv(latents.shape[-1], (3, 3), **TYPES)(nn.silu(nn.GroupNorm(32, **TYPES)(x)))


def text_to_image(
    widths: tuple[int, ...] = (192, 384), batch: int = 2, size: int = 32, tokens: int = 77
) -> Workload:
    """Text-to-image diffusion step: U-Net, channels 192 and 384, attends to 77 tokens, 2x32x32."""
    return forward_pass(
        _TextUNet(widths),
        bf16(batch, size, size, 4),
        Shape((batch,), jnp.int32),
        bf16(batch, tokens, 768),
    )
