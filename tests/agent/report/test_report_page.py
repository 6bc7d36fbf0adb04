"""The page of a run: what it draws, what it says, and that nothing in a name can run."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html.parser
import json
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

import malloc_game as mg
from agent.api import OptimizeResult
from agent.cli import commands
from agent.report import summary
from agent.report.data import changes, make_map, maps_of, page_data
from agent.report.figure import save_figure
from agent.report.page import save_page, to_html
from agent.tuning.outcome import CRASHED, REFUSED, Compiled, Missing, Outcome, Planned
from tests.helpers.run_for_tests import layers, make_run, save_run, weights_only
from tests.helpers.toy import KIB, toy

EVIL = "</script><img src=x onerror=\"document.title='run'\"><b>&amp;\u2028"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


class _Page(html.parser.HTMLParser):
    """Elements of a page as a browser finds them: script elements end at the first end tag."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.scripts: list[str] = []
        self.policy = ""
        self._text: list[str] = []
        self._in_script = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        values = dict(attrs)
        if values.get("http-equiv") == "Content-Security-Policy":
            self.policy = values["content"]
        self._in_script = tag == "script"
        if self._in_script:
            self.scripts.append("")

    def handle_endtag(self, tag):
        if tag == "script":
            self._in_script = False

    def handle_data(self, data):
        if self._in_script:
            self.scripts[-1] += data
        else:
            self._text.append(data)

    @property
    def text(self) -> str:
        """All that is not script, with single spaces."""
        return " ".join(" ".join(self._text).split())

    @property
    def data(self) -> dict:
        """What the script draws."""

        def refuse(name):
            raise AssertionError(f"{name} in the page")

        return json.loads(self.scripts[0], parse_constant=refuse)


@pytest.fixture(scope="module")
def small():
    """A run that found something better than XLA's default."""
    problem, everything = layers(12)
    return make_run(problem, everything, weights_only(problem, everything))


@pytest.fixture(scope="module")
def page(small):
    return _Page(to_html(small, {"xla_long": "long.textproto"}))


def test_the_page_draws_every_chunk_and_copy_of_both_mappings(small, page):
    data = page.data
    assert [one["label"] for one in data["maps"]] == ["XLA default", "best (network play)"]
    for one, mapping in zip(data["maps"], (small.reference, small.assignment), strict=True):
        chunks, copies = one["chunks"], one["copies"]
        names = [data["values"]["name"][v] for v in chunks["value"]]
        assert names == [small.problem.values[c.value].name for c in mapping.chunks]
        assert chunks["offset"] == [c.offset for c in mapping.chunks]
        assert chunks["end"] == [c.end for c in mapping.chunks]
        assert {len(column) for column in chunks.values()} == {len(mapping.chunks)}
        assert {len(column) for column in copies.values()} == {len(mapping.copies)}
        assert len(one["cycles"]) == len(small.problem.instructions) == len(one["start"]) - 1
        total = one["start"][-1]
        assert total == pytest.approx(mg.latency(small.problem, mapping).cycles, abs=0.1)
    assert data["values"]["shape"][0].startswith("bf16[")
    assert set(data["values"]["kind"]) == {0, 1, 2}
    # The weight of instruction 3 arrives just before it.
    chunk = data["maps"][0]["chunks"]
    assert chunk["filled"][3] == 3 == small.assignment.copies[3].end


def test_a_chunk_saves_what_its_uses_would_cost_more_without_it():
    problem = toy("""
        cycles        9   9   9
        trips         1   2*  1
        w  4  param   u3  .   u1
        x  4  out:5   D1  u2  u1
    """)
    mapping = mg.Assignment(
        (0b11, 0b1, 0b10),
        (mg.Chunk(0, 0, 4 * KIB, 0, 1), mg.Chunk(1, 4 * KIB, 4 * KIB, 0, 3)),
    )
    found = make_map(problem, mapping, "")
    # w: 3 at its first use only. x: 1, twice 2 in the loop, 1, and a write-back of 5.
    assert found.saved.tolist() == [3, 1 + 2 * 2 + 1 - 5]


def test_bandwidth_is_a_share_and_copies_take_what_instructions_leave(small):
    for one in maps_of(small):
        own, copied = one.bandwidth
        assert np.all(own >= 0) and np.all(copied >= 0) and np.all(own + copied <= 1 + 1e-12)
        spans = one.profile.wait_cycles + np.append(one.profile.cycles, 0)
        rate = small.problem.target.default_bytes_per_cycle
        moved = sum(c.size for c in one.assignment.copies)
        assert (copied * spans * rate).sum() == pytest.approx(moved)


