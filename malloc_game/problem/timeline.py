"""The runtime simulator: how long a schedule with background copies takes.

Copies wait in two first-in-first-out queues (reads from and writes to default memory) and progress
only while an instruction leaves default-memory bandwidth idle; two busy queues get half of it each.
A copy that is awaited before it has finished delays the program for the rest.
Source: RuntimeSimulator in XLA's memory_space_assignment/simulator.{h,cc}. In one thing this is not
what is there: within one instruction's idle time, ProcessAsyncCopyLikesInIdleTime halves the
bandwidth again with every copy that ends while both queues are busy, and leaves it so when one of
them has run dry; here it is half while both are busy, and whole otherwise. None of the numbers
that XLA's own tests expect tells the two apart.
"""

from __future__ import annotations

import collections
from collections.abc import Hashable

# Rounding of sizes and idle times must not leave a copy with a billionth of a byte to go.
_NEGLIGIBLE_BYTES = 1e-6


class Timeline:
    """Queue state and elapsed time of one simulated run. Times in cycles, sizes in bytes."""

    def __init__(self, bytes_per_cycle: float):
        self.bytes_per_cycle = bytes_per_cycle
        self.elapsed = 0.0  # all cycles so far
        self.waited = 0.0  # of these, cycles spent waiting for copies
        self.reads: collections.OrderedDict[Hashable, float] = collections.OrderedDict()
        self.writes: collections.OrderedDict[Hashable, float] = collections.OrderedDict()

    def start_copy(self, key: Hashable, size: float, *, is_read: bool) -> None:
        """Put a copy of `size` bytes at the end of the read or the write queue."""
        if size > 0:
            (self.reads if is_read else self.writes)[key] = float(size)

    def finish_copy(self, key: Hashable, trip_count: int = 1) -> float:
        """Wait until copy `key` is done; returns the cycles waited (0 if it already was)."""
        own, other = (self.reads, self.writes) if key in self.reads else (self.writes, self.reads)
        waited = 0.0
        while key in own:
            size = min([next(iter(own.values())), *list(other.values())[:1]])
            waited += size / (self.bytes_per_cycle * (0.5 if other else 1.0))
            self._progress(own, size)
            self._progress(other, size)
        self.elapsed += waited * trip_count
        self.waited += waited * trip_count
        return waited

    def run(self, cycles: float, default_bytes: float, trip_count: int = 1) -> None:
        """Execute an instruction; copies progress once in the bandwidth that it leaves idle."""
        self.idle(cycles - default_bytes / self.bytes_per_cycle)
        self.elapsed += cycles * trip_count

    def idle(self, cycles: float) -> None:
        """Let the queues use the default-memory bandwidth for `cycles`."""
        while cycles > 0 and (self.reads or self.writes):
            busy = [queue for queue in (self.reads, self.writes) if queue]
            share = self.bytes_per_cycle / len(busy)
            front = min(next(iter(queue.values())) for queue in busy)
            size = min(front, cycles * share)
            cycles -= front / share
            for queue in busy:
                self._progress(queue, size)

    @staticmethod
    def _progress(queue: collections.OrderedDict[Hashable, float], size: float) -> None:
        if queue:
            key = next(iter(queue))
            queue[key] -= size
            if queue[key] <= _NEGLIGIBLE_BYTES:
                del queue[key]
