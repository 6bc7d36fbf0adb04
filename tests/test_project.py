"""The project's own promises: who imports whom, what the lock pins, and that no TPU is started."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib

import jax
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import malloc_game
from malloc_game import platform
from tests.helpers.paths import ROOT
from tests.slow import SLOW, is_slow

PACKAGES = ("malloc_game", "agent", "workloads")


# --- version -----------------------------------------------------------------------


def test_version_in_metadata_is_that_of_the_package():
    assert importlib.metadata.version("mallocgame") == malloc_game.__version__


# --- setting up ---------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_setting_up_twice_does_nothing_the_second_time(tmp_path):
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
        os.utime(tmp_path / name, (1_000_000, 1_000_000))
    stamp = tmp_path / ".venv" / ".stamp"
    stamp.parent.mkdir()
    stamp.write_text(f"{tmp_path.resolve()}\n")  # as the first time leaves it
    # `make test` hands its own flags down.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}

    def make(*arguments: str) -> str:
        done = subprocess.run(
            ["make", *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    assert make("setup") == ""
    assert "pip install" not in make("--dry-run", "setup")
    os.utime(tmp_path / "requirements.lock")
    os.utime(stamp, (1_000_001, 1_000_001))
    assert "pip install" in make("--dry-run", "setup")
    os.utime(stamp)
    stamp.write_text("/of/another/folder\n")
    assert "-m venv --clear" in make("--dry-run", "setup")


# --- the lock ---------------------------------------------------------------------------------


def _locked() -> list[tuple[Requirement, int]]:
    """The lock's requirements, each with its number of hashes."""
    text = (ROOT / "requirements.lock").read_text()
    joined = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line for line in joined.splitlines() if line.strip()]
    return [
        (
            Requirement(line.split("--hash=")[0]),
            len(re.findall(r"--hash=sha256:[0-9a-f]{64}", line)),
        )
        for line in lines
    ]


def test_lock_names_no_address():
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    assert not re.search(r"^\s*-", re.sub(r"--hash=\S+", "", text), re.MULTILINE), "options"


def test_lock_pins_every_requirement_with_hashes():
    locked = _locked()
    assert len(locked) > 20
    for requirement, num_hashes in locked:
        assert [s.operator for s in requirement.specifier] == ["=="], requirement
        assert num_hashes > 0, requirement


def test_lock_meets_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = project["project"]["dependencies"] + project["build-system"]["requires"]
    # The extra for developers has all others, by the package's own name.
    wanted += [
        requirement
        for name, extra in project["project"]["optional-dependencies"].items()
        for requirement in extra
        # Large, or without wheels for newer Pythons; the lock is for all of them and for tests.
        if name not in ("farm", "fuzz")
        if Requirement(requirement).name != project["project"]["name"]
    ]
    versions: dict[str, list[str]] = {}
    for requirement, _ in _locked():
        (pin,) = requirement.specifier
        versions.setdefault(canonicalize_name(requirement.name), []).append(pin.version)
    for requirement in map(Requirement, wanted):
        pinned = versions.get(canonicalize_name(requirement.name), [])
        assert pinned, f"{requirement} is not in the lock: run make lock"
        assert all(requirement.specifier.contains(v) for v in pinned), f"{requirement}: {pinned}"


# --- the tree ---------------------------------------------------------------------------------


def test_no_file_names_a_path_of_one_machine():
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    machine_path = re.compile(rb"(?<![\w.$}\])-])/(?:home|root|work|Users)/\w")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    assert len(files) > 10
    found = []
    for path in filter(pathlib.Path.is_file, files):
        content = path.read_bytes()
        if b"\0" not in content and (match := machine_path.search(content)):
            line = content[: match.start()].count(b"\n") + 1
            found.append(f"{path.relative_to(ROOT)}:{line}")
    assert found == []


# --- no TPU is started ------------------------------------------------------------------------