def test_changes_are_sorted_and_say_what_moved(small):
    found = changes(small.problem, *maps_of(small))
    assert found == sorted(found, key=lambda c: c.difference) and found[0].difference < 0
    total = sum(change.difference for change in found)
    before, after = (float(one.profile.cycles.sum()) for one in maps_of(small))
    assert total == after - before
    first = found[0]
    assert any(f"op.{first.time} (output)" == moved for moved in first.gained)
    assert first.lost == () and not first.is_estimated


def test_the_page_says_what_was_won_and_how_sure_it_is(small, page):
    speedup = small.result["compiled_speedup"]
    for said in (
        "No speed-up is claimed",
        "its final machine code contradicts them",
        f"By that estimate {speedup:.3f} times as fast",
        "Ratio, monotone",
        "Found by network play the network’s search chose every move",
        "Missing: guided: not tried.",
        "Prediction off by 0.00%",
        "Honoured 100% of 24 decisions",
        "Every decision of the best mapping holds",
        "nothing has run on a TPU",
        "'xla_long': open('long.textproto').read()",
    ):
        assert said in page.text, said
    compiled = small.result["latency_cycles"]["best"]["compiled"]
    assert f"{compiled:,.0f}" in page.text


def test_what_the_compiler_did_not_honour_is_listed(small):
    missed = [f"op.{i}: wanted in alternate memory" for i in range(130)]
    result = {**small.result, "best_not_honoured": missed, "best_honoured": 0.5}
    page = _Page(to_html(dataclasses.replace(small, result=result), {}))
    assert "130 of 24 decisions" in page.text and "op.99: wanted" in page.text
    assert "op.100: wanted" not in page.text and "and 30 more" in page.text


def test_where_the_default_won_it_is_shown_once_and_nothing_is_claimed(small):
    problem, default = small.problem, small.reference
    run = make_run(problem, default, default, best_source="xla_default")
    page = _Page(to_html(run, {}))
    assert len(page.data["maps"]) == 1
    assert "Nothing to change XLA’s default mapping has the fewest estimated cycles" in page.text
    assert "Nothing differs" in page.text and "compiler_options" not in page.text


def test_where_nothing_else_was_compiled_nothing_is_said_of_other_mappings(small):
    problem, default = small.problem, small.reference
    run = make_run(problem, default, default, best_source="xla_default")
    cycles = {
        source: {**pair, "compiled": None} if source in ("greedy", "planner") else pair
        for source, pair in run.result["latency_cycles"].items()
    }
    missing = {"planner": {"status": CRASHED, "reason": "SIGABRT"}}
    result = {**run.result, "latency_cycles": cycles, "missing": missing}
    page = _Page(to_html(dataclasses.replace(run, result=result), {}))
    assert "Nothing is known no other mapping was compiled" in page.text
    assert "Nothing to change" not in page.text
    assert "planner: crashed the compiler (SIGABRT)" in page.text


@pytest.mark.parametrize("has_reference", [False, True])
def test_without_the_compiler_no_speedup_is_claimed(small, has_reference):
    reference = small.reference if has_reference else None
    run = make_run(small.problem, small.assignment, reference, compiled=False)
    page = _Page(to_html(run, {}))
    assert "Predicted only nothing was compiled, so no speed-up is claimed" in page.text
    assert "×" not in page.text.replace("op ×", "")
    name = "XLA default" if has_reference else "everything in default memory"
    assert [one["label"] for one in page.data["maps"]] == [name, "best (network play)"]


def test_a_mapping_with_nothing_in_alternate_memory_is_shown(small):
    empty = mg.all_default(small.problem)
    run = make_run(small.problem, empty, small.reference, best_source="all_default")
    page = _Page(to_html(run, {}))
    assert "Nothing is in alternate memory." in page.text
    assert page.data["maps"][1]["chunks"]["value"] == []


def test_programs_that_take_no_time_make_a_page():
    problem = toy("""
        cycles        0
        x  1  temp    D
    """)
    run = make_run(problem, mg.all_default(problem), mg.all_default(problem),
                   best_source="xla_default", compiled=False)  # fmt: skip
    page = _Page(to_html(run, {}))
    assert page.data["maps"][0]["start"] == [0, 0] and "nan" not in page.text.lower()


