"""A run of `optimize` as its output directory holds it: what reports are made of."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import malloc_game as mg
from agent.planner import finders
from agent.tuning.outcome import SOURCES
from malloc_game.errors import MallocGameError
from malloc_game.problem.files import is_of_result, read_json

RESULT, PROBLEM, ASSIGNMENT = "result.json", "problem.json", "assignment.json"
PAGE = "report.html"
_NUMBER = (int, float)
_OPTIONAL = (int, float, type(None))
_FIELDS: dict[str, tuple[type, ...]] = {
    "program": (str,),
    "target": (str,),
    "decisions": (int,),
    "versions": (dict,),
    "seed": (int,),
    "seconds": _NUMBER,
    "best_source": (str,),
    "compiled_speedup": _OPTIONAL,
    "compiled_speedup_monotone": _OPTIONAL,
    "best_honoured": _OPTIONAL,
    "best_not_honoured": (list,),
    "latency_cycles": (dict,),
    "compiles": (int,),
    "found_by": (dict,),
    "planner_games": (int,),
    "compiler_options": (dict,),
}


@dataclasses.dataclass(frozen=True)
class Latencies:
    """Cycles of one candidate; None where it was not judged that way."""

    predicted: float | None
    compiled: float | None


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run found. `assignment` is the best mapping, `reference` XLA's default, if known."""

    result: Mapping[str, Any]  # the content of result.json
    problem: mg.Problem
    reference: mg.Assignment | None
    assignment: mg.Assignment

    @property
    def latencies(self) -> dict[str, Latencies]:
        """Latencies by source in the order of `SOURCES`, those of "best" last."""
        content = self.result["latency_cycles"]
        return {
            source: Latencies(content[source]["predicted"], content[source]["compiled"])
            for source in (*SOURCES, "best")
            if source in content
        }

    @property
    def found_by(self) -> str:
        """What found the best mapping, as in `agent.planner.finders`."""
        return self.result["found_by"][self.result["best_source"]]

    @property
    def before(self) -> mg.Assignment:
        """What the best mapping is compared with: XLA's default, else everything in default."""
        return self.reference or mg.all_default(self.problem)

    @property
    def is_unchanged(self) -> bool:
        """Whether the best mapping is XLA's default itself."""
        same = ("masks", "chunks", "copies")
        return self.reference is not None and all(
            getattr(self.assignment, field) == getattr(self.reference, field) for field in same
        )


def load_run(directory: pathlib.Path) -> Run:
    """Read the files that `optimize --out DIR` wrote.

    Raises:
      MallocGameError: one is missing or damaged, or they do not belong together.
    """
    if not directory.is_dir():
        raise MallocGameError(
            f"{directory}: no such directory; name the one given to `mallocgame optimize --out`"
        )
    for name in (RESULT, PROBLEM, ASSIGNMENT):
        if not (directory / name).is_file():
            raise MallocGameError(
                f"{directory} has no {name}; name a directory that"
                " `mallocgame optimize PROGRAM --out DIR` wrote"
            )
    result = _of_now(read_json(directory / RESULT))
    _check_result(result, f"{directory / RESULT}")
    problem = mg.load_problem(directory / PROBLEM)
    if problem.target.name != result["target"]:
        raise MallocGameError(
            f"{directory}: {RESULT} is for {result['target']}, {PROBLEM} for"
            f" {problem.target.name}; they are of different runs"
        )
    reference = mg.load_reference(directory / PROBLEM, problem)
    assignment = mg.load_assignment(directory / ASSIGNMENT, problem)
    return Run(result, problem, reference, assignment)


# What earlier versions called some of the planner's `finders`.
_FORMER_NAMES = {
    "self_play": finders.NETWORK_PLAY,
    "greedy_play": finders.NETWORK_PLAY,
    "perturbation": finders.NETWORK_PERTURBATION,
    "stretches": finders.CPSAT_LNS,
    "drawn costs": finders.THOMPSON,
    "seed": "a game given at the start",
}


def _of_now(content: Any) -> Any:
    """The content of a result.json in the fields of now; earlier versions called the planner agent,
    and did not say what found the other mappings."""
    if not isinstance(content, dict) or "agent_found_by" not in content:
        return content
    content = dict(content)
    name, games = content.pop("agent_found_by"), content.pop("agent_games", None)
    latencies = content.get("latency_cycles")
    if isinstance(latencies, dict) and "agent" in latencies:
        content["latency_cycles"] = {
            "planner" if source == "agent" else source: pair for source, pair in latencies.items()
        }
    if content.get("best_source") == "agent":
        content["best_source"] = "planner"
    planner = _FORMER_NAMES.get(name, name) if isinstance(name, str) else "planner"
    found_by = {**finders.OF_SOURCES, "planner": planner}
    return content | {"found_by": found_by, "planner_games": games}


def _check_result(content: Any, where: str) -> None:
    if not isinstance(content, dict):
        raise MallocGameError(f"{where}: expected an object, found {type(content).__name__}")
    for name, kinds in _FIELDS.items():
        if name not in content:
            raise MallocGameError(f"{where}: field {name!r} is missing; run optimize again")
        _check(content[name], kinds, f"{where}: {name}")
    latencies = content["latency_cycles"]
    for source in ("best", "all_default", "xla_default", content["best_source"]):
        if source not in latencies:
            raise MallocGameError(f"{where}: latency_cycles has no {source!r}")
    for source, pair in latencies.items():
        _check(pair, (dict,), f"{where}: latency_cycles.{source}")
        for name in ("predicted", "compiled"):
            _check(pair.get(name), _OPTIONAL, f"{where}: latency_cycles.{source}.{name}")
            pair.setdefault(name, None)
    for source in ("best", "all_default"):  # these are always predicted
        predicted = latencies[source]["predicted"]
        _check(predicted, _NUMBER, f"{where}: latency_cycles.{source}.predicted")
    missing = content.setdefault("missing", {})  # earlier versions do not say
    _check(missing, (dict,), f"{where}: missing")
    for source, why in missing.items():
        _check(why, (dict,), f"{where}: missing.{source}")
        for name in ("status", "reason"):
            _check(why.get(name), (str,), f"{where}: missing.{source}.{name}")
    _check(content.setdefault("stopped", None), (str, type(None)), f"{where}: stopped")
    for found_by in content["found_by"].values():
        _check(found_by, (str,), f"{where}: found_by")
    if content["best_source"] not in content["found_by"]:
        raise MallocGameError(f"{where}: found_by has no {content['best_source']!r}")
    for message in content["best_not_honoured"]:
        _check(message, (str,), f"{where}: best_not_honoured")
    for option in content["compiler_options"].values():
        _check(option, (str,), f"{where}: compiler_options")
    for version in content["versions"].values():
        _check(version, (str,), f"{where}: versions")


def _check(value: Any, kinds: tuple[type, ...], where: str) -> None:
    is_number = type(value) in _NUMBER
    if type(value) not in kinds or (is_number and not is_of_result(value)):
        wanted = " or ".join("none" if k is type(None) else k.__name__ for k in kinds)
        raise MallocGameError(f"{where} is {str(value)[:40]!r}; need {wanted}, in range")
