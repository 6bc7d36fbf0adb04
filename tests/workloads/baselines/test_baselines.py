"""Baselines that compile: their logic with a made-up compiler, and all of it once."""

import dataclasses
import types

import numpy as np
import pytest

import malloc_game as mg
from tests.helpers.mapped_by_name import LAYERS
from tests.helpers.programs_for_tests import chain
from tests.helpers.toy import toy
from workloads.baselines import COMPILER_BASELINES, clocked_run, run
from workloads.baselines.clocked_run import Race, TimeIsUp
from workloads.baselines.demanding import MAX_REFUSALS, demand
from workloads.baselines.greedy_plans import plan, with_costs_sampled, with_refusals
from workloads.baselines.hill_climber import hill_climbing
from workloads.baselines.strategies import Strategies, Strategy, next_strategy
from workloads.baselines.xla_options import KNOBS, combinations, knobs, settings
from workloads.compiler.session import OVERRIDES_OPTION, CompilerSession
from workloads.costs.judge import compiled_latency
from workloads.errors import (
    CompileError,
    CompilerKilled,
    CompileTimeout,
    OverrideError,
    WorkloadError,
)
from workloads.hlo.module import Module
from workloads.overrides.packing import SORT_ORDER_OPTION
from workloads.overrides.permits import Benefits, masks_of, permit, placeable, values_inside
from workloads.overrides.text import keep

DRAWN = """
    cycles   9   9   9   9
    w   4  param   .   u2  .   u2
    x   4  temp    D1  u1  .   .
    y   4  temp    .   D1  u1  .
    z   2  temp    .   .   D3  u3
"""


@pytest.fixture(scope="module")
def problem():
    return mg.random_problem(3, 24)


def by_name(problem):
    return {value.name: v for v, value in enumerate(problem.values)}


# -- the race --------------------------------------------------------------------------------


class Session:
    """A compiler session whose programs are as fast as `cycles` says for each set of options."""

    name, target, uses_cache, timeout = "made up", "v5e", False, 300.0

    def __init__(self, cycles, seconds=1.0):
        self.cycles, self.seconds, self.now = cycles, seconds, 0.0
        self.asked, self.timeouts = [], []

    def compile(self, options, timeout):
        self.asked.append(options)
        self.timeouts.append(timeout)
        self.now += self.seconds
        found = self.cycles(options)
        if isinstance(found, Exception):
            raise found
        return types.SimpleNamespace(hlo=found, options=options)


@pytest.fixture
def made_up(monkeypatch):
    """A race on a `Session`; the clock is the session's, and it has started."""

    def make(cycles, seconds=100.0, **options):
        session = Session(cycles)
        monkeypatch.setattr(clocked_run.time, "monotonic", lambda: session.now)
        monkeypatch.setattr(clocked_run, "Module", lambda hlo: hlo)
        judged = lambda hlo, target: types.SimpleNamespace(cycles=hlo)  # noqa: E731
        monkeypatch.setattr(clocked_run, "compiled_latency", judged)
        made = Race(session, seconds, **options)
        made._is_started = True
        return made

    return make


def test_the_fastest_compile_is_kept_and_the_history_never_gets_worse(made_up):
    cycles = {"a": 50.0, "b": 30.0, "c": 40.0}
    run = made_up(lambda options: cycles[options["x"]])
    for name in cycles:
        run.compile({"x": name})
    assert run.best.options == {"x": "b"} and run.best_cycles == 30.0
    assert run.history == [(1.0, 50.0), (2.0, 30.0), (3.0, 30.0)]


def test_a_compile_that_comes_too_late_does_not_count(made_up):
    run = made_up(lambda options: float(options["x"]), seconds=1.5)
    run.compile({"x": "50"})
    with pytest.raises(TimeIsUp):
        run.compile({"x": "10"})  # begins at 1.0, ends at 2.0
    assert run.best_cycles == 50.0 and len(run.history) == 1
    with pytest.raises(TimeIsUp):
        run.compile({"x": "5"})
    assert len(run._session.asked) == 2, "nothing begins once the time is up"


