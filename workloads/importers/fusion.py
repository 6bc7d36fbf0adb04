"""Fusion of a module that no compiler has fused, so that not every array is moved through memory.

Much simpler than XLA's, in the same spirit: what is computed element by element, or only moves
elements, becomes part of its user if it has one only; at most one product or convolution is in a
fusion, and a reduction ends one. Broadcasts of scalars and index ranges are computed again in every
user. A fusion grows backwards from its root through values that nothing else reads, so that it can
never wait for itself.
"""

from __future__ import annotations

from typing import Any

from workloads.hlo.module import Instruction, Module
from workloads.hlo.schema import message_class

_ELEMENTWISE = frozenset({
    "abs", "add", "and", "atan2", "cbrt", "ceil", "clamp", "compare", "complex", "convert",
    "cosine", "count-leading-zeros", "divide", "erf", "exponential", "exponential-minus-one",
    "floor", "imag", "is-finite", "log", "log-plus-one", "logistic", "maximum", "minimum",
    "multiply", "negate", "not", "or", "popcnt", "power", "real", "reduce-precision",
    "remainder", "round-nearest-afz", "round-nearest-even", "rsqrt", "select", "shift-left",
    "shift-right-arithmetic", "shift-right-logical", "sign", "sine", "sqrt", "subtract", "tan",
    "tanh", "xor",
})  # fmt: skip
_MOVES = frozenset({
    "bitcast", "broadcast", "iota", "pad", "reshape", "reverse", "slice", "dynamic-slice",
    "transpose",
})  # fmt: skip
_PRODUCTS = frozenset({"dot", "convolution"})
_ROOTS_ONLY = frozenset({"reduce", "dynamic-update-slice", "concatenate"})
_MAX_MEMBERS = 64


def fused(serialized: bytes) -> tuple[bytes, int]:
    """A normal-form module with simple fusions, and their number.

    A module that has fusions or a schedule already is for the caller to leave alone.
    """
    module = Module(serialized)
    run = {i.computation for i, _ in module.flattened()}
    state = _Fuser(module)
    for computation in [c for c in module.computations if c in run]:
        state.fuse(computation)
    module.proto.computations.extend(state.new)
    return module.proto.SerializeToString(), len(state.new)


