"""How fast the game is, next to environments of the same kind, under one loop.

`measurement` times an environment, `environments` has the game and its peers behind one interface.
`make bench` runs both; the peers are extras.
"""

__all__ = ["environments", "measurement"]
