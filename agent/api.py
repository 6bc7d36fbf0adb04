"""The Python API: `malloc_game.optimize(fn, *args, target="v5e")` and what it returns."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Any

import malloc_game as mg
from agent.report import results
from agent.report.page import save_page
from agent.tuning.main_job import optimize as _optimize
from agent.tuning.outcome import Outcome


@dataclasses.dataclass(frozen=True, repr=False)
class OptimizeResult:
    """The best mapping found of one function for one target, compiled by the real compiler.

    Ratios are of the tile chooser's estimated cycles, which the compiler's final machine code
    contradicts: no speed-up is claimed from them (`malloc_game.estimator`).
    """

    outcome: Outcome  # all candidates, with predicted and compiled cycles

    @property
    def compiled_speedup(self) -> float:
        """Estimated cycles of XLA's default over those of this mapping, compiled; at least 1."""
        speedup = self.outcome.compiled_speedup
        return 1.0 if speedup is None else speedup

    @property
    def compiled_speedup_monotone(self) -> float:
        """The same if alternate memory never cost more than default memory; may be below 1."""
        speedup = self.outcome.compiled_speedup_monotone
        return 1.0 if speedup is None else speedup

    @property
    def compiler_options(self) -> dict[str, str]:
        """For `jax.jit(fn).lower(*args).compile(compiler_options=...)` on a TPU of the target.

        Empty where XLA's default mapping is the best that was found.
        """
        return dict(self.outcome.best.options)

    @property
    def problem(self) -> mg.Problem:
        """The memory-mapping problem, with the costs that the compiles taught."""
        return self.outcome.problem

    @property
    def assignment(self) -> mg.Assignment:
        """The best mapping of `problem`, as compiled."""
        return self.outcome.best.assignment or mg.all_default(self.outcome.problem)

    @property
    def default_assignment(self) -> mg.Assignment:
        """XLA's own mapping of `problem`."""
        return self.outcome.candidates["xla_default"].assignment or mg.all_default(self.problem)

    def report(self, path: str | os.PathLike[str]) -> pathlib.Path:
        """Write one HTML file that needs no network: the table, and both memory maps.

        Returns the path. Raises: MallocGameError: it cannot be written.
        """
        page = pathlib.Path(path)
        results.check_directory(page.parent, "report")
        page.parent.mkdir(parents=True, exist_ok=True)
        save_page(results.run_of(self.outcome), page, results.OPTION_FILES)
        return page

    def save(self, directory: str | os.PathLike[str]) -> pathlib.Path:
        """Write what `mallocgame optimize --out DIRECTORY` writes, all of it or nothing.

        Returns the directory. Raises: MallocGameError: it cannot be written.
        """
        path = pathlib.Path(directory)
        results.check_directory(path, "save")
        results.write(self.outcome, path)
        return path

    def __repr__(self) -> str:
        outcome = self.outcome
        return (
            f"<OptimizeResult {outcome.program} on {outcome.target.name}:"
            f" estimated ratio {self.compiled_speedup:.3f} by {outcome.best.source}>"
        )


def optimize(
    fn: Callable[..., Any] | str,
    *args: Any,
    target: str,
    budget: float = 60.0,
    seed: int = 0,
    timeout: float = 600.0,
    progress: Callable[[str], None] | None = None,
) -> OptimizeResult:
    """Search a memory mapping of a JAX function and compile it for a TPU that need not be there.

    fn: a function or a jitted function (donations are respected); or a program of the suite or
      `path/to/file.py:function`, then without args.
    args: pytrees of arrays or of `jax.ShapeDtypeStruct`; only shapes and dtypes matter.
    target: "v4", "v5e", "v6e", "v5p" or "tpu7x".
    budget: seconds of planning, after the two compiles that every run needs.
    timeout: seconds for one compile.
    progress: called with lines of progress, e.g. `print`.

    The compiler runs in a child process. The result has never more estimated cycles than XLA's
    default, because that is one of the candidates. The estimate is not the time that
    the code takes.

    Raises:
      TypeError, ValueError: `fn`, `args` or `budget` is of the wrong kind.
      WorkloadError: the program or the target does not exist or cannot be used, or libtpu is not
        installed. CompileError: the compiler, or tracing, failed.
    """
    if not callable(fn) and not isinstance(fn, str):
        raise TypeError(f"optimize: fn is a {type(fn).__name__}; need a function or its name")
    if isinstance(fn, str) and args:
        raise TypeError(f"optimize: {fn!r} brings its own arguments; leave args out")
    if not budget > 0:
        raise ValueError(f"optimize: budget is {budget!r}; need a positive number of seconds")
    program = fn if isinstance(fn, str) else (fn, args)
    found = _optimize(program, target, budget=budget, seed=seed, progress=progress, timeout=timeout)
    return OptimizeResult(found)
