"""The compiler in its child process: results, refusals, crashes, and the cache."""

import importlib
import math
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from tests.helpers.paths import ROOT
from workloads.compiler.cache import DiskCache, content_key
from workloads.compiler.child import describe_failure
from workloads.compiler.process import useful_lines
from workloads.compiler.session import CompilerSession
from workloads.errors import (
    CompileError,
    CompilerUnavailable,
    CompileTimeout,
    OverrideError,
    WorkloadError,
)
from workloads.hlo.module import Module

requires_libtpu = pytest.mark.requires_libtpu  # skipped by conftest.py where it is missing
SMALL = jax.ShapeDtypeStruct((512, 512), jnp.bfloat16)
IMPOSSIBLE = (
    'overrides { hlo_operand_filter { instruction_name_regex: ".*" operand_number: 1 } '
    "prefetch { logical_time: 900 strict_timing: true } }"
)
KEEP_ALL = (
    'overrides { hlo_position_matcher { instruction_name_regex: ".*" } keep_in_default_memory {} }'
)

# The package offers the function `compile` under the name of the module it comes from.
compiling = importlib.import_module("workloads.compiler.session")
SMALL_FILE = """
    import jax, jax.numpy as jnp
    def program():
        x = jax.ShapeDtypeStruct((512, 512), jnp.bfloat16)
        return (lambda a, b: jnp.tanh(a @ b) @ b), (x, x)
"""


def child_pid(session):
    """Process id of the compiler, None while there is none."""
    child = session._child
    return child.pid if child is not None and child.is_alive() else None


def small(a, b):
    return jnp.tanh(a @ b) @ b


@pytest.fixture(autouse=True)
def cache_directory(tmp_path, monkeypatch):
    directory = tmp_path / "cache"
    monkeypatch.setenv("MALLOCGAME_CACHE", str(directory))
    return directory


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """Where the sessions of this test make their temporary directories."""
    directory = tmp_path / "scratch"
    directory.mkdir()
    monkeypatch.setenv("TMPDIR", str(directory))
    monkeypatch.setattr("tempfile.tempdir", str(directory))
    return directory


def write(tmp_path, text):
    path = tmp_path / "model.py"
    path.write_text(textwrap.dedent(text))
    return f"{path}:program"


