"""Pictures: a drawn example as text, images of the right size, files, the command line."""

from __future__ import annotations

import json
import sys
import textwrap

import numpy as np
import pytest

import malloc_game as mg
from agent.cli import commands
from malloc_game.problem.assignment import EVICTION
from tests.helpers.toy import KIB, toy

THREE_BUFFERS = """
    cycles        9   8   9   8   9   8
    w  4  param   .   .   .   u2  .   .
    x  6  temp    D1  u   u   .   .   .
    y  4  out:2   .   D3  -   -   -   -
"""


@pytest.fixture
def problem() -> mg.Problem:
    return toy(THREE_BUFFERS)


@pytest.fixture
def assignment() -> mg.Assignment:
    """x at the bottom, y on top of it, w where x was; its copy takes one instruction."""
    return mg.Assignment(
        masks=(1, 0b11, 1, 1, 0, 0),
        chunks=(
            mg.Chunk(1, 0, 6 * KIB, 0, 3),
            mg.Chunk(2, 6 * KIB, 4 * KIB, 1, 6),
            mg.Chunk(0, 0, 4 * KIB, 3, 5),
        ),
        copies=(mg.Copy(0, 3, 4, 4 * KIB), mg.Copy(2, 2, 6, 4 * KIB, EVICTION)),
        source="drawn",
    )


def test_three_buffers_as_text(problem, assignment):
    text = mg.render_text(problem, assignment, height=8)
    title, cycles, *picture = text.splitlines()
    assert title == "toy on toy (drawn): 3 of 3 values in 16 KiB of alternate memory"
    expected = """
                 |......
                 |......
                 |......
            8 KiB|.AAAAA
                 |.AAAAA
                 |BBB...
                 |BBBCC.
              0 B|BBBCC.
         prefetch|...1..
         eviction|..1111
                 +0  (instruction)
        A y, 4 KiB: 1-6
        B x, 6 KiB: 0-3
        C w, 4 KiB: 3-5
    """
    drawn = textwrap.dedent("\n".join(picture)).strip("\n").splitlines()
    wanted = textwrap.dedent(expected).strip("\n").splitlines()
    assert [line.strip() for line in drawn] == [line.strip() for line in wanted]
    predicted = mg.latency(problem, assignment).cycles
    assert cycles == f"predicted {predicted:,.0f} cycles, {predicted / 51:.4f} of all default"


def test_cells_that_are_hardly_held_are_told_apart(problem, assignment):
    row = mg.render_text(problem, assignment, height=1).splitlines()[2]
    # Of 16 KiB, x holds 6, x and y 10, y and w 8, y alone 4.
    assert row == "      0 B|:BBAA:"


def test_many_instructions_share_columns_and_lines_stay_narrow():
    problem = mg.random_problem(0, 600)
    values = [v for v, x in enumerate(problem.values) if x.size_bytes][:300]
    chunks = [
        mg.Chunk(v, 4096 * v, problem.values[v].size_bytes, problem.values[v].start,
                 problem.values[v].end)
        for v in values
    ]  # fmt: skip
    copies = [mg.Copy(v, 5, 9, 1) for v in values[:12]]
    text = mg.render_text(problem, mg.Assignment((0,) * 600, tuple(chunks), tuple(copies)))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    assert sum(line.count("|") for line in lines) == 17, "16 rows of memory and the prefetches"
    assert "#" in text, "more values than letters"
    (prefetches,) = (line for line in lines if "prefetch|" in line)
    assert prefetches.endswith("|++" + "." * 88), "twelve copies over instructions 5 to 8"


def test_an_empty_mapping_is_drawn(problem):
    text = mg.render_text(problem, mg.all_default(problem), height=2)
    assert "|......" in text and "0 of 3 values" in text and "1.0000 of all default" in text


def test_a_picture_too_small_is_refused(problem, assignment):
    with pytest.raises(mg.MallocGameError, match="30 x 16"):
        mg.render_text(problem, assignment, width=30)