def test_names_that_are_no_unicode_make_a_page_and_a_figure(small, tmp_path):
    problem, everything = layers(4, name="half \ud800, bell \a, dollars $x^$")
    run = make_run(problem, everything, weights_only(problem, everything))
    save_page(run, tmp_path / "page.html", {})
    page = _Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "half ?, bell" in page.text
    assert page.data["instructions"]["name"][0] == "half \ud800, bell \a, dollars $x^$.0"
    pytest.importorskip("matplotlib")
    save_figure(run, tmp_path / "figure.png")


# --- safety and size ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def evil(small):
    """Everything that a user names has markup in its name."""
    problem, everything = layers(12, name=EVIL)
    problem = dataclasses.replace(
        problem,
        name=EVIL,
        values=tuple(dataclasses.replace(v, shape=EVIL) for v in problem.values),
        instructions=tuple(dataclasses.replace(i, opcode=EVIL) for i in problem.instructions),
    )
    run = make_run(problem, everything, weights_only(problem, everything),
                   best_not_honoured=[EVIL], versions={EVIL: EVIL},
                   compiler_options={EVIL: EVIL})  # fmt: skip
    return to_html(run, {})


def test_names_are_text_whatever_is_in_them(small, evil):
    tame, page = _Page(to_html(small, {})), _Page(evil)
    assert set(page.tags) == set(tame.tags) | {"ul", "li"} and "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert len(page.scripts) == 3 and page.scripts[1:] == tame.scripts[1:]
    assert page.data["instructions"]["name"][3] == f"{EVIL}.3"
    assert page.data["values"]["shape"][0] == EVIL
    assert " ".join(f"{EVIL} on made-up".split()) in page.text
    assert not set("<>&\u2028\u2029") & set(page.scripts[0])


def test_the_policy_lets_these_scripts_run_and_nothing_load(page):
    rules = dict(rule.strip().split(" ", 1) for rule in page.policy.split(";"))
    assert rules["default-src"] == "'none'"
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'"
        for s in page.scripts[1:]
    ]
    assert rules["script-src"].split() == hashes
    assert not {"link", "iframe", "base", "img"} & set(page.tags)
    assert not [value for name, value in page.attributes if name in ("src", "href", "style")]


def test_a_page_of_ten_thousand_chunks_is_small_enough():
    problem, everything = layers(5000)
    run = make_run(problem, everything, None, compiled=False)
    data = page_data(problem, maps_of(run))
    assert len(data["maps"][1]["chunks"]["value"]) == 10_000
    scripts = len(to_html(make_run(*layers(2), None, compiled=False), {}))
    size = scripts + len(json.dumps(data, allow_nan=False, separators=(",", ":")))
    assert size < 8 << 20, "of 15 MiB that a page may have"


@pytest.mark.parametrize("is_compiled", [True, False])
def test_an_outcome_is_reported_without_its_files(small, is_compiled, tmp_path):
    problem, mappings = small.problem, {"all_default": mg.all_default(small.problem)}
    mappings |= {"greedy": small.assignment, "planner": small.assignment}
    if is_compiled:
        mappings["xla_default"] = small.reference
    candidates = {}
    for source, mapping in mappings.items():
        cycles = 60.0 if source == "greedy" else 90.0
        fields = {"source": source, "found_by": source, "assignment": mapping, "predicted": 100.0}
        candidates[source] = (
            Compiled(**fields, compiled=cycles, honoured=0.5, not_honoured=("one",))
            if is_compiled
            else Planned(**fields)
        )
    outcome = Outcome(
        problem=problem, program="p", decisions=24, versions={}, seed=0, seconds=1.0,
        candidates=candidates, missing={"guided": Missing(REFUSED, "no room")},
        best=candidates["greedy"], num_compiles=3, planner_stats={},
        compiled_speedup_monotone=1.25 if is_compiled else None, stopped="a fault",
    )  # fmt: skip
    path = OptimizeResult(outcome).report(tmp_path / "page.html")
    page = _Page(path.read_text(encoding="utf-8"))
    if is_compiled:
        assert "estimate 1.500 times as fast" in page.text and "1.250" in page.text
        assert "Honoured 50% of 24 decisions" in page.text and "1 of 24 decisions" in page.text
    else:
        assert "Predicted only" in page.text
    assert "guided: refused (no room); the run was stopped early: a fault." in page.text
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_texts_of_numbers():
    assert summary.cycles_text(1234567.4) == "1,234,567" and summary.cycles_text(None) == "–"
    assert summary.time_text(1.10069e-3) == "1.101\u00a0ms"
    assert summary.time_text(0.0) == "0\u00a0ns" and summary.time_text(None) == "–"
    assert summary.size_text(9437184) == "9\u00a0MiB" and summary.size_text(7) == "7\u00a0B"
    assert summary.share_text(1.0) == "100%" and summary.share_text(0.99999) == "99.9%"
    assert summary.signed_text(-1500.0) == "−1,500" and summary.signed_text(0.2) == "0"


