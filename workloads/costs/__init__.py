"""What instructions cost, and how a compiled module is judged.

`judge` is the one function that judges XLA's default and every other mapping; `store` remembers
what the compiler said of an instruction under each placement, `model` stands in where it has not
spoken. Start at `judge`.
"""

from workloads.costs.judge import CompiledLatency, compiled_latency
from workloads.costs.store import CostStore

__all__ = ["compiled_latency", "CompiledLatency", "CostStore"]
