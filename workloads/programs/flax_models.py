"""Image models written with flax.linen, as most people write them: ViT, MLP-Mixer, U-Net."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from workloads.programs.common import Shape, Workload, bf16

TYPES = {"dtype": jnp.bfloat16, "param_dtype": jnp.bfloat16}


def forward_pass(model: nn.Module, *inputs: Shape) -> Workload:
    """The model's forward pass with abstract parameters; nothing is initialized."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    return model.apply, (jax.eval_shape(model.init, key, *inputs), *inputs)


class _Mlp(nn.Module):
    hidden: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.gelu(nn.Dense(self.hidden, **TYPES)(x))
        return nn.Dense(x.shape[-1], **TYPES)(y)


class _Patches(nn.Module):
    """[batch, height, width, 3] to [batch, patches, features]."""

    features: int
    size: int = 16

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        window = (self.size, self.size)
        x = nn.Conv(self.features, window, strides=window, padding="VALID", **TYPES)(images)
        return x.reshape(x.shape[0], -1, self.features)


class VisionTransformer(nn.Module):
    """ViT: patches of 16x16, a class token, encoder layers; 1000 classes."""

    layers: int
    width: int
    heads: int

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Images [B, H, W, 3] -> logits [B, classes]."""
        x = _Patches(self.width)(images)
        token = self.param("token", nn.initializers.zeros, (1, 1, self.width), jnp.bfloat16)
        x = jnp.concatenate([jnp.tile(token, (x.shape[0], 1, 1)), x], axis=1)
        shape = (1, *x.shape[1:])
        x = x + self.param("position", nn.initializers.normal(0.02), shape, jnp.bfloat16)
        for _ in range(self.layers):
            y = nn.LayerNorm(**TYPES)(x)
            x = x + nn.MultiHeadDotProductAttention(self.heads, **TYPES)(y, y)
            x = x + _Mlp(4 * self.width)(nn.LayerNorm(**TYPES)(x))
        return nn.Dense(1000, **TYPES)(nn.LayerNorm(**TYPES)(x)[:, 0])


def vit(layers: int = 4, width: int = 384, heads: int = 6, batch: int = 32) -> Workload:
    """Vision transformer, inference: 4 of the 12 layers of ViT-S/16, batch 32, 224x224x3."""
    return forward_pass(VisionTransformer(layers, width, heads), bf16(batch, 224, 224, 3))


class _Mixer(nn.Module):
    layers: int
    width: int
    token_hidden: int
    channel_hidden: int

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = _Patches(self.width)(images)
        for _ in range(self.layers):
            y = nn.LayerNorm(**TYPES)(x).swapaxes(1, 2)
            x = x + _Mlp(self.token_hidden)(y).swapaxes(1, 2)
            x = x + _Mlp(self.channel_hidden)(nn.LayerNorm(**TYPES)(x))
        x = jnp.mean(nn.LayerNorm(**TYPES)(x), axis=1)
        return nn.Dense(1000, **TYPES)(x)


def mixer(layers: int = 8, width: int = 512, batch: int = 64) -> Workload:
    """MLP-Mixer, inference: Mixer-S/16 (8 layers, width 512), batch 64, 224x224x3."""
    return forward_pass(_Mixer(layers, width, 256, 2048), bf16(batch, 224, 224, 3))


class ResidualBlock(nn.Module):
    """Two convolutions with a residual; told the time step of the diffusion."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array, time: jax.Array) -> jax.Array:
        """x [B, H, W, C], embedded time [B, E] -> [B, H, W, features]."""
        y = nn.Conv(self.features, (3, 3), **TYPES)(nn.silu(x))
        y = y + nn.Dense(self.features, **TYPES)(nn.silu(time))[:, None, None]
        y = nn.silu(nn.GroupNorm(32, **TYPES)(y))
        y = nn.Conv(self.features, (3, 3), **TYPES)(y)
        if x.shape[-1] != self.features:
            x = nn.Conv(self.features, (1, 1), **TYPES)(x)
        return x + y


class SpatialAttention(nn.Module):
    """Self-attention between all places of an image."""

    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> the same shape."""
        y = nn.GroupNorm(32, **TYPES)(x).reshape(x.shape[0], -1, x.shape[-1])
        y = nn.MultiHeadDotProductAttention(self.heads, **TYPES)(y, y)
        return x + y.reshape(x.shape)


def time_embedding(steps: jax.Array, width: int) -> jax.Array:
    """Sines and cosines of time steps (int32[batch]): float32[batch, width]."""
    half = width // 2
    frequency = 10000.0 ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = steps.astype(jnp.float32)[:, None] * frequency[None]
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


class _UNet(nn.Module):
    """Noise prediction; down and up again with skip connections, attention at the coarsest."""

    widths: Sequence[int]

    @nn.compact
    def __call__(self, latents: jax.Array, steps: jax.Array) -> jax.Array:
        time = time_embedding(steps, self.widths[0]).astype(latents.dtype)
        time = nn.silu(nn.Dense(4 * self.widths[0], **TYPES)(time))
        time = nn.Dense(4 * self.widths[0], **TYPES)(time)

        x = nn.Conv(self.widths[0], (3, 3), **TYPES)(latents)
        skips = []
        for level, width in enumerate(self.widths):
            if level > 0:
                x = nn.Conv(width, (3, 3), strides=(2, 2), **TYPES)(x)
            x = ResidualBlock(width)(x, time)
            skips.append(x)
        x = SpatialAttention(8)(x)
        for level, width in reversed(list(enumerate(self.widths))):
            x = ResidualBlock(width)(jnp.concatenate([x, skips.pop()], axis=-1), time)
            if level > 0:
                batch, height, wide, features = x.shape
                x = jax.image.resize(x, (batch, 2 * height, 2 * wide, features), "nearest")
                x = nn.Conv(self.widths[level - 1], (3, 3), **TYPES)(x)
        return nn.Conv(latents.shape[-1], (3, 3), **TYPES)(nn.silu(nn.GroupNorm(32, **TYPES)(x)))


def unet(batch: int = 4, size: int = 64) -> Workload:
    """Diffusion U-Net, one denoising step: channels 64 and 128, attention, batch 4, 64x64x4."""
    model = _UNet((64, 128))
    return forward_pass(model, bf16(batch, size, size, 4), Shape((batch,), jnp.int32))
