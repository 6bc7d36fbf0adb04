"""What this machine offers: no TPU where there is only the TPU compiler, and so many cores."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pathlib

import jax

_GOOGLE_PCI_VENDOR = "0x1ae0"
# PCI base classes (first byte of the class code) of Google's virtual disks and network cards.
_STORAGE_CLASS, _NETWORK_CLASS = "0x01", "0x02"
# JAX's name, device files (for NVIDIA: the driver, containers that only pass the control device,
# WSL2), start of the plugin's name, and the variable by which users hide devices.
_GPU_PLATFORMS = (
    ("cuda", ("/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg"), "xla_cuda", "CUDA_VISIBLE_DEVICES"),
    ("rocm", ("/dev/kfd",), "xla_rocm", "HIP_VISIBLE_DEVICES"),
)


def num_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def configure_platform() -> str | None:
    """Restricts JAX to the platforms other than TPU where libtpu is installed without a TPU.

    We depend on libtpu for its compiler, which runs in child processes. JAX takes the mere presence
    of that package for a TPU: at its first use of a device it loads the library and tries to start
    a TPU, which takes seconds or waits for a metadata server, prints warnings, and holds a lock
    that the compiler's processes need. So, before any device is used, this names the platforms that
    JAX may start: a GPU that both the machine and the installed JAX plugins have, and the CPU.

    A platform that is named must work: where a GPU is there but its driver is broken, JAX now
    raises an error rather than falling back to the CPU; JAX_PLATFORMS=cpu does that.

    Nothing is changed where a TPU is attached, where libtpu is not installed, or where the user has
    chosen: a non-empty JAX_PLATFORMS or `jax.config.jax_platforms`.

    Returns the platforms it set ("cpu", "cuda,cpu", "rocm,cpu"), or None if it changed nothing.
    """
    if os.environ.get("JAX_PLATFORMS") or jax.config.values["jax_platforms"]:
        return None
    if not has_libtpu() or has_tpu():
        return None
    gpu = _gpu_platform()
    platforms = f"{gpu},cpu" if gpu else "cpu"
    jax.config.update("jax_platforms", platforms)
    return platforms


def has_libtpu() -> bool:
    """Whether JAX would find the TPU library; loads nothing."""
    return "TPU_LIBRARY_PATH" in os.environ or importlib.util.find_spec("libtpu") is not None


def has_tpu(root: pathlib.Path = pathlib.Path("/")) -> bool:
    """Whether a TPU is attached to this machine, judged by its device files under `root`.

    The TPU driver makes /dev/accel0, ... (older generations). Newer ones use the general VFIO
    driver, whose /dev/vfio/0, ... can be any device, so a Google PCI device that is neither disk
    nor network card must be there too.
    """
    if any((root / "dev").glob("accel[0-9]*")):
        return True
    return any((root / "dev/vfio").glob("[0-9]*")) and any(
        _is_google_accelerator(device) for device in (root / "sys/bus/pci/devices").glob("*")
    )


def _is_google_accelerator(device: pathlib.Path) -> bool:
    try:
        vendor = (device / "vendor").read_text().strip()
        pci_class = (device / "class").read_text().strip()
    except OSError:
        return False
    return vendor == _GOOGLE_PCI_VENDOR and pci_class[:4] not in (_STORAGE_CLASS, _NETWORK_CLASS)


def _gpu_platform() -> str | None:
    """JAX's name of the GPU platform that has both a device and an installed plugin, if any."""
    for name, devices, plugin, variable in _GPU_PLATFORMS:
        is_hidden = os.environ.get(variable) in ("", "-1")
        if not is_hidden and any(map(os.path.exists, devices)) and _has_plugin(plugin):
            return name
    return None


def _has_plugin(prefix: str) -> bool:
    """Whether an installed package offers JAX a plugin whose name starts so (xla_cuda13)."""
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return any(plugin.name.startswith(prefix) for plugin in plugins)
