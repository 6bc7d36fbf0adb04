"""From what the user typed to a JAX function with abstract arguments.

A program is a suite name (`workloads.programs.SUITE`) or `path/to/file.py:function`, where the
function takes no arguments and returns `(fn, args)`. Loading a file runs it: the compiler session
does that in its child process, so that a file that crashes the interpreter harms nobody.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from workloads.errors import WorkloadError

MAX_MESSAGE = 300  # characters of a foreign exception's text in one of ours


@dataclasses.dataclass(frozen=True)
class ProgramSource:
    """A loaded program; spec is a suite name or an absolute `file.py:function`."""

    name: str
    spec: str
    fn: Callable[..., Any]
    args: tuple[Any, ...]  # pytrees of jax.ShapeDtypeStruct


@dataclasses.dataclass(frozen=True)
class ProgramSpec:
    """Where a program is, checked as far as possible without running anything."""

    name: str
    spec: str  # absolute, so that it means the same in every process
    path: Path | None  # None for the suite
    function: str


def resolve_spec(spec: str) -> ProgramSpec:
    """Find the suite entry or the file that spec names, without running any of the user's code.

    Raises: WorkloadError if there is no such suite program or file.
    """
    from workloads.programs.registry import SUITE

    if spec in SUITE:
        return ProgramSpec(spec, spec, None, spec)
    file, colon, function = spec.rpartition(":")
    if not colon:
        file, function = spec, ""
    if file.endswith(".py") or "/" in file or (colon and Path(file).exists()):
        return _resolve_file(file, function)
    raise WorkloadError(
        f"no program {spec!r}:{_near(spec, SUITE)} give one of {', '.join(list(SUITE)[:5])}, ..."
        f" ('mallocgame programs' lists all {len(SUITE)}), or path/to/file.py:function"
    )


def _resolve_file(file: str, function: str) -> ProgramSpec:
    path = Path(file).expanduser().absolute()
    if path.is_dir():
        raise WorkloadError(f"{file} is a directory; give path/to/file.py:function")
    if not path.exists():
        siblings = [p.name for p in _python_files(path.parent)]
        raise WorkloadError(f"no file {file};{_near(path.name, siblings)} check the path")
    if path.suffix != ".py":
        raise WorkloadError(f"{file} is not a Python file; give path/to/file.py:function")
    if not function.isidentifier():
        what = f"{function!r} is not a function name" if function else "no function given"
        raise WorkloadError(f"{what}; give {file}:function")
    return ProgramSpec(f"{path.stem}:{function}", f"{path}:{function}", path, function)


def _python_files(directory: Path) -> list[Path]:
    try:
        return sorted(directory.glob("*.py"))
    except OSError:
        return []


def load_program(spec: str) -> ProgramSource:
    """Load a program in this process; a user's file is executed.

    Raises: WorkloadError with one line that says what is wrong, where, and what to do.
    """
    found = resolve_spec(spec)
    if found.path is None:
        from workloads.programs.registry import SUITE

        fn, args = SUITE[found.spec]()
        return ProgramSource(found.name, found.spec, fn, args)
    return _load_file(found, found.path)


def program_source(fn: Callable[..., Any], *args: Any) -> ProgramSource:
    """Wrap a callable and its (abstract or concrete) arguments; spec is empty."""
    name = getattr(fn, "__name__", type(fn).__name__)
    abstract_fn, abstract_args = check_workload((fn, args), name)
    return ProgramSource(name, "", abstract_fn, abstract_args)


def _load_file(found: ProgramSpec, path: Path) -> ProgramSource:
    where = f"{path.name}:{found.function}"
    directory = str(path.parent)
    added = directory not in sys.path
    if added:
        sys.path.insert(0, directory)  # the file may import its siblings
    try:
        module = _run_file(path)
        factory = getattr(module, found.function, None)
        if factory is None:
            candidates = _factories(module)
            listed = ", ".join(candidates) or "none"
            raise WorkloadError(
                f"{path.name} has no function {found.function!r};"
                f"{_near(found.function, candidates)} functions without arguments there: {listed}"
            )
        if not callable(factory):
            raise WorkloadError(f"{where} is a {type(factory).__name__}, not a function")
        needed = _required_arguments(factory)
        if needed:
            raise WorkloadError(
                f"{where} needs arguments ({', '.join(needed)}); give a function without arguments "
                "that returns (fn, args)"
            )
        try:
            returned = factory()
        except (Exception, SystemExit) as error:
            raise WorkloadError(f"{where} raised {describe_error(error, path)}") from error
        fn, args = check_workload(returned, where)
    finally:
        if added and directory in sys.path:
            sys.path.remove(directory)
    return ProgramSource(found.name, found.spec, fn, args)


def _run_file(path: Path) -> ModuleType:
    # A name of its own: a user's `jax.py` or `test.py` must not replace the module of that name.
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    name = f"mallocgame_program_{path.stem}_{digest}"
    loader = SourceFileLoader(name, str(path))
    module_spec = ModuleSpec(name, loader, origin=str(path))
    module_spec.has_location = True  # so that the module has a `__file__`
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        raise WorkloadError(
            f"{path.name} cannot be imported: {describe_error(error, path)}"
        ) from error
    return module


def check_workload(returned: Any, where: str) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Check `(fn, args)` and make its arguments abstract.

    where: named in messages. Raises: WorkloadError.
    """
    import jax

    hint = "return (fn, args), args a tuple of jax.ShapeDtypeStruct pytrees"
    if not isinstance(returned, tuple | list) or len(returned) != 2:
        size = f" of {len(returned)}" if isinstance(returned, tuple | list) else ""
        raise WorkloadError(f"{where} returned a {type(returned).__name__}{size}; {hint}")
    fn, args = returned
    if not callable(fn):
        raise WorkloadError(f"{where}: fn is a {type(fn).__name__}, not callable; {hint}")
    if not isinstance(args, tuple | list):
        raise WorkloadError(f"{where}: args is a {type(args).__name__}, not a tuple; {hint}")

    def abstract(path, leaf):
        if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
            place = jax.tree_util.keystr(path)
            raise WorkloadError(
                f"{where}: args{place} is a {type(leaf).__name__} without shape and dtype; "
                "use jax.ShapeDtypeStruct(shape, dtype)"
            )
        return jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, weak_type=getattr(leaf, "weak_type", False)
        )

    return fn, jax.tree_util.tree_map_with_path(abstract, tuple(args))


def _required_arguments(factory: Callable[..., Any]) -> list[str]:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return []
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in variadic]


def _factories(module: ModuleType) -> list[str]:
    """Names of the module's own public functions that need no arguments."""
    return [
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and value.__module__ == module.__name__
        and not name.startswith("_")
        and not _required_arguments(value)
    ]


def _near(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" did you mean {close[0]!r}?" if close else ""


def describe_error(error: BaseException, path: Path | None) -> str:
    """Exception type, line in the user's file at path, and message, on one line."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(path)
    ]
    message = " ".join(str(error).split())[:MAX_MESSAGE]
    if isinstance(error, SyntaxError) and error.filename == str(path):
        lines, message = [error.lineno], error.msg
    where = f" at line {lines[-1]}" if lines else ""
    return f"{type(error).__name__}{where}" + (f": {message}" if message else "")
