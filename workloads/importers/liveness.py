"""Buffers and live ranges of a module that no compiler has dumped.

What XLA's copy insertion and alias analysis would settle is settled here, more simply: which
arrays share a buffer, and which need a copy first because something else still reads them.
Source of the rules: openxla/xla copy_insertion.cc and hlo_dataflow_analysis.cc
(GetInPlaceInputOutputPairs).
"""

from __future__ import annotations

from collections.abc import Iterator

from malloc_game.problem.definition import index_text
from workloads.errors import WorkloadError
from workloads.extraction.buffers import Buffer, DataFlow, MsaDump, Place
from workloads.hlo.module import Instruction, Module
from workloads.hlo.schema import message_class

_PASSES_ON = frozenset({"get-tuple-element", "tuple", "bitcast", "optimization-barrier"})
Index = tuple[int, ...]


def insert_copies(serialized: bytes) -> bytes:
    """A normal-form module in which no loop writes over what something else still reads.

    An array that a loop changes is copied first if it is a constant or a parameter that is not
    donated, if it enters the loop twice, if it is used after the loop, or if it is a loop-invariant
    array of the loop around.
    """
    module = Module(serialized)
    order = {i.id: t for t, (i, _) in enumerate(module.flattened())}
    last_use = _last_uses(module, order)
    donated = {(module.parameters(module.entry_id)[n].id, index)
               for _, n, index in parameter_aliases(module)}  # fmt: skip
    loops = [i for i in module.instructions.values() if i.opcode == "while" and i.id in order]
    kept = {place for loop in loops for place in _invariant(module, loop)}
    next_id = max(module.instructions) + 1
    names = {i.name for i in module.instructions.values()}
    new: dict[int, list] = {}  # computation -> (before which instruction, proto)
    for loop in loops:
        carry = loop.operands[0]
        if carry.opcode != "tuple":
            continue
        body_parameter = module.parameters(loop.proto.called_computation_ids[0])[0]
        seen: set[Place] = set()
        for number, operand in enumerate(carry.operands):
            if set(operand.leaves) != {()} or not _rank(operand, ()):
                continue
            place = _origin(operand)
            source = module.instructions[place[0]]
            is_read_only = source.opcode == "constant" or place in kept
            if source.opcode == "parameter" and source.computation == module.entry_id:
                is_read_only = place not in donated
            is_shared = place in seen or last_use.get(place, -1) > order[loop.id]
            seen.add(place)
            if (body_parameter.id, (number,)) in kept or not (is_read_only or is_shared):
                continue
            copy = message_class("Instruction")()
            copy.id, copy.opcode = next_id, "copy"
            copy.name = f"copy-for-{loop.name}.{number}"
            while copy.name in names:
                copy.name += "'"
            names.add(copy.name)
            copy.shape.CopyFrom(operand.proto.shape)
            copy.operand_ids.append(operand.id)
            carry.proto.operand_ids[number] = next_id
            new.setdefault(carry.computation, []).append((carry.id, copy))
            next_id += 1
    for computation, copies in new.items():
        _insert(module.computations[computation], copies)
    return module.proto.SerializeToString()


def _insert(computation, copies: list) -> None:
    instructions = []
    for instruction in computation.instructions:
        instructions += [copy for before, copy in copies if before == instruction.id]
        instructions.append(instruction)
    kept = [type(i).FromString(i.SerializeToString()) for i in instructions]
    computation.ClearField("instructions")
    computation.instructions.extend(kept)


def _origin(instruction: Instruction, index: Index = ()) -> Place:
    """The place that defines an array, within its own computation."""
    while True:
        if instruction.opcode == "get-tuple-element":
            index = (instruction.proto.tuple_index, *index)
        elif instruction.opcode == "tuple" and index:
            instruction, index = instruction.operands[index[0]], index[1:]
            continue
        elif instruction.opcode not in ("bitcast", "optimization-barrier"):
            return instruction.id, index
        instruction = instruction.operands[0]


def _last_uses(module: Module, order: dict[int, int]) -> dict[Place, int]:
    """Time of the last use of each place; that of what the program returns is past the end."""
    found: dict[Place, int] = {}
    for instruction, _ in module.flattened():
        if instruction.opcode in _PASSES_ON:
            continue
        for operand in instruction.operands:
            for index in operand.leaves:
                place = _origin(operand, index)
                found[place] = max(found.get(place, -1), order[instruction.id])
    root = module.root(module.entry_id)
    for index in root.leaves:
        found[_origin(root, index)] = len(order)
    return found


def _invariant(module: Module, loop: Instruction) -> Iterator[Place]:
    """Places of a loop's body parameter that the body hands on as they are."""
    body = loop.proto.called_computation_ids[0]
    root, parameter = module.root(body), module.parameters(body)[0]
    for index in parameter.leaves:
        if index in root.leaves and _origin(root, index) == (parameter.id, index):
            yield parameter.id, index


