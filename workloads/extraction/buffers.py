"""Which arrays of a module share one buffer, and which of them memory-space assignment considers.

The compiler's own dump names the buffers, their uses and live ranges; data flow through tuples,
bitcasts and loops links each operand of the module to the place that defines it.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import re

from malloc_game.problem.definition import index_text
from workloads.errors import CompileError
from workloads.hlo.module import Instruction, Module

Place = tuple[int, tuple[int, ...]]  # instruction id, tuple index: where an array is defined

_NAME = re.compile(r"<\d+ (.*?)(?:\{([\d,\s]*)\})?(?: @\d+)?>$")
_USE = re.compile(r"(.*), operand (\d+)(?: \{([\d,\s]*)\})?$")


def _index(text: str | None) -> tuple[int, ...]:
    return tuple(int(x) for x in re.findall(r"\d+", text or ""))


class DataFlow:
    """Follows operands to the places that define them, through what costs nothing."""

    def __init__(self, module: Module):
        self.module = module
        self._parent: dict[Place, Place] = {}
        for computation in module.computations:
            for instruction in module.sequence(computation):
                if instruction.opcode == "while":
                    self._link_while(instruction)
                elif instruction.opcode == "conditional":
                    self._link_conditional(instruction)
                elif instruction.opcode == "call":
                    self._link_call(instruction)

    def source(self, instruction: Instruction, index: tuple[int, ...] = ()) -> Place:
        """The place that defines output `index` of `instruction`, one for each set of aliases."""
        while True:
            opcode = instruction.opcode
            if opcode == "get-tuple-element":
                index = (instruction.proto.tuple_index, *index)
                instruction = instruction.operands[0]
            elif opcode == "tuple" and index:
                instruction, index = instruction.operands[index[0]], index[1:]
            elif (
                opcode in ("bitcast", "optimization-barrier", "copy-done")
                or instruction.is_concat_bitcast
            ):
                instruction = instruction.operands[0]
            elif opcode == "copy-start" or instruction.is_async_done or instruction.is_async_start:
                instruction, index = instruction.operands[0], ()
            else:
                return self.find((instruction.id, index))

    def find(self, place: Place) -> Place:
        """The representative of `place` among the places that share its buffer."""
        while self._parent.get(place, place) != place:
            place = self._parent[place]
        return place

    def unite(self, a: Place, b: Place) -> None:
        """Let two places share one buffer."""
        a, b = self.find(a), self.find(b)
        if a != b:
            self._parent[max(a, b)] = min(a, b)

    def _unite_leaves(self, a: Instruction, b: Instruction) -> None:
        for index in a.leaves:
            if index in b.leaves:
                self.unite(self.source(a, index), self.source(b, index))

    def _link_while(self, loop: Instruction) -> None:
        body, condition = loop.proto.called_computation_ids[:2]
        for other in (
            self.module.parameters(body)[0],
            self.module.parameters(condition)[0],
            self.module.root(body),
            loop.operands[0],
        ):
            self._unite_leaves(loop, other)

    def _link_conditional(self, branch: Instruction) -> None:
        for i, computation in enumerate(branch.proto.called_computation_ids):
            self._unite_leaves(branch, self.module.root(computation))
            for parameter in self.module.parameters(computation)[:1]:
                self._unite_leaves(parameter, branch.operands[i + 1])

    def _link_call(self, call: Instruction) -> None:
        computation = call.proto.called_computation_ids[0]
        self._unite_leaves(call, self.module.root(computation))
        for parameter, operand in zip(
            self.module.parameters(computation), call.operands, strict=True
        ):
            self._unite_leaves(parameter, operand)


@dataclasses.dataclass
class Buffer:
    """One buffer of the dump; times are the compiler's logical times."""

    name: str  # of its first value, e.g. `fusion.3{0}`
    instruction: str  # that defines the first value
    index: tuple[int, ...]
    size_bytes: int
    definition_time: int
    uses: dict[tuple[str, int, tuple[int, ...]], int]  # (instruction, operand, index) -> time
    names: set[str]  # of all its values, as `name`

    @property
    def instructions(self) -> set[str]:
        """Names of the instructions that define its values or use them."""
        defining = {name.partition("{")[0] for name in self.names}
        return defining | {name for name, _, _ in self.uses}


@dataclasses.dataclass(frozen=True)
class MsaDump:
    """The compiler's memory-space-assignment dump, parsed."""

    schedule: dict[str, int]  # instruction name -> logical time
    buffers: dict[int, Buffer]  # by the dump's buffer id
    allocations: list[tuple[int, int, int, int, int]]  # buffer id, size, offset, start, end (incl.)


def asynchronous_names(module: Module) -> set[str]:
    """Names of asynchronous calls, copies and slices left out, and of all that they call."""
    names: set[str] = set()
    for instruction in module.instructions.values():
        is_call = instruction.opcode.startswith("async-")
        if is_call and not (instruction.is_async_start or instruction.is_async_done):
            names.add(instruction.name)
            for called in instruction.proto.called_computation_ids:
                names.update(inner.name for inner in module.sequence(called))
    return names


def parse_dump(msa: dict[str, str]) -> MsaDump:
    """Parse the three files of a memory-space-assignment dump.

    Where there is nothing to place (scalars only) the compiler writes the schedule alone.

    Raises:
      CompileError: a file is missing or has a form that this release does not know.
    """
    try:
        schedule = {
            row[1]: int(row[0]) for row in csv.reader(io.StringIO(msa["scheduleinfo"])) if
            row[0] != "time"
        }  # fmt: skip
        buffers: dict[int, Buffer] = {}
        for row in csv.DictReader(io.StringIO(msa.get("bufferinfo", ""))):
            _add_buffer(buffers, row)
        allocations = [
            (
                int(row["buffer_id"]),
                int(row["size"]),
                int(row["offset"]),
                int(row["start_time"]),
                int(row["end_time"]),
            )
            for row in csv.DictReader(io.StringIO(msa.get("allocinfo", "")))
        ]
    except (KeyError, ValueError, AttributeError, IndexError, TypeError) as error:
        raise CompileError(
            f"the compiler's memory-space-assignment dump cannot be read ({error!r});"
            " this libtpu writes it in a form that is not known here"
        ) from error
    return MsaDump(schedule, buffers, allocations)


def _matched(pattern: re.Pattern[str], text: str) -> re.Match[str]:
    match = pattern.match(text)
    if match is None:
        raise ValueError(f"{text!r} is no name or use")
    return match


def _add_buffer(buffers: dict[int, Buffer], row: dict[str, str]) -> None:
    if row.get("is_scoped", "0") != "0":
        # Never seen: what single instructions reserve is deducted from the capacity beforehand.
        raise ValueError("memory reserved for a single instruction")
    match = _matched(_NAME, row["buffer_name"])
    name, index = match.group(1), _index(match.group(2))
    definition = int(row["definition_time"])
    label = name + index_text(index)
    fresh = Buffer(label, name, index, int(row["size"]), definition, {}, set())
    buffer = buffers.setdefault(int(row["buffer_id"]), fresh)
    buffer.names.add(label)
    if definition < buffer.definition_time:
        buffer.name, buffer.instruction, buffer.index = label, name, index
        buffer.definition_time = definition
    buffer.size_bytes = max(buffer.size_bytes, int(row["size"]))
    times = [int(t) for t in row["use_times"].split(";") if t]
    uses = [u for u in row["use_names"].split(";") if u]
    for time, use in zip(times, uses, strict=False):
        match = _matched(_USE, use)
        buffer.uses[match.group(1), int(match.group(2)), _index(match.group(3))] = time
