"""Where tasks run: a pool of processes on this machine, or a Ray cluster."""

from __future__ import annotations

import abc
import concurrent.futures
import dataclasses
import hashlib
import importlib.util
import logging
import pickle
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import cloudpickle

from workloads.errors import WorkloadError
from workloads.farm.apart import FarmError, Limits, TaskLost, run_apart

# Ray runs a task again whose machine or worker is gone; so many times.
_RETRIES = 3


@dataclasses.dataclass(frozen=True)
class Task:
    """A call that depends on its arguments alone. key: the hash of all that it is told."""

    key: str
    call: bytes  # pickled (function, arguments)

    @classmethod
    def of(cls, function: Callable, *arguments: Any) -> Task:
        """The task of calling `function` (of a module, or pickled by value) with `arguments`."""
        call = cloudpickle.dumps((function, arguments))
        return cls(hashlib.sha256(call).hexdigest(), call)


@dataclasses.dataclass(frozen=True)
class Done:
    """What became of a task: its value, or the exception that it raised or was lost by."""

    task: Task
    value: Any = None
    error: Exception | None = None


class Farm(abc.ABC):
    """Something that runs tasks, as a context manager; its end ends what still runs."""

    limits: Limits

    def map(self, tasks: Iterable[Task]) -> Iterator[Done]:
        """Yields every task once, as they get done. Equal tasks are one.

        Raises: FarmError: the farm itself is gone."""
        by_key = {task.key: task for task in tasks}
        for key, answer in self._answers(list(by_key.values())):
            if isinstance(answer, Exception):
                yield Done(by_key[key], error=answer)
            else:
                value, error = pickle.loads(answer)
                yield Done(by_key[key], value, error)

    @abc.abstractmethod
    def _answers(self, tasks: list[Task]) -> Iterator[tuple[str, bytes | Exception]]:
        """Keys and answers of `apart.run_apart`, or exceptions of tasks that have none."""

    def __enter__(self) -> Farm:
        return self

    @abc.abstractmethod
    def __exit__(self, *exception: object) -> None: ...


class LocalFarm(Farm):
    """Up to `workers` tasks at a time on this machine."""

    def __init__(self, workers: int = 1, limits: Limits = Limits()):  # noqa: B008
        self.limits = limits
        self._stop = threading.Event()
        self._pool = concurrent.futures.ThreadPoolExecutor(workers)  # each waits for a process

    def _answers(self, tasks: list[Task]) -> Iterator[tuple[str, bytes | Exception]]:
        running = {
            self._pool.submit(run_apart, t.call, self.limits, self._stop.is_set): t.key
            for t in tasks
        }
        for future in concurrent.futures.as_completed(running):
            error = future.exception()
            if error is not None and not isinstance(error, TaskLost):
                raise FarmError(f"a task cannot be started: {error}") from error
            yield running[future], error if error is not None else future.result()

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)


class RayFarm(Farm):
    """The workers of a Ray cluster, one task for each of its CPUs at a time.

    address: "auto" for the cluster that this machine is of, HOST:PORT of its head where there are
    several, "local" for a new one of this machine alone. This package must be installed on all
    machines, at the same version. With a limit of memory, Ray starts no more tasks on a machine
    than its memory is enough for.

    Raises: FarmError: Ray is not installed or not to be reached, or no machine has the memory."""

    def __init__(self, address: str, limits: Limits = Limits()):  # noqa: B008
        if importlib.util.find_spec("ray") is None:
            raise FarmError("--ray needs Ray: install mallocgame[farm]")
        import ray

        self.limits = limits
        self._is_ours = not ray.is_initialized()
        if self._is_ours:
            try:
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
            except Exception as error:  # it raises many kinds
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise FarmError(f"no Ray cluster at {address}: {reason[:200]}") from error

        memory = [node["Resources"].get("memory", 0) for node in ray.nodes() if node["Alive"]]
        if (limits.memory_bytes or 0) > max(memory, default=0):
            raise FarmError(
                f"a task may take {(limits.memory_bytes or 0) / 2**30:.1f} GiB, but no machine of"
                f" the cluster has that: the largest gives {max(memory, default=0) / 2**30:.1f} GiB"
            )

    def _answers(self, tasks: list[Task]) -> Iterator[tuple[str, bytes | Exception]]:
        import ray

        needs = {"num_cpus": 1, "max_retries": _RETRIES}
        if self.limits.memory_bytes is not None:
            needs["memory"] = self.limits.memory_bytes
        run = ray.remote(_run_on_worker).options(**needs)
        running = {run.remote(task.call, self.limits): task.key for task in tasks}
        while running:
            (done,), _ = ray.wait(list(running), num_returns=1)
            key = running.pop(done)
            try:
                yield key, ray.get(done)
            except ray.exceptions.RayError as error:
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                yield key, TaskLost(f"the task was lost {_RETRIES + 1} times: {reason[:200]}")

    def __exit__(self, *exception: object) -> None:
        import ray

        if self._is_ours:
            ray.shutdown()


def _run_on_worker(call: bytes, limits: Limits) -> bytes | Exception:
    try:
        return run_apart(call, limits)
    except TaskLost as lost:  # by its own doing, so it is not run again
        return lost


def open_farm(workers: int, ray_address: str | None, limits: Limits) -> Farm | None:
    """The farm that a command was asked for; None: it does everything itself, one by one.

    Raises: WorkloadError, FarmError."""
    if ray_address is not None:
        if workers != 1:
            raise WorkloadError("--workers is for this machine: leave it out with --ray")
        return RayFarm(ray_address, limits)
    if workers == 1 and limits == Limits():
        return None
    return LocalFarm(workers, limits)
