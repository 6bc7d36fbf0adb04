"""Scheduled HLO modules as light records, read from XLA's own serialized proto.

XLA's parser and the compiler make the proto; `hlo_schema` has the messages that decode it.
Source of names and numbers: openxla/xla xla/service/hlo.proto and xla/xla_data.proto.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import math
from collections.abc import Iterator

from google.protobuf.message import DecodeError

from workloads.errors import WorkloadError
from workloads.hlo.schema import message_class

# Names and bits of XLA's PrimitiveType numbers; tuple, token and opaque have neither.
_ELEMENT_TYPES = {
    1: ("pred", 8), 2: ("s8", 8), 3: ("s16", 16), 4: ("s32", 32), 5: ("s64", 64), 6: ("u8", 8),
    7: ("u16", 16), 8: ("u32", 32), 9: ("u64", 64), 10: ("f16", 16), 11: ("f32", 32),
    12: ("f64", 64), 15: ("c64", 64), 16: ("bf16", 16), 18: ("c128", 128), 19: ("f8e5m2", 8),
    20: ("f8e4m3fn", 8), 21: ("s4", 4), 22: ("u4", 4), 23: ("f8e4m3b11fnuz", 8),
    24: ("f8e5m2fnuz", 8), 25: ("f8e4m3fnuz", 8), 26: ("s2", 2), 27: ("u2", 2),
    28: ("f8e4m3", 8), 29: ("f8e3m4", 8), 32: ("f4e2m1fn", 4), 33: ("f8e8m0fnu", 8),
}  # fmt: skip
_TUPLE = 13
_FREE_CALLS = frozenset(
    {"AllocateBuffer", "AssumeGatherIndicesInBound", "ConcatBitcast", "NopReturnToken"}
)


def module_bytes(hlo_proto: bytes) -> bytes:
    """The serialized HloModuleProto in a serialized HloProto, which is what XLA dumps.

    Raises:
      WorkloadError: the bytes are no HloProto.
    """
    try:
        return message_class("HloProto").FromString(hlo_proto).hlo_module
    except DecodeError as error:
        raise WorkloadError(f"not a serialized HloProto: {error}") from error


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One array of a shape."""

    size_bytes: int  # as padded by the layout's tiles
    memory_space: int
    # What it takes of each memory where the layout splits it between those of several cores (v5p
    # does that in alternate memory), at the same offset in all; `size_bytes` where it does not.
    part_bytes: int
    shape: str  # as XLA writes it, without the layout: `bf16[512,4096]`


def _element_type(shape) -> tuple[str, int]:
    """Name of the element type, and its bits."""
    return _ELEMENT_TYPES.get(shape.element_type, ("?", 0))


def _shape_text(shape) -> str:
    return f"{_element_type(shape)[0]}[{','.join(map(str, shape.dimensions))}]"


def _padded_bytes(shape, *, of_part: bool = False) -> int:
    """Bytes of an array as its layout's first tile pads it (later tiles divide the first).

    of_part: of the largest part into which the layout splits it.
    """
    bits = shape.layout.element_size_in_bits or _element_type(shape)[1]
    order = list(shape.layout.minor_to_major) or list(reversed(range(len(shape.dimensions))))
    dimensions = [shape.dimensions[i] for i in reversed(order)]  # major to minor
    for split in shape.layout.split_configs if of_part else ():
        ends = (0, *split.split_indices, dimensions[split.dimension])
        dimensions[split.dimension] = max(b - a for a, b in itertools.pairwise(ends))
    if shape.layout.tiles:
        tile = list(shape.layout.tiles[0].dimensions)
        dimensions = [1] * (len(tile) - len(dimensions)) + dimensions
        first = len(dimensions) - len(tile)
        for i, width in enumerate(tile):
            if width > 0:
                dimensions[first + i] = math.ceil(dimensions[first + i] / width) * width
    return math.ceil(math.prod(dimensions) * bits / 8)


def _leaves(shape, index: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], Leaf]]:
    if shape.element_type == _TUPLE:
        for i, part in enumerate(shape.tuple_shapes):
            yield from _leaves(part, (*index, i))
    else:
        size, part = _padded_bytes(shape), _padded_bytes(shape, of_part=True)
        yield index, Leaf(size, shape.layout.memory_space, part, _shape_text(shape))


