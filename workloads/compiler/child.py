"""The process that holds the TPU compiler: `python -m workloads.compiler.child`.

One program and one target for its whole life. Requests come in and answers go out as frames
(`workloads.compiler.frames`) over two pipes given as arguments; stdin is not used, and stdout and
stderr belong to the compiler and to the user's code. The environment is set by the parent before
start.
It may abort or hang at any time: the parent copes.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import queue
import re
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from workloads.compiler import frames

MSA_FILES = ("bufferinfo", "allocinfo", "scheduleinfo")
# In the messages for overrides that cannot be met: prefetches, pins, and pins in full memory.
REFUSALS = ("MSA strict", "requires allocation in the alternate memory")
OUT_OF_MEMORY = "CompileTimeHbmOom"
MAX_ERROR_LINES = 40
MAX_MESSAGE = 400
MAX_ALARM_SECONDS = 10**7
MIN_FREE_BYTES = 64 << 20  # the compiler cuts its dumps short, without a word, when a disk is full


def _limit_memory(more: int) -> None:
    """From here on this process gets at most `more` bytes on top of what it has mapped already.

    One number in a text, a constant's dimension, makes XLA's parser ask for any amount.
    """
    import resource

    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return  # no Linux
    limit = pages * resource.getpagesize() + more
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


class Server:
    """Answers requests one after another; state grows with the first request that needs it."""

    def __init__(self, directory: Path):
        self.directory = directory  # of this process alone; the compiler writes its dumps in it
        self.path: Path | None = None  # of the user's file, for line numbers in messages
        self.jitted: Any = None
        self.args: tuple[Any, ...] = ()
        self.topology_name = ""
        self.traced: Any = None

    def load(self, request: dict[str, Any], blob: bytes) -> tuple[dict[str, Any], bytes]:
        """Load and trace the program; answers with the hash of its lowered module.

        Needs no TPU compiler: a cache hit ends here.
        """
        import jax

        from workloads.errors import WorkloadError
        from workloads.programs import loader

        self.topology_name = request["topology"]
        sys.path[:] = request["sys_path"] + [p for p in sys.path if p not in request["sys_path"]]
        for name, value in request["jax_config"].items():
            jax.config.update(name, value)
        if request["spec"]:
            found = loader.resolve_spec(request["spec"])
            if found.path is not None:  # for imports while tracing
                self.path = found.path
                sys.path.insert(0, str(found.path.parent))
            program = loader.load_program(request["spec"])
            fn, args = program.fn, program.args
        else:
            import pickle  # what cloudpickle writes; it comes from our own parent only

            fn, args = pickle.loads(blob)
        if hasattr(fn, "lower") and hasattr(fn, "trace"):
            self.jitted = fn  # the user's own jit, with its donations
        else:
            self.jitted = jax.jit(fn, donate_argnums=tuple(request["donate"]))
        if not jax.tree.leaves(args):  # JAX would compile for its own device, not for the TPU
            raise WorkloadError(
                "the program takes no arrays, so nothing says that it runs on a TPU; "
                "make its inputs arguments"
            )
        self.args = args
        # The text has no source locations, so that it does not change with unrelated lines.
        text = self._lower_without_compiler().as_text()
        return {"module_sha256": hashlib.sha256(text.encode()).hexdigest()}, b""

    def lower(self, request: dict[str, Any], blob: bytes) -> tuple[dict[str, Any], bytes]:
        """The loaded program's serialized HloModuleProto as JAX lowers it."""
        del request, blob
        computation = self._lower_without_compiler().compiler_ir("hlo")
        return {}, computation.as_serialized_hlo_module_proto()

    def _lower_without_compiler(self) -> Any:
        return self.jitted.trace(*self.args).lower(lowering_platforms=("tpu",))

    def parse(self, request: dict[str, Any], blob: bytes) -> tuple[dict[str, Any], bytes]:
        """HLO text or StableHLO to a serialized HloModuleProto; needs no program."""
        from workloads.compiler import parsing
        from workloads.hlo import xla_bindings

        _limit_memory(parsing.MEMORY_BYTES)
        if request["kind"] == parsing.STABLEHLO:
            is_text = not blob.startswith(parsing.BYTECODE)
            return {}, xla_bindings.stablehlo_to_proto(blob.decode() if is_text else blob)
        return {}, xla_bindings.hlo_text_to_proto(blob.decode())

    def compile(self, request: dict[str, Any], blob: bytes) -> tuple[dict[str, Any], bytes]:
        """Compile under the given options; answers with the placements and the scheduled HLO."""
        del blob
        import jax

        lowered, dumps = self._lower()
        start = time.perf_counter()
        compiled = lowered.compile(compiler_options=request["options"] or None)
        seconds = time.perf_counter() - start
        module = read_module(dumps)
        placed = read_module(dumps, "after_optimizations")
        if not module:  # not dumped: a name too long for a file
            module = compiled.runtime_executable().hlo_modules()[0].as_serialized_hlo_module_proto()
            placed = b""
        answer = {
            "msa": _read_msa(dumps),
            "seconds": seconds,
            "memory": _memory(compiled),
            "placed_bytes": len(placed),
        }
        del compiled, lowered
        jax.clear_caches()
        _return_memory()
        return answer, module + placed

    def place(self, request: dict[str, Any], blob: bytes) -> tuple[dict[str, Any], bytes]:
        """Let the compiler place and schedule, then stop it before code generation.

        The options make memory run out on purpose once buffers are assigned (`needed_bytes` in the
        answer tells how much there should be); the module has been dumped by then. A program that
        fits all the same is compiled to the end (`needed_bytes` 0).
        """
        del blob
        import jax

        lowered, dumps = self._lower()
        start = time.perf_counter()
        needed = 0
        try:
            compiled = lowered.compile(compiler_options=request["options"])
            del compiled
        except Exception as error:
            if OUT_OF_MEMORY not in str(error):
                raise
            needed = _needed_bytes(str(error))
        finally:
            del lowered
            jax.clear_caches()
        seconds = time.perf_counter() - start
        module = read_module(dumps, "after_optimizations")
        answer = {
            "msa": _read_msa(dumps),
            "seconds": seconds,
            "memory": {},
            "placed_bytes": 0,
            "needed_bytes": needed,
        }
        return answer, module

    def _lower(self) -> tuple[Any, Path]:
        """The program ready to compile, and the folder, empty, into which the compiler dumps."""
        dumps = self.directory / "dump"
        shutil.rmtree(dumps, ignore_errors=True)
        if shutil.disk_usage(self.directory).free < MIN_FREE_BYTES:
            raise OSError(f"no space left in the temporary directory {self.directory.parent}")
        # Lowered anew (some 20 ms), for JAX would answer a repetition without writing the dumps.
        lowered = self._trace().lower()
        shutil.rmtree(dumps, ignore_errors=True)  # of computations on the CPU while tracing
        return lowered, dumps

    def _trace(self) -> Any:
        """Trace once, exactly as a user does who compiles ahead of time for one device."""
        if self.traced is None:
            import jax
            from jax.experimental import topologies

            topology = topologies.get_topology_desc(
                platform="tpu", topology_name=self.topology_name
            )
            sharding = jax.sharding.SingleDeviceSharding(topology.devices[0])

            def place(leaf):
                return jax.ShapeDtypeStruct(
                    leaf.shape,
                    leaf.dtype,
                    sharding=sharding,
                    weak_type=getattr(leaf, "weak_type", False),
                )

            self.traced = self.jitted.trace(*jax.tree.map(place, self.args))
        return self.traced


