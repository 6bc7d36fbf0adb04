"""The rooms: what may import what, no circles, and that each room says what it is."""

from __future__ import annotations

import ast
import functools
import graphlib
import pathlib
import re

import pytest

from tests.helpers.paths import ROOT

PACKAGES = ("malloc_game", "workloads", "agent")
# What a package, or a room of `agent`, may import of ours beside itself. A room that is not here
# may import what is below its package.
MAY_IMPORT = {
    "malloc_game": set(),
    "workloads": {"malloc_game"},
    "agent.learning": {"malloc_game"},
    "agent.planner": {"malloc_game", "agent.learning"},
    "agent.tuning": {"malloc_game", "workloads", "agent.learning", "agent.planner"},
}


@functools.cache
def modules() -> dict[str, pathlib.Path]:
    """Every module of ours by its name; a package by that of its `__init__`."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(source: str, known: set[str]) -> set[str]:
    """The modules that a source imports, wherever in it an import stands, among the known ones."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            submodules = names & known
            found |= submodules
            if names - submodules:
                found.add(node.module or "")
    return found & known


@functools.cache
def graph() -> dict[str, set[str]]:
    known = set(modules())
    return {name: imports_of(path.read_text(), known) for name, path in modules().items()}


def room_of(module: str) -> str:
    """`agent.learning` of `agent.learning.loss`; a module at the top of a package is its own."""
    return ".".join(module.split(".")[:2])


def allowed_for(module: str) -> set[str] | None:
    """The packages and rooms that a module may import; None: whatever is below."""
    package, room = module.split(".")[0], room_of(module)
    for place in (room, package):
        if place in MAY_IMPORT:
            return MAY_IMPORT[place] | {place}
    return None


def is_within(module: str, places: set[str]) -> bool:
    return any(module == place or module.startswith(place + ".") for place in places)


def wrong_imports(imports: dict[str, set[str]]) -> list[str]:
    return [
        f"{module} imports {other}"
        for module, others in sorted(imports.items())
        if (allowed := allowed_for(module)) is not None
        for other in sorted(others)
        if not is_within(other, allowed)
    ]


def test_imports_point_one_way():
    assert len(graph()) > 150
    assert wrong_imports(graph()) == []


def test_no_module_names_one_above_it_in_a_string():
    # `importlib.import_module("agent.api")` is an import, too. Prose names modules; a string that
    # is a module's name and nothing else does not.
    wrong = []
    for module, path in modules().items():
        allowed = allowed_for(module)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                name = re.fullmatch(r"([a-z_]+(?:\.[a-z_]+)+)(?::\w+)?", node.value)
                if name and name[1] in modules() and allowed and not is_within(name[1], allowed):
                    wrong.append(f"{module}: {node.value!r}")
    assert wrong == []


def circle(imports: dict[str, set[str]]) -> list[str]:
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def test_there_is_no_import_circle():
    assert circle(graph()) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_rooms_do_not_need_each_other(package):
    rooms: dict[str, set[str]] = {}
    for module, others in graph().items():
        if module.startswith(package + "."):
            inside = {room_of(other) for other in others if other.startswith(package + ".")}
            rooms.setdefault(room_of(module), set()).update(inside - {room_of(module)})
    assert circle(rooms) == []


def test_what_looks_for_wrong_imports_sees_them():
    source = (
        "import os\ndef f():\n    from agent.cli import commands\n    import workloads.errors\n"
    )
    found = imports_of(source, set(modules()))
    assert found == {"agent.cli.commands", "workloads.errors"}
    assert wrong_imports({"malloc_game.errors": found}) == [
        "malloc_game.errors imports agent.cli.commands",
        "malloc_game.errors imports workloads.errors",
    ]
    assert wrong_imports({"agent.learning.loss": {"agent.planner"}}) != []
    assert wrong_imports({"agent.tuning.turns": {"agent.report.page"}}) != []
    assert wrong_imports({"agent.cli.race": found}) == []
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_says_what_it_is_and_what_is_public(package):
    for directory in sorted({path.parent for path in (ROOT / package).rglob("*.py")}):
        where = directory.relative_to(ROOT)
        tree = ast.parse((directory / "__init__.py").read_text())
        assert ast.get_docstring(tree), f"{where} has no docstring"
        names = {
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        assert "__all__" in names, f"{where} has no __all__"


def test_no_function_has_the_name_of_its_module():
    wrong = [
        f"{module}.{node.name}"
        for module, path in modules().items()
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name == module.rpartition(".")[2]
    ]
    assert wrong == []
