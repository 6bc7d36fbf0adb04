"""The readers of this project: valid files for each, and what is done with a file once it is read.

A reader accepts a file, or refuses it with one of `MISTAKES`, in one printable line. Whatever it
accepts must get through what usually comes next.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import importlib
import io
import json
import pathlib
import shutil
import tempfile
import unittest.mock
import warnings
from collections.abc import Callable

import click
import jax
import numpy as np

import malloc_game as mg
from agent.cli import timing
from agent.learning import metrics, training_config, weights
from agent.learning.checkpoint import Checkpoints, restore_generator
from agent.learning.config import AgentConfig, ConfigError, NetworkConfig
from agent.report import summary
from agent.report.data import maps_of, page_data
from agent.report.run_files import load_run
from malloc_game.errors import MallocGameError, printable
from malloc_game.problem.definition import Problem
from tests.helpers.run_for_tests import layers, make_run, save_run, weights_only
from workloads.benchmark import report, rows
from workloads.compiler import parsing
from workloads.errors import WorkloadError
from workloads.fidelity import report as fidelity_report
from workloads.fidelity.measurement import CompiledSample, Fidelity, Sample, WorstInstruction
from workloads.importers import pipeline
from workloads.overrides.text import overrides
from workloads.programs import suite_problems

_SUITE = importlib.import_module(
    "workloads.programs.families"
)  # the package has a function of that name
MISTAKES = (MallocGameError, WorkloadError, ConfigError, click.UsageError)


@dataclasses.dataclass(frozen=True)
class Reader:
    """seeds: valid files. read: accepts a file, or raises one of `MISTAKES`."""

    name: str
    seeds: Callable[[], list[bytes]]
    read: Callable[[bytes], None]
    is_slow: bool = False  # starts a process, or asks the disk many times

    def run(self, data: bytes) -> bool:
        """Whether `data` was accepted. Raises: anything but a mistake told in one line."""
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # overflow and the like
            try:
                self.read(data)
            except MISTAKES as error:
                text = error.format_message() if isinstance(error, click.UsageError) else str(error)
                assert text and "\n" not in text and len(text) < 3000, text
                return False
        return True


@functools.cache
def _folder() -> pathlib.Path:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="mallocgame-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _file(data: bytes, name: str) -> pathlib.Path:
    path = _folder() / name
    path.write_bytes(data)
    return path


# --- the game ---------------------------------------------------------------------------------


@functools.cache
def _problem() -> Problem:
    return dataclasses.replace(mg.random_problem(5, 6), name="p", provenance={"a": [1, {}]})


def _problem_seeds() -> list[bytes]:
    path = _folder() / "seed.json"
    found = []
    for problem, mapping in (
        (_problem(), mg.all_default(_problem())),
        (layers(2)[0], weights_only(*layers(2))),
    ):
        mg.save_problem(problem, path, mapping)
        found.append(path.read_bytes())
    mg.save_problem(mg.random_problem(1, 2), _folder() / "seed.json.gz")
    return [*found, (_folder() / "seed.json.gz").read_bytes()]


def _use(problem: Problem, mapping: mg.Assignment) -> None:
    """What commands do with a problem and a mapping."""
    assert printable(mg.render_text(problem, mapping).replace("\n", "")).isprintable()
    mg.check(problem, mapping)
    mg.check(problem, mapping, expressible=False)
    assert mg.latency(problem, mapping).cycles >= 0
    text = overrides(problem, mapping)
    assert text.isascii() and text.replace("\n", "").isprintable()
    run = make_run(problem, mapping, None, compiled=False)
    json.dumps(page_data(problem, maps_of(run)), allow_nan=False)
    mg.save_problem(problem, _folder() / "again.json", mapping)
    assert mg.load_problem(_folder() / "again.json") == problem
    mg.save_assignment(mapping, problem, _folder() / "again.json")
    mg.encode(problem)


def _read_problem(data: bytes) -> None:
    path = _file(data, "problem.json")
    problem = mg.load_problem(path)
    _use(problem, mg.load_reference(path, problem) or mg.all_default(problem))


def _assignment_seeds() -> list[bytes]:
    path = _folder() / "seed.json"
    mg.save_assignment(layers(3)[1], layers(3)[0], path)
    return [path.read_bytes()]


def _read_assignment(data: bytes) -> None:
    problem, _ = layers(3)
    _use(problem, mg.load_assignment(_file(data, "assignment.json"), problem))


def _read_csv(data: bytes) -> None:
    instance = mg.load_minimalloc_csv(_file(data, "buffers.csv"), 1 << 20)
    problem = instance.to_problem()
    assert instance.lower_bound_bytes() > 0 and len(problem.values) == len(instance.ids)
    mg.encode(problem)


_CSV = [
    b"id,lower,upper,size\na,0,3,4\nb,1,9,4\nc,3,9,2\n",
    b'size, id,upper,lower\n4,"x\n,",3,0\n',
]


# --- the agent --------------------------------------------------------------------------------

_SMALL = AgentConfig(network=NetworkConfig(hidden_size=8, num_bins=3, representation_blocks=0))


@functools.cache
def _agent_seed() -> bytes:
    path = _folder() / "seed.msgpack"
    shapes = weights.params_shapes(_SMALL)
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes)
    weights.save_agent(path, _SMALL, zeros, dtype="float32")
    return path.read_bytes()


_cached_shapes = functools.lru_cache(weights.params_shapes)  # tracing takes its time


def _read_agent(data: bytes) -> None:
    with unittest.mock.patch.object(weights, "params_shapes", _cached_shapes):
        _, params = weights.load_agent(_file(data, "agent.msgpack"))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))


def _read_agent_config(data: bytes) -> None:
    hash(AgentConfig.from_json(data.decode(errors="replace")))


def _read_training_config(data: bytes) -> None:
    from agent.learning.training_run import read_config

    found = read_config(_file(data, "config.json"))
    assert training_config.TrainingConfig.from_json(found.to_json()) == found


def _read_metrics(data: bytes) -> None:
    path = _file(data, "metrics.jsonl")
    metrics._keep_before(path, 2)
    assert all(json.loads(line)["iteration"] < 2 for line in path.read_bytes().splitlines())


_ARRAYS = {"a": np.arange(6, dtype=np.float32), "b": {"c": np.zeros((2, 2), np.int32)}}


@functools.cache
def _checkpoint_folder() -> pathlib.Path:
    folder = _folder() / "checkpoints"
    checkpoints = Checkpoints(folder, 1)
    checkpoints.save(1, _ARRAYS, {"iteration": 1})
    checkpoints.close()
    return folder


def _read_checkpoint(data: bytes) -> None:
    """A checkpoint is a directory. data: which file of it is changed, and what it then holds."""
    folder = _folder() / "broken"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(_checkpoint_folder(), folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = files[(data[0] if data else 0) % len(files)]
    content = path.read_bytes()
    at = (data[1] if len(data) > 1 else 0) * len(content) // 256
    path.write_bytes(content[:at] + data[2:] + content[at + len(data[2:]) + 1 :])
    checkpoints = Checkpoints(folder, 1)
    try:
        latest = checkpoints.latest()
        if latest is not None:
            checkpoints.record(latest)
            found = checkpoints.arrays(latest, _ARRAYS)
            assert jax.tree.structure(found) == jax.tree.structure(_ARRAYS)
    finally:
        checkpoints.close()


def _read_generator(data: bytes) -> None:
    restore_generator(data.decode(errors="replace")).random()


def _generator_seeds() -> list[bytes]:
    return [json.dumps(np.random.default_rng(0).bit_generator.state).encode()]


# --- results ----------------------------------------------------------------------------------


def _row(solver: str, predicted: float | None) -> rows.Row:
    return rows.Row(
        "p", "v4", "f", "test", solver, 0, 10.0, 9.0, 4.5, 5, 6, "0" * 64, 100.0, 200.0, 50.0, 0.5,
        True, predicted, 100.0 / predicted if predicted else None, 0.5 if predicted else None, None,
        False, ((1.0, 180.0), (4.0, predicted)) if predicted else (),
        "0" * 64 if predicted else None, None if predicted else "ValueError: no", {"jax": "1"},
    )  # fmt: skip


def _lines(*records: object) -> bytes:
    return b"".join(json.dumps(dataclasses.asdict(r)).encode() + b"\n" for r in records)


def _results_seeds() -> list[bytes]:
    return [_lines(_row("a", 90.0), _row("b", 75.0)), _lines(_row("a", None))]


def _compiled_seeds() -> list[bytes]:
    good = rows.CompiledRow("p", "v4", "a", 0, "0" * 64, 90.0, 100.0, 1.1, 1.05, 0.9, "exact", 3.0,
                            None, {"jax": "1"})  # fmt: skip
    return [_lines(good)]


def _write_report(folder: pathlib.Path) -> None:
    with unittest.mock.patch.object(report, "_pictures", lambda cells: ()):  # seconds each
        report.write(report.load(folder), folder)


def _read_results(data: bytes) -> None:
    folder = _folder() / "bench"
    folder.mkdir(exist_ok=True)
    (folder / "results.jsonl").write_bytes(data)
    for row in rows.results(folder).read():
        assert rows.assignment_path(folder, row).parent == folder / "assignments"
    _write_report(folder)
    assert b"<script" not in (folder / "report.html").read_bytes()


def _read_compiled(data: bytes) -> None:
    folder = _folder() / "compiled"
    folder.mkdir(exist_ok=True)
    (folder / "results.jsonl").write_bytes(_lines(_row("a", 90.0), _row("b", 75.0)))
    (folder / "compiled.jsonl").write_bytes(data)
    _write_report(folder)


def _fidelity_seeds() -> list[bytes]:
    default = CompiledSample("xla_default", 1010.0, 1000.0, 1.0, "default", 0, 5.0)
    random = (
        Sample("random 1", 990.0, 1000.0, 1.0, "exact", 0, 0.0),
        Sample("random 2", 1200.0, 1300.0, 0.5, "relaxed", 2, 0.0),
        Sample("random 3", 900.0, None, None, "none", 0, None),
    )
    made = Fidelity("mlp", "v4", {"jax": "1"}, 3, 7, 9, 1, True, default, default, random, 12, 5,
                    0.002, 81.2, (WorstInstruction("fusion.1", "fusion", 6, 0.0125),))  # fmt: skip
    fidelity_report.save(made, _folder() / "seed.json")
    return [(_folder() / "seed.json").read_bytes()]


def _read_fidelity(data: bytes) -> None:
    found = fidelity_report.load(_file(data, "fidelity.json"))
    assert fidelity_report.text(found) and fidelity_report.result(found)
    text = fidelity_report.markdown([found, found])
    assert "<script" not in text.replace("`", "")


@functools.cache
def _run_folder() -> pathlib.Path:
    problem, everything = layers(3)
    run = make_run(problem, everything, weights_only(problem, everything))
    return save_run(run, _folder() / "run")


@functools.cache
def _run_seeds() -> list[bytes]:
    return [(_run_folder() / "result.json").read_bytes()]  # before a broken one takes its place


def _read_run(data: bytes) -> None:
    folder = _run_folder()
    _run_seeds()
    (folder / "result.json").write_bytes(data)
    run = load_run(folder)
    maps = maps_of(run)
    summary.headline(run), summary.facts(run, maps), summary.rows(run)


def _read_options(data: bytes) -> None:
    options, made_for = timing._read_options(_file(data, "options.json"))
    assert all(type(x) is str for x in options.values())
    with contextlib.redirect_stderr(io.StringIO()):
        timing._warn(made_for, "TPU v4")


# --- the suite --------------------------------------------------------------------------------


def _index_seeds() -> list[bytes]:
    content = json.loads((suite_problems.DATA / "index.json").read_bytes())
    return [json.dumps({**content, "pairs": content["pairs"][:2]}).encode()]


def _read_index(data: bytes) -> None:
    folder = _folder() / "data"
    folder.mkdir(exist_ok=True)
    (folder / "index.json").write_bytes(data)
    for pair in suite_problems.load_index(folder):
        assert pair.path(folder).parent == folder


def _read_suite(data: bytes) -> None:
    _SUITE.load_suite(_file(data, "suite.json"))


# --- programs ---------------------------------------------------------------------------------

_HLO = """HloModule m
less { a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT c = pred[] compare(a, b), direction=LT }
cond { p = (s32[], f32[64]) parameter(0)
  i = s32[] get-tuple-element(p), index=0
  n = s32[] constant(4)
  ROOT l = pred[] compare(i, n), direction=LT }
