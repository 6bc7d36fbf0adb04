"""Convolutional image classifiers; batch norms in inference form (a scale and a shift)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from workloads.programs.common import Workload, bf16, convolution, max_pool


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
            x = jax.nn.relu(convolution(x, kernel, stride, padding) + bias)
            x = max_pool(x, 3, 2) if pool else x
        x = x.reshape(x.shape[0], -1)
        for index, (kernel, bias) in enumerate(params["dense"]):
            x = x @ kernel + bias
            x = jax.nn.relu(x) if index < len(dense) - 1 else x
        return x

    params = {
        "convolutions": [(bf16(k, k, i, o), bf16(o)) for k, i, o, _, _ in convolutions],
        "dense": [(bf16(i, o), bf16(o)) for i, o in dense],
    }
    return forward, (params, bf16(batch, 224, 224, 3))


def vgg16(batch: int = 8, size: int = 224) -> Workload:
    """VGG-16 image classification, inference, batch 8, 224x224x3."""
    stages = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))  # convolutions, channels
    dense = ((size // 32) ** 2 * 512, 4096, 4096, 1000)

    def forward(params, images):
        x = images
        for stage in params["stages"]:
            for kernel, bias in stage:
                x = jax.nn.relu(convolution(x, kernel) + bias)
            x = max_pool(x, 2, 2)
        x = x.reshape(x.shape[0], -1)
        for index, (kernel, bias) in enumerate(params["dense"]):
            x = x @ kernel + bias
            x = jax.nn.relu(x) if index < len(dense) - 2 else x
        return x

    params: dict[str, Any] = {"stages": []}
    channels = 3
    for count, width in stages:
        inputs = [channels] + [width] * (count - 1)
        params["stages"].append([(bf16(3, 3, i, width), bf16(width)) for i in inputs])
        channels = width
    params["dense"] = [(bf16(i, o), bf16(o)) for i, o in zip(dense[:-1], dense[1:], strict=True)]
    return forward, (params, bf16(batch, size, size, 3))


def resnet50(batch: int = 8) -> Workload:
    """ResNet-50 image classification, inference, batch 8, 224x224x3."""
    return _resnet((3, 4, 6, 3), batch)


def resnet101(batch: int = 16) -> Workload:
    """ResNet-101 image classification, inference, batch 16, 224x224x3."""
    return _resnet((3, 4, 23, 3), batch)


def _resnet(counts: tuple[int, ...], batch: int) -> Workload:
    """A residual network with bottleneck blocks; counts: blocks of each stage."""
    stages = tuple(zip(counts, (64, 128, 256, 512), strict=True))  # inner width; output is 4x

    def block(x, params, stride):
        y = jax.nn.relu(normed(x, params["reduce"]))
        y = jax.nn.relu(normed(y, params["spatial"], stride))
        y = normed(y, params["expand"])
        skip = normed(x, params["project"], stride) if "project" in params else x
        return jax.nn.relu(y + skip)

    def normed(x, params, stride=1):
        kernel, scale, shift = params
        return convolution(x, kernel, stride) * scale + shift

    def forward(params, images):
        x = max_pool(jax.nn.relu(normed(images, params["stem"], 2)), 3, 2, "SAME")
        for stage, blocks in enumerate(params["stages"]):
            for index, block_params in enumerate(blocks):
                x = block(x, block_params, 2 if stage > 0 and index == 0 else 1)
        x = jnp.mean(x.astype(jnp.float32), axis=(1, 2)).astype(x.dtype)
        return x @ params["classifier"][0] + params["classifier"][1]

    def conv(k, i, o):
        return bf16(k, k, i, o), bf16(o), bf16(o)

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
    params["classifier"] = (bf16(channels, 1000), bf16(1000))
    return forward, (params, bf16(batch, 224, 224, 3))
