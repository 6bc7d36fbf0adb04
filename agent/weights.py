"""Released agents: config and parameters in one small file, nothing else and no pickle."""

from __future__ import annotations

import pathlib

import chex
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np

import malloc_game
from agent.config import AgentConfig, ConfigError
from agent.inference import observation_size
from agent.networks import init_params, make_network
from malloc_game.fileio import write_bytes

_FORMAT = "mallocMuZero agent, version 1"
_DTYPES = ("float32", "bfloat16")

Agent = tuple[AgentConfig, chex.ArrayTree]


def params_shapes(config: AgentConfig) -> chex.ArrayTree:
    """Shapes and dtypes of the parameters of `config`'s networks."""
    network = make_network(config.network, malloc_game.NUM_ACTIONS)
    key = jax.random.key(0)
    return jax.eval_shape(lambda: init_params(network, observation_size(config), key))


def save_agent(
    path: str | pathlib.Path,
    config: AgentConfig,
    params: chex.ArrayTree,
    dtype: str = "bfloat16",
) -> None:
    """Writes an agent to one file, whole or not at all. dtype: of stored parameters.

    Raises: ConfigError for an unknown dtype, MallocGameError if the file cannot be written."""
    if dtype not in _DTYPES:
        raise ConfigError(f"dtype {dtype!r}: need one of {', '.join(_DTYPES)}")
    stored = jax.tree.map(lambda x: np.asarray(jnp.asarray(x).astype(dtype)), params)
    content = {"format": _FORMAT, "config": config.to_json(), "params": stored}
    write_bytes(path, flax.serialization.msgpack_serialize(content))


def load_agent(path: str | pathlib.Path) -> Agent:
    """The config and float32 parameters of a file by `save_agent`.

    Raises: ConfigError for a file that is missing, damaged, or of other networks."""
    try:
        data = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read agent {path}: {error.strerror or error}") from error
    try:
        content = flax.serialization.msgpack_restore(data)
    except Exception as error:  # msgpack and flax raise many kinds
        raise ConfigError(f"{path} is not an agent file: {type(error).__name__}") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ConfigError(f"{path} is not an agent file of this version ({_FORMAT})")
    config = AgentConfig.from_json(content["config"])
    wanted = params_shapes(config)
    params = content["params"]
    same = jax.tree.structure(params) == jax.tree.structure(wanted) and all(
        np.shape(a) == b.shape
        for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(wanted), strict=True)
    )
    if not same:
        raise ConfigError(f"{path}: the parameters are not those of the networks in its config")
    return config, jax.tree.map(lambda x: jnp.asarray(x).astype(jnp.float32), params)
