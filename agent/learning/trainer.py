"""Training one network on many programs: play a chunk, store it, learn from replay, and so on.

The host chooses which bucket of programs plays next and keeps the best game of each program; all
else is jitted functions (see `compiled`), of which only those that play are traced for each shape.
`state` is all that training changes: a run that is restored from it goes on bit for bit (on CPU).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

import malloc_game
from agent.learning import compiled
from agent.learning.buckets import Bucket, Task, make_buckets, spread
from agent.learning.checkpoint import generator_state, restore_generator
from agent.learning.config import ConfigError
from agent.learning.inference import Model
from agent.learning.mesh import (
    BY_DEVICE,
    BY_HOST,
    EVERYWHERE,
    gather,
    make_mesh,
    place,
)
from agent.learning.self_play import FREE, RANDOM
from agent.learning.stream import Stream, start_stream
from agent.learning.training_config import TrainingConfig
from agent.learning.zero_shot_play import latencies, scores, with_simulations

_RECENT = 20  # iterations that speeds and means are taken over


@dataclasses.dataclass
class _Group:
    """A bucket and its games, spread over its programs."""

    bucket: Bucket
    program: malloc_game.Program  # [B]
    outlook: Any  # [B]
    starts: malloc_game.GameState  # [B]
    stream: Stream
    best_cycles: np.ndarray  # int64[P]
    best_actions: np.ndarray  # int8[P, D]


class Trainer:
    """Learns from tasks; the same tasks, config, seed and devices give the same result on CPU.

    With several processes each of them makes the same trainer and calls the same methods; all that
    is not on the devices is the same everywhere, and any process can tell the results."""

    def __init__(
        self,
        config: TrainingConfig,
        tasks: Sequence[Task],
        validation: Sequence[Task] = (),
        seed: int = 0,
        mesh: Mesh | None = None,
    ):
        """tasks: none longer than wanted (`buckets.leave_out_long`). mesh: of `make_mesh`.

        Raises: ConfigError if games or batches cannot be divided among the devices."""
        self.config = config
        self.mesh = make_mesh() if mesh is None else mesh
        self._check_divisible()
        params_key, key = jax.random.split(jax.random.key(seed))
        self._key = self._replicate(key)
        self._host_rng = np.random.default_rng(seed)  # chooses buckets and random moves
        self._train_state = self._replicate(compiled.new_train_state(config.agent, params_key))
        self._replay_state = place(compiled.new_replay(config, self.mesh), self.mesh, BY_HOST)
        num_games = config.agent.self_play.num_games
        buckets = make_buckets(tasks, num_games, config.smallest_bucket)
        self._groups = [self._make_group(bucket) for bucket in buckets]
        self._validation = make_buckets(validation, num_games, config.smallest_bucket)
        self.iteration = 0
        self._counts = {"moves": 0, "games": 0}
        self._recent: list[dict[str, float]] = []

    def _check_divisible(self) -> None:
        num_devices, agent = self.mesh.size, self.config.agent
        for name, value in (
            ("SelfPlayConfig.num_games", agent.self_play.num_games),
            ("TrainConfig.batch_size", agent.train.batch_size),
        ):
            if value % num_devices:
                raise ConfigError(f"{name}: {value} cannot be divided among {num_devices} devices")

    def _replicate(self, tree: chex.ArrayTree) -> chex.ArrayTree:
        return place(tree, self.mesh, EVERYWHERE)

    def _shard(self, tree: chex.ArrayTree) -> chex.ArrayTree:
        return place(tree, self.mesh, BY_DEVICE)

    def _make_group(self, bucket: Bucket) -> _Group:
        num_games = self.config.agent.self_play.num_games
        script = np.full((num_games, bucket.max_decisions), FREE, np.int8)
        of_programs = compiled.first_states(self.config, self.mesh, bucket.programs, bucket.relaxed)
        outlook, starts = (self._shard(spread(tree, num_games)) for tree in of_programs)
        # Copied: what playing is given to overwrite must not be what games start anew from.
        stream = start_stream(jax.tree.map(jnp.copy, starts), jnp.asarray(script))
        count = len(bucket.tasks)
        return _Group(
            bucket=bucket,
            program=self._shard(spread(bucket.programs, num_games)),
            outlook=outlook,
            starts=starts,
            stream=self._shard(stream),
            best_cycles=np.full(count, np.iinfo(np.int64).max),
            best_actions=np.full((count, bucket.max_decisions), malloc_game.DROP, np.int8),
        )

    def seed_games(self) -> None:
        """Makes the games of greedy, relaxations and references the best known so far."""
        for group in self._groups:
            programs = jax.tree.map(jnp.asarray, group.bucket.programs)
            self._note(group, *compiled.play_greedily(programs))
            if group.bucket.relaxed is not None:
                self._note(
                    group, *compiled.play_relaxation(programs, jnp.asarray(group.bucket.relaxed))
                )
            wanted = np.zeros(group.best_actions.shape, bool)
            for row, task in enumerate(group.bucket.tasks):
                if task.wanted is not None:
                    wanted[row, : len(task.wanted)] = task.wanted
            state, actions = compiled.follow(programs, jnp.asarray(wanted))
            self._note(group, state.latency, actions)

    def _note(self, group: _Group, cycles: chex.Array, actions: chex.Array) -> None:
        """Remembers games of each program, cycles [P] and actions [P, D], where they are better."""
        cycles, actions = np.asarray(cycles, np.int64), np.asarray(actions)
        is_better = cycles < group.best_cycles
        group.best_cycles[is_better] = cycles[is_better]
        group.best_actions[is_better] = actions[is_better]

    # --- the loop ---

    def iterate(self) -> dict[str, Any]:
        """One chunk of games of one bucket, then learning; returns numbers to log."""
        began = time.monotonic()
        sizes = np.array([len(group.bucket.tasks) for group in self._groups], float)
        group = self._groups[self._host_rng.choice(len(sizes), p=sizes / sizes.sum())]
        self._key, play_key, learn_key = self._replicate(tuple(jax.random.split(self._key, 3)))
        model = Model(params=self._train_state.params, program=group.program, outlook=group.outlook)
        script = self._shard(self._script(group))
        stream, replay_state = compiled.play_chunk(
            self.config,
            self.mesh,
            model,
            group.starts,
            group.stream,
            script,
            self._replay_state,
            play_key,
        )
        # Put where they are: the compiler's own name of that place would be compiled for anew.
        group.stream = self._shard(stream)
        replay_state = place(replay_state, self.mesh, BY_HOST)
        played = self._collect(group)
        play_seconds = time.monotonic() - began
        train_state, replay_state, terms = compiled.learn(
            self.config, self.mesh, self._train_state, replay_state, learn_key
        )
        self._train_state = self._replicate(train_state)
        self._replay_state = place(replay_state, self.mesh, BY_HOST)
        loss = {name: float(value) for name, value in terms.items()}
        self.iteration += 1
        self._recent = [
            *self._recent[1 - _RECENT :],
            {"play": play_seconds, "all": time.monotonic() - began, **played},
        ]
        return self._numbers(loss)

    def _script(self, group: _Group) -> np.ndarray:
        """int8[B, D]: what games that start now do.

        Search decides, in every second game but for a few random moves, without which a policy
        that has become sure of itself would see nothing new. The last games of the batch imitate
        the best one known of their program, those before them do up to a random move."""
        settings = self.config.agent.self_play
        num_games = settings.num_games
        script = np.full((num_games, group.bucket.max_decisions), FREE, np.int8)
        is_random = self._host_rng.random(script[1::2].shape) < settings.random_move_probability
        script[1::2][is_random] = RANDOM
        imitating, returning = self.config.num_imitating, self.config.num_returning
        first = max(0, num_games - imitating - returning)
        rows = np.arange(first, num_games) % len(group.bucket.tasks)
        is_known = group.best_cycles[rows] < np.iinfo(np.int64).max
        last = np.array([float(task.program.num_decisions) for task in group.bucket.tasks])[rows]
        last[: len(rows) - imitating] *= self._host_rng.random(len(rows) - imitating)
        move = np.arange(script.shape[1])
        is_scripted = is_known[:, None] & (move < last[:, None])
        script[first:] = np.where(is_scripted, group.best_actions[rows], script[first:])
        return script

    def _collect(self, group: _Group) -> dict[str, float]:
        """Keeps the best of the games that ended; counts, and means over searched games."""
        names = ("num_finished", "saved_sum", "best_saved", "best_history")
        stream = gather({name: getattr(group.stream, name) for name in names})
        finished, tasks = stream["num_finished"], group.bucket.tasks
        num_games = len(finished)
        num_free = num_games - self.config.num_imitating - self.config.num_returning
        gaps, saved = [], []
        for game in np.flatnonzero(finished):
            row = int(game) % len(tasks)
            task, default = tasks[row], int(tasks[row].program.default_cycles)
            cycles = default - int(stream["best_saved"][game])
            if cycles < group.best_cycles[row]:
                group.best_cycles[row] = cycles
                actions = stream["best_history"][game].copy()
                actions[int(task.program.num_decisions) :] = malloc_game.DROP
                group.best_actions[row] = actions
            if game < num_free:
                mean = default - float(stream["saved_sum"][game]) / float(finished[game])
                saved.append(task.saved(mean))
                gaps.extend([] if task.gap is None else [task.gap.closed(mean)])
        moves = num_games * self.config.agent.self_play.chunk_moves
        self._counts["moves"] += moves
        self._counts["games"] += int(finished.sum())
        return {
            "moves": moves,
            "saved": float(np.mean(saved)) if saved else float("nan"),
            "gap_closed_median": float(np.median(gaps)) if gaps else float("nan"),
        }

    def _numbers(self, loss: dict[str, float]) -> dict[str, Any]:
        def mean(name: str) -> float:
            values = [row[name] for row in self._recent if np.isfinite(row[name])]
            return float(np.mean(values)) if values else float("nan")

        return {
            **self._counts,
            "updates": int(self._train_state.num_updates),
            "loss": loss,
            "self_play": {"saved": mean("saved"), "gap_closed_median": mean("gap_closed_median")},
            "best": scores(self._buckets, self.best_cycles()),
            "moves_per_second": mean("moves") / max(mean("play"), 1e-9),
            "seconds_per_iteration": mean("all"),
        }

    def evaluate(self) -> dict[str, float]:
        """Scores of noiseless games of the validation tasks, with the averaged parameters."""
        if not self._validation:
            return {}
        config = with_simulations(self.config.agent, self.config.evaluation.num_simulations)
        return scores(self._validation, latencies(config, self.params, self._validation))

    # --- results and state ---

    @property
    def _buckets(self) -> list[Bucket]:
        return [group.bucket for group in self._groups]

    @property
    def params(self) -> chex.ArrayTree:
        """The averaged parameters, which evaluation uses and which are released."""
        return jax.device_get(self._train_state.target_params)

    def best_cycles(self) -> dict[str, int]:
        """Latency of the best game known of each task that has one, by name."""
        return {
            task.name: int(cycles)
            for group in self._groups
            for task, cycles in zip(group.bucket.tasks, group.best_cycles, strict=True)
            if cycles < np.iinfo(np.int64).max
        }

    def arrays(self) -> chex.ArrayTree:
        """All arrays that training changes."""
        return {
            "train_state": self._train_state,
            "replay": self._replay_state,
            "key": self._replicate(jax.random.key_data(self._key)),
            "streams": [group.stream for group in self._groups],
            "best_cycles": [group.best_cycles for group in self._groups],
            "best_actions": [group.best_actions for group in self._groups],
        }

    def record(self) -> dict[str, Any]:
        """All else that training changes, and what it was told."""
        return {
            "config": self.config.to_json(),
            "tasks": [[task.name for task in bucket.tasks] for bucket in self._buckets],
            "iteration": self.iteration,
            "counts": self._counts,
            "host_rng": generator_state(self._host_rng),
        }

    def check_record(self, record: dict[str, Any]) -> None:
        """Raises: ConfigError if `record` is of training that was told something else."""
        own = self.record()
        # As it is read, for text of former versions has former names in it.
        config = record.get("config")
        is_own = isinstance(config, str) and TrainingConfig.from_json(config) == self.config
        is_told = {"config": is_own, "set of problems": record.get("tasks") == own["tasks"]}
        for what, is_same in is_told.items():
            if not is_same:
                raise ConfigError(
                    f"the checkpoint belongs to another {what}; resume with the one it was made"
                    " with, or give another --out"
                )
        counts = record.get("counts")
        is_sound = (
            type(record.get("iteration")) is int
            and record["iteration"] >= 0
            and type(record.get("host_rng")) is str
            and isinstance(counts, dict)
            and counts.keys() == self._counts.keys()
            and all(type(counts[name]) is type(own) for name, own in self._counts.items())
        )
        if not is_sound:
            raise ConfigError("the checkpoint's record is damaged; remove it to go on from another")

    def restore(self, arrays: chex.ArrayTree, record: dict[str, Any]) -> None:
        """Goes on from what `arrays` and `record` gave before."""
        self._train_state = self._replicate(arrays["train_state"])
        self._replay_state = place(arrays["replay"], self.mesh, BY_HOST)
        self._key = self._replicate(jax.random.wrap_key_data(jnp.asarray(arrays["key"])))
        for number, group in enumerate(self._groups):
            group.stream = self._shard(arrays["streams"][number])
            group.best_cycles = np.array(arrays["best_cycles"][number])
            group.best_actions = np.array(arrays["best_actions"][number])
        self.iteration = record["iteration"]
        self._counts = dict(record["counts"])
        self._host_rng = restore_generator(record["host_rng"])
