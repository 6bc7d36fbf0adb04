"""`jax.jit` for functions of programs of any size: the code of the latest few sizes is kept.

JAX keeps what it compiled for as long as the function is there: 40 to 50 MiB for each program of a
new size, measured on a CPU. A process that goes from program to program would grow without end.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any, ParamSpec, TypeVar

import jax

# Of one function. A run needs one or two again and again; the more, the longer memory grows.
MOST_SIZES = 4

P = ParamSpec("P")
R = TypeVar("R")


def jit(most_sizes: int = MOST_SIZES, **options: Any) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator: `jax.jit` with these options, for the `most_sizes` latest shapes of arguments.

    Shapes that come again later are compiled again."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.lru_cache(maxsize=most_sizes)
        def compiled_for(sizes: Hashable) -> Callable[P, R]:
            del sizes

            # Of its own, for what JAX knows of a function goes when the function goes.
            @functools.wraps(function)
            def same(*args: P.args, **kwargs: P.kwargs) -> R:
                return function(*args, **kwargs)

            return jax.jit(same, **options)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            return compiled_for(_sizes(args, kwargs))(*args, **kwargs)

        return call

    return decorate


def _sizes(args: tuple, kwargs: dict) -> Hashable:
    """The structure of arguments, with the shape and dtype of arrays; of anything else its type."""
    leaves, structure = jax.tree.flatten((args, kwargs))
    return structure, tuple(
        (leaf.shape, leaf.dtype) if hasattr(leaf, "shape") else type(leaf) for leaf in leaves
    )
