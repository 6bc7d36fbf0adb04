"""The guided search run by itself, within limits: `optimize` gives it turns instead."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from agent.tuning.guided import VARIANTS, GuidedSearch, State
from malloc_game import Assignment
from workloads.compiler.session import CompilerSession
from workloads.errors import CompileError, CompilerKilled
from workloads.extraction.extraction import Extraction


def guided_search(
    session: CompilerSession,
    extraction: Extraction,
    xla_default: Assignment,
    *,
    starts: Iterable[Assignment] = (),
    deadline: float | None = None,
    max_checks: int | None = None,
    max_compiles: int | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda message: None,
) -> GuidedSearch:
    """Search and compile by turns until the deadline (`time.monotonic()`) or the limits are met.

    starts: mappings whose values in default memory are kept there to begin with, such as game
    plans. About as much time goes into checks as into compiles. Give a deadline or both limits.

    Raises:
      CompilerKilled: the compiler was killed.
    """
    search = GuidedSearch(session, extraction, xla_default, seed)
    compile_seconds, checks_between = 0.0, 8

    def is_over() -> bool:
        late = deadline is not None and time.monotonic() + 0.5 * compile_seconds > deadline
        return late or (max_checks is not None and search.checks >= max_checks)

    first = [State(variant=i) for i in range(1, len(VARIANTS))]
    first += [search.guided_by(start) for start in starts]
    for state in first:
        if is_over():
            break
        search.consider(state)
    is_left = True
    while True:
        began, checks = time.monotonic(), search.checks
        while is_left and not is_over():
            spent = time.monotonic() - began
            if search.checks - checks >= checks_between and spent >= compile_seconds:
                break
            is_left = search.step()
        if max_compiles is not None and len(search.found) >= max_compiles:
            return search
        began = time.monotonic()
        try:
            found = search.compile_best()
        except CompilerKilled:
            raise
        except CompileError:
            found = None
        if found is not None:
            compile_seconds = time.monotonic() - began
            progress(
                f"guided: predicted {found.predicted:,.0f}, compiled {found.cycles:,.0f} cycles;"
                f" {len(found.state.kept)} values kept, {len(found.state.pinned)} pinned,"
                f" {search.checks} checks"
            )
        if is_over() or (found is None and not is_left):
            return search
