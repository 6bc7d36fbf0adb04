"""Whether a dotted name of ours exists, read from the sources: nothing is imported."""

from __future__ import annotations

import ast
import functools
import pathlib
import tomllib

from tests.helpers.paths import ROOT

PACKAGES = ("malloc_game", "workloads", "agent", "tests")


def _file_of(module: str) -> pathlib.Path | None:
    place = ROOT.joinpath(*module.split("."))
    files = (place.with_suffix(".py"), place / "__init__.py")
    return next((file for file in files if file.is_file()), None)


@functools.cache
def _offered() -> dict[str, str]:
    """Names that entry points add to a package: `malloc_game.optimize`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {
        f"{group.rpartition('.')[0]}.{name}": where.replace(":", ".")
        for group, points in project["entry-points"].items()
        for name, where in points.items()
    }


@functools.cache
def _names_in(module: str) -> dict[str, ast.AST | str]:
    """The names at a module's top: their nodes, or for imported ones what they stand for."""
    file = _file_of(module)
    assert file is not None
    found: dict[str, ast.AST | str] = {}
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ImportFrom):
            found.update({a.asname or a.name: f"{node.module}.{a.name}" for a in node.names})
        elif isinstance(node, ast.Import):
            found.update({a.asname or a.name: a.name for a in node.names})
        else:
            found.update(dict.fromkeys(_defined_by(node), node))
    return found


def _defined_by(node: ast.AST) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    stored = [item for target in targets if target is not None for item in ast.walk(target)]
    return {item.id for item in stored if isinstance(item, ast.Name)}


def _members(node: ast.ClassDef) -> set[str]:
    """What a class has: methods, fields, and what its methods set on `self`."""
    own = {name for item in node.body for name in _defined_by(item)}
    return own | {
        item.attr
        for item in ast.walk(node)
        if isinstance(item, ast.Attribute) and isinstance(item.ctx, ast.Store)
    }


def exists(name: str) -> bool:
    """Whether `name` is a module of ours, something in one, or a member of a class there."""
    parts = name.split(".")
    if parts[0] not in PACKAGES:
        return False
    for count in range(len(parts), 0, -1):
        module, rest = ".".join(parts[:count]), parts[count:]
        if _file_of(module) is not None:
            break
    else:
        return False
    if not rest:
        return True
    first = f"{module}.{rest[0]}"
    if first in _offered():
        return exists(".".join([_offered()[first], *rest[1:]]))
    node = _names_in(module).get(rest[0])
    if isinstance(node, str):  # imported from elsewhere, where it is found if that is ours
        is_ours = node.split(".")[0] in PACKAGES
        return exists(".".join([node, *rest[1:]])) if is_ours else len(rest) == 1
    if node is None or len(rest) == 1:
        return node is not None
    return isinstance(node, ast.ClassDef) and len(rest) == 2 and rest[1] in _members(node)