def _in_browser(page: pathlib.Path, profile: pathlib.Path) -> tuple[str, str]:
    """What headless Chromium makes of a page, once its scripts are done, and what it says."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
               "--window-size=1400,1000", "--enable-logging=stderr",
               f"--user-data-dir={profile}", "--timeout=60000", page.as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    return done.stdout, done.stderr


needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium is installed (Debian: apt-get install chromium)"
)


@needs_browser
def test_a_browser_draws_the_page_and_runs_nothing_of_a_name(evil, tmp_path):
    (tmp_path / "page.html").write_text(evil, encoding="utf-8")
    drawn, said = _in_browser(tmp_path / "page.html", tmp_path / "profile")
    assert re.search(r'<html[^>]* data-drawn-after="\d+"', drawn), said[-2000:]
    assert "CONSOLE" not in said, "an error, or something that the policy has stopped"
    page = _Page(drawn)
    assert "img" not in page.tags and "<title>run</title>" not in drawn
    # The names that have room in the maps are there, as text.
    assert drawn.count('class="js-fill"') >= 4 and "traces" in drawn


# Each would change the title if it ran: as markup, in an attribute, in a script, as a link.
_SCRIPTS = (
    "</script><script>document.title='run'</script>",
    "</style></title><svg onload=\"document.title='run'\">",
    "\"onmouseover=\"document.title='run'\" autofocus onfocus=\"document.title='run'",
    "'});document.title='run';({a:'",
    "<a href=\"javascript:document.title='run'\">x</a><b>y</b>",
    "-->\n\r\u2028*/document.title='run'/*<!--",
)


@needs_browser
def test_a_browser_runs_nothing_of_the_files_of_a_run(tmp_path, monkeypatch, capsys):
    """From files that somebody sent, by the command, to a page that is open."""
    problem, everything = layers(6, name="".join(_SCRIPTS))
    instructions = tuple(
        dataclasses.replace(i, name=f"{script}{i.name}", opcode=script)
        for i, script in zip(problem.instructions, _SCRIPTS, strict=True)
    )
    values = tuple(
        dataclasses.replace(v, name=f"{_SCRIPTS[n % 6]}.{n}", shape=_SCRIPTS[n % 6])
        for n, v in enumerate(problem.values)
    )
    problem = problem.replace(name=_SCRIPTS[0], instructions=instructions, values=values)
    run = make_run(problem, everything, weights_only(problem, everything), program=_SCRIPTS[1],
                   best_not_honoured=list(_SCRIPTS), versions=dict.fromkeys(_SCRIPTS, _SCRIPTS[2]),
                   compiler_options=dict.fromkeys(_SCRIPTS, _SCRIPTS[3]))  # fmt: skip
    folder = save_run(run, tmp_path / "run")
    monkeypatch.setattr(sys, "argv", ["mallocgame", "report", str(folder)])
    with pytest.raises(SystemExit) as stop:
        commands.main()
    assert stop.value.code == 0, capsys.readouterr().err
    drawn, said = _in_browser(folder / "report.html", tmp_path / "profile")
    assert re.search(r'<html[^>]* data-drawn-after="\d+"', drawn), said[-2000:]
    assert "CONSOLE" not in said, "an error, or something that the policy has stopped"
    page = _Page(drawn)
    assert "<title>run</title>" not in drawn and not {"img", "a", "b"} & (
        set(page.tags) - set(_Page(to_html(make_run(*layers(6), None, compiled=False), {})).tags)
    )
    assert not [name for name, _ in page.attributes if name in ("onload", "onfocus", "onmouseover")]
    assert " ".join(_SCRIPTS[0].split()) in page.text
