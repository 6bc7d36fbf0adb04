"""Large neighbourhood search (LNS) with CP-SAT: all but a window of the schedule stays as it is.

A window is small enough to be solved to optimality, and what lies outside moves when its turn
comes. Windows grow while they are solved in time, and shrink while they are not.
"""

from __future__ import annotations

import numpy as np
from ortools.sat.python import cp_model

from malloc_game.problem.assignment import Assignment
from malloc_game.solvers.cpsat.mapping import read
from malloc_game.solvers.cpsat.model import Placement

_EFFORT = 0.3  # of one window, in CP-SAT's deterministic time: about seconds on a free core
_GROWTH = 1.25
_FIRST_WIDTH = 16  # instructions


class Neighbourhoods:
    """Improves a solution of `placement`, window by window.

    solution: the value of every variable, by its number.
    """

    def __init__(self, placement: Placement, solution: list[int], seed: int):
        self.placement, self.solution = placement, list(solution)
        self.rng = np.random.default_rng(seed)
        self.times = len(placement.problem.instructions)
        self.width = float(min(_FIRST_WIDTH, self.times))
        self.spans = _spans(placement)
        self.num_optimal = 0

    def improve(self, seconds: float, weights: np.ndarray | None = None) -> Assignment | None:
        """Solve one window in at most `seconds`; the mapping after it, None if time was short.

        weights: float[T], how likely the window lies around each instruction; alike if None."""
        width = max(1, min(self.times, round(self.width)))
        shares = None if weights is None else weights / weights.sum()
        first = int(self.rng.choice(self.times, p=shares)) - width // 2
        model = self._model(max(0, first), first + width)
        solver = cp_model.CpSolver()
        parameters = solver.parameters
        parameters.num_workers, parameters.random_seed = 1, int(self.rng.integers(1 << 30))
        parameters.cp_model_probing_level = 0
        parameters.max_presolve_iterations = 1
        parameters.max_deterministic_time = _EFFORT
        parameters.max_time_in_seconds = seconds
        parameters.catch_sigint_signal = False  # as in `cpsat`
        status = solver.solve(model)
        is_optimal = status == cp_model.OPTIMAL
        self.num_optimal += is_optimal
        wider = min(self.width * _GROWTH, float(self.times))
        self.width = wider if is_optimal else max(4.0, self.width / _GROWTH)
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return None  # no time even for what is known
        # As good as before is moved to as well: from there others may be reached.
        self.solution = list(solver.response_proto.solution)
        return read(self.placement, solver.value)

    def _model(self, first: int, last: int) -> cp_model.CpModel:
        """The model with all fixed that does not touch [first, last), from the solution known."""
        model = self.placement.cp.clone()
        model.clear_hints()
        fixed = {n for n, (start, end) in self.spans.items() if end <= first or start >= last}
        for number, value in enumerate(self.solution):
            variable = model.get_int_var_from_proto_index(number)
            if number in fixed:
                model.add(variable == value)
            model.add_hint(variable, value)
        return model


def _spans(placement: Placement) -> dict[int, tuple[int, int]]:
    """Logical times [start, end) that each decision has to do with, by number of the variable.

    Variables that follow from the decisions are left out.
    """
    found: dict[int, tuple[int, int]] = {}
    for v, inside in placement.values.items():
        value = placement.problem.values[v]
        for variable in (inside, placement.value_offsets[v]):
            found[variable.index] = value.start, value.end
    for uses in placement.uses.values():
        for use, after in zip(uses, [*uses[1:], None], strict=True):
            until = use.time + 1 if after is None else after.time + 1
            for variable in (use.inside, use.job.is_made, use.offset):
                found[variable.index] = use.time, until
            if use.stays is not None:
                found[use.stays.index] = use.time, until
    # A copy may start anywhere if its use is in the window.
    for job in placement.jobs:
        for starts in job.starts.values():
            found[starts.index] = job.deadline, job.deadline + 1
    return found
