"""Names of the rules that an assignment can break."""

from __future__ import annotations

import dataclasses

OVERLAP = "overlap"  # two chunks share memory at the same time
CAPACITY = "capacity"  # a chunk is outside the alternate memory
ALIGNMENT = "alignment"  # an offset is not a multiple of the alignment
UNCOVERED = "uncovered"  # a position is in alternate memory while its value has no chunk there
NOT_ALLOWED = "not_allowed"  # the value may not be in alternate memory
PARTIAL = "partial"  # a computed value is in both memories (an alias set is split)
TOO_EARLY = "too_early"  # a chunk or copy begins before the value exists or not in the entry
TOO_LATE = "too_late"  # a chunk or copy ends after the value's last use
NO_COPY = "no_copy"  # a use in alternate memory, of data that no copy has brought there
NO_EVICTION = "no_eviction"  # a use in default memory, of data that no copy has brought there
BANDWIDTH = "bandwidth"  # a copy is not finished when its use begins
OUTSTANDING = "outstanding"  # more copies are under way at one time than the target allows
EXCLUDED = "excluded"  # two placements that the compiler cannot be asked for together
SIZE = "size"  # a chunk, a copy or the slices of one chunk have not the value's size


@dataclasses.dataclass(frozen=True)
class Violation:
    """One broken rule."""

    kind: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"
