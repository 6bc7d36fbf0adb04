"""What all tests share: strict JAX settings, a private cache, and skips for what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile

import jax
import pytest

from malloc_game.platform import configure_platform, has_libtpu
from tests.slow import is_slow

# Compiling takes tests longer than running what is compiled. Without these emitters it takes a
# quarter less, and with JAX's own setting, which stands for LLVM's passes, a third less again.
QUICK_COMPILES = "--xla_cpu_use_fusion_emitters=false"
COMPILING_NOTEBOOK = "2_from_jax_to_the_compiler.ipynb"

configure_platform()
# An accidental outer product is the commonest silent mistake in array code.
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config: pytest.Config) -> None:
    """Points the caches at a folder of this run, which all its processes share.

    So tests neither depend on the user's caches nor fill them. MALLOCGAME_TEST_CACHE names a folder
    to keep instead, for quicker repeats.
    """
    if hasattr(config, "workerinput"):
        return  # its environment is that of the process that started it
    kept = os.environ.get("MALLOCGAME_TEST_CACHE")
    cache = kept or tempfile.mkdtemp(prefix="mallocgame-test-")
    os.environ["MALLOCGAME_CACHE"] = cache
    _share_compiled_code(cache)
    _compile_quickly()
    if not kept:
        config.add_cleanup(lambda: shutil.rmtree(cache, ignore_errors=True))


def _share_compiled_code(cache: str) -> None:
    """What JAX compiles in one process of a run, the others have: workers and commands under test.

    By the environment, which they inherit; JAX has read that of this process already.
    """
    for name, value in (
        ("jax_compilation_cache_dir", os.path.join(cache, "jax")),
        ("jax_persistent_cache_min_compile_time_secs", 0.2),
        ("jax_compilation_cache_max_size", 4 << 30),  # with a limit, entries are locked
    ):
        os.environ.setdefault(name.upper(), str(value))
        jax.config.update(name, type(value)(os.environ[name.upper()]))


def _compile_quickly() -> None:
    """Tells JAX, and XLA, which ends a process that gives it an unknown option: so one tries."""
    if "JAX_DISABLE_MOST_OPTIMIZATIONS" not in os.environ:
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"
        jax.config.update("jax_disable_most_optimizations", True)
    flags = f"{os.environ.get('XLA_FLAGS', '')} {QUICK_COMPILES}".strip()
    attempt = [sys.executable, "-c", "import jax; jax.devices()"]
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    if subprocess.run(attempt, env=environment, capture_output=True, check=False).returncode == 0:
        os.environ["XLA_FLAGS"] = flags


def pytest_itemcollected(item: pytest.Item) -> None:
    """Marks what `tests.slow` has."""
    if is_slow(item.nodeid):
        item.add_marker(pytest.mark.slow)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skips, with the reason, tests that need what this machine lacks.

    The hundreds that compile the whole suite are left out, unless MALLOCGAME_TEST_SUITE is set.
    """
    if "MALLOCGAME_TEST_SUITE" not in os.environ:
        left_out = [item for item in items if item.get_closest_marker("whole_suite")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("whole_suite")]
    # The longest first: a notebook is one piece, and two processes share what is left.
    items.sort(key=lambda item: item.path.suffix != ".ipynb")
    for item in items:
        if item.get_closest_marker("requires_libtpu") and not has_libtpu():
            item.add_marker(pytest.mark.skip(reason="libtpu is not installed (Linux x86-64 only)"))
        if item.path.name == COMPILING_NOTEBOOK and not has_libtpu():
            item.add_marker(pytest.mark.skip(reason="libtpu is not installed (Linux x86-64 only)"))
        if item.get_closest_marker("requires_gpu") and not _has_gpu():
            item.add_marker(pytest.mark.skip(reason="JAX finds no GPU"))


def _has_gpu() -> bool:
    return any(device.platform == "gpu" for device in jax.devices())