def _run_python(code: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs `code` in a new interpreter in which the user has chosen no platform by default."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "TPU_"))}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


@pytest.mark.requires_libtpu
@pytest.mark.skipif(platform.has_tpu(), reason="a TPU is attached")
@pytest.mark.parametrize("imports", ["malloc_game, jax", "jax, malloc_game"])
def test_importing_the_game_keeps_jax_off_the_tpu_library(imports):
    ran = _run_python(
        f"import {imports}\n"
        "print(*sorted({d.platform for d in jax.devices()}), jax.numpy.ones(3).sum())\n"
        "print('libtpu.so' in open('/proc/self/maps').read())\n"
    )
    platforms = "gpu" if jax.default_backend() == "gpu" else "cpu"
    assert ran.stdout == f"{platforms} 3.0\nFalse\n"
    assert ran.stderr == ""


PRINT_PLATFORMS = "import malloc_game, jax; print(jax.config.jax_platforms)"


def test_platforms_from_the_environment_are_left_alone():
    ran = _run_python(PRINT_PLATFORMS, JAX_PLATFORMS="tpu,cpu")
    assert ran.stdout == "tpu,cpu\n"


def test_platforms_from_the_users_code_are_left_alone():
    chosen = "import jax; jax.config.update('jax_platforms', 'tpu,cpu'); "
    assert _run_python(chosen + PRINT_PLATFORMS).stdout == "tpu,cpu\n"


@pytest.fixture
def machine(monkeypatch):
    """configure_platform() on a made-up machine; gives a function that returns what it chose."""

    def choose(*, libtpu=True, tpu=False, devices=(), plugins=(), environment=()):
        for variable in ("JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
            monkeypatch.delenv(variable, raising=False)
        for variable, value in dict(environment).items():
            monkeypatch.setenv(variable, value)
        monkeypatch.setattr(platform, "has_libtpu", lambda: libtpu)
        monkeypatch.setattr(platform, "has_tpu", lambda: tpu)
        monkeypatch.setattr(os.path, "exists", lambda path: path in devices)
        monkeypatch.setattr(
            platform.importlib.metadata,
            "entry_points",
            lambda group: [importlib.metadata.EntryPoint(p, p, group) for p in plugins],
        )
        before = jax.config.jax_platforms
        jax.config.update("jax_platforms", None)
        try:
            chosen = platform.configure_platform()
            assert jax.config.jax_platforms == chosen
        finally:
            jax.config.update("jax_platforms", before)
            monkeypatch.undo()
        return chosen

    return choose


NVIDIA, AMD = ("/dev/nvidiactl",), ("/dev/kfd",)
CUDA, ROCM = ("xla_cuda13",), ("xla_rocm7",)


def test_a_compiler_without_a_tpu_leaves_the_cpu(machine):
    assert machine() == "cpu"


def test_a_gpu_is_used_where_device_and_plugin_are_both_there(machine):
    assert machine(devices=NVIDIA, plugins=CUDA) == "cuda,cpu"
    assert machine(devices=AMD, plugins=ROCM) == "rocm,cpu"
    assert machine(devices=NVIDIA) == "cpu"
    assert machine(plugins=CUDA) == "cpu"
    assert machine(devices=NVIDIA, plugins=ROCM) == "cpu"


def test_a_gpu_that_the_user_hides_is_not_used(machine):
    hidden = {"CUDA_VISIBLE_DEVICES": ""}
    assert machine(devices=NVIDIA, plugins=CUDA, environment=hidden) == "cpu"


def test_nothing_changes_with_a_tpu_or_without_libtpu(machine):
    assert machine(tpu=True) is None
    assert machine(libtpu=False) is None


def _pci_device(root: pathlib.Path, vendor: str, pci_class: str) -> None:
    device = root / "sys/bus/pci/devices/0000:00:04.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text(vendor + "\n")
    (device / "class").write_text(pci_class + "\n")


def _device_file(root: pathlib.Path, name: str) -> None:
    path = root / "dev" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_an_empty_machine_has_no_tpu(tmp_path):
    assert not platform.has_tpu(tmp_path)


def test_a_tpu_is_known_by_its_own_driver(tmp_path):
    _device_file(tmp_path, "accel0")
    assert platform.has_tpu(tmp_path)


def test_another_makers_accelerator_is_no_tpu(tmp_path):
    _device_file(tmp_path, "accel/accel0")
    assert not platform.has_tpu(tmp_path)


@pytest.mark.parametrize(
    ("vendor", "pci_class", "is_tpu"),
    [
        ("0x1ae0", "0x120000", True),
        ("0x1ae0", "0x020000", False),  # Google's network card, on every cloud machine
        ("0x1ae0", "0x010802", False),  # Google's disk
        ("0x10de", "0x030200", False),  # a GPU handed to a virtual machine
    ],
)
def test_vfio_is_a_tpu_only_with_googles_accelerator(tmp_path, vendor, pci_class, is_tpu):
    _device_file(tmp_path, "vfio/0")
    _pci_device(tmp_path, vendor, pci_class)
    assert platform.has_tpu(tmp_path) == is_tpu


def test_a_tpu_on_the_bus_without_a_device_file_cannot_be_used(tmp_path):
    _device_file(tmp_path, "vfio/vfio")
    _pci_device(tmp_path, "0x1ae0", "0x120000")
    assert not platform.has_tpu(tmp_path)


# --- tests ------------------------------------------------------------------------------------


def test_what_is_slow_exists():
    for pattern in SLOW:
        name, _, test = pattern.partition("::")
        (path,) = (ROOT / "tests").rglob(name)
        function = re.match(r"test_\w+", test)[0]
        assert f"def {function}" in path.read_text(), pattern
    assert is_slow("tests/a/test_annealer.py::test_a_planner_that_anneals_is_repeatable")
    assert not is_slow("tests/a/test_annealer.py::test_annealing_finds_better_games")
