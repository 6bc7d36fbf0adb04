"""The way back: what the compiler is asked for, refuses, and does; repairs, checks, probing."""

from __future__ import annotations

import dataclasses
import importlib
import types

import jax
import jax.numpy as jnp
import pytest

import malloc_game as mg
from malloc_game import Assignment, Chunk, Copy
from tests.toy import KIB, toy
from workloads.all_default import all_default_options
from workloads.calibrate import RandomGames
from workloads.compare import compare, decisions, keep_only
from workloads.compile import OVERRIDES_OPTION, CompilerSession
from workloads.costs import CostStore
from workloads.errors import CompileError, CompilerKilled, OverrideError
from workloads.extract import Extraction, extract_session
from workloads.hlo import Module
from workloads.overrides import EXACT_OPTIONS, KEEP_PREFETCHES, overrides
from workloads.packing import SORT_ORDER_OPTION
from workloads.placement import Placer, placer_of
from workloads.probe import probe
from workloads.refusal import refused_value
from workloads.verify import EXACT, GUIDED, RELAXED, preview, verify

requires_libtpu = pytest.mark.requires_libtpu
# The package offers the function `verify` under the name of the module it comes from.
verifying = importlib.import_module("workloads.verify")

PROBLEM = toy("""
    cycles           9   9   9   9
    trips            1   1   1   4*
    w   4  param     .   .   u1  u1
    x   4  temp      D   u   u   .
    y   4  temp      .   D   u   .
    z   4  temp!     D   u   .   .
""")


def inside(*names: str, problem: mg.Problem = PROBLEM) -> Assignment:
    """The mapping with some values in alternate memory wherever they are in the entry."""
    masks = tuple(
        sum(
            1 << p
            for p, position in enumerate(instruction.positions)
            if problem.values[position.value].name in names and instruction.in_entry
        )
        for instruction in problem.instructions
    )
    chunks, copies = [], []
    for v, value in enumerate(problem.values):
        if value.name in names:
            chunks.append(Chunk(v, 4 * KIB * v, value.size_bytes, value.start, value.end))
            if value.is_parameter:
                copies.append(Copy(v, 0, problem.positions_of_value[v][0][0], value.size_bytes))
    return Assignment(masks, tuple(chunks), tuple(copies), "by hand")


# -- what differs ----------------------------------------------------------------------------


def test_decisions_are_values_that_may_move_and_all_uses_of_parameters():
    found = [(PROBLEM.values[v].name, time) for v, time, _ in decisions(PROBLEM)]
    assert found == [("w", 2), ("w", 3), ("x", None), ("y", None)]


def test_a_decision_holds_if_it_holds_everywhere():
    wanted = inside("x", "w")
    assert compare(PROBLEM, wanted, wanted) == (1.0, [])
    masks = list(wanted.masks)
    masks[1] ^= 1  # x, the first position there
    share, differences = compare(PROBLEM, wanted, dataclasses.replace(wanted, masks=tuple(masks)))
    (found,) = differences
    assert share == 0.75
    assert (found.value, found.time, found.wanted_in_alternate) == (1, None, True)
    assert found.message == "x: wanted in alternate memory at op.1 operand 1"
    share, differences = compare(PROBLEM, mg.all_default(PROBLEM), wanted)
    assert share == 0.5
    assert [(d.value, d.time, d.wanted_in_alternate) for d in differences] == [
        (0, 2, False), (1, None, False),
    ]  # fmt: skip


def test_keep_only_leaves_nothing_of_the_others():
    assert keep_only(PROBLEM, inside("w", "x", "y"), [0, 2]) == inside("w", "y")
    assert keep_only(PROBLEM, inside("w", "x"), [1]) == inside("x")


# -- what refusals say -----------------------------------------------------------------------

STRICT = "FAILED_PRECONDITION: MSA strict override failed for instruction "
NO_ROOM = "Out of alternate memory / spatial placement conflict (requested schedule time: n/a)"


