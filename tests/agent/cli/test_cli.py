"""The command line as a user meets it: results on disk, one-line errors, exit codes."""

from __future__ import annotations

import dataclasses
import errno
import importlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

import malloc_game as mg
from agent.cli import commands, optimizing
from agent.planner import finders
from agent.report import results
from agent.tuning import main_job
from agent.tuning.main_job import plan_offline
from agent.tuning.outcome import Outcome, Planned
from tests.helpers.paths import ROOT
from workloads.fidelity import report
from workloads.fidelity.measurement import Fidelity, Sample
from workloads.fidelity.report import BEGIN, END, markdown

# The packages offer functions under the names of some modules that they come from.
compiling = importlib.import_module("workloads.compiler.session")
measuring = importlib.import_module("workloads.fidelity.measurement")
PROGRAMS = f"{ROOT / 'tests' / 'helpers' / 'programs_for_tests.py'}"
FILES = {
    "result.json",
    "assignment.json",
    "overrides.textproto",
    "sort_order.textproto",
    "problem.json",
    "report.html",
}


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
    """Run the command line as a user would, from the repository's root."""
    return subprocess.run(
        [sys.executable, "-m", "agent.cli", *map(str, arguments)],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.fixture
def call(capsys, monkeypatch):
    """Run the command line in this process: as `run`, but quick."""

    def call(*arguments: object) -> subprocess.CompletedProcess:
        monkeypatch.setattr(sys, "argv", ["mallocgame", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            commands.main()
        output = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, stop.value.code, output.out, output.err)

    return call


def assert_one_line_error(done: subprocess.CompletedProcess, code: int, pattern: str) -> None:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    errors = [line for line in done.stderr.splitlines() if not line.startswith("[")]
    assert len(errors) == 1, done.stderr
    assert re.search(pattern, errors[0]), errors[0]
    assert errors[0].startswith("mallocgame: error: ")


@pytest.fixture(scope="module")
def problem_file(tmp_path_factory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("problem") / "random.json.gz"
    mg.save_problem(mg.random_problem(3, num_instructions=30), path)
    return path


@pytest.mark.parametrize(
    "arguments, pattern",
    [
        (["optimize", "decode", "--target", "v9"], "unknown target 'v9'.*v4.*tpu7x"),
        (["optimize", "decode"], "needs --target"),
        (["optimize", "decoed", "--target", "v4"], "no program 'decoed'.*decode"),
        (["optimize", "missing.py:f", "--target", "v4"], "missing.py"),
        (["optimize", f"{PROGRAMS}:nothing", "--target", "v4"], "nothing.*chain"),
        (["optimize", f"{PROGRAMS}:needs_an_argument", "--target", "v4"], "argument"),
        (["optimize", "decode", "--target", "v4", "--budget", "soon"], "soon"),
        (["optimize", "decode", "--target", "v4", "--budget", "-1"], "-1"),
        (["optimise", "decode"], "optimise"),
        (["evaluate", "nowhere.json"], "nowhere.json.*No such file"),
        (["extract", "decode", "--target", "v4", "--out", "x.txt"], "x.txt.*json"),
        (["fidelity", "decode"], "decode needs --target"),
        (["fidelity"], "name a PROGRAM"),
        (["fidelity", "--target", "v4", "--out", "nowhere"], "name a PROGRAM"),
        (["fidelity", "--out", "nowhere"], "nowhere: no such directory"),
        (["fidelity", "decode", "--target", "v4", "--target", "v9"], "unknown target 'v9'.*tpu7x"),
        (["fidelity", "decode", "decoed", "--target", "v4"], "no program 'decoed'.*decode"),
        (["fidelity", "decode", "--target", "v4", "--random", "-1"], "-1"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, pattern, tmp_path, call):
    out = tmp_path / "out"
    if arguments[0] == "optimize":
        arguments = [*arguments, "--out", out]
    assert_one_line_error(call(*arguments), 2, pattern)
    assert not out.exists()


def test_a_mistake_in_a_process_of_its_own():
    assert_one_line_error(run("optimize", "decode", "--target", "v9"), 2, "unknown target 'v9'")


@pytest.mark.parametrize(
    "content, pattern",
    [
        (b"", "empty"),
        (b"   \n", "empty"),
        (b"{", "not valid JSON"),
        (b"\x1f\x8b\x08\x00garbage", "gzip"),
        (b"[]", "not a problem file"),
        (b'{"schema_version": 99, "problem": {}}', "schema_version is 99"),
        (b'{"schema_version": 1, "problem": {"name": 3}}', "problem.name"),
    ],
)
def test_a_corrupt_problem_file_is_one_line_and_exit_code_2(content, pattern, tmp_path, call):
    path = tmp_path / "problem.json"
    path.write_bytes(content)
    out = tmp_path / "out"
    assert_one_line_error(call("evaluate", path), 2, pattern)
    assert_one_line_error(call("optimize", path, "--budget", 1, "--out", out), 2, pattern)
    assert not out.exists()


def test_out_below_a_file_is_refused_before_any_work(tmp_path, call):
    (tmp_path / "file").write_text("")
    done = call("optimize", "decode", "--target", "v4", "--out", tmp_path / "file" / "out")
    assert_one_line_error(done, 2, "not a directory")


def test_a_report_without_room_for_the_tables_is_refused_before_any_work(tmp_path, call):
    path = tmp_path / "mine.md"
    path.write_text("# Mine\n")
    done = call("fidelity", "decode", "--target", "v4", "--report", path)
    assert_one_line_error(done, 2, "mine.md.*measured: begin")
    assert path.read_text() == "# Mine\n"


def test_a_report_is_made_of_what_was_measured_without_the_compiler(tmp_path, call, monkeypatch):
    sample = Sample("xla_default", 1010.0, 1000.0, 1.0, "default", 0, 5.0)
    known = Fidelity("mlp", "v4", {"libtpu": "0"}, 0, 7, 9, 1, True, sample, None, (), 12, 5, 0.0,
                     81.0, ())  # fmt: skip
    out, path = tmp_path / "measured", tmp_path / "report.md"
    report.save(known, report.cell_path(out, "mlp", "v4"))
    monkeypatch.setattr(compiling, "check_compiler", None)  # to call it would fail
    monkeypatch.setattr(measuring, "measure", None)
    done = call("fidelity", "--out", out)
    assert done.returncode == 0 and "mlp on v4: 7 timed" in done.stdout
    done = call("fidelity", "--out", out, "--report", path)
    assert done.returncode == 0 and done.stdout == ""
    assert path.read_text() == f"# Fidelity\n\n{BEGIN}\n\n{markdown([known])}\n{END}\n"


def test_a_report_is_of_all_that_was_measured_not_of_this_run_alone(tmp_path, call, monkeypatch):
    sample = Sample("xla_default", 1010.0, 1000.0, 1.0, "default", 0, 5.0)

    def measure(program, target, **settings):
        return Fidelity(program, target, {}, 0, 7, 9, 1, True, sample, None, (), 12, 5, 0.0, 81.0,
                        ())  # fmt: skip

    out, path = tmp_path / "measured", tmp_path / "report.md"
    monkeypatch.setattr(compiling, "check_compiler", lambda: None)
    monkeypatch.setattr(measuring, "measure", measure)
    for program in ("lstm", "alexnet"):
        done = call("fidelity", program, "--target", "v4", "--out", out, "--report", path)
        assert done.returncode == 0 and f"{program} on v4" in done.stdout
    assert "| alexnet | v4 |" in path.read_text() and "| lstm | v4 |" in path.read_text()


def test_evaluate_prints_baselines_and_a_given_assignment(problem_file, tmp_path, call):
    problem = mg.load_problem(problem_file)
    state, _ = mg.greedy(mg.encode(problem))
    mg.save_assignment(mg.to_assignment(problem, state), problem, tmp_path / "a.json")
    done = call("evaluate", problem_file, tmp_path / "a.json", "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["mapping"]: row for row in json.loads(done.stdout)["rows"]}
    assert rows["given"]["predicted_cycles"] == rows["greedy"]["predicted_cycles"]
    assert rows["greedy"]["predicted_cycles"] < rows["all_default"]["predicted_cycles"]
    assert rows["given"]["violations"] == []


def test_a_problem_file_is_optimized_without_the_compiler(problem_file, tmp_path, call):
    out = tmp_path / "deep" / "out"
    done = call("optimize", problem_file, "--budget", 1, "--out", out)
    assert done.returncode == 0, done.stderr
    assert {p.name for p in out.iterdir()} == FILES
    result = json.loads((out / "result.json").read_text())
    assert result["compiled_speedup"] is None
    latency = result["latency_cycles"]
    assert latency["best"]["predicted"] <= latency["greedy"]["predicted"]
    assert latency["planner"]["compiled"] is None
    problem = mg.load_problem(out / "problem.json")
    assignment = mg.load_assignment(out / "assignment.json", problem)
    assert mg.check(problem, assignment) == []
    assert mg.latency(problem, assignment).cycles == latency["best"]["predicted"]


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    outcome = plan_offline(mg.random_problem(1, num_instructions=8, loop=False), None, budget=0.1)
    real, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 1:  # the first file still fits
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(mg.MallocGameError, match="No space left on device"):
        results.write(outcome, tmp_path / "new" / "out")
    assert len(calls) > 1
    assert list(tmp_path.iterdir()) == []


def test_an_existing_result_survives_a_failed_write(tmp_path, monkeypatch):
    outcome = plan_offline(mg.random_problem(1, num_instructions=8, loop=False), None, budget=0.1)
    results.write(outcome, tmp_path)
    (tmp_path / "mine.txt").write_text("keep")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(mg.MallocGameError):
        results.write(outcome, tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.requires_libtpu
def test_a_function_that_cannot_be_traced_is_a_compiler_failure(tmp_path, call):
    out = tmp_path / "out"
    done = call("optimize", f"{PROGRAMS}:cannot_be_traced", "--target", "v5e", "--out", out)
    assert_one_line_error(done, 3, "TypeError|dot_general")
    assert not out.exists()


_SWALLOWING = """
import os, signal, time
from agent.cli.interrupts import importing

# A shell's background job, as tests may be, hands down that SIGINT is to be ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

def interrupt():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(30)
    except KeyboardInterrupt:
        print("swallowed", flush=True)

with importing():
    pass
interrupt()
with importing():
    interrupt()
print("went on")
"""


def test_ctrl_c_ends_the_program_even_where_a_library_that_is_imported_swallows_it():
    done = subprocess.run([sys.executable, "-c", _SWALLOWING], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "swallowed\n")
    assert done.stderr == "mallocgame: error: interrupted; nothing was written\n"


@pytest.mark.requires_libtpu
def test_killing_the_compiler_is_a_compiler_failure(tmp_path):
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "agent.cli", "optimize", "resnet50", "--target", "v4",
         "--out", str(out)],
        cwd=ROOT, env={**os.environ, "MALLOCGAME_CACHE": str(tmp_path / "cache")},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    child = None
    for _ in range(600):
        children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        if children.split():
            child = int(children.split()[0])
            break
        time.sleep(0.1)
    assert child is not None
    time.sleep(1.0)
    os.kill(child, signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=120)
    done = subprocess.CompletedProcess([], process.returncode, stdout, stderr)
    assert_one_line_error(done, 3, "SIGKILL")
    assert not out.exists()


@pytest.mark.requires_libtpu
def test_the_main_job_end_to_end(tmp_path):
    out = tmp_path / "out"
    done = run("optimize", f"{PROGRAMS}:chain", "--target", "tpu7x", "--budget", 1, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "compiler_options = {" in done.stdout or "nothing to change" in done.stdout
    assert "XLA default" in done.stdout and "No speed-up is claimed" in done.stdout
    assert {p.name for p in out.iterdir()} == FILES
    result = json.loads((out / "result.json").read_text())
    latency = result["latency_cycles"]
    # What has no mapping says why; what has one, what found it. No network played in a second.
    sources = {"all_default", "xla_default", "greedy", "guided", "planner", "best"}
    assert set(latency) | set(result["missing"]) == sources
    assert not set(latency) & set(result["missing"])
    assert set(result["found_by"]) == set(latency) - {"best"}
    assert result["found_by"]["planner"] in (finders.CPSAT_LNS, finders.LP_ROUNDING, finders.GREEDY,
                                             finders.XLA_DEFAULT, finders.THOMPSON)  # fmt: skip
    assert result["planner_games"] == 0 and "agent" not in done.stdout + done.stderr
    compiled = {source: latency[source]["compiled"] for source in latency}
    assert compiled["best"] == min(compiled.values())
    assert result["compiled_speedup"] == compiled["xla_default"] / compiled["best"] >= 1.0
    assert 0.9 <= result["honoured"] <= 1.0
    assert result["compiled_speedup_monotone"] > 0
    assert result["versions"]["libtpu"] != "none"
    problem = mg.load_problem(out / "problem.json")
    mg.load_assignment(out / "assignment.json", problem)
    assert mg.load_reference(out / "problem.json", problem) is not None


def test_ctrl_c_in_a_run_writes_what_was_found_and_says_so(tmp_path, monkeypatch, capsys):
    problem = mg.random_problem(0, num_instructions=12)
    found = Planned("greedy", finders.GREEDY, mg.all_default(problem), 7.0)
    outcome = Outcome(
        problem=problem, program="p", decisions=3, versions={}, seed=0, seconds=1.0,
        candidates={"all_default": dataclasses.replace(found, source="all_default"),
                    "greedy": found},
        missing={}, best=found, num_compiles=0, planner_stats={}, stopped="interrupted",
        is_interrupted=True,
    )  # fmt: skip
    monkeypatch.setattr(main_job, "plan_offline", lambda *given, **how: outcome)
    ended = []
    monkeypatch.setattr(optimizing.os, "_exit", ended.append)
    mg.save_problem(problem, tmp_path / "problem.json")
    words = ["optimize", str(tmp_path / "problem.json"), "--out", str(tmp_path / "out")]
    commands.cli(words, standalone_mode=False)
    assert ended == [130] and "stopped early: interrupted" in capsys.readouterr().out
    assert {p.name for p in (tmp_path / "out").iterdir()} == FILES


@pytest.mark.requires_libtpu
def test_extract_then_evaluate(tmp_path, call):
    path = tmp_path / "chain.json.gz"
    done = call("extract", f"{PROGRAMS}:chain", "--target", "tpu7x", "--out", path)
    assert done.returncode == 0, done.stderr
    done = call("evaluate", path, "--json")
    assert done.returncode == 0, done.stderr
    mappings = [row["mapping"] for row in json.loads(done.stdout)["rows"]]
    assert mappings[:3] == ["all_default", "xla_default", "greedy"]


# --- import -----------------------------------------------------------------------------------

HLO = """HloModule m
ENTRY e {
  p = f32[1024,1024]{1,0} parameter(0)
  a = f32[1024,1024]{1,0} sine(p)
  ROOT b = f32[1024,1024]{1,0} add(a, p)
}
"""


def test_import_writes_a_problem_and_says_what_stands_in(call, tmp_path):
    (tmp_path / "m.hlo").write_text(HLO)
    out = tmp_path / "new" / "m.json.gz"
    done = call("import", tmp_path / "m.hlo", "--target", "v5e", "--out", out)
    assert done.returncode == 0, done.stderr
    # Nothing has fused the module, so the two elementwise operations are made one fusion.
    assert "1 timed instructions, 2 values, target v5e" in done.stdout
    assert "roofline for 1 of 1 instructions (197 TFLOP/s, 819 GB/s)" in done.stdout
    assert mg.load_problem(out).target.name == "v5e"
    assert call("evaluate", out).returncode == 0


def test_import_of_a_function_runs_it_in_a_process_of_its_own(call, tmp_path):
    out = tmp_path / "chain.json"
    done = call("import", f"{PROGRAMS}:chain", "--target", "v4", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "from JAX function" in done.stdout
    assert mg.load_problem(out).name == "programs_for_tests:chain"


def test_import_of_a_csv_is_a_packing_test(call, tmp_path):
    (tmp_path / "b.csv").write_text("id,lower,upper,size\na,0,2,4\nb,1,3,4\n")
    out = tmp_path / "b.json"
    done = call("import", tmp_path / "b.csv", "--capacity", 8, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "8 of 8 bytes at the peak" in done.stdout
    assert mg.load_problem(out).target.alternate_memory_bytes == 8


@pytest.mark.parametrize(
    "name, content, options, pattern",
    [
        ("m.hlo", HLO, [], "needs --target"),
        ("m.hlo", HLO, ["--target", "v9"], "unknown target"),
        ("m.hlo", HLO, ["--target", "v4", "--capacity", "8"], "--capacity is for"),
        ("m.hlo", HLO[:60], ["--target", "v4"], "m.hlo is not valid HLO text"),
        ("m.hlo", "", ["--target", "v4"], "is empty"),
        ("b.csv", "id,lower,upper,size\na,2,1,4\n", ["--capacity", "8"], "lifetime"),
        ("b.csv", "id,lower,upper,size\na,0,1,4\n", [], "needs --target"),
        ("p.py", "", ["--target", "v4"], "no function given"),
    ],
)
def test_import_refuses_with_one_line(call, tmp_path, name, content, options, pattern):
    (tmp_path / name).write_text(content)
    out = tmp_path / "out.json"
    done = call("import", tmp_path / name, *options, "--out", out)
    assert_one_line_error(done, 2, pattern)
    assert not out.exists()


def test_import_of_a_function_that_cannot_be_traced_is_the_users_mistake(call, tmp_path):
    done = call("import", f"{PROGRAMS}:cannot_be_traced", "--target", "v4",
                "--out", tmp_path / "o.json")  # fmt: skip
    assert_one_line_error(done, 2, "cannot be lowered")
