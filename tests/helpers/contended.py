"""A program whose weights compete for alternate memory, with the genuine compiler at hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from malloc_game import Assignment
from workloads.compiler.session import OVERRIDES_OPTION, CompilerSession
from workloads.costs.store import CostStore
from workloads.errors import OverrideError
from workloads.extraction.dry_run import dry_run_of
from workloads.extraction.pipeline import extract_session
from workloads.overrides.comparison import compare
from workloads.overrides.text import EXACT_OPTIONS, overrides


def matrix(rows, columns):
    return jax.ShapeDtypeStruct((rows, columns), jnp.bfloat16)


WEIGHTS = [matrix(2560, 2560), matrix(2560, 1280), matrix(1280, 2560)]  # 12.5, 6.25, 6.25 MiB


def contended(weights, x):
    """Six products in 48 MiB; every weight is used twice."""
    y = x
    for w in [*weights, *weights]:
        y = jnp.tanh(y @ w)
    return y + x


class Contended:
    """The program on v5p, extracted and probed."""

    def __init__(self):
        self.session = CompilerSession((contended, (WEIGHTS, matrix(2560, 2560))), "v5p")
        self.found = extract_session(self.session, store=CostStore())
        self.extraction = self.found.extraction
        self.problem = self.extraction.problem
        self.dry_run = dry_run_of(self.session)

    def check(self, assignment: Assignment) -> float:
        """Share of the decisions that a dry run honours, nothing repaired; 0 if refused."""
        text = overrides(self.problem, assignment)
        try:
            placed = self.dry_run.place({**EXACT_OPTIONS, OVERRIDES_OPTION: text})
        except OverrideError:
            return 0.0
        return compare(self.problem, assignment, self.extraction.assignment_of(placed, "check"))[0]