body { p = (s32[], f32[64]) parameter(0)
  i = s32[] get-tuple-element(p), index=0
  one = s32[] constant(1)
  j = s32[] add(i, one)
  x = f32[64] get-tuple-element(p), index=1
  y = f32[64] tanh(x), backend_config={"estimated_cycles":"7"}
  ROOT t = (s32[], f32[64]) tuple(j, y) }
twice { p = f32[64] parameter(0)
  ROOT q = f32[64] add(p, p) }
ENTRY e { p = f32[64] parameter(0)
  z = s32[] constant(0)
  c = f32[64] call(p), to_apply=twice
  s = f32[64] sort(c), dimensions={0}, to_apply=less
  t = (s32[], f32[64]) tuple(z, s)
  w = (s32[], f32[64]) while(t), condition=cond, body=body
  o = f32[64] get-tuple-element(w), index=1
  u = f32[1] slice(o), slice={[0:1]}
  k = f32[64] dynamic-update-slice(o, u, z)
  ROOT r = (f32[64], f32[64]) tuple(k, p) }
"""
_STABLEHLO = """module @m {
  func.func public @main(%a: tensor<4x8xf32>, %b: tensor<8x2xf32>) -> tensor<4x2xf32> {
    %0 = stablehlo.dot_general %a, %b, contracting_dims = [1] x [0]
      : (tensor<4x8xf32>, tensor<8x2xf32>) -> tensor<4x2xf32>
    return %0 : tensor<4x2xf32>
  }
}
"""


def _proto_seeds() -> list[bytes]:
    return [path.read_bytes() for path in sorted(corpus("hlo_proto").glob("module*.pb"))]


def _read_proto(data: bytes) -> None:
    """What the parent process does with a module, whether it was a proto or comes from a parser."""
    problem = pipeline._problem_of(
        parsing._from_proto(data, "m"), parsing.HLO_PROTO, "v4", "m", data
    )
    pipeline.describe(problem)
    overrides(problem, mg.all_default(problem))


def _read_kind(data: bytes) -> None:
    assert parsing.kind_of(data) in (parsing.HLO_TEXT, parsing.HLO_PROTO, parsing.STABLEHLO)


def _read_program(data: bytes) -> None:
    pipeline.import_file(str(_file(data, "program.hlo")), "v4")


def corpus(name: str) -> pathlib.Path:
    """The directory of files that are kept for a reader."""
    return pathlib.Path(__file__).parent / "corpus" / name


READERS = {
    reader.name: reader
    for reader in (
        Reader("problem", _problem_seeds, _read_problem),
        Reader("assignment", _assignment_seeds, _read_assignment),
        Reader("csv", lambda: _CSV, _read_csv),
        Reader("agent_config", lambda: [_SMALL.to_json().encode()], _read_agent_config),
        Reader("training_config", lambda: [training_config.TrainingConfig().to_json().encode()],
               _read_training_config),
        Reader("agent", lambda: [_agent_seed()], _read_agent),
        Reader("metrics", lambda: [b'{"iteration": 1, "a": 0.5}\n{"iteration": 2}\n'],
               _read_metrics),
        Reader("generator", _generator_seeds, _read_generator),
        Reader("checkpoint", lambda: [b"\0\x80{", b"\3\0x", b"\1\1"], _read_checkpoint,
               is_slow=True),
        Reader("results", _results_seeds, _read_results),
        Reader("compiled_results", _compiled_seeds, _read_compiled),
        Reader("fidelity", _fidelity_seeds, _read_fidelity),
        Reader("run", _run_seeds, _read_run),
        Reader("options", lambda: [b'{"compiler_options": {"a": "1"}, "target": "v4",'
                                   b' "versions": {"jax": "1"}}', b'{"a": true, "b": 1}'],
               _read_options),
        Reader("suite_index", _index_seeds, _read_index),
        Reader("suite", lambda: [_SUITE.SUITE_FILE.read_bytes()], _read_suite),
        Reader("hlo_proto", _proto_seeds, _read_proto),
        Reader("program_kind", lambda: [_HLO.encode(), _STABLEHLO.encode()], _read_kind),
        Reader("program_text", lambda: [_HLO.encode(), _STABLEHLO.encode()], _read_program,
               is_slow=True),
    )
}  # fmt: skip