def is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def wait_until(condition, seconds=8.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "condition not met in time"
        time.sleep(0.05)


# Results


@requires_libtpu
def test_a_callable_compiles_and_the_second_time_comes_from_the_cache(cache_directory):
    first = compiling.compile(small, SMALL, SMALL, target="v5e")
    assert not first.from_cache and first.seconds > 0
    assert set(first.msa) == {"bufferinfo", "allocinfo", "scheduleinfo"}
    assert first.memory["argument"] == 2 * 512 * 512 * 2 and first.memory["alias"] == 0
    assert b"estimated_cycles" in first.hlo
    assert len(list(cache_directory.iterdir())) == 1
    again = compiling.compile(small, SMALL, SMALL, target="v5e")
    assert again.from_cache
    assert (again.hlo, again.msa, again.memory) == (first.hlo, first.msa, first.memory)
    other = compiling.compile(small, SMALL, SMALL, target="v4")
    assert not other.from_cache and other.hlo != first.hlo


@requires_libtpu
def test_a_damaged_cache_entry_is_ignored_and_replaced(cache_directory):
    with CompilerSession((small, (SMALL, SMALL)), "v5e") as session:
        first = session.compile()
        (entry,) = cache_directory.iterdir()
        whole = entry.read_bytes()
        for damage in (whole[:100], whole[:-40] + bytes(40)):
            entry.write_bytes(damage)
            again = session.compile()
            assert not again.from_cache and again.msa == first.msa
        assert session.compile().from_cache


@requires_libtpu
def test_one_session_serves_many_options_with_one_process():
    def chain(x, w):
        for _ in range(3):
            x = jnp.cumsum(jnp.tanh(x @ w), axis=0)
        return x

    options = {"xla_msa_max_cross_program_prefetches": "0"}  # overrides do not reach those
    with CompilerSession((chain, (SMALL, SMALL)), "v5e", cache=False) as session:
        default = session.compile(options)
        pid = child_pid(session)
        kept = session.compile(options, overrides=KEEP_ALL)
        repeated = session.compile(options)
        assert child_pid(session) == pid
        assert session.num_compiles == 2, "different ones; a repetition is none"
        with pytest.raises(CompileError):
            session.compile({"no_such_option": "1"})
        assert session.num_compiles == 3, "what came to nothing was asked for, too"
    assert not is_running(pid)
    assert len(kept.msa["allocinfo"].splitlines()) == 1  # the header
    assert len(default.msa["allocinfo"].splitlines()) > 1
    assert kept.options == {**options, "xla_tpu_msa_tensor_overrides": KEEP_ALL}
    # A repetition is compiled again, dumps and all, and comes out the same.
    assert repeated.msa == default.msa
    assert rows(repeated) == rows(default) != rows(kept)


def rows(compiled):
    return [
        (i.name, i.estimated_cycles, i.leaves, trips)
        for i, trips in Module(compiled.hlo).flattened()
    ]


@requires_libtpu
def test_the_module_is_that_of_the_executable_too(monkeypatch):
    dumped = compiling.compile(small, SMALL, SMALL, target="v5e", cache=False)
    monkeypatch.setitem(compiling._CHILD_ENVIRONMENT, "XLA_FLAGS", "")
    rebuilt = compiling.compile(small, SMALL, SMALL, target="v5e", cache=False)
    assert rows(dumped) == rows(rebuilt) and dumped.msa == rebuilt.msa


@requires_libtpu
def test_a_call_that_gets_its_operands_late_does_not_spoil_the_result():
    def gather(table, index):
        return jnp.take_along_axis(table, index[:, None], axis=-1)

    table = jax.ShapeDtypeStruct((2048, 1024), jnp.float32)
    index = jax.ShapeDtypeStruct((2048,), jnp.int32)
    for target in ("v6e", "tpu7x"):  # generations with SparseCores; JAX cannot rebuild the module
        assert rows(compiling.compile(gather, table, index, target=target))


@requires_libtpu
def test_a_jitted_function_keeps_its_donation(tmp_path):
    donating = jax.jit(lambda state, x: state + x, donate_argnums=0)
    size = 512 * 512 * 2
    assert compiling.compile(donating, SMALL, SMALL, target="v5e").memory["alias"] == size
    spec = write(
        tmp_path,
        """
        import jax, jax.numpy as jnp
        def program():
            x = jax.ShapeDtypeStruct((512, 512), jnp.bfloat16)
            return jax.jit(lambda state, x: state + x, donate_argnums=0), (x, x)
        """,
    )
    assert compiling.compile(spec, target="v5e").memory["alias"] == size


@requires_libtpu
def test_names_are_those_that_a_user_gets_who_compiles_directly(tmp_path):
    script = """
        import jax, jax.numpy as jnp, re, sys
        from jax.experimental import topologies
        device = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices[0]
        where = jax.sharding.SingleDeviceSharding(device)
        x = jax.ShapeDtypeStruct((512, 512), jnp.bfloat16, sharding=where)
        text = jax.jit(lambda a, b: jnp.tanh(a @ b) @ b).lower(x, x).compile().as_text()
        print(" ".join(re.findall(r"^ *(?:ROOT )?%([\\w.-]+) =", text, re.M)))
    """
    environment = {
        **os.environ,
        **{k: v for k, v in compiling._CHILD_ENVIRONMENT.items() if k != "LIBTPU_INIT_ARGS"},
        "TPU_LOG_DIR": str(tmp_path),
        "XLA_FLAGS": "",  # those of the tests are for the CPU, and libtpu does not know them
    }
    printed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    ours = compiling.compile(write(tmp_path, SMALL_FILE), target="v5e")
    assert len(printed) > 5
    assert [name for name in printed if name.encode() not in ours.hlo] == []


@requires_libtpu
def test_importing_and_compiling_prints_nothing_and_loads_no_tpu_runtime(tmp_path):
    script = f"""
        import sys
        import workloads
        from workloads.compiler.session import compile
        maps = lambda: open("/proc/self/maps").read()
        assert "libtpu" not in maps(), "libtpu was loaded by the import"
        result = compile({write(tmp_path, SMALL_FILE)!r}, target="v5e")
        assert not result.from_cache and "libtpu" not in maps(), "libtpu was loaded by compile"
        print("well")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "well\n", "")


# Refusals and failures


@requires_libtpu
def test_an_impossible_override_is_an_override_error_and_the_process_lives():
    with CompilerSession((small, (SMALL, SMALL)), "v5e") as session:
        with pytest.raises(OverrideError, match="MSA strict override failed") as caught:
            session.compile(overrides=IMPOSSIBLE)
        assert caught.value.last_lines and "\n" not in str(caught.value)
        pid = child_pid(session)
        assert session.compile().hlo and child_pid(session) == pid
        with pytest.raises(OverrideError):  # a refusal is remembered
            session.compile(overrides=IMPOSSIBLE, timeout=0.01)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("FAILED_PRECONDITION: MSA strict override failed for x", "OverrideError"),
        (
            "FAILED_PRECONDITION: The value defined at reduce-window.5 requires allocation in the "
            "alternate memory, which could not be satisfied.",
            "OverrideError",
        ),
        ("FAILED_PRECONDITION: something else", "CompileError"),
        ("INTERNAL: MSA strict", "CompileError"),
    ],
)
def test_refusals_are_told_from_other_failures(text, kind):
    failure = describe_failure(RuntimeError(text), "compile", None)
    assert (failure["kind"], failure["message"]) == (kind, text)


@requires_libtpu
def test_an_abort_in_the_compiler_becomes_an_error_and_the_next_request_works():
    too_much = {"xla_tpu_max_cmem_used_by_memory_space_assignment": "131072"}
    with CompilerSession((small, (SMALL, SMALL)), "v4") as session:
        with pytest.raises(CompileError, match=r"SIGABRT.*Check failed") as caught:
            session.compile(too_much)
        assert any("Check failed" in line for line in caught.value.last_lines)
        assert child_pid(session) is None
        assert session.compile().hlo
        with pytest.raises(CompileError, match="SIGABRT"):  # a crash is not cached
            session.compile(too_much)


@requires_libtpu
def test_a_full_temporary_disk_is_an_error_and_not_a_result_without_dumps(tmp_path):
    spec = write(
        tmp_path,
        SMALL_FILE + "    import shutil\n    full = shutil.disk_usage('.')._replace(free=0)\n"
        "    shutil.disk_usage = lambda path: full\n",
    )
    with pytest.raises(CompileError, match="no space left in the temporary directory"):
        compiling.compile(spec, target="v5e")


@requires_libtpu
def test_an_unknown_compiler_option_is_named():
    with pytest.raises(CompileError, match="No such compile option: 'nonsense'"):
        compiling.compile(small, SMALL, SMALL, target="v5e", options={"nonsense": "1"})


def test_a_file_that_aborts_while_loading_is_contained(tmp_path):
    spec = write(
        tmp_path,
        "import os, sys\nprint('Check failed: my invariant', file=sys.stderr, flush=True)\n"
        "os.abort()\n",
    )
    with pytest.raises(CompileError, match="SIGABRT: Check failed: my invariant"):
        compiling.compile(spec, target="v5e")


def test_a_program_that_hangs_is_killed_at_the_time_limit_with_all_its_processes(tmp_path, scratch):
    spec = write(
        tmp_path,
        f"""
        import subprocess, time
        sleeper = subprocess.Popen(["sleep", "60"])
        open({str(tmp_path / "pid")!r}, "w").write(str(sleeper.pid))
        time.sleep(60)
        """,
    )
    for timeout in (3, 10, 40):  # on a busy machine it takes longer to start
        start = time.monotonic()
        with pytest.raises(CompileTimeout, match=f"within {timeout} s"):
            compiling.compile(spec, target="v5e", timeout=timeout)
        assert time.monotonic() - start < timeout + 20, "it was waited for"
        if (tmp_path / "pid").exists():
            break
    sleeper = int((tmp_path / "pid").read_text())
    wait_until(lambda: not is_running(sleeper))
    assert list(scratch.iterdir()) == []


@requires_libtpu
def test_no_request_outlasts_the_sessions_deadline_and_no_late_answer_is_read(
    cache_directory,
):
    with CompilerSession((small, (SMALL, SMALL)), "v5e") as session:
        known = session.compile()
        session.deadline = time.monotonic()
        with pytest.raises(CompileTimeout, match="was not compiled for v5e within 0 s"):
            session.place({"xla_tpu_max_hbm_size_mib": "1"})
        assert child_pid(session) is None, "its answer would be taken for that of the next request"
        for request in (
            session.lowered,
            lambda: session.place({}),
            lambda: session.compile(overrides=KEEP_ALL),
        ):
            with pytest.raises(CompileTimeout):
                request()
        assert child_pid(session) is None
        assert session.compile().hlo == known.hlo
        session.deadline = math.inf
        assert not session.compile(overrides=KEEP_ALL).from_cache


def test_a_child_that_prints_without_end_fills_neither_memory_nor_disk(tmp_path, scratch):
    spec = write(
        tmp_path,
        """
        import os
        line = b"noise " * 10000 + b"\\n"
        for _ in range(5000):
            os.write(2, line)
        os.write(2, b"Check failed: the last word\\n")
        os.abort()
        """,
    )
    with pytest.raises(CompileError, match="Check failed: the last word") as caught:
        compiling.compile(spec, target="v5e", timeout=60)
    assert sum(map(len, caught.value.last_lines)) < 10000
    assert list(scratch.iterdir()) == []


def test_a_killed_child_is_one_clear_error_and_the_session_recovers(tmp_path):
    flag = tmp_path / "started"
    spec = write(
        tmp_path,
        f"""
        import os, time, jax, jax.numpy as jnp
        def program():
            if not os.path.exists({str(flag)!r}):
                open({str(flag)!r}, "w").close()
                time.sleep(60)
            raise ValueError("second life")
        """,
    )

    def kill():
        wait_until(flag.exists)
        os.kill(child_pid(session), signal.SIGKILL)

    with CompilerSession(spec, "v5e") as session:
        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(CompileError, match="ended by SIGKILL"):
            session.compile()
        killer.join()
        with pytest.raises(WorkloadError, match="second life"):
            session.compile()
        assert child_pid(session) is None


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_child_and_no_directory_outlive_the_parent(tmp_path, scratch, end):
    pid_file = tmp_path / "pid"
    spec = write(
        tmp_path,
        f"""
        import os, time
        open({str(pid_file)!r} + ".new", "w").write(str(os.getpid()))
        os.rename({str(pid_file)!r} + ".new", {str(pid_file)!r})
        time.sleep(60)
        """,
    )
    # A shell's background job, as tests may be, hands down that SIGINT is to be ignored.
    script = f"""if True:
        import signal
        signal.signal(signal.SIGINT, signal.default_int_handler)
        from workloads.compiler.session import compile
        compile({spec!r}, target="v5e")
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(pid_file.exists, 120)
        child = int(pid_file.read_text())
        assert is_running(child)
        parent.send_signal(end)
        parent.wait(timeout=20)
    finally:
        parent.kill()
        parent.wait()
    wait_until(lambda: not is_running(child))
    wait_until(lambda: list(scratch.iterdir()) == [])


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("x @ jnp.ones((3, 3))", r"TypeError at line \d+: dot_general requires"),
        ("x if x.sum() > 0 else -x", "TracerBoolConversionError at line"),
        ("undefined_name", "NameError at line"),
    ],
)
def test_a_function_that_cannot_be_traced_is_a_compile_error(tmp_path, body, expected):
    spec = write(
        tmp_path,
        f"""
        import jax, jax.numpy as jnp
        def program():
            return (lambda x: {body}), (jax.ShapeDtypeStruct((8, 8), jnp.float32),)
        """,
    )
    with pytest.raises(CompileError, match=f"model:program cannot be compiled: {expected}") as e:
        compiling.compile(spec, target="v5e")
    assert "\n" not in str(e.value)