def _needed_bytes(message: str) -> int:
    """Memory that the compiler says the program needs, 0 where it does not say."""
    found = re.search(r"total memory required[^(]*\(([\d.]+)([KMGT]?)", message)
    if not found:
        return 0
    return int(float(found.group(1)) * 1024 ** " KMGT".index(found.group(2) or " "))


def read_module(directory: Path, phase: str = "after_codegen") -> bytes:
    """The module after a phase; the last one has cycles. Empty if there is none in the dumps.

    Not from the executable: what XLA rebuilds there fails its own checks for calls that wait for
    their operands after they have started (SparseCore offload).
    """
    from workloads.hlo.module import module_bytes

    paths = sorted(directory.glob(f"*.{phase}.hlo.pb"), key=lambda p: p.stat().st_mtime_ns)
    return module_bytes(paths[-1].read_bytes()) if paths else b""


def _return_memory() -> None:
    """Give freed memory back to the system: the heap of a long session else grows by the GB."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _read_msa(directory: Path) -> dict[str, str]:
    """The newest file of each kind; names start with a time stamp."""
    found = {}
    for kind in MSA_FILES:
        for path in sorted(directory.glob(f"*-{kind}.txt")):
            found[kind] = path.read_text()
    return found


def _memory(compiled: Any) -> dict[str, int]:
    """Sizes in bytes from XLA's memory analysis; empty if this version gives none."""
    try:
        analysis = compiled.memory_analysis()
    except Exception:
        return {}
    names = ("argument", "output", "alias", "temp", "generated_code")
    fields = {name: getattr(analysis, f"{name}_size_in_bytes", None) for name in names}
    return {name: int(value) for name, value in fields.items() if value is not None}


