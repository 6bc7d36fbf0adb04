"""`python -m agent.cli` is the console script `mallocgame`."""

from agent.cli.entry import main

main()