class Instruction:
    """One HLO instruction: a view of its proto within a module."""

    def __init__(self, proto, module: Module, computation: int):
        self.proto = proto
        self.module = module
        self.computation = computation  # id

    name = property(lambda self: self.proto.name)
    opcode = property(lambda self: self.proto.opcode)
    id = property(lambda self: self.proto.id)

    @functools.cached_property
    def operands(self) -> list[Instruction]:
        """Operands, in order."""
        return [self.module.instructions[i] for i in self.proto.operand_ids]

    @functools.cached_property
    def leaves(self) -> dict[tuple[int, ...], Leaf]:
        """Arrays of the output shape by tuple index."""
        return dict(_leaves(self.proto.shape))

    @functools.cached_property
    def estimated_cycles(self) -> int | None:
        """The compiler's own estimate, or None where code generation gave none."""
        return _find_cycles(self.config)

    @functools.cached_property
    def config(self) -> dict:
        """The backend config, which the compiler writes as JSON; empty where it is not that."""
        try:
            config = json.loads(self.proto.backend_config or b"{}")
        except (ValueError, RecursionError):
            return {}
        return config if isinstance(config, dict) else {}

    @functools.cached_property
    def geometry(self):
        """Windows, dimension numbers and aliases, as a message `Geometry` of the schema."""
        return message_class("Geometry").FromString(self.proto.SerializeToString())

    @functools.cached_property
    def keeps_layout(self) -> bool:
        """Whether output and first operand have the same shape and layout, placement aside."""
        return _canonical_shape(self.proto.shape) == _canonical_shape(self.operands[0].proto.shape)

    @property
    def is_concat_bitcast(self) -> bool:
        """Whether it names slices that were copied one by one as the whole again, at no cost."""
        return self.opcode == "custom-call" and self.proto.custom_call_target == "ConcatBitcast"

    @property
    def is_free_call(self) -> bool:
        """Whether it is a custom call that only tells the compiler something."""
        return self.opcode == "custom-call" and self.proto.custom_call_target in _FREE_CALLS

    @property
    def is_async_start(self) -> bool:
        """Whether it starts a copy or a slice between memories."""
        if self.opcode == "async-start":
            return self.module.root_opcode(self.proto.called_computation_ids[0]) == "slice"
        return self.opcode in ("copy-start", "slice-start")

    @property
    def is_async_done(self) -> bool:
        """Whether it awaits a copy or a slice between memories."""
        if self.opcode == "async-done":
            return self.operands[0].is_async_start
        return self.opcode in ("copy-done", "slice-done")

    @property
    def is_cross_program_prefetch(self) -> bool:
        """Whether it starts a copy for which the program before has already made room."""
        return bool(self.proto.cross_program_prefetch_index)

    @property
    def slice_starts(self) -> tuple[int, ...]:
        """First index in each dimension of a slice or of the start of one; else nothing."""
        slice_ = self.proto
        if self.opcode == "async-start":
            slice_ = self.module.root(self.proto.called_computation_ids[0]).proto
        return tuple(dimension.start for dimension in slice_.slice_dimensions)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of what it computes: equal for the same computation on the same shapes.

        Names, ids, metadata, placement (memory spaces, splits between them) and backend config are
        left out; operand shapes and called computations are part of it.
        """
        digest = hashlib.sha256(_canonical(self.proto, {}))
        for operand in self.operands:
            digest.update(_canonical_shape(operand.proto.shape))
        for computation in self.proto.called_computation_ids:
            digest.update(self.module.computation_fingerprint(computation).encode())
        return digest.hexdigest()


def _find_cycles(config: object) -> int | None:
    """`estimated_cycles` wherever the backend config has it (fusions: inside `window_config`)."""
    if not isinstance(config, dict):
        return None
    if "estimated_cycles" in config:
        cycles = config["estimated_cycles"]  # a number, or one in quotes as protos are printed
        return int(cycles) if isinstance(cycles, int | str) else None
    return next((c for c in map(_find_cycles, config.values()) if c is not None), None)


def _integer(instruction: Instruction) -> int | None:
    """The value of a scalar integer constant, seen through copies; None for all else."""
    while instruction.opcode in ("copy", "bitcast"):
        instruction = instruction.operands[0]
    if instruction.opcode == "constant":
        literal = instruction.proto.literal
        for values in (literal.s32s, literal.s64s, literal.u32s, literal.u64s):
            if len(values) == 1:
                return values[0]
    return None


def _clear_placement(shape) -> None:
    if shape.element_type == _TUPLE:
        for part in shape.tuple_shapes:
            _clear_placement(part)
    else:
        shape.layout.ClearField("memory_space")
        shape.layout.ClearField("split_configs")


def _canonical_shape(shape) -> bytes:
    copy = type(shape)()
    copy.CopyFrom(shape)
    _clear_placement(copy)
    return copy.SerializeToString(deterministic=True)


def _canonical(proto, numbering: dict[int, int]) -> bytes:
    copy = type(proto)()
    copy.CopyFrom(proto)
    for field in (
        "name", "metadata", "id", "control_predecessor_ids", "called_computation_ids", "sharding",
        "backend_config", "frontend_attributes", "original_value",
    ):  # fmt: skip
        copy.ClearField(field)
    copy.operand_ids[:] = [numbering.get(i, -1) for i in proto.operand_ids]
    _clear_placement(copy.shape)
    return copy.SerializeToString(deterministic=True)


class Module:
    """A scheduled module.

    Raises:
      WorkloadError: the bytes are no HloModuleProto.
    """

    def __init__(self, serialized: bytes):
        try:
            self.proto = message_class("Module").FromString(serialized)
        except DecodeError as error:
            raise WorkloadError(f"not a serialized HloModuleProto: {error}") from error
        self.computations = {c.id: c for c in self.proto.computations}
        if self.proto.entry_computation_id not in self.computations:
            raise WorkloadError("the HLO module has no entry computation")
        self.instructions: dict[int, Instruction] = {
            i.id: Instruction(i, self, c.id)
            for c in self.proto.computations
            for i in c.instructions
        }
        self.sequences = {
            e.key: list(e.value.instruction_ids) for e in self.proto.schedule.sequences
        }

    @property
    def entry_id(self) -> int:
        """Id of the entry computation."""
        return self.proto.entry_computation_id

    def root(self, computation: int) -> Instruction:
        """Root instruction of a computation."""
        return self.instructions[self.computations[computation].root_id]

    def root_opcode(self, computation: int) -> str:
        """Opcode of a computation's root."""
        return self.root(computation).opcode

    def parameters(self, computation: int) -> list[Instruction]:
        """Parameters of a computation, by number."""
        found = [
            self.instructions[i.id]
            for i in self.computations[computation].instructions
            if i.opcode == "parameter"
        ]
        return sorted(found, key=lambda i: i.proto.parameter_number)

    def sequence(self, computation: int) -> list[Instruction]:
        """Instructions of a computation in schedule order (in proto order if unscheduled)."""
        ids = self.sequences.get(computation)
        if ids is None:
            ids = [i.id for i in self.computations[computation].instructions]
        return [self.instructions[i] for i in ids]

    def flattened(self) -> Iterator[tuple[Instruction, int]]:
        """Scheduled instructions with their trip counts; loops as condition, body, `while`.

        Each call of a called computation is followed once, as in XLA's HloLiveRange.
        """
        yield from self._flattened(self.entry_id, 1)

    def _flattened(self, computation: int, trips: int) -> Iterator[tuple[Instruction, int]]:
        for instruction in self.sequence(computation):
            called = list(instruction.proto.called_computation_ids)
            if instruction.opcode == "while":
                inner = trips * self.trip_count(instruction)
                for c in reversed(called):  # called: body, condition
                    yield from self._flattened(c, inner)
            elif instruction.opcode in ("call", "conditional"):
                for c in called:
                    yield from self._flattened(c, trips)
            yield instruction, trips

    def trip_count(self, loop: Instruction) -> int:
        """Trips of a `while`; 1 where they cannot be told. See `known_trip_count`."""
        return self.known_trip_count(loop) or 1

    def known_trip_count(self, loop: Instruction) -> int | None:
        """Trips of a `while`, at least 1: those that XLA notes, or up by 1 to a constant.

        `lax.scan` and `fori_loop` with static bounds make such loops. None for all others.
        """
        noted = loop.config.get("known_trip_count")
        if isinstance(noted, dict) and str(noted.get("n", "")).isdecimal():
            return max(int(noted["n"]), 1)
        root = self.root(loop.proto.called_computation_ids[1])
        compare = (
            self.root(root.proto.called_computation_ids[0]) if root.opcode == "fusion" else root
        )
        extra = {"LT": 0, "LE": 1}.get(compare.proto.comparison_direction)
        if compare.opcode != "compare" or extra is None or len(root.operands) != 2:
            return None
        counters = [o for o in root.operands if o.opcode == "get-tuple-element"]
        limits = [n for o in root.operands if (n := _integer(o)) is not None]
        if len(counters) != 1 or len(limits) != 1:
            return None
        first = loop.operands[0]
        start = None
        if first.opcode == "tuple":
            start = _integer(first.operands[counters[0].proto.tuple_index])
        return max(limits[0] + extra - (start or 0), 1)

    def computation_fingerprint(self, computation: int) -> str:
        """Hash of a computation's canonical form."""
        cache = self.__dict__.setdefault("_fingerprints", {})
        if computation not in cache:
            digest = hashlib.sha256()
            numbering: dict[int, int] = {}
            for proto in self.computations[computation].instructions:
                numbering[proto.id] = len(numbering)
                digest.update(_canonical(proto, numbering))
                for called in proto.called_computation_ids:
                    digest.update(self.computation_fingerprint(called).encode())
            cache[computation] = digest.hexdigest()
        return cache[computation]
