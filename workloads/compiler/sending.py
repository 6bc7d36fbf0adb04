"""What brings a program into the compiler's process: a spec, or the function itself, pickled."""

from __future__ import annotations

import os
import sys
from typing import Any

from workloads.errors import WorkloadError
from workloads.programs.loader import ProgramSource, program_source, resolve_spec

# Settings of the parent process that change how a callable is traced.
_TRACING_CONFIG = ("jax_enable_x64", "jax_default_matmul_precision")


def load_request(program: Any) -> tuple[str, dict[str, Any], bytes]:
    """(name, request, bytes) that bring the program into the child."""
    request: dict[str, Any] = {
        "spec": "",
        "donate": [],
        "jax_config": {},
        "sys_path": [os.path.abspath(entry) for entry in sys.path],
    }
    spec = program.spec if isinstance(program, ProgramSource) else program
    if isinstance(spec, str) and spec:
        found = resolve_spec(spec)
        request["spec"] = found.spec
        return found.name, request, b""
    source = (
        program if isinstance(program, ProgramSource) else program_source(program[0], *program[1])
    )
    import cloudpickle
    import jax

    fn = source.fn
    if hasattr(fn, "lower") and hasattr(fn, "trace") and hasattr(fn, "__wrapped__"):
        # A jitted function loses its parts when pickled: send what it wraps, and its donations.
        request["donate"] = _donated_arguments(fn, source.args)
        fn = fn.__wrapped__
    request["jax_config"] = {name: getattr(jax.config, name) for name in _TRACING_CONFIG}
    try:
        blob = cloudpickle.dumps((fn, source.args))
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise WorkloadError(
            f"{source.name} cannot be sent to the compiler process: {type(error).__name__}: "
            f"{reason}; put it in a file and give path/to/file.py:function"
        ) from error
    return source.name, request, blob


def _donated_arguments(fn: Any, args: tuple[Any, ...]) -> list[int]:
    import jax

    try:
        infos = fn.trace(*args).args_info[0]
    except Exception:
        return []  # the child meets the same error and reports it
    return [
        index
        for index, info in enumerate(infos)
        if (leaves := jax.tree.leaves(info, is_leaf=lambda x: hasattr(x, "donated")))
        and all(leaf.donated for leaf in leaves)
    ]
