"""A child process that may abort, hang, or print without end, and a parent that stays well."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from workloads.compiler import frames
from workloads.errors import CompileError, CompilerKilled, CompileTimeout, WorkloadError

TAIL_BYTES = 64 << 10
MAX_LINES = 20
MAX_LINE = 400
_POLL_SECONDS = 0.2
_PACKAGE_ROOT = Path(__file__).resolve().parent.parent.parent

# What a dying compiler prints: stack frames, registers, and remarks about its own crash handler.
_NOISE = re.compile(
    r"^\s*@\s|^\s*#\d|^PC:|^\*\*\* |^\s*0x[0-9a-f]+|coredump|process_state|RAW: |stacktrace|"
    r"^WARNING: All log messages|^\s*$|^Fatal Python error: Segm|^Current thread|^  File |"
    r"failed to .*metadata|libtpu.*version|^Extension modules|^https?://"
)
_TELLING = re.compile(
    r"Check fail|CHECK fail|^F\d{4}|RESOURCE_EXHAUSTED|FAILED_PRECONDITION|INVALID_ARGUMENT|"
    r"INTERNAL|Error\b|Unknown"
)
_LOG_PREFIX = re.compile(r"^[IWEF]\d{4} [\d:.]+\s+\d+ ")


class ChildProcess:
    """`python -m workloads.compiler.child` with its pipes, its output's tail and its directory."""

    def __init__(self, environment: dict[str, str]):
        """environment: added to this process's; `{directory}` in a value is the child's own."""
        self.directory = _private_directory()
        values = {k: v.replace("{directory}", str(self.directory)) for k, v in environment.items()}
        requests_in, self._requests = os.pipe()
        self._answers, answers_out = os.pipe()
        self._output, output_out = os.pipe()
        try:
            # -P and the explicit path: a `jax.py` in the user's directory must not be imported.
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "workloads.compiler.child"),
                    *(str(requests_in), str(answers_out), str(self.directory)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output_out,
                stderr=subprocess.STDOUT,
                pass_fds=(requests_in, answers_out),
                env={**values, "PYTHONPATH": _python_path(values)},
                start_new_session=True,  # Ctrl-C is for the parent, and one kill ends all of it
            )
        except OSError as error:
            os.close(self._requests)
            os.close(self._answers)
            os.close(self._output)
            shutil.rmtree(self.directory, ignore_errors=True)
            raise CompileError(f"the compiler process cannot be started: {error}") from error
        finally:
            os.close(requests_in)
            os.close(answers_out)
            os.close(output_out)
        os.set_blocking(self._requests, False)
        self._tail = bytearray()
        self._drain = threading.Thread(target=self._drain_output, daemon=True)
        self._drain.start()

    @property
    def pid(self) -> int:
        """Process id; also the id of its process group."""
        return self._process.pid

    def is_alive(self) -> bool:
        """True while it runs."""
        return self._process.poll() is None

    def request(
        self, message: dict[str, Any], blob: bytes, deadline: float
    ) -> tuple[dict[str, Any], bytes]:
        """Send one request and wait for its answer.

        deadline: time.monotonic() seconds. After an error the process must be killed.
        Raises: CompileTimeout at the deadline; CompileError if it died.
        """
        try:
            self._send(frames.pack(message, blob), deadline)
            answer = frames.read(self._answers, lambda: self._wait(self._answers, "r", deadline))
        except BrokenPipeError:
            answer = None
        if answer is None:
            raise self._death()
        return answer

    def kill(self) -> None:
        """End the process and all that it started; returns when it is gone. Repeatable."""
        self._kill_group()
        self._process.wait()
        for descriptor in (self._requests, self._answers):
            if descriptor >= 0:
                os.close(descriptor)
        self._requests = self._answers = -1
        self._drain.join(timeout=1)
        shutil.rmtree(self.directory, ignore_errors=True)

    def last_lines(self) -> list[str]:
        """The last useful lines of its output, the most telling ones if there are such."""
        return useful_lines(bytes(self._tail).decode(errors="replace"))

    def _send(self, data: bytes, deadline: float) -> None:
        view = memoryview(data)
        while view:
            self._wait(self._requests, "w", deadline)
            try:
                view = view[os.write(self._requests, view) :]
            except BlockingIOError:
                continue

    def _wait(self, descriptor: int, direction: str, deadline: float) -> None:
        """Return when the pipe is ready or closed, or the process has ended."""
        poller = select.poll()
        poller.register(descriptor, select.POLLIN if direction == "r" else select.POLLOUT)
        while not poller.poll(1000 * min(_POLL_SECONDS, max(deadline - time.monotonic(), 0.0))):
            if time.monotonic() >= deadline:
                raise CompileTimeout("time limit reached", self.last_lines())
            # A process that it started may still hold the other end of the pipe.
            if not self.is_alive() and not poller.poll(0):
                raise BrokenPipeError

    def _death(self) -> CompileError:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = 0  # it closed its pipe and lives on; the caller kills it
        self._kill_group()  # so that its output ends
        self._drain.join(timeout=1)
        lines = self.last_lines()
        how = _how_it_ended(code)
        is_killed = code in (-signal.SIGKILL, -signal.SIGTERM)
        kind = CompilerKilled if is_killed else CompileError
        return kind(f"{how}: {lines[-1]}" if lines else how, lines)

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def _drain_output(self) -> None:
        """Keep only the end of what it prints; never the disk, never much memory."""
        try:
            while part := os.read(self._output, TAIL_BYTES):
                self._tail += part
                del self._tail[:-TAIL_BYTES]
        finally:
            os.close(self._output)


def useful_lines(text: str) -> list[str]:
    """Lines of a dead compiler's output that say why, in order; at most MAX_LINES."""
    lines = [line.rstrip() for line in text.splitlines() if not _NOISE.search(line)]
    telling = [line for line in lines if _TELLING.search(line)]
    short = [_LOG_PREFIX.sub("", line).strip()[:MAX_LINE] for line in telling or lines]
    return list(dict.fromkeys(short))[-MAX_LINES:]  # the crash handler repeats the last message


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"the compiler process ended with status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = " (out of memory?)" if name == "SIGKILL" else ""
    return f"the compiler process was ended by {name}{hint}"


def _private_directory() -> Path:
    """A new temporary directory whose path has no white space (libtpu splits its flags there)."""
    base = tempfile.gettempdir()
    try:
        return Path(
            tempfile.mkdtemp(prefix="mallocgame-", dir="/tmp" if re.search(r"\s", base) else base)
        )
    except OSError as error:
        raise WorkloadError(
            f"no temporary directory can be made in {base}: {error.strerror}; set TMPDIR"
        ) from error


def _python_path(environment: dict[str, str]) -> str:
    inherited = environment.get("PYTHONPATH", "")
    return os.pathsep.join([str(_PACKAGE_ROOT)] + ([inherited] if inherited else []))
