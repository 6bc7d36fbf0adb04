"""The search by permissions as a turn of `optimize`: what it compiles becomes a candidate."""

from __future__ import annotations

import dataclasses
import types

import numpy as np
import pytest

import malloc_game as mg
from agent.planner import finders
from agent.tuning import compiler_loop
from agent.tuning import permitting as permitting_module
from agent.tuning.compiler_loop import CompilerLoop
from agent.tuning.outcome import CRASHED, REFUSED, Compiled
from agent.tuning.permitting import SOURCE, Permitting
from malloc_game.solvers.decode import greedy_assignment
from workloads.compiler.session import OVERRIDES_OPTION
from workloads.costs.judge import CompiledLatency
from workloads.errors import CompileError, CompilerKilled, OverrideError
from workloads.extraction import all_default, pipeline
from workloads.overrides.packing import SORT_ORDER_OPTION
from workloads.overrides.text import EXACT_OPTIONS


class Session:
    """A compiler whose programs take what `cycles` says; an error is raised."""

    name = "made up"
    seconds_per_compile = 1.0

    def __init__(self, cycles):
        self.cycles, self.asked = cycles, []

    @property
    def num_compiles(self):
        return len(self.asked)

    def compile(self, options):
        self.asked.append(options)
        found = self.cycles(len(self.asked))
        if isinstance(found, Exception):
            raise found
        return types.SimpleNamespace(options=dict(options), cycles=found)


class Extraction:
    def __init__(self, problem):
        self.problem = problem
        self.uncertainty = [np.zeros(len(table.cycles)) for table in problem.cost_tables]

    def take_in(self, compiled, source, *, is_ours):
        assert is_ours
        return CompiledLatency(compiled.cycles, 0.0), mg.all_default(self.problem)

    def assignment_of(self, placed, source):
        return dataclasses.replace(placed, source=source)


@pytest.fixture(autouse=True)
def dry_run(monkeypatch):
    """The placement dry run, which these programs have none of unless a test says so."""
    made = types.SimpleNamespace(is_fast=False, seconds_per_dry_run=0.1, asked=[])
    monkeypatch.setattr(permitting_module, "dry_run_of", lambda session: made)
    return made


def make(cycles):
    problem = mg.random_problem(3, 24)
    said = []
    loop = CompilerLoop(Session(cycles), said.append)
    loop.extraction, loop.xla_default = Extraction(problem), mg.all_default(problem)
    for source in ("xla_default", "all_default"):
        loop.candidates[source] = Compiled(
            source, source, loop.xla_default, 100.0, compiled=100.0, honoured=1.0
        )
    return Permitting(loop, 0), loop, said


def compile_again(permitting, loop, number):
    """Turns until `number` compiles were asked for; a turn may find nothing promising."""
    for _ in range(20):
        if len(loop.session.asked) >= number:
            return
        permitting.take_turn()
    raise AssertionError("nothing comes to mind")


def test_the_fastest_compile_becomes_the_candidate_and_the_history_tells_when():
    permitting, loop, said = make(lambda number: 100.0 - number if number < 4 else 99.0)
    asked = loop.session.asked
    compile_again(permitting, loop, 5)
    assert loop.num_compiles == len(asked) == 5
    best = loop.candidates[SOURCE]
    assert (best.source, best.compiled, best.options) == (SOURCE, 97.0, asked[2])
    assert best.found_by == finders.PERMISSIONS and best.predicted > 0
    assert [(i.cycles, i.found_by) for i in loop.history] == [
        (cycles, finders.PERMISSIONS) for cycles in (99.0, 98.0, 97.0)
    ]
    assert len(said) == len(asked) and "0.970 of XLA's default" in said[2]


def test_a_choice_that_comes_to_mind_again_is_not_compiled_again():
    permitting, loop, said = make(lambda number: CompileError("no") if number == 1 else 90.0)
    for options in ({"a": "1"}, {"a": "2"}):
        first = permitting.try_options(options)
        assert permitting.try_options(dict(options)) == first
    assert len(loop.session.asked) == loop.num_compiles == 2 and len(said) == 2


def test_a_choice_that_cannot_be_compiled_is_passed_over():
    permitting, loop, _ = make(lambda number: CompileError("too much") if number == 1 else 90.0)
    compile_again(permitting, loop, 1)
    assert SOURCE not in loop.candidates and loop.num_compiles == 1
    compile_again(permitting, loop, 2)
    assert loop.candidates[SOURCE].compiled == 90.0


