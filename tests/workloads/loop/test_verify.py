"""The way back: what the compiler is asked for, refuses, and does; repairs, checks, probing."""

from __future__ import annotations

import dataclasses
import importlib
import types

import pytest

import malloc_game as mg
from malloc_game import Assignment, Chunk, Copy
from tests.helpers.contended import Contended
from tests.helpers.mapped_by_name import LAYERS, PROBLEM, inside
from workloads.compiler.session import OVERRIDES_OPTION
from workloads.costs.store import CostStore
from workloads.errors import CompileError, CompilerKilled, OverrideError
from workloads.extraction.all_default import all_default_options
from workloads.extraction.extraction import Extraction
from workloads.extraction.probing import probe
from workloads.loop.calibration import RandomGames
from workloads.loop.verification import EXACT, GUIDED, PERMITTED, RELAXED, Repairs, preview, verify
from workloads.overrides.comparison import compare, decisions
from workloads.overrides.packing import SORT_ORDER_OPTION
from workloads.overrides.text import EXACT_OPTIONS, KEEP_PREFETCHES, keep, overrides

requires_libtpu = pytest.mark.requires_libtpu
# The package offers the function `verify` under the name of the module it comes from.
probing = importlib.import_module("workloads.extraction.probing")
verifying = importlib.import_module("workloads.loop.verification")


# -- how it is asked, with a compiler played by hand -----------------------------------------


class FakeSession:
    """A compiler as the test wants it: `refuses(options)` is a message, or None.

    What is not refused is in `passed`, and mostly `fails` later.
    """

    def __init__(self, refuses, fails=True):
        self.refuses, self.fails = refuses, fails
        self.asked, self.passed = [], []

    def compile(self, options):
        self.asked.append(options)
        if message := self.refuses(options):
            raise OverrideError(message)
        self.passed.append(options)
        if self.fails:
            raise CompileError("the fake compiler ends here")


@pytest.fixture
def ask(monkeypatch):
    """ask(assignment, refuses, modes) is what was not refused, and all that was asked for."""

    def ask(assignment, refuses, *modes, is_fast=True, problem=PROBLEM):
        session = FakeSession(refuses)
        dry_run = types.SimpleNamespace(is_fast=is_fast)
        monkeypatch.setattr(verifying, "dry_run_of", lambda session: dry_run)
        with pytest.raises(CompileError):
            verify(session, types.SimpleNamespace(problem=problem), assignment, modes)
        return session.passed, session.asked

    return ask


def _lines(options, action):
    """Names of the instructions whose override has an action."""
    rows = [row for row in options[OVERRIDES_OPTION].splitlines() if action in row]
    return [row.split('"^')[1].split('$"')[0].replace("\\\\", "") for row in rows]


def _pinned(options):
    """Names of pinned values; the toy's instructions, which define them, are `op.<n>`."""
    return [n for n in _lines(options, "pin_in") if not n.startswith("op.")]


def test_what_passes_is_compiled_as_it_is(ask):
    (options,), asked = ask(inside("w", "x"), lambda options: None, EXACT)
    assert asked == [options]
    text = overrides(PROBLEM, inside("w", "x"))
    assert options == {**EXACT_OPTIONS, OVERRIDES_OPTION: text}
    assert _pinned(options) == ["x"] and _lines(options, "strict") == ["op.2"]


def test_the_order_of_placement_comes_before_any_repair(ask):
    refuses = lambda options: None if SORT_ORDER_OPTION in options else "no room"  # noqa: E731
    (options,), asked = ask(inside("x", "y"), refuses, EXACT)
    assert len(asked) == 2 and _pinned(options) == ["x", "y"]


def test_a_prefetch_that_is_taken_back_is_asked_for_with_no_prefetch_taken_back(ask):
    message = "MSA strict timing override unsatisfied ... scheduled prefetch time (0)"
    refuses = lambda options: None if KEEP_PREFETCHES.items() <= options.items() else message  # noqa: E731
    (options,), asked = ask(inside("w", "x"), refuses, EXACT)
    assert _pinned(options) == ["x"] and _lines(options, "strict") == ["op.2"]
    assert len(asked) == 2 and KEEP_PREFETCHES.items().isdisjoint(asked[0].items())
    # It makes the compiler prefetch poorly elsewhere: other refusals are repaired without it.
    passed, asked = ask(inside("w", "x"), lambda options: _refused("x"), EXACT)
    assert passed == [] and all(KEEP_PREFETCHES.keys().isdisjoint(each) for each in asked)


