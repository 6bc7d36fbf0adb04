"""Checkpoints of training by orbax: written whole or not at all, checked before they are used."""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any

import chex
import jax
import numpy as np
import orbax.checkpoint as ocp

from agent.learning.config import ConfigError
from malloc_game.problem.files import parse_json

_FORMAT = "mallocMuZero training, version 1"


class Checkpoints:
    """The last checkpoints of a directory. A checkpoint is arrays and a record of plain values."""

    def __init__(self, directory: str | pathlib.Path, keep: int):
        self._directory = pathlib.Path(directory).absolute()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            enable_async_checkpointing=False,
            # What a killed run left half-written never counts, and goes.
            cleanup_tmp_directories=True,
        )
        if self._directory.exists() and not self._directory.is_dir():
            raise ConfigError(f"{self._directory} is not a directory, so no place for checkpoints")
        self._manager = ocp.CheckpointManager(self._directory, options=options)

    def latest(self) -> int | None:
        """Number of the last whole checkpoint, None if there is none."""
        return self._manager.latest_step()

    def save(self, number: int, arrays: chex.ArrayTree, record: dict[str, Any]) -> None:
        """Commits a checkpoint; older ones than wanted go."""
        record = {"format": _FORMAT, **record}
        self._manager.save(
            number,
            args=ocp.args.Composite(
                arrays=ocp.args.StandardSave(arrays), record=ocp.args.JsonSave(record)
            ),
        )

    def record(self, number: int) -> dict[str, Any]:
        """The plain values of a checkpoint. Raises: ConfigError if it cannot be used."""
        found = self._restore(number, record=ocp.args.JsonRestore())["record"]
        if not isinstance(found, dict) or found.get("format") != _FORMAT:
            raise self._unusable(number, f"it is not of this version ({_FORMAT})")
        return found

    def arrays(self, number: int, like: chex.ArrayTree) -> chex.ArrayTree:
        """The arrays of a checkpoint, which must have the tree, shapes and dtypes of `like`.

        Raises: ConfigError if it cannot be used."""
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        found = self._restore(number, arrays=ocp.args.StandardRestore(abstract))["arrays"]
        for (path, a), b in zip(
            jax.tree_util.tree_leaves_with_path(like), jax.tree.leaves(found), strict=True
        ):
            if np.shape(a) != np.shape(b) or a.dtype != b.dtype:
                name = jax.tree_util.keystr(path)
                raise self._unusable(number, f"{name} is {b.dtype}{list(np.shape(b))}")
        return found

    def close(self) -> None:
        """Waits for orbax's own threads."""
        self._manager.close()

    def _restore(self, number: int, **args: Any) -> Any:
        former = sys.unraisablehook
        _ignore_late_reads()  # before: some are late before the error has come up to here
        try:
            found = self._manager.restore(number, args=ocp.args.Composite(**args))
        except Exception as error:  # orbax, tensorstore and JSON raise many kinds
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise self._unusable(number, reason[:200]) from error
        sys.unraisablehook = former  # whatever was read has come
        return found

    def _unusable(self, number: int, reason: str) -> ConfigError:
        return ConfigError(
            f"checkpoint {self._directory / str(number)} cannot be used: {reason};"
            " remove that directory to go on from the one before"
        )


def _ignore_late_reads() -> None:
    """From now on, keep quiet about reads that end when their restore has failed.

    orbax closes the event loop when the first array cannot be read; tensorstore's threads then fail
    to report the others to it, and the interpreter would print a traceback for each.
    """
    former = sys.unraisablehook
    if getattr(former, "ignores_late_reads", False):
        return

    def hook(unraisable: Any) -> None:
        error = unraisable.exc_value
        if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
            former(unraisable)

    hook.ignores_late_reads = True  # type: ignore[attr-defined]
    sys.unraisablehook = hook


def generator_state(generator: np.random.Generator) -> str:
    """The state of a NumPy generator as text; `restore_generator` reads it."""
    return json.dumps(generator.bit_generator.state)


def restore_generator(text: str) -> np.random.Generator:
    """The generator that goes on where the one saved stopped.

    Raises: ConfigError for text that is no generator's state."""
    generator = np.random.default_rng()
    try:
        generator.bit_generator.state = parse_json(text)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise ConfigError(f"not the state of a random generator: {error}") from error
    return generator
