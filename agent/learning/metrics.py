"""Numbers of a training run: lines of JSON, and TensorBoard files where the package is there."""

from __future__ import annotations

import importlib.util
import json
import math
import pathlib
from typing import Any

from malloc_game.problem.files import parse_json, read_bytes, write_bytes


class MetricsLog:
    """Writes `metrics.jsonl`, and `tensorboard/` with the package tensorboardX."""

    def __init__(self, directory: pathlib.Path, first: int):
        """Goes on in the files of a run of which iterations before `first` count."""
        self._path = directory / "metrics.jsonl"
        _keep_before(self._path, first)
        self._file = self._path.open("a")
        self._board = None
        if importlib.util.find_spec("tensorboardX") is not None:
            from tensorboardX import SummaryWriter

            self._board = SummaryWriter(str(directory / "tensorboard"), purge_step=first)

    def write(self, iteration: int, numbers: dict[str, Any]) -> None:
        """Logs numbers by name, those of sub-dictionaries as `part/name`."""
        flat = {name: value for name, value in _flatten(numbers) if math.isfinite(value)}
        self._file.write(json.dumps({"iteration": iteration, **flat}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in flat.items():
                self._board.add_scalar(name, value, iteration)

    def close(self) -> None:
        """Closes the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def _flatten(numbers: dict[str, Any], prefix: str = ""):
    for name, value in numbers.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}/")
        elif value is not None:
            yield prefix + name, float(value)


def _keep_before(path: pathlib.Path, first: int) -> None:
    """Drops lines from iteration `first` on, which a resumed run writes again, and broken ones."""
    if not path.exists():
        return
    kept = []
    for line in read_bytes(path).splitlines():
        try:
            is_kept = parse_json(line)["iteration"] < first
        except (ValueError, KeyError, TypeError):
            is_kept = False
        if is_kept:
            kept.append(line + b"\n")
    write_bytes(path, b"".join(kept))
