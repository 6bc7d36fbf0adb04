"""Image classifiers of depthwise convolutions, in flax.linen: EfficientNet- and ConvNeXt-like."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from workloads.programs.common import Workload, bf16
from workloads.programs.flax_models import TYPES, forward_pass


class _InvertedBottleneck(nn.Module):
    """Widen, convolve each channel by itself, squeeze-and-excite, narrow; a residual if it fits."""

    features: int
    expansion: int
    kernel: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        inputs = x.shape[-1]
        wide = self.expansion * inputs
        y = x
        if self.expansion > 1:
            y = nn.silu(_Affine()(nn.Conv(wide, (1, 1), use_bias=False, **TYPES)(y)))
        window, strides = (self.kernel, self.kernel), (self.stride, self.stride)
        y = nn.Conv(
            wide, window, strides, feature_group_count=wide, use_bias=False, **TYPES
        )(y)  # fmt: skip
        y = nn.silu(_Affine()(y))
        squeezed = jnp.mean(y.astype(jnp.float32), axis=(1, 2)).astype(y.dtype)
        squeezed = nn.silu(nn.Dense(max(1, inputs // 4), **TYPES)(squeezed))
        y = y * nn.sigmoid(nn.Dense(wide, **TYPES)(squeezed))[:, None, None]
        y = _Affine()(nn.Conv(self.features, (1, 1), use_bias=False, **TYPES)(y))
        return x + y if self.stride == 1 and inputs == self.features else y


class _Affine(nn.Module):
    """Batch norm in inference form: a scale and a shift."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape, jnp.bfloat16)
        return x * scale + self.param("shift", nn.initializers.zeros, shape, jnp.bfloat16)


# Of EfficientNet-B0: expansion, features, blocks, stride of the first block, kernel.
_B0 = (
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5), (6, 320, 1, 1, 3),
)  # fmt: skip


class _EfficientNet(nn.Module):
    stages: Sequence[tuple[int, int, int, int, int]]

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = nn.Conv(32, (3, 3), (2, 2), use_bias=False, **TYPES)(images)
        x = nn.silu(_Affine()(x))
        for expansion, features, blocks, stride, kernel in self.stages:
            for index in range(blocks):
                first = stride if index == 0 else 1
                x = _InvertedBottleneck(features, expansion, kernel, first)(x)
        x = nn.silu(_Affine()(nn.Conv(1280, (1, 1), use_bias=False, **TYPES)(x)))
        return nn.Dense(1000, **TYPES)(jnp.mean(x, axis=(1, 2)))


def efficientnet(batch: int = 16, size: int = 224) -> Workload:
    """EfficientNet-B0 image classification, inference, batch 16, 224x224x3."""
    return forward_pass(_EfficientNet(_B0), bf16(batch, size, size, 3))


class _ConvNeXt(nn.Module):
    """ConvNeXt: 7x7 depthwise convolutions and wide pointwise layers."""

    stages: Sequence[tuple[int, int]]

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = images
        for stage, (blocks, width) in enumerate(self.stages):
            if stage > 0:
                x = nn.LayerNorm(**TYPES)(x)
            patch = (4, 4) if stage == 0 else (2, 2)
            x = nn.Conv(width, patch, patch, padding="VALID", **TYPES)(x)
            if stage == 0:
                x = nn.LayerNorm(**TYPES)(x)
            for block in range(blocks):
                y = nn.Conv(width, (7, 7), feature_group_count=width, **TYPES)(x)
                y = nn.gelu(nn.Dense(4 * width, **TYPES)(nn.LayerNorm(**TYPES)(y)))
                y = nn.Dense(width, **TYPES)(y)
                x = x + y * self.param(
                    f"scale_{stage}_{block}", nn.initializers.ones, (width,), jnp.bfloat16
                )
        return nn.Dense(1000, **TYPES)(nn.LayerNorm(**TYPES)(jnp.mean(x, axis=(1, 2))))


def convnext(batch: int = 16, size: int = 224) -> Workload:
    """ConvNeXt-T with half its blocks, inference, batch 16, 224x224x3."""
    stages = ((2, 96), (2, 192), (4, 384), (2, 768))  # blocks, width
    return forward_pass(_ConvNeXt(stages), bf16(batch, size, size, 3))
