"""What an instruction costs if nothing but arithmetic and default memory takes time.

It stands in where the compiler has said nothing of an instruction, and every problem that holds
such costs says so. Cycles are max(flops / peak, bytes / bandwidth); bytes are those of the arrays
in default memory that the instruction touches, alternate memory is taken to be free.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from malloc_game import CostTable, Target
from malloc_game.problem.definition import MAX_PRICED_POSITIONS
from workloads.errors import WorkloadError
from workloads.extraction.structure import Row, Slot
from workloads.hlo.module import Instruction
from workloads.importers.liveness import in_place_pairs

# Dense bfloat16 FLOP/s that Google publishes for a chip; of tpu7x half a chip's, for one core, as
# in its `Target`.
PEAK_FLOPS = {"v4": 275e12, "v5e": 197e12, "v6e": 918e12, "v5p": 459e12, "tpu7x": 1153.5e12}

_MAX_CYCLES = (1 << 31) - 1
_MAX_PAIRS = 1 << 24  # of output and kernel positions that are counted one by one
_NO_ARITHMETIC = frozenset({
    "parameter", "constant", "bitcast", "tuple", "get-tuple-element", "copy", "reshape",
    "transpose", "broadcast", "slice", "dynamic-slice", "dynamic-update-slice", "gather",
    "concatenate", "pad", "iota", "reverse", "while", "conditional", "bitcast-convert",
    "after-all", "optimization-barrier", "custom-call", "copy-start", "copy-done",
})  # fmt: skip
_READS_PART = frozenset({"slice", "dynamic-slice", "gather"})


def table(row: Row, target: Target) -> CostTable:
    """The cost table of an instruction; no entry is known from the compiler.

    Raises: WorkloadError for a target without a published peak.
    """
    if target.name not in PEAK_FLOPS:
        raise WorkloadError(f"no peak FLOP/s is known for target {target.name!r}")
    compute = flops(row.instruction) / PEAK_FLOPS[target.name] * target.clock_hz
    moved = touched_bytes(row.instruction)
    num_bits = min(len(row.slots), MAX_PRICED_POSITIONS)
    priced = np.array([moved.get(slot, 0) for slot in row.slots[:num_bits]], np.float64)
    other = sum(moved.values()) - priced.sum()
    bits = np.arange(1 << num_bits)[:, None] >> np.arange(num_bits) & 1
    in_default = other + (1 - bits) @ priced
    cycles = np.maximum(in_default / target.default_bytes_per_cycle, compute)
    cycles = np.clip(np.ceil(cycles - 1e-6), 1, _MAX_CYCLES).astype(np.int64)
    return CostTable(tuple(cycles.tolist()), (False,) * len(cycles))


def touched_bytes(instruction: Instruction) -> dict[Slot, int]:
    """Bytes that an instruction reads or writes of each of its arrays.

    Slices and gathers read what they return; an update in place writes the update.
    """
    if instruction.opcode == "async-done":  # the call before it has read as much as it returns
        size = sum(leaf.size_bytes for leaf in instruction.leaves.values())
        return {(True, 0, ()): 2 * size}
    moved: dict[Slot, int] = {}
    for number, operand in enumerate(instruction.operands):
        for index, leaf in operand.leaves.items():
            read = _read_bytes(instruction, number) if index == () else None
            moved[False, number, index] = min(
                leaf.size_bytes, leaf.size_bytes if read is None else read
            )
    for index, leaf in instruction.leaves.items():
        moved[True, 0, index] = leaf.size_bytes
    for output, number, index, _ in in_place_pairs(instruction):
        update = _update_bytes(instruction, output)
        if update is not None and (True, 0, output) in moved:
            moved[True, 0, output] = min(update, moved[True, 0, output])
            moved[False, number, index] = 0
    return moved


def _size(instruction: Instruction) -> int:
    return sum(leaf.size_bytes for leaf in instruction.leaves.values())


def _read_bytes(instruction: Instruction, number: int) -> int | None:
    """Bytes read of an operand of which only a part is; None where it is all of it."""
    if instruction.opcode in _READS_PART:
        return _size(instruction) if number == 0 else None
    if instruction.opcode != "fusion":
        return None
    users = _fusion_users(instruction).get(number, [])
    if not users or not all(u.opcode in _READS_PART for u, is_first in users if is_first):
        return None
    return sum(_size(u) for u, _ in users) if all(first for _, first in users) else None


def _fusion_users(fusion: Instruction) -> dict[int, list[tuple[Instruction, bool]]]:
    """For each parameter of a fusion: its users inside, and whether as the first operand."""
    found: dict[int, list[tuple[Instruction, bool]]] = {}
    for inner in fusion.module.sequence(fusion.proto.called_computation_ids[0]):
        for place, operand in enumerate(inner.operands):
            if operand.opcode == "parameter":
                number = operand.proto.parameter_number
                found.setdefault(number, []).append((inner, place == 0))
    return found


def _update_bytes(instruction: Instruction, output: tuple[int, ...]) -> int | None:
    """Bytes of the update that output `output` of an instruction writes in place."""
    update = instruction
    if instruction.opcode == "fusion":
        update = instruction.module.root(instruction.proto.called_computation_ids[0])
        update = update.operands[output[0]] if output else update
    while update.opcode == "bitcast":
        update = update.operands[0]
    if update.opcode == "dynamic-update-slice":
        return _size(update.operands[1])
    if update.opcode == "scatter":
        return 2 * _size(update.operands[-1])  # read, combined, written
    return None


# -- arithmetic ------------------------------------------------------------------------------


def flops(instruction: Instruction) -> float:
    """Floating-point operations of an instruction, multiply and add counted as two.

    Products and convolutions are counted exactly, padding and holes left out; everything else is
    one operation for each element of the output (of the first operand for reductions).
    """
    opcode = instruction.opcode
    if opcode == "fusion":
        called = instruction.proto.called_computation_ids[0]
        return sum(flops(i) for i in instruction.module.sequence(called))
    if opcode in _NO_ARITHMETIC or opcode.startswith(("async-", "slice-")):
        return 0.0
    if opcode == "dot":
        left = instruction.operands[0].proto.shape.dimensions
        contracted = instruction.geometry.dot.lhs_contracting
        return 2.0 * _elements(instruction) * math.prod(_at(left, d) for d in contracted)
    if opcode == "convolution":
        return _convolution_flops(instruction)
    if opcode in ("reduce", "reduce-window", "all-reduce", "select-and-scatter"):
        window = math.prod(d.size for d in instruction.geometry.window.dimensions)
        if opcode == "reduce-window":
            return float(_elements(instruction)) * window
        return float(_elements(instruction.operands[0]))
    return float(_elements(instruction))


def _elements(instruction: Instruction) -> int:
    shape = instruction.proto.shape
    while shape.tuple_shapes:
        shape = shape.tuple_shapes[0]
    return math.prod(shape.dimensions)


def _at(dimensions, number: int) -> int:
    if not 0 <= number < len(dimensions):
        raise WorkloadError(f"dimension {number} of {len(dimensions)} is named")
    return dimensions[number]


def _convolution_flops(instruction: Instruction) -> float:
    geometry, numbers = instruction.geometry, instruction.geometry.convolution
    image, kernel = (o.proto.shape.dimensions for o in instruction.operands[:2])
    output = instruction.proto.shape.dimensions
    features = _at(kernel, numbers.kernel_input_feature) * _at(
        kernel, numbers.kernel_output_feature
    )
    batch = _at(image, numbers.input_batch) / max(geometry.batch_group_count, 1)
    pairs = math.prod(
        _valid_pairs(
            _at(image, i), _at(output, o), w.size, w.stride or 1, w.padding_low,
            w.window_dilation or 1, w.base_dilation or 1,
        )
        for i, o, w in zip(
            numbers.input_spatial, numbers.output_spatial, geometry.window.dimensions, strict=False
        )
    )  # fmt: skip
    return 2.0 * features * batch * pairs


@functools.lru_cache(maxsize=1024)
def _valid_pairs(
    size: int, output: int, window: int, stride: int, low: int, dilation: int, holes: int
) -> int:
    """Pairs of an output and a kernel position that meet an element of the input."""
    if output * window > _MAX_PAIRS:
        return min(output * window, output * size)
    at = np.arange(output)[:, None] * stride - low + np.arange(window) * dilation
    return int(((at >= 0) & (at < (size - 1) * holes + 1) & (at % holes == 0)).sum())
