"""Programs from anywhere as problems: HLO, StableHLO and JAX functions, without the TPU compiler.

What the compiler would have said is stood in for, and `Problem.provenance` tells what was: costs
(`costs`: how many instructions by estimated cycles in the module, how many by a roofline), the
schedule (`schedule`), fusions (`fusions`: those of a module that has none are not XLA's) and loops
whose trips are not known (`unknown_loops`; they count once). Sizes follow the layouts in the
module.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError

from malloc_game import TARGETS, CostTable, MallocGameError, Problem, ProblemError, Target
from malloc_game import Instruction as TimedInstruction
from malloc_game.problem.files import read_bytes
from workloads.compiler import parsing
from workloads.compiler.session import DEFAULT_TIMEOUT, CompilerSession, check_target, versions
from workloads.costs.model import Traffic
from workloads.costs.store import CostStore
from workloads.errors import CompileError, WorkloadError
from workloads.extraction.mapping import mask_of
from workloads.extraction.structure import Structure
from workloads.hlo.module import Module
from workloads.importers import roofline
from workloads.importers.fusion import fused
from workloads.importers.liveness import data_flow, dump_of, insert_copies
from workloads.importers.normalization import normalized
from workloads.programs import SUITE
from workloads.programs.loader import program_source

JAX = "JAX function"


def import_hlo(text_or_bytes: str | bytes, target: str, *, name: str = "") -> Problem:
    """The problem of an HLO module: text, or a serialized HloProto or HloModuleProto.

    target: a name in `malloc_game.TARGETS`. name: of the problem; by default the module's.

    Raises: WorkloadError with one line if it is no such module or the target is unknown.
    """
    where = name or "the input"
    kind = parsing.kind_of(text_or_bytes, where)
    if kind == parsing.STABLEHLO:
        raise WorkloadError(f"{where} is StableHLO, not HLO; use import_stablehlo")
    return _import(text_or_bytes, kind, target, name)


def import_stablehlo(text: str | bytes, target: str, *, name: str = "") -> Problem:
    """The problem of a StableHLO module: text, or MLIR bytecode. As `import_hlo` otherwise."""
    kind = parsing.kind_of(text, name or "the input")
    if kind != parsing.STABLEHLO:
        raise WorkloadError(f"{name or 'the input'} is {kind}, not StableHLO; use import_hlo")
    return _import(text, kind, target, name)


def import_jax(fn: Callable[..., Any], *args: Any, target: str, name: str = "") -> Problem:
    """The problem of a JAX function, lowered for the TPU on the CPU; no compiler sees it.

    args: pytrees of arrays or `jax.ShapeDtypeStruct`. As `import_hlo` otherwise; tracing errors of
    `fn` are its own.
    """
    import jax

    check_target(target)
    source = program_source(fn, *args)
    jitted = source.fn if hasattr(source.fn, "trace") else jax.jit(source.fn)
    lowered = jitted.trace(*source.args).lower(lowering_platforms=("tpu",))
    proto = lowered.compiler_ir("hlo").as_serialized_hlo_module_proto()
    return _problem_of(proto, JAX, target, name or source.name, proto)


def import_program(spec: str, target: str, timeout: float = DEFAULT_TIMEOUT) -> Problem:
    """As `import_jax`, of a suite name or `path/to/file.py:function`, in a process of its own.

    Raises: WorkloadError if the program cannot be loaded, traced or lowered.
    """
    try:
        with CompilerSession(spec, target, timeout=timeout, cache=False) as session:
            proto = session.lowered()
            name = session.name
    except CompileError as error:
        raise WorkloadError(str(error).replace("cannot be compiled", "cannot be lowered")) from None
    return _problem_of(proto, JAX, target, name, proto)


def import_file(file: str, target: str) -> Problem:
    """The problem of a file of HLO or StableHLO, told apart by content, or of a JAX function.

    file: a path, or a program as for `import_program`.

    Raises: as `import_hlo` and `import_program`; WorkloadError if the file cannot be read.
    """
    path = pathlib.Path(file)
    if not path.exists() and (":" in file or file in SUITE):
        return import_program(file, target)
    try:
        content = read_bytes(path, parsing.MAX_BYTES)
    except MallocGameError as error:
        raise WorkloadError(str(error)) from error
    if path.suffix == ".py":
        raise WorkloadError(f"{file}: no function given; give {file}:function")
    return _import(content, parsing.kind_of(content, file), target, path.name)


def _import(content: str | bytes, kind: str, target: str, name: str) -> Problem:
    check_target(target)
    proto = parsing.to_module_proto(content, kind, name or "the input")
    source = content.encode(errors="replace") if isinstance(content, str) else content
    return _problem_of(proto, kind, target, name, source)


def _problem_of(proto: bytes, kind: str, target: str, name: str, source: bytes) -> Problem:
    """source: what was given, for its hash."""
    where = name or "HLO module"
    try:
        serialized, is_scheduled = normalized(proto)
        fusions = "given"
        if not (is_scheduled or _has_fusions(serialized)):
            serialized, number = fused(serialized)
            fusions = f"{number} made by simple rules"
        as_given = Module(insert_copies(serialized))
        imported = _Imported(as_given, TARGETS[target], name or as_given.proto.name or "module")
        provenance = {
            "imported": kind,
            "target": target,
            "versions": {k: v for k, v in versions().items() if k != "libtpu"},
            "sha256": hashlib.sha256(source).hexdigest(),
            "schedule": "given" if is_scheduled else "topological order of the program",
            "fusions": fusions,
            **imported.counts(),
        }
        return imported.problem(provenance)
    except WorkloadError as error:
        raise WorkloadError(f"{where}: {error}") from None
    except CompileError as error:  # it names the program
        raise WorkloadError(str(error)) from None
    except ProblemError as error:
        raise WorkloadError(f"{where} makes no valid problem: {error}") from error
    except (DecodeError, IndexError, KeyError, ValueError, RecursionError, OverflowError) as error:
        raise WorkloadError(
            f"{where}: shapes and operands of the module contradict each other"
            f" ({type(error).__name__}: {error})"
        ) from error


class _Imported:
    """A module in normal form, its structure, and what its instructions cost."""

    def __init__(self, as_given: Module, target: Target, name: str):
        self._name, self._target = name, target
        self._module = as_given
        plain = Module(_without_spaces(as_given))  # the game starts with all in default memory
        flow = data_flow(plain)
        dump = dump_of(plain, flow, target.alternate_memory_bytes)
        self.structure = Structure(plain, dump, target, name, flow)
        self._store = CostStore()
        for row in self.structure.rows:
            given = as_given.instructions[row.instruction.id]
            if given.estimated_cycles is not None:
                mask = mask_of(given, row.slots, target)
                self._store.record(row.key, mask, given.estimated_cycles)

    def counts(self) -> dict[str, Any]:
        """Provenance: how costs came about, fusions, and loops of unknown trips."""
        rows = self.structure.rows
        estimated = sum(row.key in self._store.observed for row in rows)
        peak, target = roofline.PEAK_FLOPS[self._target.name], self._target
        run = [i for i, _ in self.structure.module.flattened()]
        return {
            "costs": {
                "estimated_cycles": estimated,
                "roofline": len(rows) - estimated,
                "peak_flops_per_second": peak,
                "bandwidth_bytes_per_second": target.default_bandwidth_bytes_per_second,
            },
            "unknown_loops": sum(
                i.opcode == "while" and self.structure.module.known_trip_count(i) is None
                for i in run
            ),
        }

    def problem(self, provenance: dict[str, Any]) -> Problem:
        """The problem, validated. Raises: ProblemError."""
        numbers: dict[tuple, int] = {}
        tables: list[CostTable] = []
        instructions = []
        copied_at = {v.copied_at for v in self.structure.values}
        for t, row in enumerate(self.structure.rows):
            sizes = tuple(p.size_bytes for p in row.positions)
            kind = (row.key, sizes, row.other_bytes, t in copied_at)
            if numbers.setdefault(kind, len(tables)) == len(tables):
                tables.append(self._table(t, t in copied_at))
            instructions.append(
                TimedInstruction(
                    name=row.instruction.name,
                    opcode=row.instruction.opcode,
                    schedule_time=row.time,
                    trip_count=row.trips,
                    in_entry=row.instruction.computation == self._module.entry_id,
                    other_bytes=row.other_bytes,
                    positions=row.positions,
                    cost_table=numbers[kind],
                    loops=row.loops,
                )
            )
        values = (
            dataclasses.replace(v, copy_cycles=self._costs(v.copied_at).cycles[1])
            if v.copied_at >= 0
            else v
            for v in self.structure.values
        )
        return Problem(
            self._name,
            self._target,
            tuple(instructions),
            tuple(values),
            tuple(tables),
            provenance=provenance,
        )

    def _costs(self, time: int) -> CostTable:
        row = self.structure.rows[time]
        if row.key not in self._store.observed:
            return roofline.table(row, self._target)
        traffic = Traffic.of(row.positions, row.other_bytes, self._target.default_bytes_per_cycle)
        return self._store.table(row.key, traffic)[0]

    def _table(self, time: int, is_asked_copy: bool) -> CostTable:
        table = self._costs(time)
        if is_asked_copy:  # in alternate memory a prefetch does its work: that is the decision
            return CostTable((table.cycles[0], 0), (table.known[0], True))
        return table


def _has_fusions(serialized: bytes) -> bool:
    return any(i.opcode == "fusion" for i in Module(serialized).instructions.values())


def _without_spaces(module: Module) -> bytes:
    """The module with every array in default memory."""

    def clear(shape) -> None:
        for part in shape.tuple_shapes:
            clear(part)
        shape.layout.ClearField("memory_space")

    plain = type(module.proto)()
    plain.CopyFrom(module.proto)
    for computation in plain.computations:
        for instruction in computation.instructions:
            clear(instruction.shape)
    return plain.SerializeToString()


def describe(problem: Problem) -> str:
    """How an imported problem's numbers came about, in one or two lines for people."""
    found, target = problem.provenance, problem.target
    costs = found["costs"]
    total = costs["estimated_cycles"] + costs["roofline"]
    lines = [
        f"from {found['imported']}; schedule: {found['schedule']}; fusions: {found['fusions']};"
        " costs: roofline for"
        f" {costs['roofline']} of {total} instructions"
        f" ({costs['peak_flops_per_second'] / 1e12:g} TFLOP/s,"
        f" {target.default_bandwidth_bytes_per_second / 1e9:g} GB/s),"
        f" estimated cycles in the module for {costs['estimated_cycles']}"
    ]
    if found["unknown_loops"]:
        lines.append(f"{found['unknown_loops']} loops of unknown trips count once")
    return "\n".join(lines)
