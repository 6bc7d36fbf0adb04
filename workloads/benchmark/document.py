"""A small document of headings, text, tables and pictures, as Markdown and as one HTML file."""

from __future__ import annotations

import base64
import dataclasses
import html
import re
from collections.abc import Sequence

from malloc_game.errors import printable


@dataclasses.dataclass(frozen=True)
class Heading:
    """level: 1 for the title."""

    level: int
    text: str


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclasses.dataclass(frozen=True)
class Table:
    """Cells are text; the first `num_left` columns are aligned left, the others right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    num_left: int = 1


@dataclasses.dataclass(frozen=True)
class Picture:
    """An SVG image, which is also a file next to the document."""

    file: str
    svg: bytes
    caption: str


Block = Heading | Text | Table | Picture


def markdown(blocks: Sequence[Block]) -> str:
    """Markdown that reads well in a terminal, too; ends with a newline."""
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def _markdown(block: Block) -> str:
    if isinstance(block, Heading):
        return "#" * block.level + " " + plain(block.text)
    if isinstance(block, Text):
        return plain(block.text)
    if isinstance(block, Picture):
        return f"![{plain(block.caption)}]({block.file})"
    lines = [[plain(cell) for cell in line] for line in (block.header, *block.rows)]
    width = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    is_left = [i < block.num_left for i in range(len(width))]
    rule = [
        "-" * w if left else "-" * (w - 1) + ":" for w, left in zip(width, is_left, strict=True)
    ]
    aligned = [
        [
            c.ljust(w) if left else c.rjust(w)
            for c, w, left in zip(line, width, is_left, strict=True)
        ]
        for line in lines
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in [aligned[0], rule, *aligned[1:]])


def code(text: str) -> str:
    """A name in a code span, which nothing in it can end, in a table's cell."""
    return "`" + printable(" ".join(text.split())).replace("`", "'").replace("|", "\\|") + "`"


def plain(text: str) -> str:
    """One line in which nothing is a table's border, a tag, or the start of a link or of code."""
    text = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\|`*\[\]])", r"\\\1", text)


_STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px }
th, td { padding: .2rem .7rem; text-align: right; white-space: nowrap }
tr { border-bottom: 1px solid #8884 }
.left { text-align: left }
tbody tr:hover { background: #8882 }
img { max-width: 100%; background: white }
figcaption { font-size: 13px; opacity: .8 }
""".strip()


def to_html(blocks: Sequence[Block]) -> str:
    """One self-contained page without scripts; all text is escaped."""
    titles = [b.text for b in blocks if isinstance(b, Heading)]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(titles[0] if titles else '')}</title>\n<style>\n{_STYLE}\n</style>\n"
        "</head>\n<body>\n" + "\n".join(map(_html, blocks)) + "\n</body>\n</html>\n"
    )


def _html(block: Block) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{html.escape(block.text)}</h{block.level}>"
    if isinstance(block, Text):
        return f"<p>{html.escape(block.text)}</p>"
    if isinstance(block, Picture):
        data = base64.b64encode(block.svg).decode()  # as an image, nothing in it can run
        caption = html.escape(block.caption)
        return (
            f'<figure><img alt="{caption}" src="data:image/svg+xml;base64,{data}">'
            f"<figcaption>{caption}</figcaption></figure>"
        )

    def row(tag: str, cells: Sequence[str]) -> str:
        texts = [
            f"<{tag}{' class=left' if i < block.num_left else ''}>{html.escape(cell)}</{tag}>"
            for i, cell in enumerate(cells)
        ]
        return f"<tr>{''.join(texts)}</tr>"

    head, body = row("th", block.header), "\n".join(row("td", cells) for cells in block.rows)
    return (
        f'<div class="wide"><table>\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody>\n'
        "</table></div>"
    )
