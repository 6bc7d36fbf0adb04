"""Choosing what to compile, and planning until prediction and compiler agree."""

import dataclasses
import importlib
import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import malloc_game as mg
from malloc_game.solvers.decode import greedy_assignment
from tests.helpers.toy import toy
from workloads.compiler.session import CompilerSession
from workloads.costs.model import Traffic, mask_bits
from workloads.costs.store import CostStore
from workloads.errors import CompileError, CompilerKilled
from workloads.extraction.pipeline import extract_session
from workloads.loop.calibration import (
    RandomGames,
    calibrate,
    choose,
    instruction_cycles,
    latency_deviation,
)
from workloads.loop.correction import correct

# The package offers functions under the names of the modules that they come from.
calibrate_module = importlib.import_module("workloads.loop.calibration")
correct_module = importlib.import_module("workloads.loop.correction")

PROBLEM = toy("""
    cycles           80  80  80  80  80
    trips            1   4   1   1   1
    w   4  param     .   u1  .   u2  .
    x   4  param     u9  .   u9  .   u9
    y   4  temp      .   D5  u5  .   .
    z   4  temp      .   .   D3  u3  .
""")


class Compiler:
    """A stand-in for a program and its compiler: true cycles, of which some are known so far.

    It has what `calibrate` and `correct` use of an `Extraction`, and `verify` to compile with.
    """

    def __init__(self, problem=PROBLEM, true=None):
        self.initial = self.problem = problem
        # In truth, one position in alternate memory saves a third, each further one as much again.
        self.true = true or (lambda t, mask: 80 - 26 * mask.bit_count())
        self.store = CostStore()
        self.asked = []
        self.honoured, self.failure, self.denied = 1.0, None, set()
        self.learn([0] * len(problem.instructions))

    def _traffic(self, t):
        moved = self.initial.instructions[t].positions
        return Traffic.of(moved, 0, PROBLEM.target.default_bytes_per_cycle)

    def learn(self, masks):
        for t, mask in enumerate(masks):
            self.store.record((t,), mask, self.true(t, mask))
        both = [self.store.table((t,), self._traffic(t)) for t in range(len(masks))]
        self.uncertainty = tuple(deviation for _, deviation in both)
        self.problem = self.initial.replace(cost_tables=tuple(table for table, _ in both))

    def covariance(self, table, masks):
        prediction = self.store.prediction((table,), self._traffic(table))
        return prediction.covariance(mask_bits(masks, len(self._traffic(table).positions)))

    @property
    def num_facts(self):
        return sum(map(len, self.store.observed.values()))

    def verify(self, session, extraction, assignment, repairs=None):
        del session, repairs
        self.asked.append(assignment.masks)
        if self.failure:
            raise self.failure
        masks = list(assignment.masks)
        for t, p in (place for v in self.denied for place in PROBLEM.positions_of_value[v]):
            masks[t] &= ~(1 << p)
        assignment = dataclasses.replace(assignment, masks=tuple(masks))
        extraction.learn(assignment.masks)
        cycles = mg.latency(extraction.problem, assignment).cycles
        return types.SimpleNamespace(
            cycles=cycles, honoured=self.honoured, assignment=assignment, not_honoured=()
        )


@pytest.fixture
def compiler(monkeypatch):
    """compiler(...) makes a stand-in that `calibrate` and `correct` compile with."""

    def make(*args):
        made = Compiler(*args)
        monkeypatch.setattr(calibrate_module, "verify", made.verify)
        monkeypatch.setattr(correct_module, "verify", made.verify)
        return made

    return make


# -- random games ----------------------------------------------------------------------------


def test_random_games_are_legal_and_range_from_little_to_much_in_alternate_memory():
    games = RandomGames(PROBLEM, 40)
    inside = np.array([[int(m).bit_count() for m in row] for row in games.masks]).sum(1)
    assert inside[:10].mean() < inside[-10:].mean() / 2
    for g in (0, 20, 39):
        assignment = games.assignment(g)
        assert not mg.check(PROBLEM, assignment)
        assert assignment.masks == tuple(games.masks[g])
    assert len({tuple(row) for row in games.masks}) > 15


def test_random_games_follow_from_the_seed():
    assert (RandomGames(PROBLEM, 40, 1).masks == RandomGames(PROBLEM, 40, 1).masks).all()
    assert (RandomGames(PROBLEM, 40, 1).masks != RandomGames(PROBLEM, 40, 2).masks).any()


# -- doubt and choice ------------------------------------------------------------------------