class _Fuser:
    """Fuses one computation after another; collects the computations of the fusions."""

    def __init__(self, module: Module):
        self._module = module
        self._next_id = max(module.instructions) + 1
        self._next_computation = max(module.computations) + 1
        self.new: list[Any] = []

    def fuse(self, computation: int) -> None:
        """Fuse what can be in one computation."""
        sequence = self._module.sequence(computation)
        users: dict[int, set[int]] = {}
        for instruction in sequence:
            for operand in instruction.proto.operand_ids:
                users.setdefault(operand, set()).add(instruction.id)
        root = self._module.computations[computation].root_id
        # What the program returns, or something else waits for, stays an instruction of its own.
        kept = {root}.union(*(i.proto.control_predecessor_ids for i in sequence))
        absorbed: set[int] = set()
        fusions: dict[int, Any] = {}
        for instruction in reversed(sequence):
            if instruction.id in absorbed or not _may_be_root(instruction):
                continue
            members = _members(instruction, users, kept)
            if any(m.opcode not in _MOVES or m.opcode == "broadcast" for m in members[1:]):
                fusions[instruction.id] = self._fusion(members)
                absorbed.update(m.id for m in members[1:] if not _is_cheap(m))
        protos = [fusions.get(i.id, i.proto) for i in sequence if i.id not in absorbed]
        _replace(self._module.computations[computation], _needed(protos, root))

    def _fusion(self, members: list[Instruction]) -> Any:
        """The fusion instruction of a root (first) and what it absorbs; it keeps the root's id."""
        inside = {m.id for m in members}
        order = sorted(members, key=lambda m: self._position(m))
        body = message_class("Computation")(
            name=f"fused_{members[0].name}", id=self._next_computation
        )
        self._next_computation += 1
        new_ids: dict[int, int] = {}
        outer: list[Instruction] = []
        for member in order:
            for operand in member.operands:
                if operand.id not in inside and operand.id not in new_ids:
                    parameter = body.instructions.add(
                        id=self._take_id(), name=f"{body.name}.{operand.name}", opcode="parameter",
                        parameter_number=len(outer),
                    )  # fmt: skip
                    parameter.shape.CopyFrom(operand.proto.shape)
                    new_ids[operand.id] = parameter.id
                    outer.append(operand)
        for member in order:
            copy = body.instructions.add()
            copy.CopyFrom(member.proto)
            copy.id = new_ids[member.id] = self._take_id()
            copy.name = f"{body.name}.{member.name}"
            copy.operand_ids[:] = [new_ids[i] for i in member.proto.operand_ids]
            del copy.control_predecessor_ids[:]
        root = members[0]
        body.root_id = new_ids[root.id]
        self.new.append(body)
        fusion = message_class("Instruction")(id=root.id, name=root.name, opcode="fusion")
        fusion.shape.CopyFrom(root.proto.shape)
        fusion.operand_ids[:] = [operand.id for operand in outer]
        fusion.called_computation_ids[:] = [body.id]
        fusion.control_predecessor_ids[:] = root.proto.control_predecessor_ids
        return fusion

    def _position(self, instruction: Instruction) -> int:
        order = self.__dict__.setdefault("_order", {})
        if instruction.id not in order:
            sequence = self._module.sequence(instruction.computation)
            order.update({i.id: n for n, i in enumerate(sequence)})
        return order[instruction.id]

    def _take_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1


def _may_be_root(instruction: Instruction) -> bool:
    opcode = instruction.opcode
    does_work = opcode in _ELEMENTWISE or opcode in _PRODUCTS or opcode in _ROOTS_ONLY
    return does_work or (opcode in _MOVES - {"bitcast"} and not _is_cheap(instruction))


def _is_cheap(instruction: Instruction) -> bool:
    """Whether every user may compute it again: no array is read for it."""
    if instruction.opcode == "broadcast":
        return not instruction.operands[0].proto.shape.dimensions
    return instruction.opcode == "iota"


def _members(root: Instruction, users: dict[int, set[int]], kept: set[int]) -> list[Instruction]:
    """The root and all that is fused into it; kept: ids that may only be roots."""
    members = [root]
    inside = {root.id}
    num_products = int(root.opcode in _PRODUCTS)
    for member in members:  # grows
        if _is_cheap(member):
            continue  # others may compute it too, and need its operand
        for operand in member.operands:
            opcode = operand.opcode
            is_product = opcode in _PRODUCTS
            if (
                operand.id not in inside
                and len(members) < _MAX_MEMBERS
                and operand.id not in kept
                and not operand.proto.control_predecessor_ids
                and (opcode in _ELEMENTWISE or opcode in _MOVES or is_product)
                and (_is_cheap(operand) or users[operand.id] <= inside)
                # Products end in elementwise work; they are no input of reductions and the like.
                and not (is_product and (num_products or member.opcode not in _ELEMENTWISE))
            ):
                num_products += is_product
                inside.add(operand.id)
                members.append(operand)
    return members


def _needed(protos: list[Any], root: int) -> list[Any]:
    """Instructions without the cheap ones that nothing uses any more."""
    while True:
        used = {root} | {i for p in protos for i in (*p.operand_ids, *p.control_predecessor_ids)}
        needed = [p for p in protos if p.id in used or p.opcode not in ("broadcast", "iota")]
        if len(needed) == len(protos):
            return needed
        protos = needed


def _replace(computation: Any, protos: list[Any]) -> None:
    kept = [type(p).FromString(p.SerializeToString()) for p in protos]
    computation.ClearField("instructions")
    computation.instructions.extend(kept)
