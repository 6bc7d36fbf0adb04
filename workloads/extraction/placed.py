"""A compiled program as memory-space assignment saw it, with the cycles that it got later.

Overrides and dumps speak of the module at the time of memory-space assignment. Code generation may
split an instruction afterwards (on tpu7x a fused matmul chain comes apart), with other operands and
new names. Cycles of the parts belong to the instruction that they were split from.
"""

from __future__ import annotations

from workloads.compiler.session import Compiled
from workloads.costs.judge import is_timed
from workloads.hlo.module import Instruction, Module


def placed_module(compiled: Compiled) -> Module:
    """The module that memory-space assignment left, each instruction with its estimated cycles."""
    if not compiled.placed:
        return Module(compiled.hlo)
    module, final = Module(compiled.placed), Module(compiled.hlo)
    known = {instruction.name for instruction in module.instructions.values()}
    cycles: dict[str, int] = {}
    for instruction, _ in final.flattened():
        if instruction.estimated_cycles is None:
            continue
        owner: Instruction | None = instruction
        if instruction.name not in known and is_timed(instruction):
            owner = _first_user(final, instruction, known)
        if owner is not None:
            cycles[owner.name] = cycles.get(owner.name, 0) + instruction.estimated_cycles
    for instruction in module.instructions.values():
        instruction.estimated_cycles = cycles.get(instruction.name)
    return module


def _first_user(final: Module, part: Instruction, known: set[str]) -> Instruction | None:
    """The instruction that a part of it was split from: the first known one that its result meets.

    None if its result goes to none.
    """
    reached = {part.id}
    for user in final.sequence(part.computation):
        if reached.intersection(user.proto.operand_ids):
            if user.name in known and is_timed(user):
                return user
            reached.add(user.id)
    return None
