"""A run as one HTML page that needs nothing else: no network, no server, no other file.

Names of instructions and tensors are the user's. The template escapes them, the script gets them
as JSON in which no tag can end, and a content security policy lets only the two scripts run that
are put in here, and nothing be loaded.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import os
import pathlib
from typing import Any

import malloc_game as mg
from agent.report import summary
from agent.report.data import Change, changes, known_share, maps_of, page_data
from agent.report.run_files import Run
from malloc_game.problem.files import write_bytes

_PAGE = pathlib.Path(__file__).parent / "assets"  # template, style and script
_SCRIPTS = ("data", "map", "point", "cycles", "controls")
_NUM_CHANGES = 12  # of each sign in the tables
_NUM_MISSES = 100  # lines of what the compiler did not honour
# Where a long compiler option lies, by the option's name.
OptionFiles = dict[str, str]


def save_page(run: Run, path: str | os.PathLike[str], option_files: OptionFiles) -> None:
    """Write `to_html` to `path`, whole or not at all. Raises: MallocGameError: it cannot be."""
    write_bytes(path, to_html(run, option_files).encode())


def to_html(run: Run, option_files: OptionFiles) -> str:
    """The page. option_files: file names of compiler options that are too long to print."""
    import jinja2

    maps = maps_of(run)
    shown = maps[:1] if run.is_unchanged else maps
    script, plotly = _script(), _plotly()
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(_file("report.html.j2"))
    safe = jinja2.utils.markupsafe.Markup
    page = template.render(
        result=run.result,
        version=mg.__version__,
        compiled=run.result["compiled_speedup"] is not None,
        headline=summary.headline(run),
        facts=summary.facts(run, maps),
        rows=summary.rows(run),
        missing=summary.missing(run),
        capacity=summary.size_text(run.problem.target.alternate_memory_bytes),
        maps=shown,
        same=run.is_unchanged,
        descriptions=[summary.describe(run, one) for one in shown],
        breakdown=summary.breakdown(maps),
        known=summary.share_text(min(known_share(run.problem, one) for one in maps)),
        tables=_tables(changes(run.problem, *maps)),
        limit=_NUM_MISSES,
        options=_options(run, option_files),
        cycles_text=summary.cycles_text,
        signed_text=summary.signed_text,
        policy=_policy(plotly, script),
        style=safe(_file("report.css").strip()),
        data=safe(_script_json(page_data(run.problem, shown))),
        plotly=safe(plotly),
        script=safe(script),
    )
    return page.encode(errors="replace").decode()  # JSON may hold halves of characters


def _tables(found: list[Change]) -> list[tuple[str, list[Change], int, str]]:
    """Title, first rows, number of all rows, and what to say of none: faster, then slower."""
    faster = [change for change in found if change.difference < 0]
    slower = [change for change in reversed(found) if change.difference > 0]
    return [
        ("Got faster", faster[:_NUM_CHANGES], len(faster), "No instruction takes fewer cycles."),
        ("Got slower", slower[:_NUM_CHANGES], len(slower), "No instruction takes more cycles."),
    ]


def _options(run: Run, option_files: OptionFiles) -> list[tuple[str, str]]:
    """Lines of the snippet to paste; none if XLA's default is best."""
    if run.result["best_source"] == "xla_default":
        return []
    return [
        (
            repr(name),
            f"open({option_files[name]!r}).read()" if name in option_files else repr(value),
        )
        for name, value in run.result["compiler_options"].items()
    ]


def _file(name: str) -> str:
    return (_PAGE / name).read_text(encoding="utf-8")


def _script() -> str:
    """The page's own scripts as one, whose names are nobody else's."""
    parts = "\n".join(_file(f"{name}.js") for name in _SCRIPTS)
    return f'"use strict";\n{{\n{parts}}}'


@functools.cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()


def _script_json(content: Any) -> str:
    """JSON for a script element: no character in it can end the element or begin another."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _policy(*scripts: str) -> str:
    """Content security policy: these scripts, the page's style, pictures that it makes itself."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'"
        for s in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline';"
        " img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
