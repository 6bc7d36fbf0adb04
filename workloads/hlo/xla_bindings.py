"""XLA's own parsers in jaxlib: text of HLO or StableHLO to a serialized HloModuleProto.

They have no stable home: jaxlib moves them from one module to another. This is the one place that
knows. XLA's text parser aborts or overruns its stack on some input, so only the child process
(`workloads.compiler.child`) calls these; `workloads.compiler.parsing` is the way to them.
"""

from __future__ import annotations

import importlib
from typing import Any

from workloads.errors import WorkloadError

# Newest first: jaxlib 0.10 and later, then the releases before that split.
_HOMES = {
    "hlo_module_from_text": ("jaxlib._hlo", "jaxlib._jax", "jaxlib.xla_extension"),
    "mlir_module_to_xla_computation": (
        "jaxlib._jax:mlir",
        "jaxlib._hlo:mlir",
        "jaxlib._mlir",
        "jaxlib.xla_extension:mlir",
    ),
}


def _binding(name: str) -> Any:
    """The function of that name, from wherever this jaxlib has it."""
    for home in _HOMES[name]:
        module_name, _, attribute = home.partition(":")
        try:
            module: Any = importlib.import_module(module_name)
        except ImportError:
            continue
        holder = getattr(module, attribute, None) if attribute else module
        if hasattr(holder, name):
            return getattr(holder, name)
    raise WorkloadError(
        f"this jaxlib has no {name} where releases so far had it; use another jaxlib, or give the"
        " module as a serialized HloModuleProto"
    )


def hlo_text_to_proto(text: str) -> bytes:
    """HLO text to a serialized HloModuleProto. May end the process."""
    return _binding("hlo_module_from_text")(text).as_serialized_hlo_module_proto()


def stablehlo_to_proto(module: str | bytes) -> bytes:
    """StableHLO (text, or MLIR bytecode) to a serialized HloModuleProto. May end the process."""
    convert = _binding("mlir_module_to_xla_computation")
    computation = convert(module, use_tuple_args=False, return_tuple=False)
    return computation.as_serialized_hlo_module_proto()
