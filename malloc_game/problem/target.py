"""Accelerators as the game sees them: a small fast memory in front of a large slow one."""

from __future__ import annotations

import dataclasses

MIB = 1 << 20


@dataclasses.dataclass(frozen=True)
class Target:
    """One accelerator with a default (slow, large) and an alternate (fast, small) memory.

    Any accelerator can be described; the records in `TARGETS` are TPU generations.
    """

    name: str
    alternate_memory_bytes: int  # what the compiler gives to one program, scoped memory deducted
    alignment_bytes: int  # chunks start and end on multiples of this
    default_bandwidth_bytes_per_second: float
    clock_hz: float
    alternate_memory_space: int  # XLA's number of the space: `S(n)` in an HLO layout
    source: str = ""
    max_outstanding_copies: int = 0  # that may be under way at one time; 0 for no limit

    @property
    def default_bytes_per_cycle(self) -> float:
        """Default-memory bandwidth in bytes per clock cycle."""
        return self.default_bandwidth_bytes_per_second / self.clock_hz

    def seconds(self, cycles: float) -> float:
        """Convert clock cycles to seconds."""
        return cycles / self.clock_hz


def _tpu(name: str, kib: int, gb_per_s: float, ghz: float, space: int, source: str) -> Target:
    return Target(name, kib * 1024, 1024, gb_per_s * 1e9, ghz * 1e9, space, source)


# Capacities are what libtpu 0.0.52 says is available, and accepts to be pinned to the last KiB
# (v5p: what it says); bandwidths are Google's public figures; clocks follow from public peak FLOP/s
# (v6e and tpu7x: not verified).
_PUBLIC = "bandwidth: public figure; clock: from public peak FLOP/s; "
TARGETS: dict[str, Target] = {
    t.name: t
    for t in (
        _tpu("v4", 65536, 1228, 1.05, 3, _PUBLIC + "capacity: CMEM limit the compiler prints"),
        _tpu("v5e", 114688, 819, 1.5, 1, _PUBLIC + "capacity: 128 MiB VMEM - 16 MiB scoped"),
        _tpu("v6e", 98240, 1640, 1.75, 1, _PUBLIC + "capacity: 128 MiB VMEM - 32 MiB scoped"),
        _tpu("v5p", 49088, 2765, 1.75, 1, _PUBLIC + "capacity: 64 MiB VMEM - 16 MiB scoped"),
        _tpu("tpu7x", 32704, 3685, 1.75, 1, _PUBLIC + "capacity: 64 MiB - 32 MiB scoped; one core"),
    )
}