def test_an_image_has_the_size_asked_for_and_shows_the_mapping(problem, assignment, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)  # another test's
    image = mg.render_image(problem, assignment, size=(640, 480))
    assert image.shape == (480, 640, 3) and image.dtype == np.uint8
    empty = mg.render_image(problem, mg.all_default(problem), size=(640, 480))
    changed = (image != empty).any(-1)
    assert 0.05 < changed.mean() < 0.9
    # y, a live-out, is green; w, a parameter, is blue; x is orange.
    red, green, blue = (image[..., i].astype(int) for i in range(3))
    for strongest, others in ((green, (red, blue)), (blue, (red,)), (red, (blue,))):
        assert (changed & np.all([strongest > o + 40 for o in others], 0)).mean() > 0.01
    assert "matplotlib.pyplot" not in sys.modules


@pytest.mark.parametrize("name, magic", [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"),
                                         ("a.PDF", b"%PDF")])  # fmt: skip
def test_images_are_written(name, magic, problem, assignment, tmp_path):
    pytest.importorskip("matplotlib")
    mg.save_image(problem, assignment, tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(magic)


def test_another_format_is_refused(problem, assignment, tmp_path):
    with pytest.raises(mg.MallocGameError, match=r"a.bmp: a picture is named \*.png"):
        mg.save_image(problem, assignment, tmp_path / "a.bmp")
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_one_line_says_what_to_install(problem, assignment, monkeypatch):
    for name in [m for m in sys.modules if m.startswith("matplotlib")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(mg.MallocGameError, match=r"pip install 'mallocgame\[plot\]'"):
        mg.render_image(problem, assignment)


# --- the command line -------------------------------------------------------------------------


@pytest.fixture
def call(capsys, monkeypatch):
    """Run `mallocgame render`; returns exit code, output and error output."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mallocgame", "render", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            commands.main()
        return stop.value.code, *capsys.readouterr()

    return call


@pytest.fixture
def problem_file(problem, assignment, tmp_path):
    mg.save_problem(problem, tmp_path / "problem.json", assignment)
    return tmp_path / "problem.json"


def test_the_mapping_of_the_problem_file_is_shown(problem, assignment, problem_file, call):
    assert call(problem_file) == (0, mg.render_text(problem, assignment), "")


def test_a_given_mapping_is_shown(problem, problem_file, tmp_path, call):
    mg.save_assignment(mg.all_default(problem), problem, tmp_path / "a.json")
    code, output, _ = call(problem_file, tmp_path / "a.json")
    assert code == 0 and "(all_default)" in output


def test_greedys_mapping_is_shown_where_no_other_is_known(problem, tmp_path, call):
    mg.save_problem(problem, tmp_path / "problem.json")
    code, output, _ = call(tmp_path / "problem.json")
    assert code == 0 and "(greedy)" in output


def test_a_picture_is_written(problem_file, tmp_path, call):
    pytest.importorskip("matplotlib")
    code, output, _ = call(problem_file, "--out", tmp_path / "new" / "a.png")
    assert code == 0 and "a.png" in output
    assert (tmp_path / "new" / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nowhere.json"], "nowhere.json"),
        (["{problem}", "nowhere.json"], "nowhere.json"),
        (["{problem}", "--out", "a.gif"], "a.gif: a picture is named"),
        (["{problem}", "--out", "{problem}/a.png"], "is not a directory"),
        (["{problem}", "{problem}"], "not an assignment file"),
        ([], "PROBLEM_FILE"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, message, problem_file, tmp_path, call):
    code, output, errors = call(*(a.format(problem=problem_file) for a in arguments))
    assert (code, output) == (2, "")
    assert errors.count("\n") == 1 and errors.startswith("mallocgame: error: ")
    assert message in errors
    assert [p.name for p in tmp_path.iterdir()] == ["problem.json"]
    json.loads(problem_file.read_text())