def test_a_lost_prefetch_is_not_forgotten_over_a_refusal_of_another_kind(ask):
    lost = "MSA strict timing override unsatisfied ... scheduled prefetch time (0)"

    def refuses(options):
        if not KEEP_PREFETCHES.items() <= options.items():
            return lost
        return None if SORT_ORDER_OPTION in options else "spatial placement conflict"

    (options,), asked = ask(inside("w", "x"), refuses, EXACT)
    assert len(asked) == 3 and _lines(options, "strict") == ["op.2"]


def test_a_repair_is_not_taken_back_for_the_next_refusal(ask):
    refuses = lambda options: next((_refused(n) for n in "xy" if n in _pinned(options)), None)  # noqa: E731
    (options,), asked = ask(inside("x", "y"), refuses, EXACT)
    ordered = [SORT_ORDER_OPTION in each for each in asked]
    assert ordered == [False, True, True, True] and asked[-1] == options


def test_the_next_mapping_of_a_run_is_asked_for_with_the_repairs_of_the_last(monkeypatch):
    def refuses(options):
        if SORT_ORDER_OPTION not in options:
            return "spatial placement conflict"
        return _refused("x") if "x" in _pinned(options) else None

    repairs = Repairs()
    done = dataclasses.replace(inside("y"), source="done")
    extraction = types.SimpleNamespace(
        problem=PROBLEM, take_in=lambda compiled, source, is_ours: ("latency", done)
    )
    session = FakeSession(refuses, fails=False)
    monkeypatch.setattr(verifying, "dry_run_of", lambda s: types.SimpleNamespace(is_fast=True))
    verify(session, extraction, inside("x", "y"), repairs=repairs)
    assert len(session.asked) == 3
    verify(session, extraction, inside("w", "x", "y"), repairs=repairs)
    assert len(session.asked) == 4 and _pinned(session.asked[-1]) == ["y"]
    # The order is that of this mapping; without the repairs it begins anew.
    verify(session, extraction, inside("w", "x", "y"))
    assert session.asked[4:][0][OVERRIDES_OPTION] != session.asked[3][OVERRIDES_OPTION]
    assert session.asked[-1] == session.asked[3]


def test_a_prefetch_at_another_time_is_asked_for_and_its_time_not_demanded(ask):
    moved = (
        "MSA strict timing override unsatisfied for instruction 'op.2' operand 0:"
        " scheduled prefetch time (2) does not match requested prefetch time (1)"
    )
    refuses = lambda options: moved if "strict" in options[OVERRIDES_OPTION] else None  # noqa: E731
    (options,), asked = ask(inside("w", "x"), refuses, EXACT)
    assert len(asked) == 2 and _lines(options, "prefetch {") == ["op.2"]
    assert _pinned(options) == ["x"] and SORT_ORDER_OPTION not in options
    # If that is no use, it is repaired as any other.
    (options,), asked = ask(
        inside("w", "x"), lambda o: moved if _lines(o, "prefetch {") else None, EXACT
    )
    assert _lines(options, "prefetch {") == [] and _pinned(options) == ["x"]


def _refused(name):
    return f"The value defined at {name} requires allocation in the alternate memory"


def test_what_is_refused_by_name_is_permitted_and_the_rest_still_demanded(ask):
    refuses = lambda options: _refused("x") if "x" in _pinned(options) else None  # noqa: E731
    (options,), _ = ask(inside("x", "y"), refuses, EXACT)
    assert _pinned(options) == ["y"] and "x" not in _lines(options, "keep_in")


def test_what_is_refused_again_is_kept_in_default_memory(ask):
    refuses = lambda options: None if "x" in _lines(options, "keep_in") else _refused("x")  # noqa: E731
    (options,), _ = ask(inside("x", "y"), refuses, EXACT)
    assert _pinned(options) == ["y"] and "x" in _lines(options, "keep_in")


