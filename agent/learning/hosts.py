"""Processes that train as one: how they find each other, what they agree on, how they end.

All of them run the same program on the same input. What only one of them can know (that a file
cannot be read, that time is up) is told to the others by a collective, because a process that left
the common path alone would keep them waiting.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterator, Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils

from agent.learning.config import ConfigError
from agent.learning.mesh import make_mesh, meet
from malloc_game.errors import MallocGameError

# A process that has not been heard of for so long is taken for dead, and ends all others.
HEARTBEAT_SECONDS = 60
# The others may take so long to start, and to end.
START_SECONDS = 300
END_SECONDS = 30


def connect(
    coordinator: str | None = None, process_count: int | None = None, process_id: int | None = None
) -> None:
    """Makes this process one of several; before JAX is used. Returns when all of them are there.

    coordinator: HOST:PORT that process 0 listens at. Without any of the three, they come from the
    cluster that JAX finds in the environment (TPU pod slice, Slurm, Open MPI, Kubernetes).

    Raises: ConfigError if there is no such cluster, or the others do not come."""
    try:
        jax.distributed.initialize(
            coordinator,
            process_count,
            process_id,
            # Which devices are local: the cluster's business, or all there are.
            cluster_detection_method="deactivate" if coordinator else None,
            initialization_timeout=START_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=END_SECONDS,
        )
    except ValueError as error:
        raise ConfigError(
            f"no cluster was found in the environment ({error}); give --coordinator,"
            " --process-count and --process-id"
        ) from error
    except RuntimeError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"the processes do not find each other: {reason[:200]}") from error
    meet(make_mesh())


def is_first() -> bool:
    """Whether this is the process that logs, evaluates and reports."""
    return jax.process_index() == 0


def first_decides(value: bool) -> bool:
    """What the first process says, on all of them."""
    if jax.process_count() == 1:
        return value
    return bool(multihost_utils.broadcast_one_to_all(np.int32(value)))


@contextlib.contextmanager
def together() -> Iterator[None]:
    """What every process does by itself: if one fails, all end here, each with an error.

    Raises: ConfigError where another one has failed."""
    failure = None
    try:
        yield
    except (MallocGameError, ConfigError) as error:
        failure = error
    if jax.process_count() > 1:
        has_failed = multihost_utils.process_allgather(np.int32(failure is not None))
        if failure is None and has_failed.any():
            number = int(np.flatnonzero(has_failed)[0])
            failure = ConfigError(f"process {number} has failed; its own output says why")
    if failure is not None:
        raise failure


def check_same(told: Mapping[str, str]) -> None:
    """Checks that all processes were told the same. told: what, by its name.

    Raises: ConfigError on all of them, with the first name of which that does not hold."""
    if jax.process_count() == 1:
        return
    digests = [hashlib.sha256(text.encode()).digest()[:4] for text in told.values()]
    own = np.array([int.from_bytes(digest, "big") for digest in digests], np.uint32)
    of_all = multihost_utils.process_allgather(own)
    for name, column in zip(told, of_all.T, strict=True):
        others = np.flatnonzero(column != column[0])
        if len(others):
            raise ConfigError(f"{name}: process {others[0]} has another one than process 0")


def is_preempted(iteration: int) -> bool:
    """Whether a process was asked to end (SIGTERM), and this is the iteration to save and stop at.

    Every process must ask after each of its iterations. One process alone ends at once."""
    if jax.process_count() == 1:
        return False
    return multihost_utils.reached_preemption_sync_point(iteration)


def leave(code: int) -> None:
    """Ends this process at once if there are others, which a normal end would wait for."""
    if jax.process_count() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
