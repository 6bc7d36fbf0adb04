"""HLO from anywhere in the form that the extraction expects of a compiled module.

Calls are inlined, which XLA does before anything else; every call of a loop or branch gets copies
of its computations; ids and names become unique in the module; each computation that runs
instruction by instruction is in the order of its schedule, or, where it has none, in topological
order that stays close to the program's. Everything that is followed later is checked here.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any

from google.protobuf.message import DecodeError

from workloads.errors import WorkloadError
from workloads.hlo.schema import message_class

MAX_INSTRUCTIONS = 200_000  # after inlining
# Looked at while inlining: calls of computations that only call others leave no instruction behind,
# and a hundred of them that call each other twice would take forever.
_MAX_VISITS = 8 * MAX_INSTRUCTIONS
_MAX_COPIED_BYTES = 1 << 30  # of inlined instructions, large constants and configs included
_MAX_DEPTH = 100  # of computations inside each other
_MAX_BYTES = 1 << 50
_TUPLE = 13
_RUN_IN_ORDER = ("while", "conditional", "call")


def normalized(serialized: bytes) -> tuple[bytes, bool]:
    """A serialized HloModuleProto in normal form, and whether it came with a schedule.

    Raises: WorkloadError with one line that names what is wrong in the module.
    """
    try:
        module = message_class("Module").FromString(serialized)
    except DecodeError as error:
        raise WorkloadError(f"not a serialized HloModuleProto: {error}") from error
    try:
        rewriter = _Rewriter(module)
        return rewriter.run(), rewriter.is_scheduled
    except RecursionError:
        raise WorkloadError("it is nested too deeply") from None


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise WorkloadError(message)


class _Rewriter:
    """One module on its way from the old numbering to the new one."""

    def __init__(self, module: Any):
        self._old = module
        self._computations = {c.id: c for c in module.computations}
        _require(
            module.entry_computation_id in self._computations,
            "it has no entry computation",
        )
        self._sequences = {e.key: list(e.value.instruction_ids) for e in module.schedule.sequences}
        self.is_scheduled = module.entry_computation_id in self._sequences
        self._new: list[Any] = []  # finished computations, callees first
        self._names: set[str] = set()
        self._suffix: dict[str, int] = {}
        self._num_instructions = 0
        self._num_visits = 0
        self._num_bytes = 0
        self._num_computations = 0
        self._whole: dict[int, int] = {}  # computations that count as one instruction: old to new
        self._open: list[int] = []
        self._row_major: set[int] = set()  # new ids

    def run(self) -> bytes:
        """The new module, serialized."""
        # Before anything is copied: a few calls in a row can ask for more than there is time for.
        self._require_few(self._least_size(self._old.entry_computation_id, {}, 0))
        entry = self._copy(self._old.entry_computation_id)
        new = type(self._old)()
        new.CopyFrom(self._old)
        new.ClearField("computations")
        new.ClearField("schedule")
        new.computations.extend(self._new)
        new.entry_computation_id = entry
        return new.SerializeToString()

    def _require_few(self, instructions: int) -> None:
        _require(
            instructions <= MAX_INSTRUCTIONS,
            f"it has more than {MAX_INSTRUCTIONS} instructions once its calls are inlined",
        )

    def _least_size(self, old: int, sizes: dict[int, int], depth: int) -> int:
        """Instructions that come of computation `old`, of which there is a copy for each caller.

        Parameters and what counts as one instruction are left out, as are computations that are
        missing, call themselves or are nested too deeply: copying finds these."""
        if old not in sizes and old in self._computations and depth < _MAX_DEPTH:
            sizes[old] = 0
            sizes[old] = sum(
                (i.opcode not in ("call", "parameter"))
                + sum(
                    self._least_size(called, sizes, depth + 1)
                    for called in i.called_computation_ids
                    if i.opcode in _RUN_IN_ORDER
                )
                for i in self._computations[old].instructions
            )
        return sizes.get(old, 0)

    def _copy(self, old: int) -> int:
        """A fresh copy of a computation that runs in order; returns its id."""
        fresh = message_class("Computation")()
        fresh.name = self._unique(self._computations[old].name if old in self._computations else "")
        with_inlined: list[Any] = []
        fresh.root_id = self._emit(old, with_inlined, None, [])
        fresh.instructions.extend(with_inlined)
        return self._finish(fresh)

    def _copy_whole(self, old: int) -> int:
        """The copy of a computation inside a fusion, a reduction and so on: one for all callers."""
        if old not in self._whole:
            fresh = message_class("Computation")()
            instructions: list[Any] = []
            fresh.root_id = self._emit(old, instructions, None, [], inside=True)
            fresh.name = self._unique(self._computations[old].name)
            fresh.instructions.extend(instructions)
            self._whole[old] = self._finish(fresh)
        return self._whole[old]

    def _finish(self, fresh: Any) -> int:
        self._num_computations += 1
        fresh.id = self._num_computations
        self._new.append(fresh)
        return fresh.id

    def _emit(
        self,
        old: int,
        out: list[Any],
        arguments: list[int] | None,
        predecessors: list[int],
        *,
        inside: bool = False,
    ) -> int:
        """Append the instructions of computation `old`; returns the new id of its root.

        arguments: new ids that stand for its parameters where it is inlined. inside: of a fusion.
        """
        _require(old in self._computations, f"a computation with id {old} is called, none is there")
        name = self._computations[old].name
        _require(old not in self._open, f"computation {name} calls itself")
        _require(len(self._open) < _MAX_DEPTH, f"computation {name} is nested too deeply")
        self._open.append(old)
        new_ids: dict[int, int] = {}
        self._num_visits += len(self._computations[old].instructions)
        _require(self._num_visits <= _MAX_VISITS, "its calls are too many to inline")
        for instruction in self._ordered(old):
            _check_instruction(instruction)
            operands = [new_ids[i] for i in instruction.operand_ids]
            control = [new_ids[i] for i in instruction.control_predecessor_ids] + predecessors
            if instruction.opcode == "parameter" and arguments is not None:
                number = instruction.parameter_number
                _require(number < len(arguments), f"a call of {name} lacks argument {number}")
                new_ids[instruction.id] = arguments[number]
            elif instruction.opcode == "call" and not inside:
                called = list(instruction.called_computation_ids)
                _require(len(called) == 1, f"call {instruction.name} has {len(called)} targets")
                new_ids[instruction.id] = self._emit(called[0], out, operands, control)
            else:
                fresh = self._fresh(instruction, operands, control, inside)
                new_ids[instruction.id] = fresh.id
                out.append(fresh)
        self._open.pop()
        root = self._computations[old].root_id
        _require(root in new_ids, f"computation {name} has no root instruction")
        return new_ids[root]

    def _fresh(self, old: Any, operands: list[int], control: list[int], inside: bool) -> Any:
        in_order = old.opcode in _RUN_IN_ORDER and not inside
        copy = self._copy if in_order else self._copy_whole
        called = [copy(c) for c in old.called_computation_ids]
        self._num_instructions += 1
        self._require_few(self._num_instructions)
        self._num_bytes += old.ByteSize()
        _require(self._num_bytes <= _MAX_COPIED_BYTES, "it is too large once its calls are inlined")
        fresh = type(old)()
        fresh.CopyFrom(old)
        fresh.id = self._num_instructions
        fresh.name = self._unique(old.name)
        fresh.operand_ids[:] = operands
        fresh.control_predecessor_ids[:] = control
        fresh.called_computation_ids[:] = called
        if _is_row_major(old.shape):
            if old.opcode == "reshape" and operands[0] in self._row_major:
                fresh.opcode = "bitcast"  # moves nothing
            self._row_major.add(fresh.id)
        return fresh

    def _ordered(self, old: int) -> Iterator[Any]:
        """Instructions of a computation in an order in which each comes after what it needs."""
        computation = self._computations[old]
        by_id = {i.id: i for i in computation.instructions}
        name = computation.name
        _require(
            len(by_id) == len(computation.instructions),
            f"computation {name} has two instructions of one id",
        )
        needed = {i.id: {*i.operand_ids, *i.control_predecessor_ids} for i in by_id.values()}
        for i, before in needed.items():
            _require(
                before <= by_id.keys(),
                f"instruction {by_id[i].name} has an operand that computation {name} lacks",
            )
        order = self._sequences.get(old)
        if order is None:
            order = _topological(needed)
            if order is None:
                raise WorkloadError(f"the instructions of computation {name} form a circle")
        else:
            _require(
                sorted(order) == sorted(by_id),
                f"the schedule of computation {name} is not one of its instructions",
            )
            done: set[int] = set()
            for i in order:
                _require(needed[i] <= done, f"{by_id[i].name} is scheduled before what it needs")
                done.add(i)
        return (by_id[i] for i in order)

    def _unique(self, name: str) -> str:
        """A name that no other instruction has, `name` itself if that is free."""
        name = name or "unnamed"
        if name in self._names:
            number = self._suffix.get(name, 1)
            while f"{name}.{number}" in self._names:
                number += 1
            self._suffix[name] = number + 1
            name = f"{name}.{number}"
        self._names.add(name)
        return name


def _topological(needed: dict[int, set[int]]) -> list[int] | None:
    """Ids in an order in which each comes after those that it needs; None if there is a circle.

    The smallest id goes first: ids grow in the order in which a program is written.
    """
    users: dict[int, list[int]] = {i: [] for i in needed}
    for i, before in needed.items():
        for j in before:
            users[j].append(i)
    missing = {i: len(before) for i, before in needed.items()}
    ready = [i for i, count in missing.items() if count == 0]
    heapq.heapify(ready)
    order = []
    while ready:
        i = heapq.heappop(ready)
        order.append(i)
        for user in users[i]:
            missing[user] -= 1
            if missing[user] == 0:
                heapq.heappush(ready, user)
    return order if len(order) == len(needed) else None


# -- checks ----------------------------------------------------------------------------------


def _check_instruction(instruction: Any) -> None:
    name = instruction.name
    _check_shape(instruction.shape, name)
    called, operands = len(instruction.called_computation_ids), len(instruction.operand_ids)
    wanted = {
        "while": (called == 2 and operands == 1, "one operand, a body and a condition"),
        "get-tuple-element": (operands == 1, "one operand"),
        "bitcast": (operands == 1, "one operand"),
        "reshape": (operands >= 1, "an operand"),
        "conditional": (operands == called + 1, "an operand for each branch"),
        "dynamic-update-slice": (operands >= 2, "an array and an update"),
        "dot": (operands >= 2, "two operands"),
        "convolution": (operands >= 2, "two operands"),
        "fusion": (called == 1, "one computation"),
        "tuple": (operands == len(instruction.shape.tuple_shapes), "an operand for each part"),
    }.get(instruction.opcode)
    _require(
        wanted is None or wanted[0], f"{instruction.opcode} {name} needs {wanted and wanted[1]}"
    )


def _check_shape(shape: Any, name: str) -> None:
    if shape.element_type == _TUPLE:
        for part in shape.tuple_shapes:
            _check_shape(part, name)
        return
    rank = len(shape.dimensions)
    _require(
        all(0 <= d <= _MAX_BYTES for d in shape.dimensions),
        f"the shape of {name} has a dimension that is unknown or out of range",
    )
    elements = 1
    for d in shape.dimensions:
        elements *= d
    _require(elements <= _MAX_BYTES, f"{name} has more than 2**50 elements")
    order = list(shape.layout.minor_to_major)
    _require(
        not order or sorted(order) == list(range(rank)),
        f"the layout {{{','.join(map(str, order))}}} of {name} is none of {rank} dimensions",
    )


def _is_row_major(shape: Any) -> bool:
    order = list(shape.layout.minor_to_major)
    return order == sorted(order, reverse=True) and not shape.layout.tiles
