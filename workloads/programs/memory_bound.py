"""Programs that move far more than they compute: norms, scalings, an optimizer by itself."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from workloads.programs.common import Shape, Workload, bf16, float32_like
from workloads.programs.training import adam


def norm_chain(rounds: int = 8, rows: int = 4096, columns: int = 1024) -> Workload:
    """Chain of 8 rounds of row and column norms with gates on 4096x1024, bf16: memory-bound."""

    def normed(x, axis):
        wide = x.astype(jnp.float32)
        mean = jnp.mean(wide, axis=axis, keepdims=True)
        variance = jnp.mean(wide * wide, axis=axis, keepdims=True) - mean * mean
        return ((wide - mean) * lax.rsqrt(variance + 1e-5)).astype(x.dtype)

    def forward(params, x, gate):
        for scale, shift in params:
            x = x + jax.nn.silu(normed(x, 1) * scale + shift) * gate
            x = x + jnp.tanh(normed(x, 0)) * gate
        return x

    array = bf16(rows, columns)
    return forward, ([(bf16(columns), bf16(columns))] * rounds, array, array)


def sinkhorn(rows: int = 2048, columns: int = 2048, rounds: int = 20) -> Workload:
    """Sinkhorn's optimal transport in the log domain: 20 rounds of a loop on 2048x2048, float32."""

    def forward(cost):
        def one(_, potentials):
            left, right = potentials
            left = -jax.nn.logsumexp(right[None] - cost, axis=1)
            right = -jax.nn.logsumexp(left[:, None] - cost, axis=0)
            return left, right

        start = jnp.zeros(rows, jnp.float32), jnp.zeros(columns, jnp.float32)
        left, right = lax.fori_loop(0, rounds, one, start)
        return jnp.exp(left[:, None] + right[None] - cost)

    return forward, (Shape((rows, columns), jnp.float32),)


def heat(steps: int = 30, rows: int = 2048, columns: int = 2048) -> Workload:
    """Heat equation: 30 steps of a loop over a five-point stencil on 2048x2048, float32."""

    def forward(field, conductivity):
        def one(_, x):
            near = jnp.roll(x, 1, 0) + jnp.roll(x, -1, 0) + jnp.roll(x, 1, 1) + jnp.roll(x, -1, 1)
            return x + conductivity * (near - 4 * x)

        return lax.fori_loop(0, steps, one, field)

    array = Shape((rows, columns), jnp.float32)
    return forward, (array, array)


def adam_step(matrices: int = 6, width: int = 1024) -> Workload:
    """Adam by itself, gradients clipped to a global norm: 6 matrices of 1024x1024, donated."""

    def step(params, first_moment, second_moment, gradient):
        squares = [jnp.sum(jnp.square(g.astype(jnp.float32))) for g in jax.tree.leaves(gradient)]
        scale = jnp.minimum(1.0, lax.rsqrt(sum(squares)))
        clipped = jax.tree.map(lambda g: g.astype(jnp.float32) * scale, gradient)
        return adam(params, clipped, first_moment, second_moment)

    params = [bf16(width, width)] * matrices
    moment = float32_like(params)
    return jax.jit(step, donate_argnums=(0, 1, 2)), (params, moment, moment, params)
