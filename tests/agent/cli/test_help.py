"""Every command's help: there is an example, and the command understands it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys

import click
import pytest

from agent.cli.commands import cli


def test_there_are_commands():
    assert {"optimize", "time", "doctor", "bench"} <= set(cli.commands)


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_help_has_an_example_that_the_command_understands(name):
    command = cli.commands[name]
    context = click.Context(command, info_name=name, parent=click.Context(cli))
    assert command.get_help(context)
    text = " ".join((command.help or "").split())
    example = re.search(r"Example: mallocgame (\S+) ?(.*)$", text)
    assert example, f"{name}: no example at the end of its help"
    assert example.group(1) == name
    # Options must exist; files need not, so values are not looked at.
    command.make_parser(context).parse_args(shlex.split(example.group(2)))


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_option_says_what_it_is(name):
    for option in cli.commands[name].params:
        if isinstance(option, click.Option) and option.name != "help":
            assert option.help or option.name == "seed", f"{name}: {option.opts}"


@pytest.mark.parametrize(
    ("words", "expected"),
    [("mallocgame opt", "optimize"), ("mallocgame optimize --bud", "--budget")],
)
def test_the_shell_completes_commands_and_options(words, expected):
    environment = {
        **os.environ,
        "_MALLOCGAME_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    code = "import sys; sys.argv[0] = 'mallocgame'; from agent.cli.commands import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert f"plain,{expected}" in ran.stdout.splitlines(), ran.stderr
