"""A mapping as the compiler is told of it, and what it says of that.

`text` writes `MsaTensorOverrides`, `packing` the order of placement, `permits` sets of values that
the compiler may place by itself. `refusals` reads errors back, `comparison` says which decisions of
one mapping hold in another. Start at `text`.
"""

from workloads.overrides.comparison import compare
from workloads.overrides.permits import Benefits, permit
from workloads.overrides.text import overrides

__all__ = ["compare", "overrides", "permit", "Benefits"]