@pytest.mark.parametrize(
    "message, name",
    [
        (f"{STRICT}'op.2' operand 2, shape bf16[4], defining instruction 'y': {NO_ROOM}", "y"),
        # The use tells more: several values may be defined by one instruction.
        (f"{STRICT}'op.2' operand 1, shape bf16[4], defining instruction 'y': {NO_ROOM}", "x"),
        (f"{STRICT}'bitcast.7' operand 0, shape bf16[4], defining instruction 'y': ...", "y"),
        ("The value defined at x requires allocation in the alternate memory, which could", "x"),
        ("The value defined at sort.8 {1} requires allocation in the alternate", "sort.8{1}"),
        ("The value defined at sort.8 requires allocation in the alternate memory", "sort.8{0}"),
        ("MSA strict timing override unsatisfied for instruction 'op.2' operand 0: ... (0)", "w"),
        ("The value defined at nothing requires allocation in the alternate memory", None),
        ("RESOURCE_EXHAUSTED: of the usual kind", None),
    ],
)  # fmt: skip
def test_the_refused_value_is_read_from_the_message(message, name):
    z = PROBLEM.values[3]
    both = (dataclasses.replace(z, name=f"sort.8{{{i}}}") for i in range(2))
    problem = PROBLEM.replace(values=(*PROBLEM.values[:3], *both))
    found = refused_value(problem, message)
    assert (None if found is None else problem.values[found].name) == name


# -- how it is asked, with a compiler played by hand -----------------------------------------


class FakePlacer:
    """The fast check as the test wants it: `refuses(options)` is a message, or None."""

    is_fast = True

    def __init__(self, refuses):
        self.refuses, self.asked = refuses, []

    def place(self, options):
        self.asked.append(options)
        message = self.refuses(options)
        if message:
            raise OverrideError(message)


class FakeSession:
    """Takes what passed the fast check, and can do no more."""

    def __init__(self):
        self.passed = []

    def compile(self, options):
        self.passed.append(options)
        raise CompileError("the fake compiler ends here")


@pytest.fixture
def ask(monkeypatch):
    """ask(assignment, refuses, modes) is what passed the fast check, and all that was checked."""

    def ask(assignment, refuses, *modes, is_fast=True):
        placer, session = FakePlacer(refuses), FakeSession()
        placer.is_fast = is_fast
        monkeypatch.setattr(verifying, "placer_of", lambda session: placer)
        with pytest.raises(CompileError):
            verify(session, types.SimpleNamespace(problem=PROBLEM), assignment, modes)
        return session.passed, placer.asked

    return ask


def _lines(options, action):
    """Names of the instructions whose override has an action."""
    rows = [row for row in options[OVERRIDES_OPTION].splitlines() if action in row]
    return [row.split('"^')[1].split('$"')[0].replace("\\\\", "") for row in rows]


def test_what_passes_is_compiled_as_it_is(ask):
    (options,), asked = ask(inside("w", "x"), lambda options: None, EXACT)
    assert asked == [options]
    text = overrides(PROBLEM, inside("w", "x"))
    assert options == {**EXACT_OPTIONS, OVERRIDES_OPTION: text}
    assert _lines(options, "pin_in") == ["x"] and _lines(options, "strict") == ["op.2"]


def test_the_order_of_placement_comes_before_any_repair(ask):
    refuses = lambda options: None if SORT_ORDER_OPTION in options else "no room"  # noqa: E731
    (options,), asked = ask(inside("x", "y"), refuses, EXACT)
    assert len(asked) == 2 and _lines(options, "pin_in") == ["x", "y"]


