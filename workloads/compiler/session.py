"""The genuine XLA:TPU compiler in the loop, ahead of time, with no TPU attached.

libtpu aborts, hangs and prints as it likes, so it lives in a child process
(`workloads.compiler.child`); this process never loads it. Results are cached on disk by the content
of the lowered module, the options, the target and the versions.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from workloads import errors
from workloads.compiler.cache import DiskCache, content_key
from workloads.compiler.process import ChildProcess
from workloads.compiler.sending import load_request
from workloads.errors import (
    CompileError,
    CompilerUnavailable,
    CompileTimeout,
    OverrideError,
    WorkloadError,
)
from workloads.programs.loader import ProgramSource

# The smallest topology of each generation; programs are compiled for its first device.
TOPOLOGIES = {
    "v4": "v4:2x2x1",
    "v5e": "v5e:2x2",
    "v6e": "v6e:2x2",
    "v5p": "v5p:2x2x1",
    "tpu7x": "tpu7x:2x2x1",
}
OVERRIDES_OPTION = "xla_tpu_msa_tensor_overrides"
DEFAULT_TIMEOUT = 600.0  # seconds, for one request

# Changes nothing in the result: per compile, three small text files about memory-space assignment,
# and the module after each phase (1 to 3 MB, some ms).
_MSA_DUMP = "--xla_jf_dump_to={directory}/dump --xla_jf_dump_category_filter=msa"
_HLO_DUMP = "--xla_dump_to={directory}/dump --xla_dump_hlo_as_proto"
_CHILD_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "JAX_ENABLE_COMPILATION_CACHE": "false",  # a hit there would come without dumps
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "false",  # JAX would hand it to the TPU compiler
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_LOG_DIR": "{directory}",  # log files, removed with it
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "LIBTPU_INIT_ARGS": _MSA_DUMP,
    "XLA_FLAGS": _HLO_DUMP,
}


@dataclasses.dataclass(frozen=True)
class Compiled:
    """One program compiled for one target under one set of options."""

    hlo: bytes  # serialized HloModuleProto: scheduled, placed, with the compiler's cycle estimates
    # The module as memory-space assignment left it; code generation may still split instructions.
    # Empty where it is the same as `hlo`, or was not dumped.
    placed: bytes
    msa: dict[str, str]  # text of the dumps bufferinfo, allocinfo, scheduleinfo, as far as written
    options: dict[str, str]  # as given to the compiler, overrides included
    target: str
    versions: dict[str, str]  # jax, jaxlib, libtpu
    seconds: float  # of the compile itself
    memory: dict[str, int]  # bytes: argument, output, alias, temp, generated_code; may be {}
    from_cache: bool


def versions() -> dict[str, str]:
    """Versions that decide the result; "none" for what is not installed. Imports nothing."""

    def version(package: str) -> str:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return "none"

    return {package: version(package) for package in ("jax", "jaxlib", "libtpu")}


def check_target(target: str) -> None:
    """Raises: WorkloadError for a target that the compiler does not know."""
    if target not in TOPOLOGIES:
        raise WorkloadError(f"unknown target {target!r}; known: {', '.join(TOPOLOGIES)}")


def check_compiler() -> None:
    """Raises: CompilerUnavailable if libtpu is not installed. Loads nothing."""
    if importlib.util.find_spec("libtpu") is None:
        raise CompilerUnavailable(
            "the TPU compiler is not installed: compiling needs the package libtpu, which exists "
            "for Linux on x86-64; problem files and everything else work without it"
        )


class CompilerSession:
    """One compiler process for one program and one target, reused for many options.

    Use as a context manager. The process starts with the first request, and again after a crash or
    a timeout. Requests of several threads wait for each other.

    Attributes:
      timeout: seconds for one request.
      deadline: of `time.monotonic()`. No request outlasts it; what is cached can be had later, too.
      seconds_per_compile: what the last compile took, or had taken when it was put into the cache.
    """

    def __init__(
        self,
        program: str | ProgramSource | tuple[Callable[..., Any], tuple[Any, ...]],
        target: str,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        cache: bool = True,
    ):
        """program: a suite name, `path/to/file.py:function`, a loaded program, or (fn, args).

        timeout: seconds for one request, loading and lowering included when they are due.
        Raises: WorkloadError for an unknown program or target.
        """
        check_target(target)
        self.target = target
        self.timeout = timeout
        self.deadline = math.inf
        self.seconds_per_compile = 0.0
        self._asked: set[frozenset[tuple[str, str]]] = set()
        self._versions = versions()
        self._cache = DiskCache() if cache else None
        self._lock = threading.Lock()
        self._child: ChildProcess | None = None
        self._module_sha256 = ""
        self.name, self._load_request, self._load_blob = load_request(program)
        self._load_request["topology"] = TOPOLOGIES[target]

    def __enter__(self) -> CompilerSession:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the compiler process. The session can be used again; it starts a new one."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()

    @property
    def uses_cache(self) -> bool:
        """Whether results are kept on disk."""
        return self._cache is not None

    @property
    def num_compiles(self) -> int:
        """Different sets of options that a compile to the end was asked for: whether it came to one
        or was refused, and whether the compiler had to work or the cache had the answer."""
        return len(self._asked)

    def compile(
        self,
        options: Mapping[str, str] | None = None,
        *,
        overrides: str | None = None,
        timeout: float | None = None,
    ) -> Compiled:
        """Compile under compiler options, from the cache if it is known.

        overrides: MsaTensorOverrides text, added to the options. timeout: seconds, instead of the
        session's. Raises: OverrideError if the overrides cannot be fulfilled; CompileTimeout;
        CompileError for any other failure of the compiler or of tracing; WorkloadError if the
        program cannot be loaded.
        """
        chosen = {name: str(value) for name, value in (options or {}).items()}
        if overrides is not None:
            chosen[OVERRIDES_OPTION] = overrides
        self._asked.add(frozenset(chosen.items()))
        with self._limited(timeout) as (limit, deadline):
            return self._compile(chosen, limit, deadline)

    @contextlib.contextmanager
    def _limited(self, timeout: float | None = None) -> Iterator[tuple[float, float]]:
        """Seconds for a request, and when they end; a process that owes an answer is ended."""
        with self._lock:
            now = time.monotonic()
            limit = min(self.timeout if timeout is None else timeout, max(self.deadline - now, 0.0))
            try:
                yield limit, now + limit
            except CompileTimeout as error:
                self.close()
                raise CompileTimeout(
                    f"{self.name} was not compiled for {self.target} within {limit:g} s",
                    error.last_lines,
                ) from None
            except (CompileError, WorkloadError):
                raise
            except BaseException:  # Ctrl-C: the answer to come belongs to nobody
                self.close()
                raise

    def _compile(self, options: dict[str, str], limit: float, deadline: float) -> Compiled:
        if not self._module_sha256:
            self._ensure_child(limit, deadline)
        key = content_key(
            module=self._module_sha256,
            options=options,
            target=self.target,
            versions=self._versions,
        )
        known = self._cache.get(key) if self._cache else None
        if known is not None:
            fields, hlo = known
            if "refusal" in fields:
                raise OverrideError(fields["refusal"], fields["lines"])
            self.seconds_per_compile = fields["seconds"]
            return self._compiled(hlo, fields, options, from_cache=True)
        check_compiler()
        child = self._ensure_child(limit, deadline)
        asked = {"options": options}
        try:
            answer, hlo = self._request(child, "compile", asked, b"", limit, deadline)
        except OverrideError as error:
            if self._cache:
                self._cache.put(key, {"refusal": str(error), "lines": error.last_lines}, b"")
            raise
        if self._cache:
            self._cache.put(key, answer, hlo)
        self.seconds_per_compile = answer["seconds"]
        return self._compiled(hlo, answer, options, from_cache=False)

    def remembered(self, label: str) -> dict[str, Any] | None:
        """What `remember` stored for this program, target and compiler; None if nothing."""
        if self._cache is None:
            return None
        with self._lock:
            known = self._cache.get(self._remembered_key(label))
        return known[0] if known else None

    def remember(self, label: str, fields: dict[str, Any]) -> None:
        """Store a small JSON object on disk, for this program, target and compiler."""
        if self._cache is not None:
            with self._lock:
                self._cache.put(self._remembered_key(label), fields, b"")

    def _remembered_key(self, label: str) -> str:
        if not self._module_sha256:
            self._ensure_child(self.timeout, time.monotonic() + self.timeout)
        return content_key(
            module=self._module_sha256, label=label, target=self.target, versions=self._versions
        )

    def place(self, options: Mapping[str, str]) -> tuple[Compiled, int]:
        """Run the compiler up to code generation only; see `workloads.extraction.dry_run`.

        options: must hold those that stop it. Returns the program placed and scheduled, without
        cycles, and the bytes of default memory that it needs (0: it was not stopped).
        Raises: as `compile`. Nothing is cached.
        """
        with self._limited() as (limit, deadline):
            child = self._ensure_child(limit, deadline)
            asked = {"options": dict(options)}
            answer, hlo = self._request(child, "place", asked, b"", limit, deadline)
        placed = self._compiled(hlo, answer, dict(options), from_cache=False)
        return placed, answer["needed_bytes"]

    def lowered(self) -> bytes:
        """The program's serialized HloModuleProto as JAX lowers it; no compiler is needed.

        Raises: as `compile`.
        """
        with self._limited() as (limit, deadline):
            child = self._ensure_child(limit, deadline)
            return self._request(child, "lower", {}, b"", limit, deadline)[1]

    def _compiled(
        self, hlo: bytes, fields: dict[str, Any], options: dict[str, str], *, from_cache: bool
    ) -> Compiled:
        end = len(hlo) - fields["placed_bytes"]
        return Compiled(
            hlo=hlo[:end],
            placed=hlo[end:],
            msa=fields["msa"],
            options=options,
            target=self.target,
            versions=dict(self._versions),
            seconds=fields["seconds"],
            memory=fields["memory"],
            from_cache=from_cache,
        )

    def _ensure_child(self, limit: float, deadline: float) -> ChildProcess:
        """The compiler process with the program loaded, started if there is none."""
        if self._child is not None and self._child.is_alive():
            return self._child
        self.close()
        if time.monotonic() >= deadline:
            raise CompileTimeout("time limit reached")
        child = self._child = ChildProcess({**os.environ, **_CHILD_ENVIRONMENT})
        load, blob = self._load_request, self._load_blob
        try:
            answer, _ = self._request(child, "load", load, blob, limit, deadline)
        except BaseException:
            self.close()
            raise
        self._module_sha256 = answer["module_sha256"]
        return child

    def _request(
        self,
        child: ChildProcess,
        operation: str,
        message: dict[str, Any],
        blob: bytes,
        limit: float,
        deadline: float,
    ) -> tuple[dict[str, Any], bytes]:
        message = {**message, "operation": operation, "seconds": limit}
        try:
            answer, result = child.request(message, blob, deadline)
        except CompileTimeout:
            raise
        except CompileError as error:
            self.close()
            raise type(error)(self._cannot(operation, str(error)), error.last_lines) from None
        failure = answer.get("failure")
        if failure is None:
            return answer, result
        if failure["kind"] == "WorkloadError":
            raise WorkloadError(failure["message"])
        kind = getattr(errors, failure["kind"])
        raise kind(self._cannot(operation, failure["message"]), failure["lines"])

    def _cannot(self, operation: str, why: str) -> str:
        where = "" if operation == "load" else f" for {self.target}"
        return f"{self.name} cannot be compiled{where}: {why}"


def compile(
    fn: Callable[..., Any] | str | ProgramSource,
    *args: Any,
    target: str,
    overrides: str | None = None,
    options: Mapping[str, str] | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    cache: bool = True,
) -> Compiled:
    """Compile one program once. For several sets of options use a CompilerSession.

    fn: a JAX function, with args its (abstract) arguments; or a suite name or
    `path/to/file.py:function` without args. overrides: MsaTensorOverrides text.
    Raises: as CompilerSession.compile.
    """
    program = (fn, args) if callable(fn) else fn
    with CompilerSession(program, target, timeout=timeout, cache=cache) as session:
        return session.compile(options, overrides=overrides)