def test_a_compile_that_would_come_too_late_is_stopped(made_up):
    def hang(options):
        run._session.now = 100.0
        raise CompileTimeout("not compiled in time")

    run = made_up(hang, seconds=60.0)
    run._session.now = 20.0
    with pytest.raises(TimeIsUp):
        run.compile({"x": "a"})
    assert run._session.timeouts == [40.0]
    # One that hangs while there is time is a failure like others.
    run = made_up(hang, seconds=600.0)
    with pytest.raises(CompileTimeout):
        run.compile({"x": "a"})
    assert run._session.timeouts == [run._session.timeout] and run.failures == 1


def test_the_number_of_compiles_is_limited_and_repeats_are_free(made_up):
    run = made_up(lambda options: 1.0, max_compiles=2)
    for name in "aab":
        run.compile({"x": name})
    assert run.compiles == 2 and len(run._session.asked) == 2
    with pytest.raises(TimeIsUp):
        run.compile({"x": "c"})


def test_failures_are_counted_and_the_race_goes_on(made_up):
    answers = {
        "a": CompileError("aborted"),
        "b": CompilerKilled("killed"),
        "c": OverrideError("refused"),
    }
    run = made_up(lambda options: answers.get(options["x"], 7.0))
    assert [run.try_options({"x": name}) for name in "abc"] == [None] * 3
    assert (run.compiles, run.failures, run.refusals) == (2, 2, 1)
    run.compile({"x": "d"})
    assert run.best_cycles == 7.0


def test_a_compiler_that_is_killed_before_the_first_results_is_asked_again(made_up):
    answers = iter([CompilerKilled("killed"), CompilerKilled("killed"), 7.0])
    run = made_up(lambda options: next(answers))
    assert run._insist(lambda: run.compile({})).hlo == 7.0
    assert run.xla_default_cycles == 7.0 and run.failures == 2


def test_an_unknown_baseline_is_an_error_that_names_those_there_are():
    with pytest.raises(
        WorkloadError, match="no baseline 'greedier'; there are learned_greedy, knobs"
    ):
        run("greedier", None, 1.0)


# -- what is permitted -----------------------------------------------------------------------


def test_a_permission_keeps_all_the_rest_and_says_nothing_of_what_is_permitted():
    toy_problem = toy(DRAWN)
    numbers = by_name(toy_problem)
    text = permit(toy_problem, {numbers["x"], numbers["w"]})[OVERRIDES_OPTION]
    assert keep("y") in text and keep("z") in text
    assert keep("x") not in text and keep("w") not in text


def test_benefits_are_those_of_the_cost_tables(problem):
    benefits, masks = Benefits(problem), masks_of(problem, ())
    for value in placeable(problem):
        inside = masks_of(problem, {value})
        saved = sum(
            i.trip_count * (problem.instruction_cycles(t, 0) - problem.instruction_cycles(t, m))
            for t, (i, m) in enumerate(zip(problem.instructions, inside, strict=True))
        )
        assert benefits.of(value, masks) == saved - problem.values[value].write_back_cycles
        assert benefits.of(value, inside) == benefits.of(value, masks), "its own place is no matter"


def test_of_a_copy_that_is_dearest_between_two_buffers_on_chip_one_side_is_wanted():
    toy_problem = toy("""
        cycles   9   9   9
        x   4  temp   D   u   .
        y   4  temp   .   D   u
    """)
    tables = list(toy_problem.cost_tables)
    at = toy_problem.instructions[1].cost_table
    tables[at] = dataclasses.replace(tables[at], cycles=(30, 25, 26, 90))
    toy_problem = toy_problem.replace(cost_tables=tuple(tables))
    wanted = Benefits(toy_problem).wanted(masks_of(toy_problem, {0, 1}), placeable(toy_problem))
    assert len(wanted) == 1


def test_the_least_dense_values_are_cut():
    toy_problem = toy(DRAWN)
    numbers = by_name(toy_problem)
    benefits = Benefits(toy_problem)
    order = benefits.densest(numbers.values(), 0.0)
    assert order[0] == numbers["z"], "6 cycles for 2 KiB"
    assert benefits.densest(numbers.values(), 0.25) == order[:3]
    assert benefits.densest((), 0.2) == []


# -- plans -----------------------------------------------------------------------------------


def test_a_plan_is_no_slower_than_greedy_or_its_start(problem):
    state, _ = mg.greedy(mg.encode(problem))
    greedy = int(state.latency)
    improved = plan(problem, rng=np.random.default_rng(0))
    assert not mg.check(problem, improved)
    assert mg.latency(problem, improved).cycles <= greedy
    again = plan(problem, [improved], np.random.default_rng(1), rounds=1)
    assert mg.latency(problem, again).cycles <= mg.latency(problem, improved).cycles


