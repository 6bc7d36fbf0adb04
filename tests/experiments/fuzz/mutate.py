"""Valid files broken on purpose: one change, or a few, where the structure allows it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

# A number from 0 up to, but not including, the argument: drawn by hypothesis, or read from the
# bytes of a coverage-guided fuzzer.
Choose = Callable[[int], int]

EVIL = "</script><img src=x onerror=\"document.title='run'\">'`$x^$[/red]|.*+?(){}[]\\\n\r\t\u2028"


def _nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


# What stands in for a field: the ends of every range, other types, and texts that mean something
# to a shell, a browser, a terminal, a file system or a regular expression.
HOSTILE: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 7, 255, 1 << 20, (1 << 31) - 1, 1 << 31, 1 << 53, 1 << 62,
    -(1 << 62), 10**30, 10**400, 0.5, 1e-320, 1e308, -1e308, float("nan"), float("inf"), "", "0",
    "x", "a" * 5000, EVIL, "../../../../tmp/x", "\x1b[2J\x1b]0;x\x07", "\ud800", "\0", "{1,}'",
    "~user", [], {}, [0], [[0, 1]], {"": 0}, _nested(150), [0] * 300,
)  # fmt: skip


def _places(content: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) below `content`."""
    found: list[tuple[Any, Any]] = []
    level = [content]
    while level:
        inside = []
        for one in level:
            for key in one if isinstance(one, dict) else range(len(one)):
                found.append((one, key))
                if isinstance(one[key], dict | list):
                    inside.append(one[key])
        level = inside
    return found


def break_json(content: Any, choose: Choose) -> Any:
    """A copy of JSON content with one to three fields replaced, removed, repeated or exchanged."""
    content = copy.deepcopy(content)
    for _ in range(1 + choose(3)):
        places = _places(content)
        if not places:
            return content
        parent, key = places[choose(len(places))]
        action = choose(5)
        if action == 0:
            del parent[key]
        elif action == 1:
            other, name = places[choose(len(places))]
            parent[key] = copy.deepcopy(other[name])
        elif action == 2 and isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[key]))
        elif isinstance(parent[key], int) and not isinstance(parent[key], bool) and action == 3:
            parent[key] += choose(5) - 2
        else:
            parent[key] = copy.deepcopy(HOSTILE[choose(len(HOSTILE))])
    return content


def break_bytes(data: bytes, choose: Choose) -> bytes:
    """A copy of `data` cut short, or with a few bytes changed, removed or repeated."""
    found = bytearray(data)
    for _ in range(1 + choose(4)):
        if not found:
            break
        at = choose(len(found))
        action = choose(5)
        if action == 0:
            del found[at:]
        elif action == 1:
            del found[at : at + 1 + choose(16)]
        elif action == 2:
            found[at:at] = found[at : at + 1 + choose(64)]
        elif action == 3:
            found[at] ^= 1 << choose(8)
        else:
            found[at] = choose(256)
    return bytes(found)


def break_file(data: bytes, choose: Choose) -> bytes:
    """A broken copy of a valid file: of its structure where it is JSON or lines of JSON."""
    if choose(4) == 0:
        return break_bytes(data, choose)
    try:
        lines = [json.loads(data)]
    except ValueError:
        try:
            lines = [json.loads(line) for line in data.splitlines()]
        except ValueError:
            return break_bytes(data, choose)
    at = choose(len(lines))
    lines[at] = break_json(lines[at], choose)
    return "\n".join(map(json.dumps, lines)).encode() + b"\n"
