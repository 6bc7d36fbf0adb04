"""A small builder of linear programs, and a bound that does not trust the solver's arithmetic."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # loaded by the first program: every process would wait for it at its start
    from scipy import sparse

_Term = tuple[int, float]  # number of a variable, its coefficient


class LinearProgram:
    """Minimise cost . x over 0 <= x <= upper, with rows `terms <= bound` and `terms == bound`.

    Every variable has a finite upper bound, which `solve` needs.
    """

    def __init__(self) -> None:
        self._cost: list[float] = []
        self._upper: list[float] = []
        # For inequalities and equations: columns and coefficients of all rows one after another,
        # where each row ends, and right-hand sides.
        self._rows: dict[bool, tuple[list[int], list[float], list[int], list[float]]] = {
            kind: ([], [], [0], []) for kind in (False, True)
        }

    @property
    def num_variables(self) -> int:
        """How many variables there are."""
        return len(self._cost)

    def variable(self, cost: float = 0.0, upper: float = 1.0) -> int:
        """The number of a new variable in [0, upper]."""
        self._cost.append(cost)
        self._upper.append(upper)
        return len(self._cost) - 1

    def variables(self, costs: np.ndarray, upper: float = 1.0) -> range:
        """The numbers of new variables, one for each cost."""
        first = len(self._cost)
        self._cost.extend(costs.tolist())
        self._upper.extend([upper] * len(costs))
        return range(first, len(self._cost))

    def at_most(self, terms: Iterable[_Term], bound: float) -> None:
        """Add a row: the sum of `terms` is at most `bound`."""
        self._add(False, terms, bound)

    def equal(self, terms: Iterable[_Term], bound: float) -> None:
        """Add a row: the sum of `terms` is `bound`."""
        self._add(True, terms, bound)

    def _add(self, is_equation: bool, terms: Iterable[_Term], bound: float) -> None:
        columns, coefficients, ends, bounds = self._rows[is_equation]
        for column, coefficient in terms:
            columns.append(column)
            coefficients.append(coefficient)
        ends.append(len(columns))
        bounds.append(bound)

    def _matrix(self, is_equation: bool) -> tuple[sparse.csr_array, np.ndarray]:
        from scipy import sparse

        columns, coefficients, ends, bounds = self._rows[is_equation]
        shape = (len(bounds), self.num_variables)
        # Terms that name one variable twice are added up.
        matrix = sparse.csr_array((coefficients, columns, ends), shape=shape)
        matrix.sum_duplicates()
        return matrix, np.array(bounds)

    def solve(self, time_limit: float = np.inf) -> tuple[float, np.ndarray] | None:
        """A proven lower bound on the optimum, and a solution; None if there was not time enough.

        The bound is Lagrange's: for any multipliers y (of inequalities, <= 0) and z,
        y.b + z.d + the least of (cost - A'y - E'z).x over the boxes is below every feasible x. So
        it holds whatever the solver's tolerances are; good multipliers only make it tight.
        """
        from scipy import optimize

        (below, limits), (equations, targets) = self._matrix(False), self._matrix(True)
        cost, upper = np.array(self._cost), np.array(self._upper)
        result = optimize.linprog(
            cost,
            A_ub=below,
            b_ub=limits,
            A_eq=equations,
            b_eq=targets,
            bounds=np.stack([np.zeros_like(upper), upper], axis=1),
            method="highs",
            options={"time_limit": time_limit} if np.isfinite(time_limit) else {},
        )
        if result.status != 0:
            return None
        y = np.minimum(result.ineqlin.marginals, 0.0)
        z = result.eqlin.marginals
        reduced = cost - below.T @ y - equations.T @ z
        bound = y @ limits + z @ targets + np.minimum(reduced * upper, 0.0).sum()
        return float(bound), result.x