def test_refused_decisions_are_not_planned(problem):
    planned = plan(problem, rounds=0)
    inside = values_inside(problem, planned.masks)
    computed = next(v for v in sorted(inside) if not problem.values[v].is_parameter)
    used = next(v for v in sorted(inside) if problem.values[v].is_parameter)
    time = next(t for t, p in problem.positions_of_value[used] if planned.in_alternate(t, p))
    other = plan(with_refusals(problem, {(computed, None), (used, time)}), rounds=0)
    assert computed not in values_inside(problem, other.masks)
    places = [p for t, p in problem.positions_of_value[used] if t == time]
    assert not any(other.in_alternate(time, p) for p in places)


def test_only_costs_that_no_compile_has_shown_are_sampled(problem):
    deviations = [np.zeros(len(table.cycles)) for table in problem.cost_tables]
    deviations[0] = np.full(len(problem.cost_tables[0].cycles), 1e6)
    drawn = with_costs_sampled(problem, deviations, np.random.default_rng(0))
    assert drawn.cost_tables[1:] == problem.cost_tables[1:]
    assert drawn.cost_tables[0] != problem.cost_tables[0]
    assert min(drawn.cost_tables[0].cycles) >= 0


# -- demands ---------------------------------------------------------------------------------


class Refusing:
    """A race whose compiler refuses what `refusal` says of the overrides."""

    def __init__(self, refusal):
        self.refusal, self.asked = refusal, []

    def compile(self, options):
        self.asked.append(options)
        if message := self.refusal(options):
            raise OverrideError(message)
        return "compiled"


@pytest.fixture
def layers():
    """Two values that are used alike, and a third; all in alternate memory."""
    return LAYERS, mg.to_assignment(LAYERS, mg.greedy(mg.encode(LAYERS))[0], "greedy")


def pin_of(name):
    return f'instruction_name_regex: "^{name}$" }} pin_in_alternate_memory'


def test_what_is_accepted_is_demanded_in_full(layers):
    drawn, assignment = layers
    refusing = Refusing(lambda options: None)
    assert demand(refusing, drawn, assignment) == ("compiled", frozenset())
    assert all(pin_of(name) in refusing.asked[0][OVERRIDES_OPTION] for name in "abc")


def test_a_refused_value_is_permitted_with_its_kind_and_the_rest_still_demanded(layers):
    drawn, assignment = layers

    def refusal(options):
        if pin_of("a") in options[OVERRIDES_OPTION]:
            return "MSA strict override failed, defining instruction 'a'"

    refusing = Refusing(refusal)
    compiled, given_up = demand(refusing, drawn, assignment)
    assert compiled == "compiled" and given_up == {0, 1}
    assert pin_of("c") in refusing.asked[-1][OVERRIDES_OPTION]


def test_what_does_not_fit_is_placed_in_the_order_of_the_mapping(layers):
    drawn, assignment = layers

    def refusal(options):
        if SORT_ORDER_OPTION not in options:
            return "Out of alternate memory, defining instruction 'a'"

    refusing = Refusing(refusal)
    assert demand(refusing, drawn, assignment) == ("compiled", frozenset())
    assert len(refusing.asked) == 2


def test_a_demand_that_is_always_refused_ends(layers):
    drawn, assignment = layers
    refusing = Refusing(lambda options: "failed, defining instruction 'a'")
    with pytest.raises(OverrideError):
        demand(refusing, drawn, assignment)
    assert len(refusing.asked) <= MAX_REFUSALS


# -- baselines -------------------------------------------------------------------------------


class Judged:
    """A race on a problem where `cycles` says how fast options are, for so many compiles."""

    def __init__(self, problem, cycles, compiles):
        self.extraction = types.SimpleNamespace(problem=problem)
        self.cycles, self.left, self.tried = cycles, compiles, []
        everything = masks_of(problem, range(len(problem.values)))
        self.xla_default = mg.Assignment(tuple(everything), (), (), "xla_default")
        self.xla_default_cycles = cycles({})

    def start(self):
        pass

    def try_options(self, options):
        if not self.left:
            raise TimeIsUp
        self.left -= 1
        self.tried.append(options)
        cycles = self.cycles(options)
        return None if cycles is None else (cycles, self.xla_default)


