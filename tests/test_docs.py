"""Pages say nothing that does not run: their Python, their links, the commands that they name."""

from __future__ import annotations

import ast
import json
import pathlib
import re

import pytest

from agent.cli.commands import cli
from agent.racing import report
from agent.racing.contenders import CONTENDERS
from tests.helpers.our_names import PACKAGES as OUR_PACKAGES
from tests.helpers.our_names import exists
from tests.helpers.paths import ROOT
from workloads.benchmark import rows

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")])
OURS = rf"(?:{'|'.join(OUR_PACKAGES)})"
FILES_OF_RUNS = (".msgpack",)  # `agent.msgpack` is no module


def _ids(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


def _blocks(page: pathlib.Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


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


def _code(text: str) -> list[str]:
    """What a page shows as code, in its lines and in blocks; trees of directories are no names."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    running = re.sub(r"^```\w*\n.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return [*blocks, *re.findall(r"`([^`\n]+)`", running)]


def _imported(block: str) -> list[str]:
    return [
        f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OUR_PACKAGES
        for alias in node.names
    ]


def missing_names(text: str) -> list[str]:
    """Our files, modules and what is in them that the code of a page names and that do not exist.

    `malloc_game/jitted.py`, `workloads.verify`, `mg.latency`, `from agent.api import optimize`."""
    paths, names = set(), set()
    for code in _code(text):
        paths.update(re.findall(rf"(?<![\w./-]){OURS}/[\w./-]*\w", code))
        names.update(re.findall(rf"(?<![\w./-]){OURS}(?:\.[A-Za-z_]\w*)+", code))
        names.update(f"malloc_game.{name}" for name in re.findall(r"\bmg\.(\w+)", code))
    for block in re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        names.update(_imported(block))
    brought = set(re.findall(r"^```python\n# (\S+)\.py$", text, re.MULTILINE))  # files to write
    paths -= {f"{path}.py" for path in brought}
    modules = tuple(path.replace("/", ".") for path in brought)
    names = {n for n in names if not n.endswith(FILES_OF_RUNS) and not n.startswith(modules)}
    return sorted(
        [path for path in paths if not (ROOT / path).exists()]
        + [name for name in names if not exists(name)]
    )


def _text(page: pathlib.Path) -> str:
    if page.suffix != ".ipynb":
        return page.read_text()
    cells = json.loads(page.read_text())["cells"]
    texts = ["".join(cell["source"]) for cell in cells]
    is_code = [cell["cell_type"] == "code" for cell in cells]
    return "\n\n".join(
        f"```python\n{text}\n```" if code else text
        for text, code in zip(texts, is_code, strict=True)
    )


@pytest.mark.parametrize(
    "page",
    [*(p for p in PAGES if p.name != "CHANGELOG.md"), *sorted(ROOT.glob("notebooks/*.ipynb"))],
    ids=_ids,
)
def test_files_and_names_of_ours_exist(page):
    assert missing_names(_text(page)) == []


def test_what_looks_for_missing_names_sees_them():
    text = """Here are `malloc_game/jitted.py`, `agent/tuning/gone.py:optimize`, `workloads.gone`,
`workloads.CompilerSession.compile(options)`, `tests.helpers.paths`, `mg.latency` and `mg.gone`.

```
python -m tests.gone workloads/programs/data
```

```python
from agent.api import OptimizeResult, nothing
```
"""
    assert missing_names(text) == [
        "agent.api.nothing",
        "agent/tuning/gone.py",
        "malloc_game.gone",
        "tests.gone",
        "workloads.gone",
    ]


def test_the_tree_of_the_architecture_has_every_room():
    """The names of a tree, by how far they are indented."""
    text, above, found = (ROOT / "docs" / "architecture.md").read_text(), [], set()
    for indent, name in re.findall(r"^( *)(\w+)/  ", text, re.MULTILINE):
        above = [*above[: len(indent) // 2], name]
        found.add("/".join(above))
    rooms = {
        str(init.parent.relative_to(ROOT))
        for package in OUR_PACKAGES
        if package != "tests"
        for init in (ROOT / package).rglob("__init__.py")
    }
    assert len(rooms) > 25
    assert found == rooms


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
