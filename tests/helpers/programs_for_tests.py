"""Programs that the tests give to the compiler: small, quick to compile, some of them broken."""

import jax
import jax.numpy as jnp

_MATRIX = jax.ShapeDtypeStruct((512, 512), jnp.bfloat16)


def chain():
    """Six matrix products in a row: a problem with a dozen decisions."""

    def fn(weights, x):
        for w in weights:
            x = jnp.tanh(x @ w)
        return x

    return fn, ([_MATRIX] * 6, _MATRIX)


def one():
    """A program with next to nothing to decide."""
    return (lambda x: x + 1), (jax.ShapeDtypeStruct((8, 128), jnp.float32),)


def cannot_be_traced():
    """A function that fails while JAX traces it."""

    def fn(x):
        return x @ jnp.ones((3, 5))

    return fn, (_MATRIX,)


def needs_an_argument(x):
    """Not a program: it takes an argument."""
    return x
