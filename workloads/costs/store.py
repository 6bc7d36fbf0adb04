"""What the compiler says an instruction costs under each placement, remembered across programs.

`CostStore` collects `mask -> cycles` from compiled modules, shared by all instructions that compute
the same thing on the same shapes (`Instruction.fingerprint`): within a program, and through a file
in the cache across programs. For masks that no compile has shown, `cost_model` fills the table.
"""

from __future__ import annotations

import contextlib
import functools
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from malloc_game import CostTable
from malloc_game.problem.definition import MAX_PRICED_POSITIONS
from workloads.compiler.cache import cache_directory, content_key, warn_once
from workloads.costs.model import Prediction, Traffic, every_mask

_FILE = "costs-1.sqlite3"
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS costs"
    " (key TEXT, mask TEXT, cycles INTEGER, PRIMARY KEY (key, mask)) WITHOUT ROWID"
)
_MAX_CYCLES = (1 << 31) - 1


class CostStore:
    """Observed cycles of one target and compiler, by key (fingerprint and slots) and mask.

    Attributes:
      observed: for each key, mask -> cycles; of keys that were recorded or loaded.
    """

    def __init__(self, file: CostFile | None = None):
        """file: where observations are kept; None: in memory only."""
        self.observed: dict[tuple, dict[int, int]] = {}
        self._file = file
        self._unsaved: list[tuple[tuple, int, int]] = []

    @classmethod
    def on_disk(
        cls, target: str, compiler_version: str, directory: Path | None = None
    ) -> CostStore:
        """A store whose observations stay in the cache directory, for all programs."""
        return cls(CostFile(target, compiler_version, directory))

    def load(self, keys: Iterable[tuple]) -> None:
        """Bring what the file holds of these keys into memory; recorded facts stay."""
        missing = [key for key in dict.fromkeys(keys) if key not in self.observed]
        if self._file is not None and missing:
            self.observed.update(self._file.read(missing))

    def record(self, key: tuple, mask: int, cycles: int) -> bool:
        """Remember an observation; returns whether it is new."""
        masks = self.observed.setdefault(key, {})
        is_new = masks.get(mask) != cycles
        masks[mask] = cycles
        if is_new:
            self._unsaved.append((key, mask, cycles))
        return is_new

    def save(self) -> None:
        """Write new observations to the file, if there is one."""
        if self._file is not None and self._unsaved:
            self._file.write(self._unsaved)
        self._unsaved.clear()

    def prediction(self, key: tuple, traffic: Traffic) -> Prediction:
        """The model of what was observed under `key`. Raises: KeyError if nothing was."""
        return _prediction(traffic, tuple(sorted(self.observed[key].items())))

    def table(self, key: tuple, traffic: Traffic) -> tuple[CostTable, np.ndarray]:
        """An instruction's cost table, and the standard deviation of its entries in cycles.

        The first positions are priced; the others, if any, count as in default memory where
        observations differ in them. Deviations are 0 where the compiler has spoken.

        Raises:
          KeyError: nothing was observed under `key`.
        """
        return _table(traffic, tuple(sorted(self.observed[key].items())))


@functools.lru_cache(maxsize=4096)
def _prediction(traffic: Traffic, observed: tuple[tuple[int, int], ...]) -> Prediction:
    return Prediction(traffic, dict(observed))


@functools.lru_cache(maxsize=4096)
def _table(traffic: Traffic, observed: tuple[tuple[int, int], ...]) -> tuple[CostTable, np.ndarray]:
    num_positions = len(traffic.positions)
    num_bits = min(num_positions, MAX_PRICED_POSITIONS)
    bits = np.zeros((1 << num_bits, num_positions))
    bits[:, :num_bits] = every_mask(num_bits)
    prediction = _prediction(traffic, observed)
    cycles = np.clip(np.rint(prediction.mean(bits)), 1, _MAX_CYCLES).astype(np.int64)
    deviation = prediction.deviation(bits)
    known = np.zeros(1 << num_bits, bool)
    for mask, seen in _priced(dict(observed), num_bits).items():
        cycles[mask], deviation[mask], known[mask] = seen, 0.0, True
    deviation.flags.writeable = False
    return CostTable(tuple(cycles.tolist()), tuple(known.tolist())), deviation


def _priced(observed: dict[int, int], num_bits: int) -> dict[int, int]:
    """Observations by the priced bits of their masks, where these decide."""
    low = (1 << num_bits) - 1
    distinct = Counter(mask for mask, _ in {(mask & low, c) for mask, c in observed.items()})
    return {
        mask & low: cycles
        for mask, cycles in observed.items()
        if mask == mask & low or distinct[mask & low] == 1
    }


def roofline(traffic: Traffic) -> CostTable:
    """The table of an instruction that the compiler gives no estimate for, under any placement.

    Its default-memory traffic at full bandwidth, which is what a compiled module is judged by.
    """
    num_bits = min(len(traffic.positions), MAX_PRICED_POSITIONS)
    moved = np.array(traffic.positions)
    in_default = (1.0 - every_mask(num_bits)) @ moved[:num_bits] + moved[num_bits:].sum()
    cycles = np.ceil(in_default + traffic.other - 1e-6).astype(np.int64)
    return CostTable(tuple(cycles.tolist()), (False,) * len(cycles))


# -- on disk ---------------------------------------------------------------------------------


class CostFile:
    """Observations of one target and compiler in a database that all programs share.

    It can only save time: a damaged file is replaced, and one that cannot be written is left alone
    with one warning. Concurrent processes are safe.
    """

    def __init__(self, target: str, compiler_version: str, directory: Path | None = None):
        self._parts = {"target": target, "compiler": compiler_version}
        self._path = (cache_directory() if directory is None else Path(directory)) / _FILE
        self._usable = True

    def read(self, keys: list[tuple]) -> dict[tuple, dict[int, int]]:
        """What is known of `keys`, mask -> cycles for each; keys without anything are left out."""

        def work(database: sqlite3.Connection) -> dict[tuple, dict[int, int]]:
            found = {}
            for key in keys:
                name = self._name(key)
                rows = database.execute("SELECT mask, cycles FROM costs WHERE key = ?", (name,))
                if masks := {int(mask, 16): int(cycles) for mask, cycles in rows}:
                    found[key] = masks
            return found

        return self._transact(work) if self._path.exists() else {}

    def write(self, facts: list[tuple[tuple, int, int]]) -> None:
        """Add facts (key, mask, cycles), all or none; newer ones replace older ones."""
        rows = [(self._name(key), f"{mask:x}", cycles) for key, mask, cycles in facts]

        def work(database: sqlite3.Connection) -> dict:
            database.executemany("INSERT OR REPLACE INTO costs VALUES (?, ?, ?)", rows)
            return {}

        self._transact(work)

    def _name(self, key: tuple) -> str:
        return content_key(**self._parts, key=key)

    def _transact(self, work: Callable[[sqlite3.Connection], dict]) -> dict:
        """Run `work` in a transaction; nothing known if the file is of no use."""
        for _ in range(2 if self._usable else 0):
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                database = sqlite3.connect(self._path, timeout=10.0)
                with contextlib.closing(database), database:  # the inner one is the transaction
                    database.execute(_SCHEMA)
                    return work(database)
            except (OSError, sqlite3.OperationalError) as error:
                self._usable = False
                warn_once(f"mallocgame: costs are not kept: {self._path}: {error}")
                break
            except (sqlite3.Error, ValueError, TypeError):  # damaged: start again
                for path in (self._path, self._path.with_name(_FILE + "-journal")):
                    with contextlib.suppress(OSError):
                        path.unlink(missing_ok=True)
        return {}
