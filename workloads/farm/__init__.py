"""Independent tasks on many cores or machines: `farm.map(tasks)` yields them as they get done.

    from workloads.farm import Limits, LocalFarm, RayFarm, Task
    tasks = [Task.of(measure, "lstm", target) for target in ("v4", "v5e")]
    with LocalFarm(workers=2, limits=Limits(seconds=3600)) as farm:
        for done in farm.map(tasks):
            print(done.task.key, done.error or done.value)

A task runs in a process of its own, wherever it is, so that one that crashes or goes over its
limits costs nothing but itself, and nothing that ran before it can change its result. Tasks must be
idempotent: one whose worker is lost is run again.
"""

from workloads.farm.apart import FarmError, Limits, TaskLost
from workloads.farm.farms import Done, Farm, LocalFarm, RayFarm, Task, open_farm

__all__ = [
    "Done",
    "Farm",
    "FarmError",
    "Limits",
    "LocalFarm",
    "RayFarm",
    "Task",
    "TaskLost",
    "open_farm",
]