def describe_failure(error: BaseException, operation: str, path: Path | None) -> dict[str, Any]:
    """An exception as an answer: kind (a name in `workloads.errors`), one-line message, lines.

    path: the user's file, to name the line in it.
    """
    from workloads.errors import WorkloadError
    from workloads.programs.loader import describe_error

    text = str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    message = " ".join(lines)[:MAX_MESSAGE]
    if isinstance(error, WorkloadError):
        return {"kind": "WorkloadError", "message": message, "lines": []}
    kind = "CompileError"
    if text.startswith("FAILED_PRECONDITION") and any(each in text for each in REFUSALS):
        kind = "OverrideError"
    compiler_spoke = operation != "load" and type(error).__name__.endswith("RuntimeError")
    if not compiler_spoke:  # the compiler's messages start with their own code
        message = describe_error(error, path)
    return {"kind": kind, "message": message, "lines": lines[:MAX_ERROR_LINES]}


def _receive(descriptor: int, requests: queue.SimpleQueue, directory: Path) -> None:
    """Queue requests. The end of the pipe means that the parent is gone: die at once.

    A thread, so that this also works in the middle of a compile; the compiler drops the GIL.
    """
    while (frame := frames.read(descriptor)) is not None:
        requests.put(frame)
    shutil.rmtree(directory, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)  # with whatever the user's code or the compiler started


def main() -> None:
    """Serve until the parent closes the request pipe."""
    requests_in, answers_out = int(sys.argv[1]), int(sys.argv[2])
    directory = Path(sys.argv[3])
    for descriptor in (requests_in, answers_out):
        os.set_inheritable(descriptor, False)
    requests: queue.SimpleQueue = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(requests_in, requests, directory), daemon=True).start()
    server = Server(directory)
    operations = {
        each.__name__: each
        for each in (server.load, server.lower, server.parse, server.compile, server.place)
    }
    while True:
        request, blob = requests.get()
        # Backstop if the parent dies while foreign code holds the GIL: the default action of
        # SIGALRM ends the process without asking Python.
        signal.alarm(int(min(request["seconds"], MAX_ALARM_SECONDS)) + 60)
        try:
            answer, result = operations[request["operation"]](request, blob)
        except (Exception, SystemExit) as error:
            answer = {"failure": describe_failure(error, request["operation"], server.path)}
            result = b""
        signal.alarm(0)
        data = memoryview(frames.pack(answer, result))
        while data:
            data = data[os.write(answers_out, data) :]


if __name__ == "__main__":
    main()
