"""Choosing which mappings to compile, so that few compiles tell most about a program's costs.

Random legal games stand for the mappings whose latency one may want to know. The one whose compile
leaves least doubt about the latency of all of them is compiled, its cycles are learned, and so on.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time

import chex
import jax
import jax.numpy as jnp
import numpy as np

import malloc_game as mg
from malloc_game.game.playing import play, prefer_alternate
from malloc_game.jitted import jit
from workloads.compiler.session import CompilerSession
from workloads.errors import CompileError, CompilerKilled
from workloads.extraction.extraction import Extraction
from workloads.loop.verification import verify
from workloads.overrides.permits import values_inside
from workloads.progress import Progress, silent

DEFAULT_COMPILES = 12
# What the model states after a few chosen compiles is less than its true error by about a half.
DEFAULT_TOLERANCE = 0.002
_NUM_GAMES = 192
_BATCH = 32  # games played at once: their states are what takes memory
_WORTH_A_LOOK = 0.999  # tables with less than the rest of the doubt are left out of the choice


@dataclasses.dataclass(frozen=True)
class CalibrationStep:
    """One compile of a calibration."""

    source: str  # the game that was compiled
    predicted: float  # cycles, before the compile
    compiled: float | None  # cycles; None: the compiler would not have it
    honoured: float | None
    new_facts: int  # placements of instructions priced for the first time
    deviation: float  # after it: of a random mapping's latency, as a share of it
    seconds: float  # choosing and compiling


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What a calibration did. Deviations are the model's own, standard deviation / latency."""

    deviation_before: float
    steps: tuple[CalibrationStep, ...]

    @property
    def deviation(self) -> float:
        """Deviation of a random mapping's latency in the end, as a share of it."""
        return self.steps[-1].deviation if self.steps else self.deviation_before


@jit(static_argnames="num_games")
def _play(program: mg.Program, key: chex.PRNGKey, num_games: int) -> mg.GameState:
    def game(inputs: tuple[chex.PRNGKey, chex.Array]) -> mg.GameState:
        key, share = inputs

        def policy(program: mg.Program, state: mg.GameState, key: chex.PRNGKey) -> chex.Array:
            del program
            return prefer_alternate(state, jax.random.bernoulli(key, share))

        return play(program, policy, key)[0]

    # From nearly everything in default memory to as much as fits in alternate memory.
    shares = (jnp.arange(num_games) + 0.5) / num_games
    return jax.lax.map(game, (jax.random.split(key, num_games), shares), batch_size=_BATCH)


class RandomGames:
    """Finished random legal games of one problem; games differ in how much they put in alternate.

    Attributes:
      masks: placement mask of each instruction in each game, priced positions: int64[G, T].
    """

    def __init__(self, problem: mg.Problem, num_games: int = _NUM_GAMES, seed: int = 0):
        self._problem, self._seed = problem, seed
        program = mg.encode(problem)
        states = _play(program, jax.random.key(seed), num_games)
        self._states = jax.tree.map(np.asarray, states)
        masks = jax.vmap(mg.placement_masks, in_axes=(None, 0))(program, states)
        self.masks = np.asarray(masks, np.int64)[:, : len(problem.instructions)]

    def assignment(self, game: int) -> mg.Assignment:
        """The mapping that a game stands for."""
        state = jax.tree.map(lambda x: x[game], self._states)
        return mg.to_assignment(self._problem, state, f"random {self._seed}.{game}")


@dataclasses.dataclass(frozen=True)
class _Doubt:
    """What is not known of one cost table, and how much games make of it."""

    masks: np.ndarray  # int64[M], unknown entries that occur in some game
    covariance: np.ndarray  # float64[M, M], cycles squared
    executions: np.ndarray  # float64[G, M], how often each game runs each entry

    @functools.cached_property
    def variances(self) -> np.ndarray:
        """What it adds to the variance of each game's latency: float64[G], cycles squared."""
        return np.einsum("gm,mn,gn->g", self.executions, self.covariance, self.executions)

    def gains(self, weights: np.ndarray) -> np.ndarray:
        """For each game, the weighted variance of all games that its compile would remove.

        weights: float64[G]. Returns float64[G].
        """
        spread = self.covariance @ (self.executions.T * weights) @ self.executions
        spread = spread @ self.covariance  # [M, M]: covariance with all games, squared and summed
        rows, which = np.unique(self.executions > 0, axis=0, return_inverse=True)
        gains = np.zeros(len(rows))
        for i, row in enumerate(rows):
            if row.any():
                inner = self.covariance[np.ix_(row, row)]
                inner = inner + 1e-9 * np.trace(inner) * np.eye(len(inner))
                gains[i] = np.trace(np.linalg.solve(inner, spread[np.ix_(row, row)]))
        return gains[which.reshape(-1)]


def _doubts(extraction: Extraction, masks: np.ndarray) -> list[_Doubt]:
    problem = extraction.problem
    rows: dict[int, list[int]] = {}
    for t, instruction in enumerate(problem.instructions):
        rows.setdefault(instruction.cost_table, []).append(t)
    trips = np.array([i.trip_count for i in problem.instructions], np.float64)
    doubts = []
    for table, times in rows.items():
        deviation = extraction.uncertainty[table]
        entries = masks[:, times] & (len(deviation) - 1)  # [G, rows of the table]
        unknown = np.unique(entries[deviation[entries] > 0])
        if len(unknown):
            executions = np.stack([((entries == m) @ trips[times]) for m in unknown], axis=1)
            covariance = extraction.covariance(table, unknown.tolist())
            doubts.append(_Doubt(unknown, covariance, executions))
    return doubts