def test_a_program_without_arrays_is_the_users_mistake():
    with pytest.raises(WorkloadError, match="takes no arrays"):
        compiling.compile(lambda: jnp.ones((8, 128)), target="v5e")


def test_a_callable_that_cannot_be_sent_is_the_users_mistake():
    lock = threading.Lock()
    with pytest.raises(WorkloadError, match=r"cannot be sent .* path/to/file.py:function"):
        compiling.compile(lambda x: (lock, x)[1], SMALL, target="v5e")


def test_an_unknown_target_lists_the_known():
    with pytest.raises(WorkloadError, match="unknown target 'v3'.*v4, v5e, v6e, v5p, tpu7x"):
        compiling.compile(small, SMALL, SMALL, target="v3")


def test_without_the_compiler_the_message_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(compiling.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CompilerUnavailable, match="needs the package libtpu.*Linux on x86-64"):
        compiling.compile(small, SMALL, SMALL, target="v5e")


def test_useful_lines_prefer_the_reason_and_drop_the_stack():
    text = """\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1 42 start.cc:1] starting
F0000 00:00:1763.123 42 space.cc:540] Check failed: a <= b (2 vs. 1)
*** Check failure stack trace: ***
    @     0x7f0 (unknown)
#1 0x7f0 in main
F0000 00:00:1763.123 42 space.cc:540] Check failed: a <= b (2 vs. 1)
"""
    assert useful_lines(text) == ["space.cc:540] Check failed: a <= b (2 vs. 1)"]
    assert useful_lines("only\nthis\n") == ["only", "this"]