def test_hill_climbing_finds_the_values_that_should_be_kept_and_repeats_nothing(problem):
    bad = [problem.values[v].name for v in placeable(problem)[:4]]

    def cycles(options):
        text = options.get(OVERRIDES_OPTION, "")
        kept = sum(keep(name) in text for name in bad)
        return 100.0 - 20.0 * kept + text.count("hlo_position_matcher")

    judged = Judged(problem, cycles, 150)
    with pytest.raises(TimeIsUp):
        hill_climbing(judged, seed=0)
    texts = [options.get(OVERRIDES_OPTION, "") for options in judged.tried]
    assert len(set(texts)) == len(texts)
    assert min(map(cycles, judged.tried)) < 50.0


def test_hill_climbing_ends_where_there_is_nothing_to_move():
    nothing = toy("cycles 9 9\nf 4 temp! D1 u1")
    judged = Judged(nothing, lambda options: 1.0, 10)
    hill_climbing(judged)
    assert judged.tried == []


def test_every_knob_is_tried_alone_and_then_those_that_helped_together(problem):
    helpful = {KNOBS[0][0]: 10.0, KNOBS[2][0]: 5.0}
    judged = Judged(problem, lambda o: 100.0 - sum(helpful.get(name, -1.0) for name in o), 100)
    knobs(judged)
    alone = settings()
    assert judged.tried[: len(alone)] == alone
    assert [set(options) for options in judged.tried[len(alone) :]] == [set(helpful)]


def test_combinations_begin_with_the_most_promising():
    gains = {("a", "1"): 5.0, ("a", "2"): 7.0, ("b", "1"): 3.0, ("c", "1"): 1.0, ("d", "1"): -1.0}
    found = combinations(gains)
    assert found[0] == {"a": "2", "b": "1", "c": "1"}
    assert len(found) == 4 and not any("d" in setting for setting in found)


def test_permitting_climbs_to_what_should_be_kept(problem):
    """Without any faith in costs: those of the problem say nothing of what is bad here."""
    bad = [problem.values[v].name for v in placeable(problem)[:2]]

    def cycles(options):
        text = options.get(OVERRIDES_OPTION, "")
        return 100.0 - 20.0 * sum(keep(name) in text for name in bad) + text.count("keep_in") / 10

    judged = Judged(problem, cycles, 150)
    judged.best_cycles = 0.0  # nothing is promising enough to be planned
    strategies = Strategies(judged, 0, ("climb",))
    with pytest.raises(TimeIsUp):
        while True:
            strategies.take_turn()
    assert strategies.best_cycles == min(map(cycles, judged.tried)) < 65.0


def test_what_others_have_found_is_where_plans_begin(problem):
    judged = Judged(problem, lambda options: 100.0, 1)
    strategies = Strategies(judged, 0)
    better = mg.all_default(problem)
    strategies.note(120.0, better)
    assert strategies.best is judged.xla_default
    strategies.note(80.0, better)
    assert strategies.best is better and strategies.best_cycles == 80.0


def test_every_strategy_gets_a_turn_and_then_the_best_one_two_of_three():
    strategies = [Strategy(None) for _ in range(3)]
    order = []
    for _ in range(9):
        strategy = next_strategy(strategies)
        strategy.turns += 1
        strategy.best = (3.0, 1.0, 2.0)[strategies.index(strategy)]
        order.append(strategies.index(strategy))
    assert order[:3] == [0, 1, 2]
    assert order[3:].count(1) == 4 and {0, 2} <= set(order[3:])


@pytest.mark.requires_libtpu
def test_all_baselines_on_a_real_program():
    with CompilerSession(chain(), "v5e") as session:
        for name in COMPILER_BASELINES:
            found = run(name, session, seconds=1e9, max_compiles=3)
            assert found.compiles == 3
            assert not mg.check(found.problem, found.assignment, expressible=False), name
            best = [cycles for _, cycles in found.history]
            assert best == sorted(best, reverse=True) and best[-1] == found.compiled_cycles
            assert found.compiled_cycles <= found.xla_default_cycles
            again = session.compile(found.options)
            judged = compiled_latency(Module(again.hlo), found.problem.target)
            assert judged.cycles == found.compiled_cycles, "the options give this very program"
