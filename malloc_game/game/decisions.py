"""Which decisions a problem asks, in which order, and which placements each of them sets."""

from __future__ import annotations

import dataclasses

import numpy as np

from malloc_game.game.state import COMPILER, MOVES, PIECEMEAL, RULES, UNPLACED
from malloc_game.problem.assignment import Assignment
from malloc_game.problem.definition import MAX_PRICED_POSITIONS, Position, Problem


@dataclasses.dataclass
class Decision:
    """One question of the game. Times are logical times, decisions are named by their number."""

    asked_at: int  # the instruction that it comes up at
    time: int  # where its chunk is needed from: a use, a definition
    value: int  # index into Problem.values
    end: int  # where the chunk that it makes ends
    is_parameter: bool = False  # a use of a parameter
    is_use: bool = False  # a use: a chunk of an earlier decision can serve it, or a copy
    may_copy: bool = False
    must_stay: bool = False  # a use in the memory that its value was produced in
    previous: int = UNPLACED  # the decision before on the same value, if this is a use
    next_time: int | None = None  # the time of the one after it
    is_refused: bool = False
    exclusion_group: int = 0
    positions: list[tuple[int, int]] = dataclasses.field(default_factory=list)  # (time, number)

    @property
    def effects(self) -> dict[int, int]:
        """Mask bits that it sets, by instruction; positions that are not priced have none."""
        bits: dict[int, int] = {}
        for t, p in self.positions:
            bits[t] = bits.get(t, 0) | (1 << p if p < MAX_PRICED_POSITIONS else 0)
        return {t: b for t, b in bits.items() if b}


def _has_parts(problem: Problem, value: int, rules: str) -> bool:
    """Whether a computed value is asked at each use: written once, outside loops."""
    if rules == COMPILER:
        return False
    places = problem.positions_of_value[value]
    if problem.values[value].is_parameter or problem.values[value].copied_at >= 0:
        return False
    outputs = [t for t, p in places if problem.instructions[t].positions[p].is_output]
    in_entry = all(problem.instructions[t].in_entry for t, _ in places)
    if not in_entry or len(outputs) != 1 or any(t <= outputs[0] for t, _ in places[1:]):
        return False
    # Room from use to use is only enough for what begins and ends with them.
    alive = problem.values[value].start, problem.values[value].end
    return rules == MOVES or alive == (outputs[0], places[-1][0] + 1)


class _Lister:
    """Goes through the schedule once."""

    def __init__(self, problem: Problem, rules: str):
        self.problem, self.rules = problem, rules
        self.decisions: list[Decision] = []
        self.last_of: dict[int, int] = {}  # value -> its last decision so far
        numbers = range(len(problem.values))
        # Values that are asked at each use.
        self.parts = {v for v in numbers if _has_parts(problem, v, rules)}

    def visit(self, time: int) -> None:
        """The decisions at one instruction: uses first, then definitions."""
        instruction = self.problem.instructions[time]
        uses: dict[int, list[tuple[int, int]]] = {}
        definitions: list[int] = []
        for p, position in enumerate(instruction.positions):
            v, value = position.value, self.problem.values[position.value]
            if not value.may_be_in_alternate:
                continue
            if value.is_parameter:
                if instruction.in_entry:
                    uses.setdefault(v, []).append((time, p))
            elif v in self.parts and v in self.last_of:
                uses.setdefault(v, []).append((time, p))
            elif v not in self.last_of and v not in definitions and time != value.copied_at:
                definitions.append(v)
        for v, positions in uses.items():
            self._use(time, v, positions)
        for v in definitions:
            self._definition(time, v)

    def _use(self, time: int, v: int, positions: list[tuple[int, int]]) -> None:
        previous = self.last_of.get(v, UNPLACED)
        if previous != UNPLACED:
            self.decisions[previous].next_time = time
        value = self.problem.values[v]
        is_refused = value.is_refused or any(self._at(*place).is_refused for place in positions)
        self._ask(
            Decision(
                asked_at=time,
                time=time,
                value=v,
                end=time + 1,
                is_parameter=value.is_parameter,
                is_use=True,
                may_copy=value.is_parameter or self.rules == MOVES,
                must_stay=not value.is_parameter and self.rules == PIECEMEAL,
                previous=previous,
                is_refused=is_refused,
                positions=positions,
            )
        )

    def _definition(self, time: int, v: int) -> None:
        value = self.problem.values[v]
        by_copy = value.copied_at >= 0
        places = self.problem.positions_of_value[v]
        self._ask(
            Decision(
                asked_at=time,
                time=time if by_copy else value.start,
                value=v,
                end=time + 1 if self._is_piecemeal(v) else value.end,
                may_copy=by_copy,
                is_refused=value.is_refused,
                positions=[place for place in places if v not in self.parts or place[0] == time],
            )
        )

    def _is_piecemeal(self, v: int) -> bool:
        return self.rules == PIECEMEAL and v in self.parts

    def _ask(self, decision: Decision) -> None:
        decision.is_refused &= self.rules != MOVES
        self.last_of[decision.value] = len(self.decisions)
        self.decisions.append(decision)

    def _at(self, time: int, number: int) -> Position:
        return self.problem.instructions[time].positions[number]


def list_decisions(problem: Problem, rules: str = COMPILER) -> list[Decision]:
    """All decisions in the game's order: at each instruction uses first, then definitions.

    rules: as for `encode`.

    Raises:
      ValueError: there are no such rules.
    """
    if rules not in RULES:
        raise ValueError(f"rules is {rules!r}; need one of {', '.join(RULES)}")
    lister = _Lister(problem, rules)
    for time in range(len(problem.instructions)):
        lister.visit(time)
    return lister.decisions


def static_gain(problem: Problem, decision: Decision) -> int:
    """Cycles saved when this decision alone puts its positions in alternate memory."""
    return sum(
        problem.instructions[t].trip_count
        * (problem.instruction_cycles(t, 0) - problem.instruction_cycles(t, bits))
        for t, bits in decision.effects.items()
    )


def wanted_by(
    problem: Problem, assignment: Assignment, length: int, rules: str = COMPILER
) -> np.ndarray:
    """The decisions that an assignment has in alternate memory: bool[length], False for padding.

    It may come from anywhere: a decision counts if any of its positions is there.
    """
    wanted = np.zeros(length, bool)
    for d, decision in enumerate(list_decisions(problem, rules)):
        wanted[d] = any(assignment.in_alternate(t, p) for t, p in decision.positions)
    return wanted


def list_exclusions(problem: Problem, decisions: list[Decision]) -> list[tuple[int, int, int]]:
    """(group, decision on the use, decision on the output) of every exclusion that can matter.

    Marks the decisions of each group's parameter with the group's number.
    """
    uses = {(d.value, d.time): i for i, d in enumerate(decisions) if d.is_parameter}
    outputs = {d.value: i for i, d in enumerate(decisions) if not d.is_use}
    asked = {value for value, _ in uses}
    groups: dict[int, int] = {}
    found = []
    for exclusion in problem.exclusions:
        parameter, output = exclusion.parameter, exclusion.output
        if parameter in asked and output in outputs:
            group = groups.setdefault(parameter, len(groups) + 1)
            use = uses.get((parameter, exclusion.time), UNPLACED)
            found.append((group, use, outputs[output]))
    for decision in decisions:
        if decision.is_parameter:
            decision.exclusion_group = groups.get(decision.value, 0)
    return found
