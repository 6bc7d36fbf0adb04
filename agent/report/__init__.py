"""A run of `optimize` for people and scripts.

`results` has the table and the files, `run_files` reads them back. `page` and `figure` draw them,
from `data` (columns) and `summary` (words and numbers). Start at `results`.
"""

__all__ = ["data", "figure", "page", "results", "run_files", "summary"]