def one_table(problem=PROBLEM):
    """The same problem, its instructions 0, 2 and 4 of one kind with one unknown entry."""
    shared = mg.CostTable((80, 71), (True, False))
    return problem.replace(
        instructions=tuple(
            dataclasses.replace(i, cost_table=0, positions=i.positions[:1])
            for i in problem.instructions
        ),
        cost_tables=(shared,),
    )


def test_deviation_counts_trips_and_that_one_kind_of_instruction_errs_alike():
    fake = types.SimpleNamespace(
        problem=one_table(),
        uncertainty=(np.array([0.0, 3.0]),),
        covariance=lambda table, masks: np.full((1, 1), 9.0),
    )
    masks = np.array([[0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [1, 0, 1, 0, 1], [0, 1, 0, 0, 0]])
    cycles = instruction_cycles(fake.problem, masks)
    assert cycles.tolist() == [640, 631, 613, 604]
    deviation = latency_deviation(fake, masks) * cycles
    assert deviation == pytest.approx([0, 3, 9, 12])  # not 3 * sqrt(3): the same entry thrice


def test_the_choice_is_the_compile_that_removes_most_variance(compiler):
    made = compiler()
    masks = RandomGames(PROBLEM, 40).masks
    game, deviation = choose(made, masks)
    assert deviation == pytest.approx(np.sqrt((latency_deviation(made, masks) ** 2).mean()))
    weights = 1 / instruction_cycles(made.problem, masks)

    def left(candidate):
        """Mean variance of the games after a compile that comes out just as predicted."""
        total = np.zeros(len(masks))
        for t, instruction in enumerate(PROBLEM.instructions):
            size = len(made.uncertainty[t])
            seen, covariance = masks[candidate, t], made.covariance(t, range(size))
            if made.uncertainty[t][seen] > 0:
                column = covariance[:, seen]
                covariance = covariance - np.outer(column, column) / covariance[seen, seen]
            known = np.array(made.problem.cost_tables[t].known)
            variance = np.where(known, 0, np.diag(covariance))[masks[:, t]]
            total += variance * instruction.trip_count**2
        return (total * weights**2).mean()

    remaining = [left(c) for c in range(len(masks))]
    assert remaining[game] == pytest.approx(min(remaining), rel=1e-6)
    assert max(remaining) > 1.5 * min(remaining)


def test_nothing_in_doubt_has_no_deviation(compiler):
    made = compiler()
    positions = [len(i.positions) for i in PROBLEM.instructions]
    for masks in itertools.product(*(range(1 << n) for n in positions)):
        made.learn(masks)
    assert choose(made, RandomGames(PROBLEM, 40).masks)[1] == 0.0


# -- calibrate -------------------------------------------------------------------------------


def test_calibration_ends_with_its_compiles_and_knows_more_after_each(compiler):
    made = compiler()
    result = calibrate(None, made, compiles=5, spent=2, tolerance=0.0)
    assert len(result.steps) == len(made.asked) == 3
    doubts = [result.deviation_before, *(s.deviation for s in result.steps)]
    assert doubts[-1] < doubts[0] / 2 and result.deviation == doubts[-1]
    assert all(s.new_facts > 0 and s.honoured == 1.0 for s in result.steps)
    assert made.num_facts == 5 + sum(s.new_facts for s in result.steps)


def test_calibration_stops_when_enough_is_known(compiler):
    made = compiler()
    result = calibrate(None, made, tolerance=0.02)
    assert result.deviation <= 0.02 < result.deviation_before
    assert 0 < len(result.steps) < 10
    assert calibrate(None, made, tolerance=0.02).steps == ()


def test_calibration_follows_from_the_seed(compiler):
    asked = []
    for seed in (0, 0, 1):
        made = compiler()
        calibrate(None, made, compiles=6, tolerance=0.0, seed=seed)
        asked.append(made.asked)
    assert asked[0] == asked[1] != asked[2]


def test_a_refusal_costs_a_compile_and_is_not_tried_again(compiler):
    made = compiler()
    made.failure = CompileError("no")
    said = []
    result = calibrate(None, made, compiles=6, progress=said.append)
    assert [s.compiled for s in result.steps] == [None] * 4
    assert len(said) == 4 and "no" in said[0]
    sources = [s.source for s in result.steps]
    assert len(set(sources)) == 4
    made.failure = CompilerKilled("killed")
    with pytest.raises(CompilerKilled):
        calibrate(None, made)


def test_no_compile_is_spent_on_what_the_compiler_denies(compiler):
    made = compiler()
    made.denied = {0, 1, 3}  # all but y
    result = calibrate(None, made)
    # y is at two places, which one compile shows; others may go into learning the denials.
    assert len(result.steps) <= 3 and result.deviation == 0.0
    assert made.num_facts == 5 + 2


@pytest.fixture
def slow(compiler, monkeypatch):
    """As `compiler`, but each compile takes `made.seconds`, one after the other, by the clock."""

    def make(seconds, *args):
        made, clock = compiler(*args), [0.0]
        durations = iter(seconds)

        def verify(*args, **kwargs):
            clock[0] += next(durations)
            return made.verify(*args, **kwargs)

        for module in (calibrate_module, correct_module):
            monkeypatch.setattr(module, "verify", verify)
            monkeypatch.setattr(module, "time", types.SimpleNamespace(monotonic=lambda: clock[0]))
        return made

    return make


@pytest.mark.parametrize(
    ("seconds", "count"), [((20.0,), 1), ((3.0, 4.0), 2), ((2.0, 1.0, 5.0), 3)]
)
def test_calibration_ends_with_its_time(slow, seconds, count):
    result = calibrate(None, slow(seconds), compiles=9, tolerance=0.0, seconds=8.0)
    assert len(result.steps) == count


# -- correct ---------------------------------------------------------------------------------


def test_correction_ends_when_prediction_and_compiler_agree(compiler):
    made = compiler(PROBLEM, lambda t, mask: 80 - 5 * mask.bit_count() + 200 * (mask == 3))
    result = correct(None, made, greedy_assignment)
    assert result.agreed and abs(result.final.error) <= 0.005
    assert len(result.rounds) == len(made.asked) > 1
    assert abs(result.rounds[0].error) > 0.005  # the first prediction was a guess
    assert result.best.compiled == min(r.compiled for r in result.rounds)


def test_a_plan_that_repeats_is_judged_by_the_costs_learned(compiler):
    made = compiler()
    fixed = RandomGames(PROBLEM, 40).assignment(39)
    result = correct(None, made, lambda problem: fixed)
    assert len(made.asked) == 1 and len(result.rounds) == 1
    assert abs(result.rounds[0].error) > 0.005
    assert result.agreed and result.final.error == 0.0


def test_a_plan_that_does_not_hold_is_no_agreement(compiler):
    made = compiler()
    made.honoured = 0.9
    result = correct(None, made, greedy_assignment, rounds=4)
    assert not result.agreed and result.final.honoured == 0.9


def test_correction_ends_after_its_rounds(compiler):
    made = compiler()
    games = RandomGames(PROBLEM, 40)
    plans = iter(range(40))
    said = []
    result = correct(
        None, made, lambda problem: games.assignment(39 - 20 * next(plans)), rounds=2,
        tolerance=0.0, progress=said.append,
    )  # fmt: skip
    assert len(result.rounds) == len(made.asked) == len(said) == 2
    assert not result.agreed


@pytest.mark.parametrize(
    ("seconds", "count"), [((20.0,), 1), ((3.0, 4.0), 2), ((1.0, 2.0, 1.0), 3)]
)
def test_correction_ends_with_its_time_but_not_before_the_first_round(slow, seconds, count):
    games = RandomGames(PROBLEM, 40)
    plans = iter([39, 19, 0])
    result = correct(
        None, slow(seconds), lambda problem: games.assignment(next(plans)), rounds=3,
        tolerance=-1.0, seconds=8.0,
    )  # fmt: skip
    assert len(result.rounds) == count


def test_a_plan_that_the_compiler_refuses_is_a_round_without_result(compiler):
    made = compiler()
    made.failure = CompileError("no")
    result = correct(None, made, greedy_assignment)
    assert len(result.rounds) == 1 and not result.agreed and result.best is None
    assert result.final.compiled is None and result.final.failure == "no"
    made.failure = CompilerKilled("killed")
    with pytest.raises(CompilerKilled):
        correct(None, made, greedy_assignment)


# -- with the genuine compiler ---------------------------------------------------------------


def mixed(x, weights):
    for w in weights:
        x = jnp.cumsum(jnp.tanh(x @ w), axis=0)
    return x


@pytest.mark.requires_libtpu
def test_few_compiles_tell_what_random_mappings_and_plans_cost():
    square = jax.ShapeDtypeStruct((256, 256), jnp.bfloat16)
    with CompilerSession((mixed, (square, [square] * 2)), "v5e") as session:
        extraction = extract_session(session, store=CostStore()).extraction
        result = calibrate(session, extraction, compiles=5)
        assert result.deviation < result.deviation_before / 2
        assert 0 < len(result.steps) <= 3
        corrected = correct(session, extraction, greedy_assignment)
        assert abs(corrected.final.error) <= 0.005
