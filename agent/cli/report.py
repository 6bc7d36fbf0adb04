"""The command `report`: what a run found, as one page and as a figure, without the compiler."""

from __future__ import annotations

import pathlib

import click


@click.command("report")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=pathlib.Path))
@click.option("--out", type=click.Path(path_type=pathlib.Path), default=None,
              help="Page to write; by default DIR/report.html.")  # fmt: skip
@click.option("--png", type=click.Path(path_type=pathlib.Path), default=None,
              help="Also draw XLA's default and the best mapping side by side, for papers: *.png,"
              " or *.svg and *.pdf.")  # fmt: skip
def command(directory: pathlib.Path, out: pathlib.Path | None, png: pathlib.Path | None) -> None:
    """Write the report of a run: DIR is what `optimize --out DIR` wrote.

    The page holds everything that it shows, so that it opens offline and anywhere.

    Example: mallocgame report out/decode --png decode.png
    """
    from agent.report.figure import save_figure
    from agent.report.page import save_page
    from agent.report.results import OPTION_FILES, check_directory
    from agent.report.run_files import PAGE, load_run
    from malloc_game.render.image import image_format

    if png is not None:
        image_format(png)
        check_directory(png.parent, "--png")
    if out is not None:
        check_directory(out.parent)
    run = load_run(directory)
    written = [out or directory / PAGE]
    for path in (*written, *([png] if png else [])):
        path.parent.mkdir(parents=True, exist_ok=True)
    if png is not None:
        save_figure(run, png)
        written.append(png)
    save_page(run, written[0], OPTION_FILES)
    print(f"written to {' and '.join(map(str, written))}")
