"""From the bytes of a file to a serialized HloModuleProto, whatever form of program they are.

Protos are decoded by the protobuf library. Text goes through XLA's own parsers, in a child process:
they abort on some malformed modules.
"""

from __future__ import annotations

import os
import re
import time

from google.protobuf.message import DecodeError

from workloads.compiler.process import ChildProcess
from workloads.errors import CompileError, CompileTimeout, WorkloadError
from workloads.hlo.schema import message_class

HLO_TEXT = "HLO text"
HLO_PROTO = "HLO proto"
STABLEHLO = "StableHLO"

PARSE_TIMEOUT = 120.0  # seconds
MAX_BYTES = 1 << 28
MEMORY_BYTES = 8 << 30  # for parsing one text, in the child process
BYTECODE = b"ML\xefR"  # MLIR's magic number
# Nothing in them spans lines: they look at each line once, however many are empty.
_STABLEHLO = re.compile(r"^[ \t]*(?:module\b|func\.func\b|\"builtin\.module\"|#loc)", re.MULTILINE)
_HLO = re.compile(
    r"^[ \t]*(?:HloModule\b|ENTRY\b|(?:ROOT[ \t]+)?%?[\w.-]+[ \t]*=[ \t]*\(?\w+\[)", re.MULTILINE
)


def kind_of(content: str | bytes, where: str = "the input") -> str:
    """HLO_TEXT, HLO_PROTO or STABLEHLO, told by the content.

    Raises: WorkloadError for what is none of them.
    """
    if not content or not content.strip():
        raise WorkloadError(f"{where} is empty; give HLO text or proto, or StableHLO")
    if isinstance(content, bytes):
        if content.startswith(BYTECODE):
            return STABLEHLO
        try:
            text = content.decode()
        except UnicodeDecodeError:
            return HLO_PROTO
    else:
        text = content
    # Both forms have comments and attributes that mention the other: the first line that counts.
    found = [(m.start(), kind) for pattern, kind in ((_HLO, HLO_TEXT), (_STABLEHLO, STABLEHLO))
             if (m := pattern.search(text))]  # fmt: skip
    if found:
        return min(found)[1]
    if isinstance(content, bytes) and not text.isprintable():
        return HLO_PROTO
    raise WorkloadError(f"{where} is neither HLO (text or proto) nor StableHLO")


def to_module_proto(content: str | bytes, kind: str, where: str = "the input") -> bytes:
    """Serialized HloModuleProto of a program in the form `kind`.

    Raises: WorkloadError with one line if it cannot be parsed.
    """
    if len(content) > MAX_BYTES:
        raise WorkloadError(f"{where} has more than {MAX_BYTES >> 20} MiB")
    if kind == HLO_PROTO:
        return _from_proto(content if isinstance(content, bytes) else content.encode(), where)
    return _parse_in_child(content, kind, where)


def _from_proto(content: bytes, where: str) -> bytes:
    """From an HloProto, which is what XLA dumps, or an HloModuleProto.

    Field 1 is a message in the former and a name in the latter.
    """
    try:
        inner = message_class("HloProto").FromString(content).hlo_module
        for candidate in (inner, content):
            try:
                module = message_class("Module").FromString(candidate)
            except DecodeError:
                continue
            if module.computations:
                return candidate
    except DecodeError:
        pass
    raise WorkloadError(
        f"{where} is not a serialized HloProto or HloModuleProto (damaged, cut short, or of"
        " another kind)"
    )


def _parse_in_child(content: str | bytes, kind: str, where: str) -> bytes:
    blob = content.encode(errors="replace") if isinstance(content, str) else content
    deadline = time.monotonic() + PARSE_TIMEOUT
    child = ChildProcess({**os.environ, "JAX_PLATFORMS": "cpu"})
    try:
        request = {"operation": "parse", "kind": kind, "seconds": PARSE_TIMEOUT}
        answer, proto = child.request(request, blob, deadline)
    except CompileTimeout:
        raise WorkloadError(f"{where}: {kind} not parsed within {PARSE_TIMEOUT:g} s") from None
    except CompileError as error:  # the parser took the process with it
        why = _short(" ".join(error.last_lines[:1])) or "no reason given"
        raise WorkloadError(f"{where}: XLA's parser of {kind} crashed on it: {why}") from None
    finally:
        child.kill()
    if "failure" in answer:
        why = _short(" ".join(answer["failure"]["lines"]) or answer["failure"]["message"])
        raise WorkloadError(f"{where} is not valid {kind}: {why}")
    return proto


def _short(message: str) -> str:
    """The gist of a parser's message, on one line."""
    message = re.sub(r"^(INVALID_ARGUMENT|UNKNOWN|INTERNAL): ", "", " ".join(message.split()))
    return message.partition(" <unknown>:0: error")[0][:300]  # what follows is about versions