def test_a_prefetch_that_is_taken_back_is_asked_for_with_no_prefetch_taken_back(ask):
    message = "MSA strict timing override unsatisfied ... scheduled prefetch time (0)"
    refuses = lambda options: None if KEEP_PREFETCHES.items() <= options.items() else message  # noqa: E731
    (options,), asked = ask(inside("w", "x"), refuses, EXACT)
    assert _lines(options, "pin_in") == ["x"] and _lines(options, "strict") == ["op.2"]
    assert all(KEEP_PREFETCHES.items().isdisjoint(each.items()) for each in asked[:2])
    # It makes the compiler prefetch poorly elsewhere: other refusals are repaired without it.
    passed, asked = ask(inside("w", "x"), lambda options: _refused("x"), EXACT)
    assert passed == [] and all(KEEP_PREFETCHES.keys().isdisjoint(each) for each in asked)


def _refused(name):
    return f"The value defined at {name} requires allocation in the alternate memory"


def test_what_is_refused_by_name_is_permitted_and_the_rest_still_demanded(ask):
    refuses = lambda options: _refused("x") if "x" in _lines(options, "pin_in") else None  # noqa: E731
    (options,), _ = ask(inside("x", "y"), refuses, EXACT)
    assert _lines(options, "pin_in") == ["y"] and "x" not in _lines(options, "keep_in")


def test_what_is_refused_again_is_kept_in_default_memory(ask):
    refuses = lambda options: None if "x" in _lines(options, "keep_in") else _refused("x")  # noqa: E731
    (options,), _ = ask(inside("x", "y"), refuses, EXACT)
    assert _lines(options, "pin_in") == ["y"] and "x" in _lines(options, "keep_in")


def test_a_refusal_without_a_name_leads_to_the_next_mode(ask):
    refuses = lambda options: "no" if "strict_timing" in options[OVERRIDES_OPTION] else None  # noqa: E731
    (options,), _ = ask(inside("w"), refuses, EXACT, RELAXED)
    assert _lines(options, "prefetch {") == ["op.2"]


def test_a_mapping_that_every_mode_refuses_is_an_error_and_no_endless_loop(ask):
    passed, asked = ask(inside("w", "x"), lambda options: _refused("x"), EXACT, RELAXED, GUIDED)
    assert passed == [] and len(asked) < 20


def test_without_the_fast_check_there_are_few_repairs(ask):
    def refuses(options):  # until all three are kept, each first permitted
        left = [name for name in "xyw" if name not in _lines(options, "keep_in")]
        return _refused(left[0]) if left else None

    wanted = inside("w", "x", "y")
    (options,), _ = ask(wanted, refuses, EXACT)
    assert set("wxyz") <= set(_lines(options, "keep_in"))
    passed, asked = ask(wanted, refuses, EXACT, is_fast=False)
    assert passed == [] and len(asked) <= 12


def test_a_killed_compiler_is_not_taken_for_a_refusal(monkeypatch):
    asked = []

    def place(options):
        asked.append(options)
        raise CompilerKilled("killed")

    placer = types.SimpleNamespace(is_fast=True, place=place)
    monkeypatch.setattr(verifying, "placer_of", lambda session: placer)
    with pytest.raises(CompilerKilled):
        verify(FakeSession(), types.SimpleNamespace(problem=PROBLEM), inside("x"))
    assert len(asked) == 1  # no other mode


# -- with the genuine compiler ---------------------------------------------------------------


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
        self.placer = placer_of(self.session)

    def check(self, assignment: Assignment) -> float:
        """Share of the decisions that the fast check honours, nothing repaired; 0 if refused."""
        text = overrides(self.problem, assignment)
        try:
            placed = self.placer.place({**EXACT_OPTIONS, OVERRIDES_OPTION: text})
        except OverrideError:
            return 0.0
        return compare(self.problem, assignment, self.extraction.assignment_of(placed, "check"))[0]


@pytest.fixture(scope="module")
def real():
    made = Contended()
    yield made
    made.session.close()


@requires_libtpu
def test_the_result_is_refused_and_nothing_else(real):
    refused = [value for value in real.problem.values if value.is_refused]
    assert [value.is_live_out for value in refused] == [True]
    assert not any(p.is_refused for i in real.problem.instructions for p in i.positions)
    assert real.found.num_checks >= 2


