"""Two executables side by side: the measuring core on the CPU, the command with a made-up TPU."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from malloc_game.platform import has_tpu
from tests.agent.cli.test_cli import PROGRAMS, assert_one_line_error, call  # noqa: F401
from workloads.compiler.session import OVERRIDES_OPTION, versions
from workloads.errors import CompileError
from workloads.fidelity import timing
from workloads.fidelity.timing import Comparison, Timing, compare, median_interval, random_inputs

CPU = jax.devices("cpu")[0]
QUICK = {"samples": 6, "sample_seconds": 1e-4}


def test_both_executables_are_timed_on_the_same_inputs():
    shape = jax.ShapeDtypeStruct((32, 32), jnp.float32)
    options = {"xla_cpu_enable_fast_math": "True"}
    found = compare(lambda x, y: {"z": x @ y["w"]}, (shape, {"w": shape}), options, CPU, **QUICK)
    assert len(found.default.seconds) == len(found.other.seconds) == 6
    assert min(found.default.seconds + found.other.seconds) > 0
    low, high = found.speedup_interval
    assert 0 < low <= found.speedup <= high
    assert found.output_difference < 1e-4
    assert found.device == CPU.device_kind and found.calls_per_sample >= 1


def test_arguments_that_the_function_takes_over_are_copied_for_every_call():
    calls = []

    def fn(state, x):
        jax.debug.callback(lambda s: calls.append(float(s)), state[0])
        return state + x

    args = (jnp.full(8, 3.0), jnp.ones(8))
    found = compare(jax.jit(fn, donate_argnums=0), args, {}, CPU, **QUICK)
    assert found.calls_per_sample == 1 and found.output_difference == 0.0
    jax.effects_barrier()
    assert calls == [3.0] * (2 + 2 + 2 * 7)  # outputs, length of a call, samples


def test_an_option_that_the_compiler_does_not_know_is_a_compile_error():
    shape = jax.ShapeDtypeStruct((4,), jnp.float32)
    with pytest.raises(CompileError, match="with these options.*xla_no_such_option"):
        compare(lambda x: x + 1, (shape,), {"xla_no_such_option": "1"}, CPU, **QUICK)


def test_inputs_are_drawn_for_shapes_and_kept_for_arrays():
    given = jnp.arange(3)
    key = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 2))
    shapes = {
        "float": jax.ShapeDtypeStruct((4, 5), jnp.bfloat16),
        "int": jax.ShapeDtypeStruct((6,), jnp.int8),
        "key": key,
        "given": given,
    }
    drawn = random_inputs(shapes)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), drawn) == jax.tree.map(
        lambda x: (x.shape, x.dtype), shapes
    )
    assert len(np.unique(np.asarray(drawn["float"], np.float32))) > 10
    assert not drawn["int"].any()
    np.testing.assert_array_equal(drawn["given"], given)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([1.0, np.nan], [1.0, np.nan], 0.0),
        ([1.0, np.inf], [1.25, np.inf], 0.25),
        ([1.0, 2.0], [1.0, np.nan], np.inf),
        ([3], [-2], 5.0),
        ([1j], [-1j], 2.0),
        ([], [], 0.0),
    ],
)
def test_outputs_are_compared_number_by_number(first, second, expected):
    first, second = jnp.asarray(first), jnp.asarray(second)
    assert timing._greatest_difference({"a": first}, {"a": second}) == expected


def test_the_median_of_thirty_values_lies_between_the_tenth_and_the_twenty_first():
    # The textbook's table for n = 30 and 95%: order statistics 10 and 21.
    values = np.random.default_rng(0).permutation(np.arange(1.0, 31.0))
    assert median_interval(values) == (10.0, 21.0)


def test_few_values_give_their_whole_range():
    assert median_interval(np.array([2.0, 1.0, 3.0])) == (1.0, 3.0)


def test_the_interval_holds_the_median_as_often_as_it_says():
    rng = np.random.default_rng(0)
    intervals = [median_interval(rng.exponential(size=25)) for _ in range(2000)]
    share = np.mean([low <= np.log(2) <= high for low, high in intervals])
    assert 0.95 <= share <= 0.985  # the exact coverage for 25 values is 0.957


# --- the command ------------------------------------------------------------------------------


@pytest.mark.skipif(has_tpu(), reason="a TPU is attached")
def test_without_a_tpu_it_says_so_in_one_line(call, tmp_path):  # noqa: F811
    (tmp_path / "o.textproto").write_text("overrides {}")
    done = call("time", "decode", "--overrides", tmp_path / "o.textproto")
    assert_one_line_error(done, 2, "needs a TPU, and none is attached")


@pytest.mark.parametrize(
    ("content", "options", "pattern"),
    [
        (None, [], "nothing to compare"),
        ("", ["--overrides"], "nothing to compare"),
        ("[1]", ["--options"], "need an object of option names"),
        ("{", ["--options"], "--options .*o.json"),
        ('{"compiler_options": {"a": [1]}}', ["--options"], "need an object of option names"),
        ('{"compiler_options": {}}', ["--options"], "nothing to compare.*XLA's default is"),
        ('{"a": "1"}', ["--samples", "2", "--options"], "2 is not in the range"),
        ("x", ["--overrides", "nowhere", "--options"], "nowhere.*does not exist"),
    ],
)
def test_a_mistake_is_one_line(call, tmp_path, content, options, pattern):  # noqa: F811
    if content is not None:
        (tmp_path / "o.json").write_text(content)
        options = [*options, tmp_path / "o.json"]
    assert_one_line_error(call("time", "decode", *options), 2, pattern)


@pytest.fixture
def made_up_tpu(monkeypatch):
    """A TPU that takes a millisecond by default and half of that with options; those it got."""
    given = {}

    def compare(fn, args, options, device, *, samples):
        given.update(options)
        slow, fast = Timing((1e-3,) * samples), Timing((5e-4,) * samples)
        return Comparison(slow, fast, 7, 0.0, device.device_kind)

    kind = type("Device", (), {"device_kind": "TPU v5 lite"})
    monkeypatch.setattr(timing, "tpu_device", lambda: kind())
    monkeypatch.setattr(timing, "compare", compare)
    return given


def _result_file(path, **fields):
    options = {OVERRIDES_OPTION: "overrides {}", "xla_other": "0"}
    path.write_text(json.dumps({"compiler_options": options, **fields}))
    return path


def test_a_run_of_optimize_is_timed_with_all_of_its_options(call, made_up_tpu, tmp_path):  # noqa: F811
    _result_file(tmp_path / "result.json", target="v5e", versions=versions())
    done = call("time", f"{PROGRAMS}:chain", "--options", tmp_path, "--json", "--samples", 6)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["speedup"] == 2.0 and found["speedup_interval"] == [2.0, 2.0]
    assert found["default"]["median_seconds"] == 1e-3 and len(found["default"]["seconds"]) == 6
    assert made_up_tpu == {OVERRIDES_OPTION: "overrides {}", "xla_other": "0"}
    assert "note" not in done.stderr


def test_the_table_and_what_differs_from_where_the_options_were_made(call, made_up_tpu, tmp_path):  # noqa: F811
    path = _result_file(tmp_path / "r.json", target="v4", versions={**versions(), "jax": "0.1"})
    done = call("time", f"{PROGRAMS}:chain", "--options", path)
    assert "2.000x (95%: 2.000 to 2.000)" in done.stdout and "1.0000" in done.stdout
    assert "the options were made for v4; this is a TPU v5 lite" in done.stderr
    assert f"jax 0.1 (here {versions()['jax']})" in done.stderr


def test_overrides_alone_are_just_that_and_the_rest_is_mentioned(call, made_up_tpu, tmp_path):  # noqa: F811
    _result_file(tmp_path / "result.json")
    (tmp_path / "overrides.textproto").write_text("overrides {}")
    done = call("time", f"{PROGRAMS}:chain", "--overrides", tmp_path / "overrides.textproto")
    assert done.returncode == 0, done.stderr
    assert made_up_tpu == {OVERRIDES_OPTION: "overrides {}"}
    assert "1 more options" in done.stderr


def test_overrides_take_the_place_of_those_of_the_options(call, made_up_tpu, tmp_path):  # noqa: F811
    path = _result_file(tmp_path / "r.json")
    (tmp_path / "mine.textproto").write_text("overrides { mine }")
    call("time", f"{PROGRAMS}:chain", "--options", path, "--overrides", tmp_path / "mine.textproto")
    assert made_up_tpu == {OVERRIDES_OPTION: "overrides { mine }", "xla_other": "0"}


def test_outputs_that_differ_are_told(call, made_up_tpu, monkeypatch, tmp_path):  # noqa: F811
    quiet = timing.compare

    def loud(*args, **settings):
        return dataclasses.replace(quiet(*args, **settings), output_difference=0.5)

    monkeypatch.setattr(timing, "compare", loud)
    done = call("time", f"{PROGRAMS}:chain", "--options", _result_file(tmp_path / "r.json"))
    assert "outputs differ by at most 0.5" in done.stdout