def _refusing_one(name, why):
    """A compiler that will not have a value demanded, and says why."""
    refusal = f"MSA override unsatisfied, defining instruction '{name}': {why}"
    return lambda options: refusal if name in _pinned(options) else None


def test_what_is_used_like_the_refused_is_permitted_with_it(ask):
    wanted = inside("a", "b", "c", problem=LAYERS)
    (options,), asked = ask(wanted, _refusing_one("a", "no"), EXACT, problem=LAYERS)
    assert _pinned(options) == ["c"] and len(asked) == 3
    assert not {"a", "b"} & set(_lines(options, "keep_in"))
    # What is not in the mapping stays out of it.
    wanted = inside("a", "c", problem=LAYERS)
    (options,), _ = ask(wanted, _refusing_one("a", "no"), EXACT, problem=LAYERS)
    assert _pinned(options) == ["c"] and "b" in _lines(options, "keep_in")


def test_what_there_is_no_room_for_is_permitted_alone(ask):
    wanted = inside("a", "b", "c", problem=LAYERS)
    refuses = _refusing_one("a", "Out of alternate memory")
    (options,), _ = ask(wanted, refuses, EXACT, problem=LAYERS)
    assert _pinned(options) == ["b", "c"]


@pytest.mark.parametrize(
    ("why", "refused"), [("no", {(0, None), (1, None)}), ("Out of alternate memory", set())]
)
def test_what_is_refused_for_another_reason_than_room_is_told(monkeypatch, why, refused):
    wanted = inside("a", "b", "c", problem=LAYERS)
    done = dataclasses.replace(inside("c", problem=LAYERS), source="done")
    extraction = types.SimpleNamespace(
        problem=LAYERS, take_in=lambda compiled, source, is_ours: ("latency", done)
    )
    session = FakeSession(_refusing_one("a", why), fails=False)
    monkeypatch.setattr(verifying, "dry_run_of", lambda s: types.SimpleNamespace(is_fast=True))
    found = verify(session, extraction, wanted)
    assert found.refused == refused and found.missed == {(0, None), (1, None)}


def test_a_refusal_without_a_name_leads_to_the_next_mode(ask):
    refuses = lambda options: "no" if "strict_timing" in options[OVERRIDES_OPTION] else None  # noqa: E731
    (options,), _ = ask(inside("w"), refuses, EXACT, RELAXED)
    assert _lines(options, "prefetch {") == ["op.2"]


def test_a_mapping_that_every_mode_refuses_is_an_error_and_no_endless_loop(ask):
    passed, asked = ask(inside("w", "x"), lambda options: _refused("x"), EXACT, RELAXED, GUIDED)
    assert passed == [] and len(asked) < 20


def test_without_the_dry_run_there_are_few_repairs(ask):
    def refuses(options):  # until all three are kept, each first permitted
        left = [name for name in "xyw" if name not in _lines(options, "keep_in")]
        return _refused(left[0]) if left else None

    wanted = inside("w", "x", "y")
    (options,), _ = ask(wanted, refuses, EXACT)
    assert set("wxyz") <= set(_lines(options, "keep_in"))
    passed, asked = ask(wanted, refuses, EXACT, is_fast=False)
    assert passed == [] and len(asked) <= 12


@pytest.fixture
def ask_in_a_hurry(monkeypatch):
    """ask(assignment, refuses, patience) is all that was asked; each refusal takes a second."""

    def ask(assignment, refuses, patience, *modes, problem=LAYERS):
        session = FakeSession(refuses)
        clock = types.SimpleNamespace(monotonic=lambda: float(len(session.asked)))
        monkeypatch.setattr(verifying, "time", clock)
        monkeypatch.setattr(verifying, "dry_run_of", lambda s: types.SimpleNamespace(is_fast=True))
        with pytest.raises(CompileError):
            extraction = types.SimpleNamespace(problem=problem)
            verify(session, extraction, assignment, modes, Repairs(patience=patience))
        return session.asked

    return ask