@pytest.mark.parametrize(
    ("error", "status"), [(CompilerKilled("killed"), CRASHED), (OverrideError("no room"), REFUSED)]
)
def test_what_has_no_mapping_says_why(error, status):
    permitting, loop, _ = make(lambda number: error)
    compile_again(permitting, loop, 1)
    assert loop.missing([SOURCE])[SOURCE].status == status


def checking(dry_run, monkeypatch, loop, answer):
    """Checks that say so, a mapping or an error; the default mapping and its cycles."""

    def place(options):
        dry_run.asked.append(options)
        if isinstance(answer, Exception):
            raise answer
        return answer

    dry_run.is_fast, dry_run.place = True, place
    monkeypatch.setattr(
        compiler_loop, "latency_deviation", lambda extraction, masks: np.array([0.0])
    )
    default = mg.all_default(loop.extraction.problem)
    return default, mg.latency(loop.extraction.problem, default).cycles


def compiled_to(loop, cycles):
    for source, candidate in loop.candidates.items():
        loop.candidates[source] = dataclasses.replace(candidate, compiled=cycles)


@pytest.mark.parametrize(("share", "is_compiled"), [(0.99, False), (1.01, True)])
def test_what_a_dry_run_shows_not_to_be_the_best_is_not_compiled(
    dry_run, monkeypatch, share, is_compiled
):
    permitting, loop, _ = make(lambda number: 50.0)
    default, cycles = checking(dry_run, monkeypatch, loop, mg.all_default(loop.extraction.problem))
    compiled_to(loop, share * cycles)
    found = permitting.try_options({"a": "1"})
    assert found == permitting.try_options({"a": "1"}) and len(dry_run.asked) == 1
    if is_compiled:
        assert found[0] == 50.0 and found[1].masks == default.masks
        assert loop.session.asked == [{"a": "1"}]
    else:  # a prediction is no result: nothing could be kept as the best permission
        assert found is None
        assert loop.session.asked == [] and SOURCE not in loop.candidates


def test_a_permission_that_was_only_predicted_is_not_kept_as_the_best(dry_run, monkeypatch):
    permitting, loop, _ = make(lambda number: 50.0)
    _, cycles = checking(dry_run, monkeypatch, loop, mg.all_default(loop.extraction.problem))
    compiled_to(loop, 0.5 * cycles)
    strategies = permitting._strategies
    before = dataclasses.replace(strategies.best_permission, cycles=2 * cycles)
    strategies.best_permission = before
    for _ in range(3):
        permitting.take_turn()
    assert dry_run.asked and loop.session.asked == []
    assert strategies.best_permission is before


def test_a_mapping_that_a_compile_came_to_is_not_worth_another(dry_run, monkeypatch):
    permitting, loop, _ = make(lambda number: 50.0)
    default, _ = checking(dry_run, monkeypatch, loop, mg.all_default(loop.extraction.problem))
    compiled_to(loop, 1e9)
    assert loop.may_be_best(default)
    permitting.try_options({"a": "1"})  # asks for something else, and comes to the default
    assert not loop.may_be_best(dataclasses.replace(default, source="whoever"))


