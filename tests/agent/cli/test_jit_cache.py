"""Compiled code that the command line keeps between runs."""

import os
import subprocess
import sys

import pytest

_PROGRAM = """
import os, pathlib
import jax, jax.numpy as jnp
from agent.cli import jit_cache
jit_cache._MIN_COMPILE_SECONDS = 0.0
jit_cache.keep_compiled_code(pathlib.Path(os.environ["CACHE"]))
print(jax.jit(lambda x: jnp.sin(x) + 1)(0.0))
"""


def _run(cache, **environment):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION")}
    found = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        env=kept | {"CACHE": str(cache), **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return found.stdout, found.stderr


def _entries(directory):
    return sorted(p.name for p in directory.rglob("*-cache"))


def test_what_one_run_compiled_is_there_for_the_next(tmp_path):
    first = _run(tmp_path)
    entries = _entries(tmp_path)
    assert entries and first[0] == "1.0\n"
    assert _run(tmp_path)[0] == first[0]
    assert _entries(tmp_path) == entries


def test_a_damaged_entry_costs_no_more_than_time(tmp_path):
    _run(tmp_path)
    for path in (tmp_path).rglob("*-cache"):
        path.write_bytes(b"damaged")
    assert _run(tmp_path)[0] == "1.0\n"


@pytest.mark.parametrize(
    "environment",
    [{"JAX_COMPILATION_CACHE_DIR": "elsewhere"}, {"JAX_ENABLE_COMPILATION_CACHE": "0"}],
)
def test_the_users_own_choice_stands(tmp_path, environment):
    if "JAX_COMPILATION_CACHE_DIR" in environment:
        environment = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "elsewhere")}
    _run(tmp_path / "cache", **environment)
    assert not (tmp_path / "cache").exists()