def test_out_of_patience_what_there_is_no_room_for_is_permitted_with_all_of_its_kind(
    ask_in_a_hurry,
):
    wanted = inside("a", "b", "c", problem=LAYERS)
    refuses = _refusing_one("a", "Out of alternate memory")
    # As it is, and in the order of placement: two refusals.
    assert _pinned(ask_in_a_hurry(wanted, refuses, 3.0, EXACT)[-1]) == ["b", "c"]
    assert _pinned(ask_in_a_hurry(wanted, refuses, 2.0, EXACT)[-1]) == ["c"]


def test_out_of_patience_no_prefetch_is_demanded_at_its_time(ask_in_a_hurry):
    moved = (
        "MSA strict timing override unsatisfied for instruction 'op.2' operand 0:"
        " scheduled prefetch time (2) does not match requested prefetch time (1)"
    )
    refuses = lambda options: moved if "strict" in options[OVERRIDES_OPTION] else None  # noqa: E731
    asked = ask_in_a_hurry(inside("w", "x"), refuses, 1.0, EXACT, problem=PROBLEM)
    assert len(asked) == 2 and _lines(asked[-1], "prefetch {") == ["op.2"]


def test_after_twice_the_patience_less_is_asked_for(ask_in_a_hurry):
    refuses = lambda o: next((_refused(n) for n in "abc" if n in _pinned(o)), None)  # noqa: E731
    wanted = inside("a", "b", "c", problem=LAYERS)
    patient = ask_in_a_hurry(wanted, refuses, 99.0, EXACT, PERMITTED)
    assert len(patient) == 4 and not _pinned(patient[2])  # the first mode has it in three
    hasty = ask_in_a_hurry(wanted, refuses, 0.4, EXACT, RELAXED, PERMITTED)
    assert [bool(_pinned(options)) for options in hasty] == [True, True, False]


def test_in_a_hurry_an_order_of_placement_is_given_where_there_is_no_room_alone(ask_in_a_hurry):
    wanted = inside("a", "b", "c", problem=LAYERS)
    for why, is_ordered in (("no", False), ("Out of alternate memory", True)):
        asked = ask_in_a_hurry(wanted, _refusing_one("a", why), 99.0, EXACT)
        assert [SORT_ORDER_OPTION in options for options in asked[1:]] == [is_ordered] * len(
            asked[1:]
        )
        assert "a" not in _pinned(asked[-1])


def test_a_killed_compiler_is_not_taken_for_a_refusal(monkeypatch):
    asked = []

    def compile(options):
        asked.append(options)
        raise CompilerKilled("killed")

    session = types.SimpleNamespace(compile=compile)
    monkeypatch.setattr(verifying, "dry_run_of", lambda s: types.SimpleNamespace(is_fast=True))
    with pytest.raises(CompilerKilled):
        verify(session, types.SimpleNamespace(problem=PROBLEM), inside("x"))
    assert len(asked) == 1  # no other mode


# -- with the genuine compiler ---------------------------------------------------------------


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


@pytest.mark.parametrize(("seconds", "per_check", "is_fast"), [(0, 0, 0), (10, 1, 1), (10, 6, 0)])
def test_probing_that_would_run_out_of_time_asks_nothing_and_remembers_nothing(
    monkeypatch, seconds, per_check, is_fast
):
    class Session:
        remembered = staticmethod(lambda label: None)

        def remember(self, label, fields):
            assert label != probing._LABEL, "half an answer"

    asked = []
    dry_run = types.SimpleNamespace(
        is_fast=bool(is_fast),
        place=lambda options: asked.append(options),
        seconds_per_dry_run=per_check,
    )
    extraction = types.SimpleNamespace(
        problem=PROBLEM, refuse=lambda values, uses: None, refresh=lambda: None
    )
    monkeypatch.setattr(probing, "dry_run_of", lambda session, seconds: dry_run)
    assert probe(Session(), extraction, seconds=seconds) == 0
    assert asked == []


