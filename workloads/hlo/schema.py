"""The part of XLA's HLO protos that this project reads, as message classes of the protobuf library.

Fields left out stay in the messages as unknown fields, so that rewriting a module keeps them and a
canonical form of an instruction (see `hlo.Instruction.fingerprint`) still covers them.
Source of names and numbers: openxla/xla xla/service/hlo.proto and xla/xla_data.proto.
"""

from __future__ import annotations

import functools
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "malloc_game_hlo"
# message -> {field: (number, type, repeated)}; a type with a capital letter is a message.
_SCHEMA = {
    "Tile": {"dimensions": (1, "int64", True)},
    "SplitConfig": {"dimension": (1, "int64", False), "split_indices": (2, "int64", True)},
    "Layout": {
        "minor_to_major": (1, "int64", True),
        "tiles": (6, "Tile", True),
        "element_size_in_bits": (7, "int64", False),
        "memory_space": (8, "int64", False),
        "split_configs": (17, "SplitConfig", True),
    },
    "Shape": {
        "element_type": (2, "int32", False),
        "dimensions": (3, "int64", True),
        "tuple_shapes": (4, "Shape", True),
        "layout": (5, "Layout", False),
    },
    "Literal": {
        "s32s": (4, "int32", True),
        "s64s": (5, "int64", True),
        "u32s": (6, "uint32", True),
        "u64s": (7, "uint64", True),
    },
    "SliceDimension": {"start": (1, "int64", False)},
    "Instruction": {
        "name": (1, "string", False),
        "opcode": (2, "string", False),
        "shape": (3, "Shape", False),
        "metadata": (7, "bytes", False),
        "literal": (8, "Literal", False),
        "parameter_number": (9, "int64", False),
        "tuple_index": (13, "int64", False),
        "slice_dimensions": (17, "SliceDimension", True),
        "custom_call_target": (28, "string", False),
        "id": (35, "int64", False),
        "operand_ids": (36, "int64", True),
        "control_predecessor_ids": (37, "int64", True),
        "called_computation_ids": (38, "int64", True),
        "sharding": (40, "bytes", False),
        "backend_config": (43, "bytes", False),
        "comparison_direction": (63, "string", False),
        "frontend_attributes": (68, "bytes", False),
        # A member of a oneof in XLA; as a list it tells index 0 from none.
        "cross_program_prefetch_index": (80, "int32", True),
        "original_value": (88, "bytes", False),
    },
    "Computation": {
        "name": (1, "string", False),
        "instructions": (2, "Instruction", True),
        "id": (5, "int64", False),
        "root_id": (6, "int64", False),
    },
    "Sequence": {"instruction_ids": (1, "int64", True)},
    # A proto map is a repeated entry message with key 1 and value 2.
    "SequenceEntry": {"key": (1, "int64", False), "value": (2, "Sequence", False)},
    "Schedule": {"sequences": (1, "SequenceEntry", True)},
    "Module": {
        "name": (1, "string", False),
        "computations": (3, "Computation", True),
        "entry_computation_id": (6, "int64", False),
        "schedule": (7, "Schedule", False),
    },
    "HloProto": {"hlo_module": (1, "bytes", False)},
    # Further views of an instruction and of a module. They are messages of their own because a
    # fingerprint depends on which fields `Instruction` knows, and costs are kept by fingerprint.
    "WindowDimension": {
        "size": (1, "int64", False),
        "stride": (2, "int64", False),
        "padding_low": (3, "int64", False),
        "window_dilation": (5, "int64", False),
        "base_dilation": (6, "int64", False),
    },
    "Window": {"dimensions": (1, "WindowDimension", True)},
    "ConvolutionDimensions": {
        "kernel_input_feature": (3, "int64", False),
        "kernel_output_feature": (4, "int64", False),
        "kernel_spatial": (6, "int64", True),
        "input_batch": (7, "int64", False),
        "input_spatial": (11, "int64", True),
        "output_spatial": (12, "int64", True),
    },
    "DotDimensions": {"lhs_contracting": (1, "int64", True)},
    "OutputAlias": {
        "output_index": (1, "int64", True),
        "operand": (2, "int64", False),
        "operand_index": (3, "int64", True),
    },
    "Geometry": {
        "window": (15, "Window", False),
        "convolution": (16, "ConvolutionDimensions", False),
        "dot": (30, "DotDimensions", False),
        "batch_group_count": (58, "int64", False),
        "output_operand_aliasing": (74, "OutputAlias", True),
    },
    "ParameterAlias": {
        "output_index": (1, "int64", True),
        "parameter": (2, "int64", False),
        "parameter_index": (3, "int64", True),
    },
    "ParameterAliases": {"entries": (1, "ParameterAlias", True)},
    "ModuleAliases": {"input_output_alias": (8, "ParameterAliases", False)},
}


@functools.cache
def _pool() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{_PACKAGE}.proto", package=_PACKAGE, syntax="proto3"
    )
    field_types = descriptor_pb2.FieldDescriptorProto
    for message_name, fields in _SCHEMA.items():
        message = file.message_type.add(name=message_name)
        for name, (number, kind, repeated) in fields.items():
            field = message.field.add(name=name, number=number)
            field.label = field_types.LABEL_REPEATED if repeated else field_types.LABEL_OPTIONAL
            if kind[0].isupper():
                field.type = field_types.TYPE_MESSAGE
                field.type_name = f".{_PACKAGE}.{kind}"
            else:
                field.type = getattr(field_types, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


@functools.cache
def message_class(which: str) -> Any:
    """The protobuf class of a message of `_SCHEMA`, whose fields no type checker knows."""
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"{_PACKAGE}.{which}"))
