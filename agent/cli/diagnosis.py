"""What this machine has and what it lacks, item by item, each with what to do about it."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import platform
import shutil
import sys
import tempfile

import jax

import malloc_game
from malloc_game.platform import has_libtpu, has_tpu

OK, OPTIONAL, BROKEN = "ok", "optional", "broken"
# Extras of this package, each with the modules that it brings.
EXTRAS = {
    "solvers": ("evosax",),
    "farm": ("ray",),
    "plot": ("matplotlib",),
    "gym": ("gymnasium",),
    "bench": ("jumanji", "pgx"),
}
_LOW_SPACE_BYTES = 1 << 30
_GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the doctor: what was looked at, how it is, and what to do if it is not well."""

    name: str
    status: str  # OK; OPTIONAL: missing, and much works without; BROKEN
    text: str
    advice: str = ""


def system() -> Finding:
    """Python, the operating system and the processor."""
    text = (
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()},"
        f" {os.cpu_count()} CPUs"
    )
    if sys.platform == "linux" and platform.machine() == "x86_64":
        return Finding("system", OK, text)
    advice = "the compiler exists for Linux on x86-64 only; everything but compiling works here"
    return Finding("system", OPTIONAL, text, advice)


def package_versions(versions: dict[str, str]) -> Finding:
    """versions: of jax, jaxlib and libtpu, "none" for what is not installed."""
    known = {"mallocgame": malloc_game.__version__, **versions}
    text = ", ".join(f"{name} {version}" for name, version in known.items())
    return Finding("versions", OK, text)


def devices() -> Finding:
    """What JAX can compute on in this process."""
    try:
        found = jax.devices()
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        return Finding("devices", BROKEN, reason, "JAX_PLATFORMS=cpu leaves a broken device alone")
    text = ", ".join(f"{d.platform}:{d.id} ({d.device_kind})" for d in found[:8])
    if len(found) > 8:
        text += f" and {len(found) - 8} more"
    return Finding("devices", OK, text)


def tpu() -> Finding:
    """Whether a TPU is attached."""
    if has_tpu():
        return Finding("TPU", OK, "attached: 'mallocgame time' can measure")
    advice = "none is needed to optimize; only 'mallocgame time' measures on one"
    return Finding("TPU", OPTIONAL, "none attached", advice)


def compiler(error: str | None, seconds: float, target: str) -> Finding:
    """error: what the compiler said of a small program, None if it compiled."""
    if not has_libtpu():
        advice = "pip install libtpu (Linux on x86-64); problem files can be played without it"
        return Finding("compiler", OPTIONAL, "libtpu is not installed", advice)
    if error is None:
        return Finding("compiler", OK, f"a small program for {target} compiled in {seconds:.1f} s")
    advice = "pip install --force-reinstall libtpu, or free memory and disk; then try again"
    return Finding("compiler", BROKEN, error, advice)


def extras() -> list[Finding]:
    """The optional parts."""
    found = []
    for extra, modules in EXTRAS.items():
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        if missing:
            text = f"{', '.join(missing)} not installed"
            advice = f"pip install 'mallocgame[{extra}]'"
            found.append(Finding(f"extra {extra}", OPTIONAL, text, advice))
        else:
            found.append(Finding(f"extra {extra}", OK, ", ".join(modules)))
    return found


def cache(directory: os.PathLike[str], num_entries: int, num_bytes: int) -> Finding:
    """The cache of compiler results: where, how large, and whether it can be written."""
    path = os.fspath(directory)
    text = f"{path}: {num_entries} entries, {num_bytes / 2**20:.1f} MiB"
    parent = path
    while not os.path.exists(parent) and os.path.dirname(parent) != parent:
        parent = os.path.dirname(parent)
    if not os.path.isdir(parent) or not os.access(parent, os.W_OK | os.X_OK):
        advice = "set MALLOCGAME_CACHE to a directory that can be written; without one every"
        return Finding("cache", BROKEN, f"{text}, not writable", advice + " compile is done anew")
    return _with_space("cache", text, parent, "set MALLOCGAME_CACHE to another disk")


def scratch() -> Finding:
    """The temporary directory, into which the compiler dumps."""
    try:
        directory = tempfile.gettempdir()
    except OSError as error:
        return Finding("temporary files", BROKEN, str(error), "set TMPDIR to a directory")
    return _with_space("temporary files", directory, directory, "set TMPDIR to another disk")


def _with_space(name: str, text: str, directory: str, advice: str) -> Finding:
    free = shutil.disk_usage(directory).free
    text += f", {free / _GIB:.1f} GiB free"
    return Finding(name, OK, text) if free >= _LOW_SPACE_BYTES else Finding(
        name, BROKEN, text, f"free some space, or {advice}"
    )  # fmt: skip