@pytest.mark.parametrize(("seconds", "is_cut"), [(12, True), (120, False)])
def test_probing_ends_when_its_checks_turn_out_to_be_slow(monkeypatch, seconds, is_cut):
    clock, asked = [0.0], []

    def place(options):
        clock[0] += 3.0  # not 0.2 s, as it was of the program with everything in default memory
        asked.append(options)
        raise OverrideError(_refused(_pinned(options)[0]) if _pinned(options) else "no")

    dry_run = types.SimpleNamespace(is_fast=True, place=place, seconds_per_dry_run=0.2)
    monkeypatch.setattr(probing, "time", types.SimpleNamespace(monotonic=lambda: clock[0]))
    prober = probing._Prober(dry_run, types.SimpleNamespace(problem=PROBLEM), deadline=seconds)
    assert prober.has_time()
    assert prober.run() is not is_cut
    assert len(asked) == prober.checks and (prober.checks == 1) is is_cut


@requires_libtpu
def test_a_random_mapping_is_honoured_and_the_dry_run_tells_so_before(real):
    assignment = RandomGames(real.problem, 8, seed=5).assignment(7)
    assert len(assignment.chunks) >= 5 and not mg.check(real.problem, assignment)
    result = verify(real.session, real.extraction, assignment)
    assert (result.mode, result.num_repairs) == ("exact", 0)
    assert result.honoured == 1.0 and result.not_honoured == ()
    predicted = mg.latency(real.extraction.problem, assignment).cycles
    assert predicted == pytest.approx(result.cycles, rel=1e-3)
    assert real.dry_run.is_fast
    assert b"estimated_cycles" not in real.dry_run.place(result.options).hlo
    seen = preview(real.session, real.extraction, assignment)
    assert (seen.honoured, seen.num_repairs, seen.options) == (1.0, 0, result.options)
    found = dataclasses.replace(seen.assignment, source=result.assignment.source)
    assert found == result.assignment and any(found.masks) and found.chunks


@requires_libtpu
def test_guided_xla_uses_its_own_means_within_what_the_mapping_allows(real):
    wanted = RandomGames(real.problem, 8, seed=5).assignment(7)
    result = verify(real.session, real.extraction, wanted, (GUIDED,))
    assert result.mode == "guided" and result.options.keys() == {OVERRIDES_OPTION}
    text = result.options[OVERRIDES_OPTION]
    assert "pin_in" not in text and "prefetch" not in text and "keep_in_default" in text
    # What it prefetches across programs it takes whatever is asked; no game has that, but it is
    # read back and predicted.
    values, copies = real.problem.values, result.assignment.copies
    free = {values[c.value].name for c in copies if c.is_cross_program}
    lines = [line for line in result.not_honoured if "wanted in default memory" in line]
    assert free and {line.split(":")[0] for line in lines} <= free
    assert mg.check(real.problem, result.assignment, expressible=False) == []
    predicted = mg.latency(real.extraction.problem, result.assignment).cycles
    assert predicted == pytest.approx(result.cycles, rel=1e-3)


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
def test_thousands_of_overrides_of_odd_names_take_nothing_from_those_that_matter(real):
    assignment = RandomGames(real.problem, 8, seed=5).assignment(7)
    wanted = overrides(real.problem, assignment)
    odd = ('a.b[0]+(c)|d?"\\w', "^x$", ".*", "fusion.*", "{2} #&~-", "(")
    strangers = [keep(f"{odd[i % len(odd)]}{i}") for i in range(4000)] + [keep(n) for n in odd]
    text = "\n".join([*strangers[:2000], wanted, *strangers[2000:]])
    placed = real.dry_run.place({**EXACT_OPTIONS, OVERRIDES_OPTION: text})
    found = real.extraction.assignment_of(placed, "check")
    assert compare(real.problem, assignment, found) == (1.0, [])


@requires_libtpu
def test_the_dry_run_refuses_what_the_compiler_refuses(real):
    impossible = (
        'overrides { hlo_operand_filter { instruction_name_regex: ".*" operand_number: 1 } '
        "prefetch { logical_time: 900 strict_timing: true } }"
    )
    with pytest.raises(OverrideError, match="MSA strict"):
        real.dry_run.place({**EXACT_OPTIONS, OVERRIDES_OPTION: impossible})
    assert real.dry_run.place(all_default_options(real.session)).hlo  # the process lives
