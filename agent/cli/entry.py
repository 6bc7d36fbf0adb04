"""Where the console script `mallocgame` begins: nothing heavy is imported before Ctrl-C works."""

from __future__ import annotations

from agent.cli.interrupts import importing


def main() -> None:
    """Entry point of the console script."""
    with importing():
        from agent.cli import commands
    commands.main()
