"""Two executables of one program timed side by side: what only the owner of a device can know.

They differ in compiler options alone. Samples alternate, so that what drifts (clocks, heat, other
users) hits both, and the speed-up is that of neighbouring samples.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from workloads.errors import CompileError, WorkloadError

# JAX's names of the devices (jax/_src/pallas/mosaic/tpu_info.py) by our names of the targets.
DEVICE_KINDS = {
    "v4": ("TPU v4",),
    "v5e": ("TPU v5 lite", "TPU v5e"),
    "v6e": ("TPU v6 lite", "TPU v6e"),
    "v5p": ("TPU v5", "TPU v5p"),
    "tpu7x": ("TPU7x",),
}
CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds of one call of an executable: one entry for each sample, in the order of time."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median, in seconds."""
        return float(np.median(self.seconds))

    @property
    def spread(self) -> tuple[float, float]:
        """Tenth and ninetieth percentile, in seconds."""
        low, high = np.percentile(self.seconds, [10, 90])
        return float(low), float(high)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A program under the compiler's default options and under others."""

    default: Timing
    other: Timing
    calls_per_sample: int  # run back to back, so that the host's part is hidden
    output_difference: float  # greatest absolute difference of any number of the results
    device: str  # JAX's name of the kind

    @property
    def speedup(self) -> float:
        """Median over pairs of samples of default's seconds over the other's."""
        return float(np.median(self._ratios()))

    @property
    def speedup_interval(self) -> tuple[float, float]:
        """Interval that holds the median ratio with `CONFIDENCE`, from order statistics."""
        return median_interval(self._ratios())

    def _ratios(self) -> np.ndarray:
        return np.asarray(self.default.seconds) / np.asarray(self.other.seconds)


def median_interval(values: np.ndarray) -> tuple[float, float]:
    """Distribution-free interval for the median of independent values, of at least `CONFIDENCE`.

    The k-th smallest and k-th greatest value; fewer than six values cannot be that sure, and give
    their whole range.
    """
    from scipy import stats

    ordered = np.sort(values)
    k = int(stats.binom.ppf((1 - CONFIDENCE) / 2, len(ordered), 0.5))
    k = min(max(k, 1), len(ordered))
    return float(ordered[k - 1]), float(ordered[-k])


def tpu_device() -> jax.Device:
    """The first TPU that JAX can use. Raises: WorkloadError: there is none, and why."""
    from malloc_game.platform import has_tpu

    try:
        return jax.devices("tpu")[0]
    except RuntimeError as error:
        if has_tpu():
            why = f"JAX cannot start it: {' '.join(str(error).split())[:300]}"
        else:
            why = "none is attached to this machine"
        raise WorkloadError(
            f"timing needs a TPU, and {why}; 'mallocgame optimize' needs none: it compiles for one"
        ) from error


def compare(
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    options: Mapping[str, str],
    device: jax.Device,
    *,
    samples: int = 30,
    sample_seconds: float = 0.05,
) -> Comparison:
    """Compile a function with and without options for a device, and time both on it.

    args: pytrees of arrays or shapes; inputs are drawn for shapes (`random_inputs`).
    samples: of each executable, after one that warms up and is thrown away. sample_seconds: of one
    sample; calls are repeated until then. A function that takes over its arguments (donation) is
    called once for each sample, on a fresh copy.
    Raises: CompileError: the compiler refuses the options, or the program.
    """
    inputs = jax.device_put(random_inputs(args), device)
    jitted = fn if hasattr(fn, "lower") else jax.jit(fn)
    with jax.default_device(device):
        executables = [_compile(jitted, inputs, chosen) for chosen in ({}, dict(options))]
        is_donated = [leaf.donated for leaf in jax.tree.leaves(executables[0].args_info[0])]
        if any(is_donated):
            inputs_of = lambda: _copied(inputs, is_donated)  # noqa: E731
        else:
            inputs_of = lambda: inputs  # noqa: E731
        first, second = (jax.block_until_ready(run(*inputs_of())) for run in executables)
        difference = _greatest_difference(first, second)
        del first, second
        once = min(_sample(run, inputs_of, 1) for run in executables)
        calls = 1 if any(is_donated) else max(1, round(sample_seconds / max(once, 1e-7)))
        seconds: list[list[float]] = [[], []]
        for number in range(samples + 1):
            # Whoever came second comes first next time.
            for which in (0, 1) if number % 2 else (1, 0):
                taken = _sample(executables[which], inputs_of, calls)
                if number:
                    seconds[which].append(taken)
    default, other = (Timing(tuple(each)) for each in seconds)
    return Comparison(default, other, calls, difference, device.device_kind)


def random_inputs(args: Any) -> Any:
    """Arrays for shapes: normal numbers for floats, zero for integers (so every index is valid).

    Arrays stay as they are. What a program costs on a TPU does not depend on the numbers, unless it
    loops or branches on them.
    """
    rng = np.random.default_rng(0)

    def draw(leaf: Any) -> jax.Array:
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            return jnp.asarray(leaf)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jnp.broadcast_to(jax.random.key(0), leaf.shape)
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            return jnp.asarray(rng.standard_normal(leaf.shape, np.float32), leaf.dtype)
        return jnp.zeros(leaf.shape, leaf.dtype)

    return jax.tree.map(draw, args)


def _compile(jitted: Any, inputs: Any, options: dict[str, str]) -> Any:
    try:
        return jitted.lower(*inputs).compile(compiler_options=options or None)
    except Exception as error:
        what = "with these options" if options else "at all"
        reason = " ".join(str(error).split())[:400]
        raise CompileError(
            f"the program does not compile here {what}: {type(error).__name__}: {reason}"
        ) from error


def _copied(inputs: Any, is_donated: list[bool]) -> Any:
    leaves, structure = jax.tree.flatten(inputs)
    fresh = [jnp.copy(x) if taken else x for x, taken in zip(leaves, is_donated, strict=True)]
    return jax.block_until_ready(jax.tree.unflatten(structure, fresh))


def _sample(run: Callable[..., Any], inputs_of: Callable[[], Any], calls: int) -> float:
    """Seconds of one call, over `calls` of them back to back."""
    inputs = inputs_of()
    began = time.perf_counter()
    for _ in range(calls):
        result = run(*inputs)
    jax.block_until_ready(result)
    return (time.perf_counter() - began) / calls


def _greatest_difference(first: Any, second: Any) -> float:
    """Greatest absolute difference of two results; NaN equals NaN, and nothing else (infinity)."""
    worst = 0.0
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        kind = np.complex128 if jnp.issubdtype(a.dtype, jnp.complexfloating) else np.float64
        a, b = np.asarray(a).astype(kind), np.asarray(b).astype(kind)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        with np.errstate(invalid="ignore"):
            apart = np.nan_to_num(np.where(same, 0.0, np.abs(a - b)), nan=np.inf)
        worst = max(worst, float(np.max(apart, initial=0.0)))
    return worst
