"""Pages say nothing that does not run: their Python, their links, the commands that they name."""

from __future__ import annotations

import pathlib
import re

import pytest

from agent.cli.commands import cli
from agent.racing import report
from agent.racing.contenders import CONTENDERS
from tests.helpers.paths import ROOT
from workloads.benchmark import rows

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")])


def _ids(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


def _blocks(page: pathlib.Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["docs/extending.md", "docs/game.md"])
def test_the_python_of_a_page_runs_from_top_to_bottom(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = _blocks(ROOT / name, "python")
    assert blocks
    variables: dict = {"__name__": "page"}
    for number, block in enumerate(blocks):
        exec(compile(block, f"{name}, block {number}", "exec"), variables)
    assert capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=_ids)
def test_all_python_is_python(page):
    for number, block in enumerate(_blocks(page, "python")):
        compile(block, f"{page.name}, block {number}", "exec")


@pytest.mark.parametrize("page", PAGES, ids=_ids)
def test_links_lead_to_files_that_are_there(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{_ids(page)}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=_ids)
def test_commands_exist_with_the_options_that_are_named(page):
    lines = "\n".join(_blocks(page, "")).replace("\\\n", " ").splitlines()
    named = [m for line in lines for m in re.findall(r"^(?:\S*/)?mallocgame (\w+)(.*)$", line)]
    # In running text a command may stand for an option's whole family, so only its name counts.
    named += [(name, "") for name in re.findall(r"`mallocgame (\w+)", page.read_text())]
    for name, rest in named:
        assert name in cli.commands, f"{_ids(page)}: mallocgame {name}"
        options = {text for p in cli.commands[name].params for text in p.opts}
        for option in re.findall(r"(?<!\S)--[a-z-]+", rest.partition("#")[0].partition("&&")[0]):
            assert option in options, f"{_ids(page)}: mallocgame {name} {option}"


def test_the_table_of_baselines_is_what_the_races_say():
    found = rows.current(rows.race_results(ROOT / "docs" / "baselines").read())
    found = [row for row in found if row.seconds_limit == 120]
    found.sort(key=lambda row: row.contender != CONTENDERS[0])
    header, line, *table = report.by_seed(found)
    assert len(table) > 8
    for page in ("docs/baselines.md", "docs/baselines/race.md"):
        _, begins, rest = (ROOT / page).read_text().partition(f"{header}\n{line}\n")
        assert begins, f"{page}: no such table"
        lines = rest.partition("\n\n")[0].splitlines()
        assert sorted(lines) == sorted(table), f"{page}: mallocgame race --report-only has others"
