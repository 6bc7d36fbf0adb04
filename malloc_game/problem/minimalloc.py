"""Packing problems in MiniMalloc's CSV format: lifetimes and sizes, and one memory for all.

A pure test of offsets: every buffer must be in the memory, and nothing costs anything.
Source of the format: MiniMalloc (Moffitt 2023), columns id, lower, upper, size; lifetimes are
half-open, [lower, upper).
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from malloc_game.errors import MallocGameError, ProblemError
from malloc_game.problem.definition import (
    MAX_BYTES,
    CostTable,
    Instruction,
    Position,
    Problem,
    Value,
)
from malloc_game.problem.files import read_bytes
from malloc_game.problem.target import Target

_COLUMNS = ("id", "lower", "upper", "size")


@dataclasses.dataclass(frozen=True)
class PackingInstance:
    """Buffers that are to share one memory; all tuples are as long as there are buffers."""

    name: str
    capacity_bytes: int
    ids: tuple[str, ...]
    lower: tuple[int, ...]  # first time at which a buffer is alive
    upper: tuple[int, ...]  # first time at which it is not any more
    size_bytes: tuple[int, ...]

    def lower_bound_bytes(self) -> int:
        """The most bytes alive at one time: no packing needs less."""
        change = sorted(
            [(t, s) for t, s in zip(self.lower, self.size_bytes, strict=True)]
            + [(t, -s) for t, s in zip(self.upper, self.size_bytes, strict=True)]
        )
        alive = peak = 0
        for _, bytes_ in change:  # at equal times ends come first: lifetimes are half-open
            alive += bytes_
            peak = max(peak, alive)
        return peak

    def to_problem(self) -> Problem:
        """A problem whose latency is the number of buffers left out: 0 if and only if all fit.

        Value i is buffer i in the order of `lower`; its logical time is that rank, and which
        values overlap stays as it is. Every buffer is a computed value, written by an instruction
        of its own that takes one cycle where that is in default memory.

        Raises:
          ProblemError: no problem follows from the instance; names a buffer.
        """
        order = sorted(range(len(self.ids)), key=lambda i: self.lower[i])
        starts = np.array([self.lower[i] for i in order])
        unit = math.gcd(self.capacity_bytes, *self.size_bytes)
        target = Target("packing", self.capacity_bytes, unit, 1e9, 1e9, 1, "MiniMalloc instance")
        values, instructions = [], []
        for t, i in enumerate(order):
            size = self.size_bytes[i]
            end = int(np.searchsorted(starts, self.upper[i]))
            values.append(
                Value(
                    name=self.ids[i],
                    size_bytes=size,
                    start=t,
                    end=end,
                    is_parameter=False,
                    is_live_out=False,
                    may_be_in_alternate=0 < size <= self.capacity_bytes,
                )
            )
            position = Position(t, True, 0, (), size)
            instructions.append(
                Instruction(f"define {self.ids[i]}", "define", t, 1, True, 0, (position,), 0)
            )
        return Problem(
            self.name,
            target,
            tuple(instructions),
            tuple(values),
            (CostTable((1, 0), (True, True)),),
            provenance={"imported": "MiniMalloc CSV"},
        )


def load_minimalloc_csv(
    path: str | os.PathLike[str], capacity: int, name: str = ""
) -> PackingInstance:
    """Read a MiniMalloc CSV (columns id, lower, upper, size, in any order).

    capacity: bytes of the memory, which the format does not hold. name: by default the file's.

    Raises:
      ProblemError: the file cannot be read or breaks a rule; names the line and the field.
    """
    path = pathlib.Path(path)
    if not 0 < capacity <= MAX_BYTES:
        raise ProblemError(f"{path}: the capacity is {capacity} bytes; need 1..2**50")
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ProblemError(f"{path}: not a CSV file but binary data") from error
    except MallocGameError as error:
        raise ProblemError(str(error)) from error
    try:
        buffers = _read_buffers(path, csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise ProblemError(f"{path}: not a CSV file ({error})") from error
    if not buffers:
        raise ProblemError(f"{path}: there are no buffers in it")
    lower, upper, size = zip(*buffers.values(), strict=True)
    return PackingInstance(name or path.stem, capacity, tuple(buffers), lower, upper, size)


def _read_buffers(path: pathlib.Path, rows: Iterator[list[str]]) -> dict[str, tuple[int, int, int]]:
    """Lower, upper and size by id. One row at a time: a file of empty lines costs nothing."""
    header = [cell.strip() for cell in next(rows, [])]
    if sorted(header) != sorted(_COLUMNS):
        shown = ",".join(header)[:60]
        raise ProblemError(
            f"{path}: the first line must name the columns {','.join(_COLUMNS)}; it is {shown!r}"
        )
    buffers: dict[str, tuple[int, int, int]] = {}
    for line, cells in enumerate(rows, start=2):
        if any(cell.strip() for cell in cells):
            _add_buffer(buffers, header, cells, f"{path}: line {line}")
    return buffers


def _add_buffer(
    buffers: dict[str, tuple[int, int, int]], header: list[str], cells: list[str], where: str
) -> None:
    if len(cells) != len(header):
        raise ProblemError(f"{where}: {len(cells)} fields, need {len(header)}")
    row = dict(zip(header, (cell.strip() for cell in cells), strict=True))
    numbers = []
    for column in _COLUMNS[1:]:
        try:
            number = int(row[column])
        except ValueError:
            number = -1
        if not 0 <= number <= MAX_BYTES:
            raise ProblemError(f"{where}: {column} is {row[column][:40]!r}; need 0..2**50")
        numbers.append(number)
    lower, upper, size = numbers
    if not row["id"] or row["id"] in buffers:
        raise ProblemError(f"{where}: id {row['id'][:40]!r} is empty or there already")
    if lower >= upper:
        raise ProblemError(f"{where}: lifetime [{lower}, {upper}) is empty; need lower < upper")
    if size == 0:
        raise ProblemError(f"{where}: size is 0; need at least 1")
    buffers[row["id"]] = (lower, upper, size)


def check_offsets(instance: PackingInstance, offsets: Sequence[int | None]) -> list[str]:
    """What is wrong with a packing, one line each; empty if it is one.

    offsets: bytes, for each buffer in the order of `instance.ids`; None where it has no place.
    """
    if len(offsets) != len(instance.ids):
        return [f"{len(offsets)} offsets for {len(instance.ids)} buffers"]
    found = []
    placed: list[tuple[int, int]] = []  # number of the buffer, its offset
    for i, offset in enumerate(offsets):
        if offset is None:
            found.append(f"{instance.ids[i]} has no place")
        elif offset < 0 or offset + instance.size_bytes[i] > instance.capacity_bytes:
            found.append(
                f"{instance.ids[i]} at [{offset}, {offset + instance.size_bytes[i]}) leaves the"
                f" memory of {instance.capacity_bytes} bytes"
            )
        else:
            placed.append((i, offset))
    for number, (i, low) in enumerate(placed):
        for j, other_low in placed[:number]:
            in_time = instance.lower[i] < instance.upper[j] and (
                instance.lower[j] < instance.upper[i]
            )
            in_space = (
                low < other_low + instance.size_bytes[j]
                and other_low < low + instance.size_bytes[i]
            )
            if in_time and in_space:
                found.append(f"{instance.ids[j]} and {instance.ids[i]} overlap")
    return found
