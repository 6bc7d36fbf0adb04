"""The latency of a compiled module: the one function that judges XLA's default and every baseline.

Cycles are the compiler's own `estimated_cycles`; asynchronous copies and slices run through the
runtime simulator. Where code generation gave an instruction no estimate, its default-memory traffic
at full bandwidth stands in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from malloc_game import Target, Timeline
from workloads.hlo.module import Instruction, Module

ZERO_COST = frozenset({
    "parameter", "constant", "bitcast", "tuple", "get-tuple-element", "while", "conditional",
    "call", "after-all", "optimization-barrier", "partition-id", "replica-id", "async-start",
    "async-update",
})  # fmt: skip


@dataclasses.dataclass(frozen=True)
class CompiledLatency:
    """Cycles of one run of a compiled program, by the compiler's own estimates."""

    cycles: float
    wait_cycles: float  # part of `cycles` spent waiting for copies


def traffic(instruction: Instruction) -> tuple[int, int]:
    """Bytes of operands and outputs in default memory, and in all memories.

    A call that another core works on (SparseCore offload) counts where it is awaited, and as if it
    read what it writes: it only gathers or rearranges, and gains nothing from our placements.
    """
    leaves = list(instruction.leaves.values())
    if instruction.opcode == "async-done":
        size = 2 * sum(leaf.size_bytes for leaf in leaves)
        return size, size
    leaves += [leaf for o in instruction.operands for leaf in o.leaves.values()]
    in_default = sum(leaf.size_bytes for leaf in leaves if leaf.memory_space == 0)
    return in_default, sum(leaf.size_bytes for leaf in leaves)


def is_timed(instruction: Instruction) -> bool:
    """Whether an instruction takes time of its own (asynchronous copies do not)."""
    return not (
        instruction.opcode in ZERO_COST
        or instruction.is_async_start
        or instruction.is_async_done
        or (instruction.is_free_call and instruction.estimated_cycles is None)
    )


def copy_size(start: Instruction, target: Target) -> tuple[int, bool]:
    """Bytes of an asynchronous copy or slice, and whether it reads default memory.

    Copies within one memory have no bytes here, as in XLA's simulator.
    """
    operand = next(iter(start.operands[0].leaves.values()))
    index = (0,) if start.opcode == "copy-start" else (1,)
    result = start.leaves[index]
    spaces = (operand.memory_space, result.memory_space)
    if spaces == (0, target.alternate_memory_space):
        return result.size_bytes, True
    if spaces == (target.alternate_memory_space, 0):
        return result.size_bytes, False
    return 0, True


def compiled_latency(
    module: Module,
    target: Target,
    cycles_of: Callable[[Instruction], int | None] = lambda i: i.estimated_cycles,
) -> CompiledLatency:
    """Judge a compiled, scheduled module.

    cycles_of: cycles of one execution of an instruction, None where there is no estimate.
    """
    timeline = Timeline(target.default_bytes_per_cycle)
    for instruction, trips in module.flattened():
        if instruction.is_async_start:
            size, is_read = copy_size(instruction, target)
            timeline.start_copy(instruction.id, size, is_read=is_read)
        elif instruction.is_async_done:
            timeline.finish_copy(instruction.operands[0].id, trips)
        elif is_timed(instruction):
            in_default, _ = traffic(instruction)
            cycles: float | None = cycles_of(instruction)
            if cycles is None:
                cycles = in_default / target.default_bytes_per_cycle
            timeline.run(cycles, in_default, trips)
    return CompiledLatency(timeline.elapsed, timeline.waited)
