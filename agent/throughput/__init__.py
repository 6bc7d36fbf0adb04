"""The benchmark of speed: the game, its peers, and search on this machine (`make bench`).

`benchmark` runs it, `search` times self-play next to search alone, `report` writes the table.
"""

__all__ = ["benchmark", "report", "search"]
