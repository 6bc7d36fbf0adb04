"""Released agents: config and parameters in one small file, nothing else and no pickle."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import chex
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np

import malloc_game
from agent.learning.config import AgentConfig, ConfigError
from agent.learning.inference import observation_size
from agent.learning.networks import init_params, make_network
from malloc_game.errors import MallocGameError
from malloc_game.problem.files import read_bytes, write_bytes

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
        data = read_bytes(path)
    except MallocGameError as error:
        raise ConfigError(f"agent: {error}") from error
    try:
        content = flax.serialization.msgpack_restore(data)
    except Exception as error:  # msgpack and flax raise many kinds
        raise ConfigError(f"{path} is not an agent file: {type(error).__name__}") from error
    found, text = (content.get(n) if type(content) is dict else None for n in ("format", "config"))
    if not isinstance(found, str) or found != _FORMAT or not isinstance(text, str):
        raise ConfigError(f"{path} is not an agent file of this version ({_FORMAT})")
    config = AgentConfig.from_json(text)
    return config, _checked(content.get("params"), params_shapes(config), str(path))


def _checked(params: Any, wanted: Any, where: str) -> chex.ArrayTree:
    """`params` as float32 arrays, if they are finite numbers in the tree and shapes of `wanted`.

    Raises: ConfigError naming what is not."""
    other = ConfigError(f"{where}: the parameters are not those of the networks in its config")
    if isinstance(wanted, Mapping):
        if type(params) is not dict or set(params) != set(wanted):
            raise other
        return {name: _checked(params[name], wanted[name], where) for name in wanted}
    if (
        type(params) is not np.ndarray
        or params.shape != wanted.shape
        or params.dtype.name not in _DTYPES
    ):
        raise other
    array = params.astype(np.float32)
    if not np.isfinite(array).all():
        raise ConfigError(f"{where}: a parameter is not a finite number")
    return jax.device_put(array)
