"""Guided search: what it tells the compiler, what it learns from a compile, and when it ends."""

from __future__ import annotations

import re
import time

import jax.numpy as jnp
import pytest

import malloc_game as mg
from agent.tuning import guided
from agent.tuning.guided import VARIANTS, GuidedSearch, State
from malloc_game.game.playing import follow_wanted
from tests.helpers.contended import Contended
from tests.helpers.guided_runs import guided_search
from tests.helpers.toy import toy
from workloads.compiler.session import OVERRIDES_OPTION
from workloads.costs.judge import CompiledLatency
from workloads.errors import CompileError, CompilerKilled

# The hog comes first and leaves no room for what would gain more.
PROBLEM = toy("""
    cycles            40  40  40  40  40  40
    op.0   12  temp   D1  -   -   -   u1  .
    op.1    6  temp   .   D9  u9  .   .   .
    op.2    6  temp   .   .   D9  u9  .   .
    op.3    6  temp   .   .   .   D9  -   u9
""")
HOG = 0


class FakeCompiler:
    """Places whatever is not kept, in the order of the game; refuses pins of `refused`."""

    def __init__(self, problem, correction=0.0, refused=()):
        self.problem, self.correction, self.refused = problem, correction, refused
        self.asked = []

    def place(self, options):
        self.asked.append(options)
        text = options.get(OVERRIDES_OPTION, "")
        for row in text.splitlines():
            name = re.search(r"op\\\\\.(\d)", row).group(1)
            if "pin_in" in row and f"op.{name}" in self.refused:
                raise CompileError("refused")
        kept = {f"op.{n}" for n in re.findall(r'op\\\\\.(\d)\$" } keep', text)}
        program = mg.encode(self.problem)
        names = [self.problem.values[v].name for v in program.decision_value.tolist()]
        wanted = jnp.array([name not in kept for name in names])
        return mg.to_assignment(self.problem, follow_wanted(program, wanted)[0], "fake")


class FakeExtraction:
    def __init__(self, problem):
        self.problem = problem

    def assignment_of(self, placed, source):
        return placed


@pytest.fixture
def make(monkeypatch):
    """A search in a compiler that is a few lines of Python; `compiled` adds to what it judges."""

    def made(compiled=0.0, **options):
        compiler = FakeCompiler(PROBLEM, **options)
        extraction = FakeExtraction(PROBLEM)
        monkeypatch.setattr(guided, "dry_run_of", lambda session: compiler)

        def compile_(self, options):
            placed = compiler.place(options)
            return CompiledLatency(mg.latency(PROBLEM, placed).cycles + compiled, 0.0), placed

        monkeypatch.setattr(GuidedSearch, "_compile", compile_)
        default = compiler.place({})
        return compiler, extraction, default

    return made


def _cycles(assignment):
    return mg.latency(PROBLEM, assignment).cycles


def test_it_finds_the_value_whose_absence_helps_the_others(make):
    compiler, extraction, default = make()
    search = guided_search(None, extraction, default, max_checks=30, max_compiles=2)
    assert search.best.cycles < _cycles(default)
    assert HOG in search.best.state.kept and not {1, 2, 3} & search.best.state.kept
    assert search.best.cycles == _cycles(search.best.assignment) == search.best.predicted
    assert search.best.options == search.best.state.options(PROBLEM)
    assert len(search.found) <= 2 and search.checks <= 30


def test_the_same_seed_asks_the_same(make):
    asked = []
    for seed in (3, 3, 4):
        compiler, extraction, default = make()
        guided_search(None, extraction, default, max_checks=15, max_compiles=1, seed=seed)
        asked.append(compiler.asked)
    assert asked[0] == asked[1] != asked[2]


def test_a_start_keeps_what_it_has_in_default_memory(make):
    _, extraction, default = make()
    search = GuidedSearch(None, extraction, default)
    everything = mg.all_default(PROBLEM)
    assert search.guided_by(everything).kept == {0, 1, 2, 3}
    assert HOG not in search.guided_by(default).kept
    assert search.consider(search.guided_by(everything)) == _cycles(everything)


def test_a_state_names_its_values_and_its_variant():
    options = State(frozenset({1}), frozenset({2}), 1).options(PROBLEM)
    rows = options[OVERRIDES_OPTION].splitlines()
    assert len(rows) == 2
    assert "op\\\\.1" in rows[0] and "keep_in_default_memory" in rows[0]
    assert "op\\\\.2" in rows[1] and "pin_in_alternate_memory" in rows[1]
    assert options.items() >= VARIANTS[1].items()
    assert State().options(PROBLEM) == {}, "XLA's default is the empty state"


def test_what_the_compiler_refuses_is_worth_nothing(make):
    _, extraction, default = make(refused=("op.1",))
    search = GuidedSearch(None, extraction, default)
    refused = State(pinned=frozenset({1}))
    assert search.consider(refused) == float("inf")
    for _ in range(20):
        search.step()
    assert 1 not in search._current.pinned


def test_a_compile_corrects_what_a_state_is_worth(make):
    _, extraction, default = make(compiled=1000.0)
    search = GuidedSearch(None, extraction, default)
    state = State(frozenset({HOG}))
    predicted = search.consider(state)
    assert predicted < _cycles(default)
    found = search.compile_best()
    assert (found.state, found.predicted, found.cycles) == (state, predicted, predicted + 1000)
    assert search.worth(state) == predicted + 1000
    assert search._current == State(), "the default is the better one now"


def test_nothing_is_compiled_that_is_predicted_slower_than_what_was(make):
    _, extraction, default = make()
    search = GuidedSearch(None, extraction, default)
    search.consider(State(frozenset({HOG})))
    search.consider(State(frozenset({1, 2, 3})))
    assert search.compile_best().state == State(frozenset({HOG}))
    assert search.compile_best() is None and len(search.found) == 1


def test_a_killed_compiler_is_not_taken_for_a_refusal(make, monkeypatch):
    compiler, extraction, default = make()
    search = GuidedSearch(None, extraction, default)

    def killed(options):
        raise CompilerKilled("killed")

    monkeypatch.setattr(compiler, "place", killed)
    with pytest.raises(CompilerKilled):
        search.consider(State(frozenset({HOG})))


def test_it_ends_when_every_neighbour_was_tried_or_the_time_is_over(make):
    _, extraction, default = make()
    late = guided_search(None, extraction, default, deadline=time.monotonic() - 1, max_compiles=1)
    assert late.checks == 0 and not late.found
    search = guided_search(None, extraction, default, max_checks=10_000, max_compiles=50)
    assert search.checks < 1000 and search.best.cycles < _cycles(default)


@pytest.mark.requires_libtpu
@pytest.mark.slow
def test_the_real_compiler_is_never_made_slower_and_does_what_was_checked():
    real = Contended()
    search = guided_search(
        real.session, real.extraction, real.found.xla_default, max_checks=12, max_compiles=2
    )
    assert 1 <= len(search.found) <= 2
    problem = real.extraction.problem
    for found in search.found:
        # The placement dry run saw the placements of the full compile; costs are learned by now.
        predicted = mg.latency(problem, found.assignment).cycles
        assert found.cycles == pytest.approx(predicted, rel=0.02)
        assert mg.check(problem, found.assignment, expressible=False) == []
    real.session.close()
