"""The suite's programs: the family each belongs to, what families may be used for, and targets.

The split is by family, so that nothing close to a test program is ever trained on. It is fixed in
`suite.json`; changing it makes earlier results incomparable.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from malloc_game import TARGETS
from workloads.errors import WorkloadError
from workloads.programs.registry import SUITE

SPLITS = ("train", "validation", "test")
SUITE_FILE = Path(__file__).parent / "suite.json"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One program of the suite."""

    program: str
    family: str
    split: str  # one of SPLITS
    targets: tuple[str, ...]  # those for which its problem is in the suite


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
        raise WorkloadError(f"{path}: need one object 'families'")
    entries: list[Entry] = []
    for family, fields in families.items():
        if not isinstance(fields, dict) or fields.keys() != {"split", "programs"}:
            raise WorkloadError(f"{path}: family {family!r} needs 'split' and 'programs', no more")
        if fields["split"] not in SPLITS:
            raise WorkloadError(
                f"{path}: the split of family {family!r} is {fields['split']!r};"
                f" need one of {', '.join(SPLITS)}"
            )
        programs_of = fields["programs"]
        if not isinstance(programs_of, dict) or not programs_of:
            raise WorkloadError(f"{path}: family {family!r} needs programs, each with its targets")
        for program, targets in programs_of.items():
            _check_targets(path, program, targets)
            entries.append(Entry(program, family, fields["split"], tuple(targets)))
    _check_complete(path, entries, set(programs))
    return entries


def _check_targets(path: Path, program: str, targets: Any) -> None:
    is_list = isinstance(targets, list) and all(isinstance(t, str) for t in targets)
    if not is_list or not set(targets) <= set(TARGETS) or len(set(targets)) < len(targets):
        raise WorkloadError(
            f"{path}: targets of {program!r} are {json.dumps(targets)[:80]};"
            f" need a list of some of {', '.join(TARGETS)}, each once"
        )


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
