"""The doctor: what it says of machines that lack something, made up one by one."""

from __future__ import annotations

import importlib
import json

import jax
import pytest

import workloads
from agent.cli import diagnosis
from agent.cli import doctor as cli_doctor
from agent.cli.diagnosis import BROKEN, OK, OPTIONAL
from tests.agent.cli.test_cli import call  # noqa: F401
from tests.helpers.paths import ROOT


@pytest.fixture
def quick_compiler(monkeypatch):
    """What the small compile is to answer: nothing, or an error."""
    answers = []

    def compile(*args, **settings):
        assert settings["cache"] is False
        if answers:
            raise answers[0]

    monkeypatch.setattr(workloads, "compile", compile)
    return answers


def _findings(done) -> dict[str, dict]:
    return {each["name"]: each for each in json.loads(done.stdout)}


@pytest.mark.requires_libtpu
def test_all_is_said_and_a_healthy_machine_is_exit_code_0(call, quick_compiler):  # noqa: F811
    done = call("doctor", "--json")
    assert done.returncode == 0, done.stdout
    found = _findings(done)
    assert found["compiler"]["status"] == OK
    assert f"jax {jax.__version__}" in found["versions"]["text"]
    assert f"cpu:{jax.devices('cpu')[0].id}" in found["devices"]["text"] or "gpu" in str(found)
    assert {"system", "TPU", "extra plot", "cache", "temporary files"} < set(found)
    assert all(each["advice"] for each in found.values() if each["status"] != OK)


@pytest.mark.requires_libtpu
def test_a_compiler_that_fails_is_broken_and_exit_code_3(call, quick_compiler):  # noqa: F811
    quick_compiler.append(workloads.CompileError("the compiler process was ended by SIGILL"))
    done = call("doctor")
    assert done.returncode == 3
    assert "SIGILL" in done.stdout and "-> pip install --force-reinstall libtpu" in done.stdout


@pytest.mark.requires_libtpu
def test_the_real_compiler_compiles_the_small_program():
    error, seconds = cli_doctor._try_compiler(120.0)
    assert error is None and seconds > 0


def test_no_compiler_is_no_failure(monkeypatch):
    monkeypatch.setattr(diagnosis, "has_libtpu", lambda: False)
    found = diagnosis.compiler("not installed", 0.1, "v5e")
    assert found.status == OPTIONAL and "pip install libtpu" in found.advice


def test_a_missing_extra_names_the_command_that_brings_it(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "evosax" else real(name)
    )
    found = {each.name: each for each in diagnosis.extras()}["extra solvers"]
    assert (found.status, found.advice) == (OPTIONAL, "pip install 'mallocgame[solvers]'")
    assert "evosax" in found.text


def test_the_extras_are_those_of_the_package():
    import tomllib

    text = (ROOT / "pyproject.toml").read_text()
    declared = tomllib.loads(text)["project"]["optional-dependencies"]
    assert set(diagnosis.EXTRAS) == set(declared) - {"audit", "dev", "fuzz"}  # for developers


def test_a_device_that_does_not_start_is_broken(monkeypatch):
    def devices():
        raise RuntimeError("no driver\nfound")

    monkeypatch.setattr(jax, "devices", devices)
    found = diagnosis.devices()
    assert (found.status, found.text) == (BROKEN, "no driver found")
    assert "JAX_PLATFORMS=cpu" in found.advice


def test_the_cache_is_measured_and_one_below_a_file_is_broken(tmp_path):
    (tmp_path / "cache" / "deep").mkdir(parents=True)
    (tmp_path / "cache" / "a").write_bytes(b"12345")
    (tmp_path / "cache" / "deep" / "b").write_bytes(b"678")
    assert cli_doctor._size_of(tmp_path / "cache") == (2, 8)
    assert diagnosis.cache(tmp_path / "cache", 2, 8).status == OK
    found = diagnosis.cache(tmp_path / "cache" / "a" / "below", 0, 0)
    assert found.status == BROKEN and "MALLOCGAME_CACHE" in found.advice


def test_a_full_disk_is_broken(tmp_path, monkeypatch):
    full = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(diagnosis.shutil, "disk_usage", lambda path: full)
    assert diagnosis.cache(tmp_path, 0, 0).status == BROKEN
    assert diagnosis.scratch().status == BROKEN