def test_a_choice_is_judged_anew_when_a_compile_has_taught_costs(dry_run, monkeypatch):
    permitting, loop, _ = make(lambda number: 50.0)
    _, cycles = checking(dry_run, monkeypatch, loop, mg.all_default(loop.extraction.problem))
    compiled_to(loop, 0.99 * cycles)
    permitting.try_options({"a": "1"})
    problem = loop.extraction.problem
    tables = tuple(
        dataclasses.replace(t, cycles=tuple(c // 2 for c in t.cycles)) for t in problem.cost_tables
    )
    loop.extraction.problem = problem.replace(cost_tables=tables)
    assert permitting.try_options({"a": "1"})[0] == 50.0 and len(dry_run.asked) == 1


def test_another_choice_that_comes_to_the_same_mapping_is_not_compiled(dry_run, monkeypatch):
    permitting, loop, _ = make(lambda number: 50.0)
    checking(dry_run, monkeypatch, loop, mg.all_default(loop.extraction.problem))
    monkeypatch.setattr(loop, "may_be_best", lambda found, deviations: True)
    first = permitting.try_options({"a": "1"})
    assert permitting.try_options({"a": "2"}) == first and first[0] == 50.0
    assert loop.session.asked == [{"a": "1"}] and len(dry_run.asked) == 2


def test_what_a_check_shows_to_be_refused_is_not_compiled(dry_run, monkeypatch):
    permitting, loop, _ = make(lambda number: 50.0)
    checking(dry_run, monkeypatch, loop, CompileError("refused"))
    assert permitting.try_options({"a": "1"}) is permitting.try_options({"a": "1"}) is None
    assert len(dry_run.asked) == 1 and loop.session.asked == []
    checking(dry_run, monkeypatch, loop, CompilerKilled("killed"))
    with pytest.raises(CompilerKilled):
        permitting.try_options({"a": "2"})


def test_a_turn_whose_dry_runs_leave_no_hope_ends_and_the_next_believes_them_less(
    dry_run, monkeypatch
):
    permitting, loop, _ = make(lambda number: 50.0)
    _, cycles = checking(dry_run, monkeypatch, loop, mg.all_default(loop.extraction.problem))
    compiled_to(loop, 0.99 * cycles)
    asked = []
    monkeypatch.setattr(
        loop, "may_be_best", lambda found, deviations: asked.append(deviations) or len(asked) > 30
    )
    monkeypatch.setattr(loop.session, "seconds_per_compile", 0.3)
    while not loop.session.asked:
        permitting.take_turn()
    assert asked[0] == 1.0 and asked == sorted(asked) and asked[-1] <= 3.0
    assert len(set(asked)) > 1
    number = len(asked)
    monkeypatch.setattr(loop, "may_be_best", lambda found, deviations: asked.append(deviations))
    permitting.take_turn()
    assert asked[number:] == [1.0] * (len(asked) - number)


def test_a_turn_makes_way_for_a_plan_that_may_be_faster(dry_run, monkeypatch):
    _, loop, _ = make(lambda number: 50.0)
    default, cycles = checking(dry_run, monkeypatch, loop, mg.all_default(loop.extraction.problem))
    compiled_to(loop, 0.99 * cycles)
    monkeypatch.setattr(loop.session, "seconds_per_compile", 60.0)
    plan = dataclasses.replace(default, masks=greedy_assignment(loop.extraction.problem).masks)
    monkeypatch.setattr(
        loop, "may_be_best", lambda found, deviations=1.0: found is plan and len(dry_run.asked) >= 3
    )
    permitting = Permitting(loop, 0, lambda: plan)
    permitting.take_turn()
    assert len(dry_run.asked) == 3 and not loop.session.asked
    assert permitting._deviations == 1.0, "nothing speaks against the costs"


@pytest.mark.parametrize(("seconds", "is_checking"), [(0.4, True), (0.6, False)])
def test_checks_are_made_where_they_take_less_than_half_of_a_compile(dry_run, seconds, is_checking):
    permitting, _, _ = make(lambda number: 50.0)
    dry_run.seconds_per_dry_run = seconds
    assert not permitting.is_checking
    dry_run.is_fast = True
    assert permitting.is_checking is is_checking


def test_choices_with_an_order_are_compiled_at_once_where_only_their_checks_are_slow(
    dry_run, monkeypatch
):
    permitting, loop, _ = make(lambda number: 50.0)
    _, cycles = checking(dry_run, monkeypatch, loop, mg.all_default(loop.extraction.problem))
    compiled_to(loop, 0.99 * cycles)
    clock = types.SimpleNamespace(now=0.0)
    clock.monotonic = lambda: clock.now
    place = dry_run.place

    def slow_if_ordered(options):
        clock.now += 0.6 if SORT_ORDER_OPTION in options else 0.1
        return place(options)

    dry_run.place = slow_if_ordered
    monkeypatch.setattr(permitting_module, "time", clock)
    for number in ("1", "2"):
        permitting.try_options({SORT_ORDER_OPTION: number})
        permitting.try_options({"a": number})
    assert loop.session.asked == [{SORT_ORDER_OPTION: "2"}]
    assert dry_run.asked == [{SORT_ORDER_OPTION: "1"}, {"a": "1"}, {"a": "2"}]


def test_what_was_compiled_on_the_way_to_the_problem_is_a_candidate(monkeypatch):
    problem = mg.random_problem(3, 24)
    default = mg.all_default(problem)
    found = types.SimpleNamespace(
        extraction=Extraction(problem),
        xla_default=default,
        xla_default_latency=CompiledLatency(100.0, 0.0),
        all_default=types.SimpleNamespace(options={}),
        all_default_latency=CompiledLatency(150.0, 0.0),
        seconds_per_compile=1.0,
    )

    def extract_session(*given, on_compiled, **options):
        for source, cycles in (("guided", 96.0), ("all_default", 150.0), ("xla_default", 90.0)):
            on_compiled(source, CompiledLatency(cycles, 0.0))
        return found

    monkeypatch.setattr(compiler_loop, "extract_session", extract_session)
    for compiled, expected in (
        (types.SimpleNamespace(options={"exact": "1"}, cycles=96.0), 96.0),
        (None, 100.0),
    ):
        monkeypatch.setattr(compiler_loop, "compiled_on_the_way", lambda session, c=compiled: c)
        loop = CompilerLoop(Session(None), lambda message: None)
        loop.extract(1.0)
        assert loop.best_compiled() == expected
        # When each was there, and what it was.
        assert [(i.cycles, i.found_by) for i in loop.history] == [
            (96.0, finders.GUIDED), (90.0, finders.XLA_DEFAULT)
        ]  # fmt: skip
        assert ("guided" in loop.candidates) == (compiled is not None)


@pytest.mark.parametrize("is_hard", [False, True])
def test_what_every_compile_of_an_extraction_came_to_is_told_at_once(monkeypatch, is_hard):
    cycles = {"all default": 150.0, "on the way": 96.0, "xla": 100.0}
    compiled = {
        name: types.SimpleNamespace(hlo=name, seconds=1.0, options={"name": name})
        for name in cycles
    }
    told = []

    class Compiler:
        name, target, uses_cache = "made up", "v4", False

        def compile(self, options):
            # Whatever was compiled before this has been told.
            assert told == ([96.0] if is_hard else []) + ([150.0] if not options else [])
            return compiled["all default" if options else "xla"]

    class Found(Extraction):
        def __init__(self, *given):
            super().__init__(mg.random_problem(3, 24))

        def take_in(self, compiled, source, *, is_ours, judged):
            return judged, mg.all_default(self.problem)

    way = compiled["on the way"] if is_hard else None
    for name, fake in {
        "all_default_options": lambda session: {"everything": "out"},
        "compiled_on_the_way": lambda session: way,
        "Extraction": Found,
        "Module": lambda hlo: hlo,
        "compiled_latency": lambda module, target: CompiledLatency(cycles[module], 0.0),
        "probe": lambda *given: 7,
    }.items():
        monkeypatch.setattr(pipeline, name, fake)
    found = pipeline.extract_session(
        Compiler(), on_compiled=lambda source, judged: told.append(judged.cycles)
    )
    assert told == ([96.0] if is_hard else []) + [150.0, 100.0]
    assert found.xla_default_latency.cycles == 100.0
    assert found.all_default_latency.cycles == 150.0


def test_a_program_that_cannot_be_kept_out_whole_was_compiled_without_slices(monkeypatch):
    modules = {"hlo": b"hlo", "placed": b"", "msa": {}}

    class Compiler:
        remember = staticmethod(lambda label, fields: None)
        remembered = staticmethod(lambda label: None)

        def __init__(self, is_listed):
            self.is_listed = is_listed

        def compile(self, options):
            if self.is_listed and OVERRIDES_OPTION in options:
                raise CompileError("aborted")
            return types.SimpleNamespace(options=options, **modules)

    monkeypatch.setattr(all_default, "Module", lambda hlo: None)
    monkeypatch.setattr(all_default, "asynchronous_names", lambda module: set())
    buffers = types.SimpleNamespace(buffers={})
    monkeypatch.setattr(all_default, "parse_dump", lambda dump: buffers)
    easy, hard = Compiler(False), Compiler(True)
    for session in (easy, hard):
        all_default.all_default_options(session)
    assert all_default.compiled_on_the_way(easy) is None
    assert all_default.compiled_on_the_way(hard).options == EXACT_OPTIONS


def test_the_best_plan_so_far_is_permitted_once_and_then_what_greedy_plans_under_the_costs_given():
    _, loop, _ = make(lambda number: 100.0)
    problem = loop.extraction.problem
    best = mg.all_default(problem)
    tables = [dataclasses.replace(t, cycles=t.cycles[::-1]) for t in problem.cost_tables[::2]]
    tables = [tables[i // 2] if i % 2 == 0 else t for i, t in enumerate(problem.cost_tables)]
    drawn = problem.replace(cost_tables=tuple(tables))
    given = [None, best, best]
    permitting = Permitting(loop, 0, lambda: given.pop(0))
    greedy = [greedy_assignment(p).masks for p in (problem, drawn)]
    assert greedy[0] != greedy[1] and best.masks not in greedy
    chosen = [permitting._plan(p, (), None).masks for p in (problem, problem, drawn)]
    assert chosen == [greedy[0], best.masks, greedy[1]]