def instruction_cycles(problem: mg.Problem, masks: np.ndarray) -> np.ndarray:
    """Predicted cycles of all instructions in each game, waits left out: float64[G].

    masks: int64[G, T].
    """
    total = np.zeros(len(masks))
    for t, instruction in enumerate(problem.instructions):
        cycles = np.array(problem.cost_tables[instruction.cost_table].cycles, np.float64)
        total += instruction.trip_count * cycles[masks[:, t] & (len(cycles) - 1)]
    return total


def latency_deviation(extraction: Extraction, masks: np.ndarray) -> np.ndarray:
    """Standard deviation of the latency of mappings by their masks, as a share of it: float64[G].

    It is the model's own, from placements of instructions that no compile has shown; waits for
    copies and decisions that are not honoured are not in it. masks: int64[G, T].
    """
    variance = sum((d.variances for d in _doubts(extraction, masks)), np.zeros(len(masks)))
    return np.sqrt(variance) / np.maximum(instruction_cycles(extraction.problem, masks), 1.0)


def choose(extraction: Extraction, masks: np.ndarray) -> tuple[int, float]:
    """The game whose compile would tell most, and the deviation of a random one as things are.

    masks: int64[G, T]. The deviation is the root mean square of `latency_deviation`.
    """
    doubts = _doubts(extraction, masks)
    weights = 1.0 / np.maximum(instruction_cycles(extraction.problem, masks), 1.0) ** 2
    shares = np.array([float(d.variances @ weights) for d in doubts])
    gains = np.zeros(len(masks))
    looked_at, total = 0.0, shares.sum()
    for i in np.argsort(-shares):
        if looked_at >= _WORTH_A_LOOK * total:
            break
        looked_at += shares[i]
        gains += doubts[i].gains(weights)
    return int(np.argmax(gains)), float(np.sqrt(total / len(masks)))


def _without(problem: mg.Problem, masks: np.ndarray, values: set[int]) -> np.ndarray:
    """Masks with all positions of some values in default memory."""
    masks = masks.copy()
    for value in values:
        for t, p in problem.positions_of_value[value]:
            masks[:, t] &= ~(1 << p)
    return masks


def calibrate(
    session: CompilerSession,
    extraction: Extraction,
    *,
    compiles: int = DEFAULT_COMPILES,
    spent: int = 2,
    tolerance: float = DEFAULT_TOLERANCE,
    seed: int = 0,
    seconds: float = math.inf,
    progress: Progress = silent,
) -> Calibration:
    """Compile the mappings that tell most about the program's costs, and learn from them.

    compiles: at most so many, `spent` of them already (the two of the extraction). tolerance: stop
    when the latency of a random mapping is known to this share of it, by the model's own account.
    seconds: no compile begins that would not end within so many if it took as long as the longest.
    Without that, everything follows from `seed` and what the compiler says. Values that it would
    not have in alternate memory so far are taken to be in default memory in all mappings: no
    compile shows what they would cost there.

    Raises:
      CompilerKilled: the compiler was killed. What it merely refuses is a step without a result.
    """
    games = RandomGames(extraction.problem, seed=seed)
    masks = games.masks
    is_left = np.ones(len(masks), bool)
    given: set[int] = set()
    asked: set[int] = set()
    steps: list[CalibrationStep] = []
    begin = time.monotonic()
    deadline, longest = begin + seconds, 0.0
    best, deviation = choose(extraction, masks)
    before = deviation
    while spent + len(steps) < compiles and deviation > tolerance and is_left.any():
        if time.monotonic() + longest > deadline:
            break
        game = int(np.flatnonzero(is_left)[best])
        is_left[game] = False
        assignment = games.assignment(game)
        predicted = mg.latency(extraction.problem, assignment).cycles
        facts = extraction.num_facts
        compiled = honoured = None
        try:
            found = verify(session, extraction, assignment)
            compiled, honoured = found.cycles, found.honoured
            given |= values_inside(extraction.problem, found.assignment.masks)
            asked |= values_inside(extraction.problem, assignment.masks)
            masks = _without(extraction.problem, games.masks, asked - given)
        except CompilerKilled:
            raise
        except CompileError as error:
            progress(f"{assignment.source}: the compiler would not have it ({error})")
        if is_left.any():
            best, deviation = choose(extraction, masks[is_left])
        step = CalibrationStep(
            assignment.source, predicted, compiled, honoured, extraction.num_facts - facts,
            deviation, time.monotonic() - begin,
        )  # fmt: skip
        steps.append(step)
        longest = max(longest, step.seconds)
        begin = time.monotonic()
        if compiled:
            progress(
                f"{assignment.source}: predicted {predicted:,.0f}, compiled {compiled:,.0f} cycles;"
                f" a random mapping's latency is now known to {deviation:.2%}"
            )
    return Calibration(before, tuple(steps))
