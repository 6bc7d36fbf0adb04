"""The command `mallocgame train`: problem files in, an agent file out, resumable in between.

Several processes train as one (see `hosts`): each of them calls `train` with the same arguments.
"""

from __future__ import annotations

import math
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from agent.learning import hosts
from agent.learning.buckets import Task, leave_out_long, load_task, make_task
from agent.learning.checkpoint import Checkpoints
from agent.learning.config import ConfigError
from agent.learning.metrics import MetricsLog
from agent.learning.trainer import Trainer
from agent.learning.training_config import TrainingConfig
from agent.learning.variants import make_variants
from agent.learning.weights import save_agent
from malloc_game.errors import MallocGameError
from malloc_game.problem.files import read_bytes, write_bytes

SUFFIXES = (".json", ".json.gz")
AGENT_FILE = "agent.msgpack"


def read_config(path: pathlib.Path | None) -> TrainingConfig:
    """The training config of a JSON file, or the default one."""
    if path is None:
        return TrainingConfig()
    try:
        text = read_bytes(path).decode()
    except MallocGameError as error:
        raise ConfigError(str(error)) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    return TrainingConfig.from_json(text)


def list_problems(places: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """Problem files, and those in directories, by name. Raises: ConfigError if there are none."""
    files: list[pathlib.Path] = []
    for place in places:
        if place.is_dir():
            found = sorted(x for x in place.iterdir() if x.name.endswith(SUFFIXES))
            if not found:
                raise ConfigError(f"{place}: no problem files (*.json, *.json.gz) in it")
            files += found
        else:
            files.append(place)
    if not files:
        raise ConfigError("no problems to train on: give --problems")
    return list(dict.fromkeys(files))


def train(
    config: TrainingConfig,
    problems: Sequence[pathlib.Path],
    validation: Sequence[pathlib.Path],
    out: pathlib.Path,
    *,
    iterations: int | None = None,
    minutes: float | None = None,
    seed: int = 0,
    resume: bool = False,
    say: Callable[[str], None] = print,
) -> Trainer:
    """Trains until `iterations` (in all) or `minutes` (of this run) are over.

    out: directory of checkpoints, config.json, metrics.jsonl and the agent file, which is written
    with each checkpoint; on a file system that all processes share. resume: go on from the last
    whole checkpoint in it. say: gets lines, in the first process only.
    Raises: ConfigError, MallocGameError for what cannot be used."""
    if not hosts.is_first():
        say = _say_nothing
    with hosts.together():
        tasks, left_out = leave_out_long(_load(problems, config), config.max_decisions)
        for line in left_out:
            say(line)
        tasks += _variants(config, tasks, seed)
        judged = _load(validation, config)
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot make {out}: {error.strerror or error}") from error
    checkpoints = Checkpoints(out / "checkpoints", config.checkpoint.keep)
    try:
        latest = checkpoints.latest()
        told = {"--config": config.to_json(), "--seed": str(seed), "--resume": str(resume)}
        told |= {"--iterations": str(iterations), "--minutes": str(minutes)}
        told["--problems"] = "\n".join(task.name for task in tasks)
        told["the last checkpoint in --out, which all must share"] = str(latest)
        hosts.check_same(told)
        if latest is not None and not resume:
            raise ConfigError(f"{out} has checkpoints: give --resume to go on, or another --out")
        trainer = Trainer(config, tasks, judged, seed)
        if latest is None:
            with hosts.together():
                if hosts.is_first():
                    write_bytes(out / "config.json", (config.to_json() + "\n").encode())
            if config.seed_games:
                trainer.seed_games()
        else:
            with hosts.together():
                record = checkpoints.record(latest)
                trainer.check_record(record)
            with hosts.together():
                trainer.restore(checkpoints.arrays(latest, trainer.arrays()), record)
            say(f"resumed after iteration {latest}")
        log = MetricsLog(out, trainer.iteration + 1) if hosts.is_first() else None
        try:
            _loop(trainer, checkpoints, log, out, iterations, minutes, say)
        finally:
            if log is not None:
                log.close()
    finally:
        checkpoints.close()
    return trainer


def _say_nothing(line: str) -> None:
    del line


def _has_hints(config: TrainingConfig) -> bool:
    return config.agent.network.features == "hints"


def _load(files: Sequence[pathlib.Path], config: TrainingConfig) -> list[Task]:
    tasks = [load_task(path, _has_hints(config)) for path in files]
    names = [task.name for task in tasks]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"two problems are called {twice[0]!r}; give each of them once")
    return tasks


def _variants(config: TrainingConfig, tasks: Sequence[Task], seed: int) -> list[Task]:
    """Tasks made of variants of `tasks`, but those without or with too many decisions."""
    variants = make_variants([task.problem for task in tasks], config.variants, seed)
    made = [make_task(variant, has_hints=_has_hints(config)) for variant in variants]
    return [t for t in made if 1 <= int(t.program.num_decisions) <= config.max_decisions]


def _loop(
    trainer: Trainer,
    checkpoints: Checkpoints,
    log: MetricsLog | None,
    out: pathlib.Path,
    iterations: int | None,
    minutes: float | None,
    say: Callable[[str], None],
) -> None:
    """Iterates, evaluates and saves. log: None in all processes but the first.

    When to do what follows from the number of the iteration, which is the same in all processes;
    whether time is up, the first one decides."""
    config = trainer.config
    deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes
    last = math.inf if iterations is None else iterations

    def save() -> None:
        if hosts.is_first():
            save_agent(out / AGENT_FILE, config.agent, trainer.params)
        checkpoints.save(trainer.iteration, trainer.arrays(), trainer.record())

    def is_over() -> bool:
        if trainer.iteration >= last:
            return True
        return minutes is not None and hosts.first_decides(time.monotonic() >= deadline)

    saved = trainer.iteration
    over = is_over()
    while not over:
        numbers = trainer.iterate()
        over = hosts.is_preempted(trainer.iteration) or is_over()
        if log is not None:
            every = config.evaluation.every_iterations
            if every and (trainer.iteration % every == 0 or over):
                numbers["validation"] = trainer.evaluate()
            log.write(trainer.iteration, numbers)
            say(progress_line(trainer.iteration, numbers))
        if trainer.iteration % config.checkpoint.every_iterations == 0:
            save()
            saved = trainer.iteration
    if saved != trainer.iteration:
        save()


def progress_line(iteration: int, numbers: dict[str, Any]) -> str:
    """What an iteration showed, in one line."""
    loss = " ".join(f"{name} {numbers['loss'][name]:.3f}" for name in ("policy", "value", "reward"))

    def score(found: dict[str, float]) -> str:
        gap = found.get("gap_closed_median", found.get("gap_closed", math.nan))
        if math.isfinite(gap):
            return f"{100 * gap:.1f}% gap"
        return f"{100 * found.get('saved', math.nan):.1f}% saved"

    line = (
        f"{iteration:6d}  {numbers['moves_per_second']:7.0f} moves/s  {numbers['games']} games  "
        f"loss: {loss}  games: {score(numbers['self_play'])}  best: {score(numbers['best'])}"
    )
    if numbers.get("validation"):
        line += f"  validation: {score(numbers['validation'])}"
    return line
