"""The suite's split: which family a program belongs to, and what each family may be used for.

The split is by family, so that nothing close to a test program is ever trained on. It is fixed in
`programs/suite.json`; changing it makes earlier results incomparable.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from workloads.errors import WorkloadError
from workloads.programs import SUITE

SPLITS = ("train", "validation", "test")
SUITE_FILE = Path(__file__).parent / "programs" / "suite.json"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One program of the suite."""

    program: str
    family: str
    split: str  # one of SPLITS


def load_suite(path: Path = SUITE_FILE, programs: Iterable[str] = tuple(SUITE)) -> list[Entry]:
    """Entries of a suite file, in the file's order.

    programs: every one of them must be in exactly one family.

    Raises:
      WorkloadError: the file cannot be read or breaks a rule; names the family or program.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_without_repeats)
    except OSError as error:
        raise WorkloadError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise WorkloadError(f"{path}: not a suite file ({error})") from error
    families = content.get("families") if isinstance(content, dict) else None
    if not isinstance(families, dict) or len(content) != 1:
        raise WorkloadError(f"{path}: need one object 'families', family to split and programs")
    entries: list[Entry] = []
    for family, fields in families.items():
        if not isinstance(fields, dict) or fields.keys() != {"split", "programs"}:
            raise WorkloadError(f"{path}: family {family!r} needs 'split' and 'programs', no more")
        if fields["split"] not in SPLITS:
            raise WorkloadError(
                f"{path}: the split of family {family!r} is {fields['split']!r};"
                f" need one of {', '.join(SPLITS)}"
            )
        if not isinstance(fields["programs"], list) or not fields["programs"]:
            raise WorkloadError(f"{path}: family {family!r} needs a list of programs")
        entries += [Entry(program, family, fields["split"]) for program in fields["programs"]]
    _check_complete(path, entries, set(programs))
    return entries


def _check_complete(path: Path, entries: list[Entry], programs: set[str]) -> None:
    seen: dict[str, str] = {}
    for entry in entries:
        if entry.program not in programs:
            raise WorkloadError(
                f"{path}: {entry.program!r} of family {entry.family!r} is no program of the suite"
            )
        if entry.program in seen:
            raise WorkloadError(
                f"{path}: {entry.program!r} is in {seen[entry.program]!r} and {entry.family!r}"
            )
        seen[entry.program] = entry.family
    if missing := sorted(programs - seen.keys()):
        raise WorkloadError(f"{path}: in no family: {', '.join(missing)}; add them")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{min(repeated)!r} is there twice")
    return dict(pairs)


@functools.cache
def suite() -> dict[str, Entry]:
    """The suite's entries by program."""
    return {entry.program: entry for entry in load_suite()}