# The cache by itself


def test_an_entry_comes_back_and_the_key_depends_on_every_part(tmp_path):
    cache = DiskCache(tmp_path)
    cache.put("k", {"a": [1, "x"]}, b"\x00blob")
    assert cache.get("k") == ({"a": [1, "x"]}, b"\x00blob")
    assert cache.get("other") is None
    parts = {"module": "m", "options": {"o": "1"}, "target": "v4", "versions": {"jax": "1"}}
    changed = [
        {**parts, "module": "n"},
        {**parts, "options": {"o": "2"}},
        {**parts, "target": "v5e"},
        {**parts, "versions": {"jax": "2"}},
    ]
    assert len({content_key(**each) for each in [parts, *changed]}) == 5


def test_the_least_recently_used_entries_go_first(tmp_path):
    cache = DiskCache(tmp_path, max_bytes=1 << 40)
    blob = os.urandom(10000)
    for age, key in ((300, "old"), (200, "used"), (100, "young")):
        cache.put(key, {}, blob)
        moment = time.time() - age
        os.utime(tmp_path / f"{key}.entry", (moment, moment))
    cache.get("used")
    cache.max_bytes = 35000
    cache.put("new", {}, blob)
    assert {path.stem for path in tmp_path.iterdir()} == {"used", "young", "new"}


