"""Compiled JAX code, kept on disk between runs of the command line.

Games, search and learning take about half a minute of a processor to compile for each shape of
program: most of a short budget. Compiled code is of the machine's own instruction set, so that each
kind of processor has a directory to itself.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import platform

import jax

_MAX_BYTES = 512 << 20
_MIN_COMPILE_SECONDS = 0.2


def keep_compiled_code(directory: pathlib.Path) -> None:
    """Lets JAX keep what it compiles there, unless its user has said where or that it should not.

    A directory that cannot be written, or a damaged entry, costs a warning and the time saved."""
    if (
        jax.config.values["jax_compilation_cache_dir"]
        or "JAX_ENABLE_COMPILATION_CACHE" in os.environ
    ):
        return
    jax.config.update("jax_compilation_cache_dir", str(directory / _processor()))
    jax.config.update("jax_compilation_cache_max_size", _MAX_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _MIN_COMPILE_SECONDS)


def _processor() -> str:
    """A name for processors that can run the same code."""
    features = platform.processor()
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        features += next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        pass
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:12]}"
