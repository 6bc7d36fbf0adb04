"""Not a neural network's usual stack of layers: embedding tables, fast matrix multiplication."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from workloads.programs.common import Shape, Workload, bf16

# Rows of the 26 tables of the Criteo Kaggle data set, the largest hashed to one million.
CRITEO_ROWS = (
    1460, 583, 1000000, 1000000, 305, 24, 12517, 633, 3, 93145, 5683, 1000000, 3194, 27, 14992,
    1000000, 10, 5652, 2173, 4, 1000000, 18, 15, 286181, 105, 142572,
)  # fmt: skip


def dlrm(width: int = 128, batch: int = 4096, dense_features: int = 13) -> Workload:
    """DLRM recommendation, inference: 26 Criteo embedding tables, width 128, batch 4096."""
    features = len(CRITEO_ROWS) + 1
    bottom = (dense_features, 512, 256, width)
    pairs = features * (features - 1) // 2
    top = (width + pairs, 1024, 1024, 512, 256, 1)

    def mlp(params, x):
        for index, (kernel, bias) in enumerate(params):
            x = x @ kernel + bias
            x = jax.nn.relu(x) if index < len(params) - 1 else x
        return x

    def forward(params, dense, indices):
        x = jax.nn.relu(mlp(params["bottom"], dense))
        looked_up = [
            jnp.take(table, indices[:, i], axis=0) for i, table in enumerate(params["tables"])
        ]
        vectors = jnp.stack([x, *looked_up], axis=1)  # [batch, features, width]
        products = jnp.einsum("bfw,bgw->bfg", vectors, vectors)
        rows, columns = jnp.tril_indices(features, -1)
        x = jnp.concatenate([x, products[:, rows, columns]], axis=-1)
        return jax.nn.sigmoid(mlp(params["top"], x))

    def layers(widths):
        return [(bf16(i, o), bf16(o)) for i, o in zip(widths[:-1], widths[1:], strict=True)]

    params = {
        "tables": [bf16(rows, width) for rows in CRITEO_ROWS],
        "bottom": layers(bottom),
        "top": layers(top),
    }
    indices = Shape((batch, len(CRITEO_ROWS)), jnp.int32)
    return forward, (params, bf16(batch, dense_features), indices)


def _quarters(x: jax.Array) -> tuple[jax.Array, ...]:
    rows, columns = x.shape[0] // 2, x.shape[1] // 2
    upper, lower = x[:rows], x[rows:]
    return upper[:, :columns], upper[:, columns:], lower[:, :columns], lower[:, columns:]


def strassen(rows: int = 4096, size: int = 2048, levels: int = 2) -> Workload:
    """Strassen's fast matrix product, 2 levels (49 products): 4096x2048 by 2048x2048."""

    def multiply(a, b, levels):
        if levels == 0:
            return a @ b
        a11, a12, a21, a22 = _quarters(a)
        b11, b12, b21, b22 = _quarters(b)
        m1 = multiply(a11 + a22, b11 + b22, levels - 1)
        m2 = multiply(a21 + a22, b11, levels - 1)
        m3 = multiply(a11, b12 - b22, levels - 1)
        m4 = multiply(a22, b21 - b11, levels - 1)
        m5 = multiply(a11 + a12, b22, levels - 1)
        m6 = multiply(a21 - a11, b11 + b12, levels - 1)
        m7 = multiply(a12 - a22, b21 + b22, levels - 1)
        return jnp.block([[m1 + m4 - m5 + m7, m3 + m5], [m2 + m4, m1 - m2 + m3 + m6]])

    return lambda a, b: multiply(a, b, levels), (bf16(rows, size), bf16(size, size))


def strassen_wide() -> Workload:
    """Strassen's fast matrix product, 1 level (7 products): 4096x4096 by 4096x4096."""
    return strassen(rows=4096, size=4096, levels=1)


def winograd(rows: int = 2048, size: int = 2048, levels: int = 2) -> Workload:
    """Winograd's form of Strassen's product (7 products, 15 sums), 2 levels: 2048x2048 squared."""

    def multiply(a, b, levels):
        if levels == 0:
            return a @ b
        a11, a12, a21, a22 = _quarters(a)
        b11, b12, b21, b22 = _quarters(b)
        s1 = a21 + a22
        s2 = s1 - a11
        s3 = a11 - a21
        s4 = a12 - s2
        t1 = b12 - b11
        t2 = b22 - t1
        t3 = b22 - b12
        t4 = t2 - b21
        m1 = multiply(a11, b11, levels - 1)
        m2 = multiply(a12, b21, levels - 1)
        m3 = multiply(s4, b22, levels - 1)
        m4 = multiply(a22, t4, levels - 1)
        m5 = multiply(s1, t1, levels - 1)
        m6 = multiply(s2, t2, levels - 1)
        m7 = multiply(s3, t3, levels - 1)
        u2 = m1 + m6
        u3 = u2 + m7
        u4 = u2 + m5
        return jnp.block([[m1 + m2, u4 + m3], [u3 - m4, u3 + m5]])

    return lambda a, b: multiply(a, b, levels), (bf16(rows, size), bf16(size, size))