def test_a_clock_that_jumps_costs_an_entry_and_not_the_cache(tmp_path, monkeypatch, caplog):
    ours, theirs = DiskCache(tmp_path), DiskCache(tmp_path)
    replace, now = os.replace, time.time

    def replace_after_a_day(source, target):
        monkeypatch.setattr(os, "replace", replace)
        monkeypatch.setattr(time, "time", lambda: now() + 86400)
        theirs.put("theirs", {}, b"")  # removes what looks like a dead process's file
        monkeypatch.setattr(time, "time", lambda: now() - 86400)  # and back
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_after_a_day)
    ours.put("lost", {}, b"")
    assert ours.get("lost") is None and ours.get("theirs") is not None
    ours.put("ours", {}, b"")
    assert ours.get("ours") is not None and not caplog.records
    assert {path.suffix for path in tmp_path.iterdir()} == {".entry"}


@pytest.mark.parametrize("failing", ["tempfile.mkstemp", "os.replace"])
def test_a_full_disk_means_one_warning_and_no_cache(tmp_path, monkeypatch, caplog, failing):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(failing, full)
    for _ in range(2):
        cache = DiskCache(tmp_path / "full")
        cache.put("a", {}, b"")
        cache.put("b", {}, b"")
        assert cache.get("a") is None
    warnings = [r.message for r in caplog.records if "not cached" in r.message]
    assert len(warnings) == 1 and "No space left on device" in warnings[0]
    assert list((tmp_path / "full").iterdir()) == []