@requires_libtpu
def test_what_probing_found_is_on_disk(real, monkeypatch):
    fresh = Extraction(real.found.all_default, real.session.name, CostStore())
    assert not any(value.is_refused for value in fresh.problem.values)
    monkeypatch.setattr(real.session, "place", None)
    assert probe(real.session, fresh) == real.found.num_checks
    refused = [value.name for value in fresh.problem.values if value.is_refused]
    assert refused == [value.name for value in real.problem.values if value.is_refused]


@requires_libtpu
def test_a_random_mapping_is_honoured_and_the_fast_check_tells_so_before(real):
    assignment = RandomGames(real.problem, 8, seed=5).assignment(7)
    assert len(assignment.chunks) >= 5 and not mg.check(real.problem, assignment)
    result = verify(real.session, real.extraction, assignment)
    assert (result.mode, result.num_repairs) == ("exact", 0)
    assert result.honoured == 1.0 and result.not_honoured == ()
    predicted = mg.latency(real.extraction.problem, assignment).cycles
    assert predicted == pytest.approx(result.cycles, rel=1e-3)
    assert real.placer.is_fast
    assert b"estimated_cycles" not in real.placer.place(result.options).hlo
    seen = preview(real.session, real.extraction, assignment)
    assert (seen.honoured, seen.num_repairs, seen.options) == (1.0, 0, result.options)
    found = dataclasses.replace(seen.assignment, source=result.assignment.source)
    assert found == result.assignment and any(found.masks) and found.chunks


def too_much(problem: mg.Problem) -> Assignment:
    """Nearly everything in alternate memory for its whole life: more than there is."""
    chunks, copies, masks = [], [], [0] * len(problem.instructions)
    for v, value in enumerate(problem.values):
        places = [(t, p) for t, p in problem.positions_of_value[v] if t > 0]
        if value.is_live_out or (not value.is_parameter and value.start == 0):
            continue
        chunks.append(Chunk(v, 0, value.size_bytes, value.start, value.end))
        if value.is_parameter:
            copies.append(Copy(v, 0, places[0][0], value.size_bytes))
        for t, p in places:
            masks[t] |= 1 << p
    return Assignment(tuple(masks), tuple(chunks), tuple(copies), "too much")


@requires_libtpu
def test_what_cannot_fit_is_repaired_and_the_rest_is_honoured(real):
    wanted = too_much(real.problem)
    assert real.check(wanted) == 0.0
    result = verify(real.session, real.extraction, wanted)
    assert result.mode == "exact" and 1 <= result.num_repairs <= 2
    num_decisions = len(list(decisions(real.problem)))
    assert result.honoured == pytest.approx(1 - len(result.not_honoured) / num_decisions)
    assert 1 <= len(result.not_honoured) <= 2
    assert all("wanted in alternate memory" in line for line in result.not_honoured)


def one_use_in_default(problem, parameter, time, output, use_here, output_too):
    """Whether the game can play it, and the mapping: a parameter in alternate memory everywhere,
    perhaps but for its use at `time`, and perhaps with what is computed there."""
    free = problem.replace(exclusions=())
    masks = tuple(
        sum(
            1 << p
            for p, position in enumerate(instruction.positions)
            if (position.value == parameter and (use_here or t != time))
            or (position.value == output and output_too)
        )
        for t, instruction in enumerate(problem.instructions)
    )
    state, _ = mg.follow(free, Assignment(masks))
    wanted = mg.to_assignment(free, state)
    return wanted.masks == masks, wanted


@requires_libtpu
def test_exclusions_are_what_the_compiler_cannot_be_asked_for_together(real):
    problem, tried = real.problem, 0
    for e in problem.exclusions:
        plays = [
            one_use_in_default(problem, e.parameter, e.time, e.output, *which)
            for which in ((False, True), (True, True), (False, False))
        ]
        if all(is_played for is_played, _ in plays):  # there is time for the copies
            tried += 1
            kinds = [{v.kind for v in mg.check(problem, wanted)} for _, wanted in plays]
            assert kinds == [{"excluded"}, set(), set()]
            shares = [real.check(wanted) for _, wanted in plays]
            assert shares[0] < 1.0 and shares[1:] == [1.0, 1.0]
    assert tried


