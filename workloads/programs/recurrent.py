"""Sequence models with state or memory other than attention: LSTM, state space, convolutions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from workloads.programs.common import Shape, Workload, bf16, rms_norm


def lstm(
    layers: int = 2, width: int = 1024, batch: int = 128, length: int = 64, vocabulary: int = 16000
) -> Workload:
    """LSTM language model, forward: 2 layers, width 1024, batch 128, lax.scan over 64 tokens."""

    def cell(recurrent, carry, gates):
        hidden, memory = carry
        gates = gates + hidden @ recurrent
        enter, forget, new, leave = jnp.split(gates.astype(jnp.float32), 4, axis=-1)
        memory = jax.nn.sigmoid(forget) * memory + jax.nn.sigmoid(enter) * jnp.tanh(new)
        hidden = (jax.nn.sigmoid(leave) * jnp.tanh(memory)).astype(hidden.dtype)
        return (hidden, memory), hidden

    def forward(params, states, tokens):
        x = params["embedding"][tokens]  # [length, batch, width]
        new_states = []
        for p, state in zip(params["layers"], states, strict=True):
            # The products with the inputs of all steps do not wait for the recurrence.
            gates = x @ p["input"] + p["bias"]
            state, x = lax.scan(lambda c, g, w=p["recurrent"]: cell(w, c, g), state, gates)
            new_states.append(state)
        return x[-1] @ params["embedding"].T, new_states

    layer = {
        "input": bf16(width, 4 * width),
        "recurrent": bf16(width, 4 * width),
        "bias": bf16(4 * width),
    }
    params = {"embedding": bf16(vocabulary, width), "layers": [layer] * layers}
    state = (bf16(batch, width), Shape((batch, width), jnp.float32))
    return forward, (params, [state] * layers, Shape((length, batch), jnp.int32))


def mamba(
    layers: int = 3, width: int = 768, states: int = 16, batch: int = 8, length: int = 512
) -> Workload:
    """Mamba, forward: 3 selective state-space layers of the 130M model, batch 8, 512 tokens."""
    inner, rank, taps = 2 * width, width // 16, 4

    def depthwise(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (1,), [(taps - 1, 0)],
            dimension_numbers=("NWC", "WIO", "NWC"), feature_group_count=inner,
        )  # fmt: skip

    def selective_scan(p, x):
        """y_t = C_t h_t, h_t = exp(step_t A) h_(t-1) + step_t B_t x_t; x [batch, time, inner]."""
        projected = x @ p["select"]
        low, enter, leave = jnp.split(projected, [rank, rank + states], axis=-1)
        step = jax.nn.softplus((low @ p["step"] + p["step_bias"]).astype(jnp.float32))
        rate = -jnp.exp(p["log_rate"])  # [inner, states], float32

        def advance(state, now):
            x_t, step_t, enter_t, leave_t = now
            decay = jnp.exp(step_t[..., None] * rate)
            state = decay * state + (step_t * x_t)[..., None] * enter_t[:, None, :]
            return state, jnp.einsum("bis,bs->bi", state, leave_t)

        by_time = [a.astype(jnp.float32).swapaxes(0, 1) for a in (x, step, enter, leave)]
        empty = jnp.zeros((batch, inner, states), jnp.float32)
        _, y = lax.scan(advance, empty, tuple(by_time))
        return (y.swapaxes(0, 1) + x * p["skip"]).astype(x.dtype)

    def forward(params, x):
        for p in params:
            signal, gate = jnp.split(rms_norm(x, p["gain"]) @ p["enter"], 2, axis=-1)
            signal = jax.nn.silu(depthwise(signal, p["taps"]) + p["taps_bias"])
            x = x + (selective_scan(p, signal) * jax.nn.silu(gate)) @ p["leave"]
        return x

    layer = {
        "gain": bf16(width),
        "enter": bf16(width, 2 * inner),
        "taps": bf16(taps, 1, inner),
        "taps_bias": bf16(inner),
        "select": bf16(inner, rank + 2 * states),
        "step": bf16(rank, inner),
        "step_bias": bf16(inner),
        "log_rate": Shape((inner, states), jnp.float32),
        "skip": Shape((inner,), jnp.float32),
        "leave": bf16(inner, width),
    }
    return forward, ([layer] * layers, bf16(batch, length, width))


def wavenet(
    stacks: int = 2,
    depth: int = 6,
    width: int = 128,
    skip_width: int = 256,
    batch: int = 4,
    samples: int = 8192,
) -> Workload:
    """WaveNet, forward: 12 dilated causal convolutions, 128 channels, batch 4, 8192 samples."""
    levels = 256

    def causal(x, kernel, dilation=1):
        reach = (kernel.shape[0] - 1) * dilation
        return lax.conv_general_dilated(
            x, kernel, (1,), [(reach, 0)], rhs_dilation=(dilation,),
            dimension_numbers=("NWC", "WIO", "NWC"),
        )  # fmt: skip

    def forward(params, audio):
        x = causal(jax.nn.one_hot(audio, levels, dtype=jnp.bfloat16), params["enter"])
        skips = 0.0
        for index, p in enumerate(params["layers"]):
            both = causal(x, p["dilated"], 2 ** (index % depth)) + p["bias"]
            signal, gate = jnp.split(both, 2, axis=-1)
            mixed = jnp.tanh(signal) * jax.nn.sigmoid(gate)
            skips = skips + mixed @ p["skip"]
            x = x + mixed @ p["residual"]
        hidden = jax.nn.relu(jax.nn.relu(skips) @ params["hidden"])
        return hidden @ params["leave"]

    layer = {
        "dilated": bf16(2, width, 2 * width),
        "bias": bf16(2 * width),
        "skip": bf16(width, skip_width),
        "residual": bf16(width, width),
    }
    params = {
        "enter": bf16(2, levels, width),
        "layers": [layer] * (stacks * depth),
        "hidden": bf16(skip_width, skip_width),
        "leave": bf16(skip_width, levels),
    }
    return forward, (params, Shape((batch, samples), jnp.int32))
