"""The worked example and the tables of the game's page hold."""

from __future__ import annotations

import pathlib
import re

import malloc_game as mg
from malloc_game import COPY, NO_COPY
from tests.helpers.toy import Game

PAGE = (pathlib.Path(mg.__file__).parent / "README.md").read_text()


def test_the_three_steps_go_as_they_are_told():
    drawing = re.search(r"^cycles.*?(?=^```)", PAGE, re.DOTALL | re.MULTILINE)[0]
    rows = [row.split()[:7] if i else row.split()[:5] for i, row in enumerate(drawing.splitlines())]
    game = Game("\n".join(" ".join(row) for row in rows))
    assert game.asked == (0, "x") and game.play(NO_COPY) == 0
    assert game.asked == (2, "v") and game.play(NO_COPY) == 1
    assert game.asked == (3, "w") and game.play(COPY) == 2
    assert game.chunks() == [("x", 0, 0, 2), ("v", 0, 2, 4), ("w", 4, 0, 4)]
    assert game.copies() == [("w", 0, 3)]
    assert int(game.state.latency) == 13


def test_the_observation_has_as_many_numbers_as_the_table():
    assert f"float32[{mg.OBSERVATION_SIZE}]" in PAGE
    rows = re.findall(r"^\| (\d+)(?:(?:-|, )(\d+))? \|", PAGE, re.MULTILINE)
    ends = [(int(first), int(last or first)) for first, last in rows]
    assert ends[0][0] == 0 and ends[-1][1] == mg.OBSERVATION_SIZE - 1
    assert all(b[0] == a[1] + 1 for a, b in zip(ends, ends[1:], strict=False))