@requires_libtpu
def test_outputs_of_another_size_need_no_exclusion(real):
    problem, tried = real.problem, 0
    excluded = {(e.parameter, e.time, e.output) for e in problem.exclusions}
    for v, value in enumerate(problem.values):
        uses = [t for t, _ in problem.positions_of_value[v]]
        for time in uses if value.is_parameter and len(uses) > 1 else ():
            outputs = [p.value for p in problem.instructions[time].positions if p.is_output]
            if outputs and (v, time, outputs[0]) not in excluded:
                is_played, wanted = one_use_in_default(problem, v, time, outputs[0], False, True)
                if is_played:
                    tried += 1
                    assert not mg.check(problem, wanted)
                    assert real.check(wanted) == 1.0
    assert tried


@requires_libtpu
def test_the_fast_check_refuses_what_the_compiler_refuses(real):
    impossible = (
        'overrides { hlo_operand_filter { instruction_name_regex: ".*" operand_number: 1 } '
        "prefetch { logical_time: 900 strict_timing: true } }"
    )
    with pytest.raises(OverrideError, match="MSA strict"):
        real.placer.place({**EXACT_OPTIONS, OVERRIDES_OPTION: impossible})
    assert real.placer.place(all_default_options(real.session)).hlo  # the process lives


# -- finding a memory size that stops the compiler and changes nothing else -------------------


class Sizes:
    """A session whose compiler is stopped as `place(size)` says; a compile gives `compiled`."""

    def __init__(self, compiled, place):
        self.compiled, self._place = compiled, place
        self.asked, self.num_compiles = [], 0

    def remembered(self, label):
        return None

    def compile(self, options):
        self.num_compiles += 1
        return self.compiled

    def place(self, options):
        self.asked.append(options)
        return self._place(self.sizes[-1])

    @property
    def sizes(self):
        return [int(options["xla_tpu_max_hbm_size_mib"]) for options in self.asked]


@pytest.fixture(scope="module")
def programs(real):
    """The all-default program, and one that differs in the memory of a single value."""
    value = next(v for v in real.problem.values if not (v.is_parameter or v.is_live_out))
    pinned = inside(value.name, problem=real.problem)
    text = overrides(real.problem, pinned)
    other = real.placer.place({**EXACT_OPTIONS, OVERRIDES_OPTION: text})
    names = [
        [i.name for i, _ in Module(each.hlo).flattened()]
        for each in (real.placer.place(all_default_options(real.session)), other)
    ]
    assert names[0] == names[1]
    return real.found.all_default, other


@requires_libtpu
def test_a_memory_size_that_changes_the_program_is_not_used(programs):
    same, other = programs
    needed = 1000 << 20
    small = Sizes(same, lambda size: (same, needed))
    assert Placer(small).is_fast and small.sizes == [1]
    half = Sizes(same, lambda size: (same if size > 1 else other, needed))
    placer = Placer(half)
    assert placer.is_fast and half.sizes == [1, 500]
    placer.place({})
    assert half.sizes[-1] == 500
    assert any("rematerialization" in option for option in half.asked[-1])


@requires_libtpu
@pytest.mark.parametrize("what", ["changes", "fits", "fails"])
def test_where_no_size_will_do_every_check_is_a_full_compile(programs, what):
    same, other = programs

    def place(size):
        if what == "fails":
            raise CompileError("no")
        return (other, 100 << 20) if what == "changes" else (same, 0)

    session = Sizes(same, place)
    placer = Placer(session)
    tried, compiles = session.sizes, session.num_compiles
    assert not placer.is_fast and tried[0] == 1 and max(tried) < 100
    assert (len(tried) > 1) == (what == "changes") and tried == sorted(set(tried))
    assert placer.place({}) is same
    assert (session.sizes, session.num_compiles) == (tried, compiles + 1)
