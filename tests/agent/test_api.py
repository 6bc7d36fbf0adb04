"""The Python API: `malloc_game.optimize`, from a function to options that the compiler takes."""

from __future__ import annotations

import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

import malloc_game
import workloads
from agent.api import OptimizeResult


def test_the_game_alone_loads_nothing_above_it():
    code = (
        "import sys, malloc_game\n"
        "from malloc_game import *\n"
        "print('optimize' in dir(malloc_game),"
        " sorted({'agent', 'workloads'} & set(sys.modules)))\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "True []\n"


def test_what_takes_long_to_load_is_loaded_by_what_uses_it():
    # The compiler's child process imports this much at its start, and there are many of these.
    code = "import sys, workloads.compiler.child; print('scipy' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'optimise'"):
        malloc_game.optimise  # noqa: B018


@pytest.mark.parametrize(
    ("arguments", "settings", "error", "pattern"),
    [
        ((3,), {}, TypeError, "fn is a int"),
        (("decode", jnp.ones(3)), {}, TypeError, "'decode' brings its own arguments"),
        (("decode",), {"budget": 0}, ValueError, "budget is 0"),
        (("decoed",), {}, workloads.WorkloadError, "no program 'decoed'.*'decode'"),
        (("decode",), {"target": "v9"}, workloads.WorkloadError, "unknown target 'v9'.*v5e"),
    ],
)
def test_a_mistake_is_told_before_any_compile(arguments, settings, error, pattern):
    with pytest.raises(error, match=pattern):
        malloc_game.optimize(*arguments, **{"target": "v5e", **settings})


def _program():
    """A jitted closure that takes over an argument, with an array and a shape to call it with."""
    scale = 2.0

    def fn(x, weights):
        for w in weights["w"]:
            x = jnp.tanh(x @ w) * scale
        return x

    matrix = jax.ShapeDtypeStruct((512, 512), jnp.bfloat16)
    args = (jnp.ones((512, 512), jnp.bfloat16), {"w": [matrix] * 4})
    return jax.jit(fn, donate_argnums=0), args


@pytest.fixture(scope="module")
def result() -> OptimizeResult:
    fn, args = _program()
    return malloc_game.optimize(fn, *args, target="tpu7x", budget=1)


@pytest.mark.requires_libtpu
def test_the_options_make_the_compiler_compile_what_was_judged(result):
    assert result.compiled_speedup >= 1.0 and result.compiled_speedup_monotone > 0
    assert f"estimated ratio {result.compiled_speedup:.3f} by" in repr(result)
    with workloads.CompilerSession(_program(), "tpu7x") as session:
        default, ours = (
            workloads.compiled_latency(
                workloads.Module(session.compile(options).hlo), result.problem.target
            ).cycles
            for options in ({}, result.compiler_options)
        )
    assert default / ours == result.compiled_speedup
    assert ours == result.outcome.best.compiled


@pytest.mark.requires_libtpu
def test_the_mapping_belongs_to_the_problem_and_can_be_saved(result, tmp_path):
    problem = result.problem
    assert malloc_game.check(problem, result.default_assignment, expressible=False) == []
    assert malloc_game.latency(problem, result.assignment).cycles > 0
    directory = result.save(tmp_path / "new" / "out")
    loaded = malloc_game.load_problem(directory / "problem.json")
    malloc_game.load_assignment(directory / "assignment.json", loaded)


@pytest.mark.requires_libtpu
def test_the_report_is_one_page(result, tmp_path):
    page = result.report(tmp_path / "new" / "page.html")
    text = page.read_text()
    assert f"{result.compiled_speedup:.3f}" in text and "fn on tpu7x" in " ".join(text.split())
    (tmp_path / "file").write_text("")
    with pytest.raises(malloc_game.MallocGameError, match="not a directory"):
        result.report(tmp_path / "file" / "page.html")
