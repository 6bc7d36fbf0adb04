"""The devices that train together, and arrays on them.

A mesh has a row for each host, which is a JAX process with its devices. Parameters are the same on
every device. Games and learning batches are split over all devices, row by row; each host has a
replay of its own, the same on each of its devices. So only gradients travel between hosts.
"""

from __future__ import annotations

import chex
import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from agent.learning.config import ConfigError

HOSTS, GAMES = "hosts", "games"  # the axes of a mesh
EVERYWHERE = P()  # the same on all devices
BY_HOST = P(HOSTS)  # split over hosts, the same on all devices of one
BY_DEVICE = P((HOSTS, GAMES))  # split over all devices


def make_mesh(num_devices: int | None = None, num_hosts: int | None = None) -> Mesh:
    """A mesh of all devices of all processes, a row for each process.

    num_devices: only the first so many; num_hosts: another number of rows. Both are for one
    process, which then trains as so many hosts would.

    Raises: ConfigError if the devices do not make equal rows."""
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    devices = devices[:num_devices]
    rows = jax.process_count() if num_hosts is None else num_hosts
    counts = np.bincount([d.process_index for d in devices], minlength=jax.process_count())
    if len(devices) % rows or len(set(counts.tolist())) > 1:
        raise ConfigError(f"{len(devices)} devices cannot be divided among {rows} hosts equally")
    axis_types = (jax.sharding.AxisType.Auto,) * 2
    return Mesh(np.array(devices).reshape(rows, -1), (HOSTS, GAMES), axis_types=axis_types)


def meet(mesh: Mesh) -> None:
    """Connects all groups of devices that exchange anything; when all processes are just there.

    A group connects at its first collective, for which XLA gives its members 30 s on CPUs. Before
    the first ones of training comes compiling, where one may be quicker by more than that."""

    def on_device(x: chex.Array) -> list[chex.Array]:
        return [jax.lax.psum(x, axes) for axes in (HOSTS, GAMES, (HOSTS, GAMES))]

    sums = jax.shard_map(on_device, mesh=mesh, in_specs=EVERYWHERE, out_specs=EVERYWHERE)
    jax.block_until_ready(jax.jit(sums)(place(np.zeros((), np.float32), mesh, EVERYWHERE)))


def place(tree: chex.ArrayTree, mesh: Mesh, spec: P) -> chex.ArrayTree:
    """Arrays where `spec` says; of arrays of this process, every process must give the whole."""
    sharding = NamedSharding(mesh, spec)

    def one(x: chex.Array) -> chex.Array:
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(one(jax.random.key_data(x)))
        if isinstance(x, jax.Array) and not x.is_fully_addressable:
            return jax.device_put(x, sharding)
        # `device_put` would have the processes compare their values.
        whole = np.asarray(x)
        return jax.make_array_from_callback(whole.shape, sharding, lambda part: whole[part])

    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    return jax.tree.map(one, tree)


def gather(tree: chex.ArrayTree) -> chex.ArrayTree:
    """Arrays of a mesh as NumPy arrays, whole on every process."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)