def parameter_aliases(module: Module) -> list[tuple[Index, int, Index]]:
    """Donations: (index of the output, number of the parameter, index in it)."""
    entries = message_class("ModuleAliases").FromString(module.proto.SerializeToString())
    return [
        (tuple(e.output_index), e.parameter, tuple(e.parameter_index))
        for e in entries.input_output_alias.entries
    ]


def data_flow(module: Module) -> DataFlow:
    """Which arrays share a buffer: loops, donations, and updates in place.

    An update is in place unless what it updates is read again later, or is a constant or a
    parameter that is not donated.
    """
    flow = DataFlow(module)
    root = module.root(module.entry_id)
    parameters = module.parameters(module.entry_id)
    read_only = {flow.source(p, index) for p in parameters for index in p.leaves}
    for output, number, index in parameter_aliases(module):
        if number >= len(parameters) or output not in root.leaves:
            raise WorkloadError("a donation names a parameter or output it lacks")
        place = flow.source(parameters[number], index)
        read_only.discard(place)
        flow.unite(flow.source(root, output), place)
    flattened = [i for i, _ in module.flattened()]
    last_use: dict[Place, int] = {}
    for time, instruction in enumerate(flattened):
        if instruction.opcode not in _PASSES_ON:
            for operand in instruction.operands:
                for index in operand.leaves:
                    last_use[flow.source(operand, index)] = time
    for index in root.leaves:
        last_use[flow.source(root, index)] = len(flattened)
    for time, instruction in enumerate(flattened):
        for output, number, index, is_stated in in_place_pairs(instruction):
            if number >= len(instruction.operands):
                raise WorkloadError(f"{instruction.name} has no operand {number}")
            old = flow.source(instruction.operands[number], index)
            is_constant = module.instructions[old[0]].opcode == "constant"
            is_free = last_use.get(old, time) <= time and old not in read_only and not is_constant
            if is_stated or is_free:
                new = flow.source(instruction, output)
                later = max(last_use.get(old, time), last_use.get(new, time))
                flow.unite(old, new)
                last_use[flow.find(old)] = later
    return flow


def in_place_pairs(instruction: Instruction) -> Iterator[tuple[Index, int, Index, bool]]:
    """(index of the output, operand, index in it, whether the module says so) of updates."""
    for alias in instruction.geometry.output_operand_aliasing:
        yield tuple(alias.output_index), alias.operand, tuple(alias.operand_index), True
    if instruction.opcode == "fusion":
        root = instruction.module.root(instruction.proto.called_computation_ids[0])
        parts = enumerate(root.operands) if root.opcode == "tuple" else [(None, root)]
        for number, part in parts:
            updated = updated_parameter(part)
            if updated is not None:
                yield () if number is None else (number,), updated, (), False
    elif instruction.opcode == "dynamic-update-slice":
        yield (), 0, (), False
    elif instruction.opcode == "scatter":
        count = (len(instruction.operands) - 1) // 2
        for number in range(count):
            yield () if count == 1 else (number,), number, (), False


def updated_parameter(inner: Instruction) -> int | None:
    """Number of the fusion's parameter that `inner`, a result of it, updates; None if none."""
    while inner.opcode == "bitcast":
        inner = inner.operands[0]
    if inner.opcode not in ("dynamic-update-slice", "scatter"):
        return None
    updated = inner.operands[0]
    while updated.opcode == "bitcast":
        updated = updated.operands[0]
    return updated.proto.parameter_number if updated.opcode == "parameter" else None


def dump_of(module: Module, flow: DataFlow, largest: int) -> MsaDump:
    """Buffers, uses and live ranges as the compiler's memory-space-assignment dump has them.

    largest: bytes; larger buffers are left out, as in the compiler's dump. So are constants, and
    scalars, which have a memory of their own.
    """
    flattened = [i for i, _ in module.flattened()]
    schedule = {i.name: t for t, i in enumerate(flattened)}
    found: dict[Place, Buffer] = {}
    for time, instruction in enumerate(flattened):
        hands_on = instruction.opcode in _PASSES_ON or (
            instruction.is_async_start or instruction.is_async_done or instruction.is_concat_bitcast
        )
        if not hands_on:
            for number, operand in enumerate(instruction.operands):
                for index in operand.leaves:
                    used = found.get(flow.source(operand, index))
                    if used is not None:
                        used.uses[instruction.name, number, index] = time
        if hands_on or instruction.opcode in ("constant", "while"):
            continue
        for index, leaf in instruction.leaves.items():
            if leaf.size_bytes == 0 or not _rank(instruction, index):
                continue
            label = instruction.name + index_text(index)
            fresh = Buffer(label, instruction.name, index, leaf.size_bytes, time, {}, set())
            buffer = found.setdefault(flow.source(instruction, index), fresh)
            buffer.names.add(label)
            buffer.size_bytes = max(buffer.size_bytes, leaf.size_bytes)
    fitting = [b for b in found.values() if b.size_bytes <= largest]
    return MsaDump(schedule, dict(enumerate(fitting)), [])


def _rank(instruction: Instruction, index: Index) -> int:
    """Number of dimensions of an array in the output."""
    shape = instruction.proto.shape
    for i in index:
        shape = shape.tuple_shapes[i]
    return len(shape.dimensions)
