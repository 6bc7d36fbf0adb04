"""The planner: self-play and learning on one program, and the best game found on the way.

The host chooses what each batch of games does, keeps the best game and watches the clock; games,
replay and learning run on the device in functions that are traced once for each shape of program.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

import malloc_game
from agent.learning.config import AgentConfig
from agent.learning.drop_backup import back_up, dead_ends
from agent.learning.inference import Model, outlook_for
from agent.learning.self_play import FREE, RANDOM, Games
from agent.learning.types import Windows
from agent.planner import compiled
from agent.planner.annealer import Annealer, disagreement

_FIRST_ANNEALING = 8  # times the rounds of annealing beside the first batch
_MAX_STORED_GAMES = 16  # record-setting games that `set_program` replays


@dataclasses.dataclass(frozen=True)
class _StoredGame:
    actions: np.ndarray  # int32[D]
    source: str


@dataclasses.dataclass(frozen=True)
class _Best:
    """The best game so far."""

    game: _StoredGame
    cycles: int
    windows: Windows  # to imitate it
    base: np.ndarray  # int32[D], perturbed next: the last game that was as good


class _TimeIsUp(Exception):
    """The deadline has cut off a batch."""


class SelfPlayPlanner:
    """Plays and learns one program; keeps the best game whatever found it.

    `best_source` says what did: "seed" (given from outside), "self_play" (search chose every move),
    "greedy_play" (so, without noise), "perturbation" (search changed some moves of an earlier
    game), "chance" (random moves did) or "annealing" (see `annealer`). On one machine, the same
    seed, calls and iterations give the same result.
    """

    def __init__(
        self,
        program: malloc_game.Program,
        config: AgentConfig | None = None,
        seed: int = 0,
        params: chex.ArrayTree | None = None,
        relaxed: np.ndarray | None = None,
    ):
        """params: where learning starts, of a network of `config.network`; random by default.

        relaxed: float32[D], for hints, see `features.make_hint`."""
        self.config = AgentConfig() if config is None else config
        params_key, self._key = jax.random.split(jax.random.key(seed))
        self._host_rng = np.random.default_rng(seed)  # draws scripts, nothing else
        self._train_state = compiled.new_train_state(self.config, params_key, params)
        self._seeds: list[np.ndarray] = []
        self._records: list[_StoredGame] = []  # every game that was the best when it was played
        self._num_iterations = 0
        self._num_games = 0
        self._num_moves = 0
        self._num_searched_moves = 0
        self._num_backups = 0
        self._seconds = {"self_play": 0.0, "learning": 0.0, "annealing": 0.0}
        self._loss: dict[str, float] = {}
        self.network_play_latencies: list[int] = []
        self._relaxed = relaxed
        self._annealer: Annealer | None = None
        self._load(program)

    # --- the program ---

    def _load(self, program: malloc_game.Program) -> None:
        self._program = jax.device_put(program)
        self._outlook = outlook_for(self.config, self._program, self._relaxed)
        if self._annealer is not None:
            self._annealer.close()
        self._annealer = None
        self._length = int(program.num_decisions)
        self._default_cycles = int(program.default_cycles)
        self._has_dead_ends = bool(np.asarray(program.must_stay).any())
        self._replay_state = compiled.new_replay(self.config, program.max_decisions)
        self._best: _Best | None = None

    def set_program(self, program: malloc_game.Program, relaxed: np.ndarray | None = None) -> None:
        """Goes on with a program of the same shapes, e.g. after costs were corrected.

        The network and its optimiser stay. The replay is emptied, since its rewards are out of
        date; seed games and former best games are played again under the new program (their
        illegal actions become DROP), which refills it.
        relaxed: as for the planner itself, of the new program.
        Raises: ValueError if an array's shape or dtype differs."""
        compiled.check_same_shapes(self._program, program)
        stored, self._records = list(self._records), []
        self._relaxed = relaxed
        self._load(program)
        by_source = {"seed": list(self._seeds)}
        for game in stored:
            by_source.setdefault(game.source, []).append(game.actions)
        for source, actions in by_source.items():
            self._replay_games(actions, source)

    # --- games ---

    def seed_games(self, games: Sequence[np.ndarray]) -> list[int]:
        """Plays and records games given from outside; returns their latencies in cycles.

        games: int32[D] action arrays, of max_decisions or at least num_decisions entries.
        Rows of the batch that are left over play the same games with some random legal moves, so
        that the network sees what else could have been done.
        Raises: ValueError for another shape or unknown actions."""
        scripts = [self._checked_actions(actions) for actions in games]
        self._seeds.extend(scripts)
        return self._replay_games(scripts, "seed")

    def _checked_actions(self, actions: np.ndarray) -> np.ndarray:
        actions = np.asarray(actions)
        padded = np.full((self._program.max_decisions,), malloc_game.DROP, np.int32)
        if actions.ndim != 1 or not self._length <= len(actions) <= len(padded):
            raise ValueError(
                f"seed game: shape {actions.shape}; need one axis of {self._length} (decisions) to "
                f"{len(padded)} (padded) actions"
            )
        actions = actions[: self._length]
        known = np.arange(malloc_game.NUM_ACTIONS)
        if not np.isin(actions, known).all():
            raise ValueError(f"seed game: actions must be among {known.tolist()}")
        padded[: self._length] = actions
        return padded

    def _replay_games(self, scripts: list[np.ndarray], source: str) -> list[int]:
        num_games, latencies = self.config.self_play.num_games, []
        for first in range(0, len(scripts), num_games):
            batch = scripts[first : first + num_games]
            script = np.stack([batch[row % len(batch)] for row in range(num_games)], axis=1)
            for row in range(len(batch), num_games):
                probability = 0.5 ** self._host_rng.uniform(1, 7)
                is_random = self._host_rng.random(len(script)) < probability
                script[is_random, row] = RANDOM
            sources = [source] * len(batch) + ["chance"] * (num_games - len(batch))
            found = self._finish(self._play_batch(script), sources)
            latencies.extend(found[: len(batch)].tolist())
        return latencies

    def _play_batch(
        self, script: np.ndarray, deadline: float | None = None, is_noisy: bool = True
    ) -> Games:
        """Plays a batch to its end, out of dead ends as well. Raises: _TimeIsUp."""
        games = self._play_script(script, deadline, is_noisy)
        num_backups = 0
        while self._has_dead_ends:
            chunk_of = np.asarray(games.state.chunk_of)
            ends = dead_ends(self._program, chunk_of)
            if (ends < 0).all():
                break
            actions = np.asarray(games.trajectory.action)
            is_free = num_backups < self.config.self_play.drop_backups
            script = back_up(self._program, actions, ends, is_free=is_free)
            games = self._play_script(script, deadline, is_noisy)
            num_backups += 1
        self._num_backups += num_backups
        return games

    def _play_script(self, script: np.ndarray, deadline: float | None, is_noisy: bool) -> Games:
        """Plays a batch to its end in chunks. Raises: _TimeIsUp if the deadline came first."""
        began = time.monotonic()
        self._key, play_key = jax.random.split(self._key)
        model = Model(params=self._train_state.params, program=self._program, outlook=self._outlook)
        # Game 0 is always free of noise; noise grows with the number of the game.
        noise = self.config.search.gumbel_scale * is_noisy
        gumbel_scale = jnp.linspace(0.0, noise, self.config.self_play.num_games)
        games = compiled.begin_games(self.config, self._program)
        for _ in range(0, self._length, self.config.self_play.chunk_moves):
            if deadline is not None and time.monotonic() >= deadline:
                raise _TimeIsUp
            games = compiled.play_chunk(self.config, model, games, script, gumbel_scale, play_key)
            jax.block_until_ready(games.move)
        self._seconds["self_play"] += time.monotonic() - began
        return games

    def _finish(self, games: Games, sources: list[str]) -> np.ndarray:
        """Records finished games and the best of them; latencies int64[B] in cycles."""
        trajectory = games.trajectory
        latencies = self._default_cycles - np.asarray(trajectory.cycles_saved, np.int64)
        self._num_games += len(latencies)
        self._num_moves += int(np.asarray(trajectory.length).sum())
        self._num_searched_moves += int(np.asarray(trajectory.policy_weight).sum())
        self._replay_state, windows = compiled.record(self.config, games, self._replay_state)
        row, best = int(latencies.argmin()), self._best
        cycles = int(latencies[row])
        if best is None or cycles <= best.cycles:
            actions = np.asarray(trajectory.action)[:, row].copy()
            actions[self._length :] = malloc_game.DROP
            if best is not None and cycles == best.cycles:
                self._best = dataclasses.replace(best, base=actions)
            else:
                game = _StoredGame(actions=actions, source=sources[row])
                self._best = _Best(game, cycles, windows, base=actions)
                self._records = [*self._records, game][-_MAX_STORED_GAMES:]
        return latencies

    def _free_script(self) -> np.ndarray:
        shape = (self._program.max_decisions, self.config.self_play.num_games)
        return np.full(shape, FREE, np.int32)

    def _perturbation_script(self, base: np.ndarray) -> np.ndarray:
        """The base game, int32[D], except in a few windows, the same for all games of the batch.

        They are the same so that search is skipped elsewhere; the games differ by their noise."""
        settings, rng = self.config.self_play, self._host_rng
        script = np.repeat(base[:, None], settings.num_games, axis=1)
        for _ in range(rng.integers(1, settings.perturbation_windows + 1)):
            length = int(rng.integers(1, settings.perturbation_window_moves + 1))
            start = int(rng.integers(0, max(1, self._length - length + 1)))
            window = script[start : start + length]
            is_random = rng.random(window.shape) < settings.random_move_probability
            is_random[:, 0] = False
            window[...] = np.where(is_random, RANDOM, FREE)
        return script

    def greedy_play(self) -> tuple[np.ndarray, int]:
        """One game of the current network and search without noise: actions int32[D], cycles.

        It is recorded like any other game."""
        games = self._play_batch(self._free_script(), is_noisy=False)
        actions = np.asarray(games.trajectory.action)[:, 0].copy()
        actions[self._length :] = malloc_game.DROP
        latencies = self._finish(games, ["greedy_play"] * self.config.self_play.num_games)
        self.network_play_latencies.append(int(latencies[0]))
        return actions, int(latencies[0])

    # --- the loop ---

    def run(
        self,
        seconds: float | None = None,
        iterations: int | None = None,
        callback: Callable[[dict], None] | None = None,
    ) -> None:
        """Alternates batches of games and learning until `seconds` or `iterations` are over.

        Each iteration plays one batch (one of free games, then `perturbation_batches` of
        perturbations, and so on) and learns from replay. The clock is read between chunks of moves;
        a batch that the deadline cuts off is thrown away. callback: called with `stats()` after
        each iteration.
        Raises: ValueError if neither limit is given."""
        if seconds is None and iterations is None:
            raise ValueError("run: give seconds or iterations")
        deadline = None if seconds is None else time.monotonic() + seconds
        last = None if iterations is None else self._num_iterations + iterations
        while (last is None or self._num_iterations < last) and (
            deadline is None or time.monotonic() < deadline
        ):
            if not self._iterate(deadline):
                return
            if callback is not None:
                callback(self.stats())

    def _iterate(self, deadline: float | None) -> bool:
        settings, best = self.config.self_play, self._best
        if best is not None:
            # The first batch and learning are compiled meanwhile, which takes long.
            first = _FIRST_ANNEALING if self._num_iterations == 0 else 1
            self._start_annealing(best, settings.annealing_rounds * first, deadline)
        is_free = self._num_iterations % (settings.perturbation_batches + 1) == 0
        if best is None or is_free:
            is_free, script = True, self._free_script()
        else:
            script = self._perturbation_script(best.base)
        try:
            games = self._play_batch(script, deadline)
        except _TimeIsUp:
            self._finish_annealing()
            return False
        if is_free:
            sources = ["greedy_play"] + ["self_play"] * (settings.num_games - 1)
            self.network_play_latencies.append(int(self._finish(games, sources)[0]))
        else:
            self._finish(games, ["perturbation"] * settings.num_games)
        if deadline is None or time.monotonic() < deadline:
            self._learn()
        self._finish_annealing()
        self._num_iterations += 1
        return True

    def _start_annealing(self, best: _Best, rounds: int, deadline: float | None) -> None:
        """Begins annealing around the best game, beside whatever comes next."""
        if not self.config.self_play.annealing_rounds or self._has_dead_ends:
            return
        self._key, anneal_key = jax.random.split(self._key)
        if self._annealer is None:
            model = Model(params=None, program=self._program, outlook=self._outlook)
            self._annealer = Annealer(self.config, model, best.game.actions)
        self._annealer.go_on_from(best.game.actions, best.cycles)
        # Learning overwrites the parameters that it is given.
        params = jax.tree.map(jnp.copy, self._train_state.params)
        self._annealer.start(rounds, params, anneal_key, deadline)

    def _finish_annealing(self) -> None:
        """Records the best game of annealing, with games near it, if it is better."""
        if self._annealer is None:
            return
        began = time.monotonic()
        actions, cycles = self._annealer.finish()
        self._seconds["annealing"] += time.monotonic() - began
        if cycles < self._require_best().cycles:
            self._replay_games([actions], "annealing")

    def _learn(self) -> None:
        began = time.monotonic()
        self._key, learn_key = jax.random.split(self._key)
        self._train_state, loss = compiled.learn_from_replay(
            self.config,
            self._train_state,
            self._replay_state,
            self._require_best().windows,
            learn_key,
        )
        self._loss = {name: float(value) for name, value in loss.items()}
        self._seconds["learning"] += time.monotonic() - began

    # --- results ---

    @property
    def best_actions(self) -> np.ndarray:
        """int32[D], DROP after the last decision. Raises: ValueError before the first game."""
        return self._require_best().game.actions.copy()

    @property
    def best_latency_cycles(self) -> int:
        """Latency of the best game under the current program."""
        return self._require_best().cycles

    @property
    def best_source(self) -> str:
        """What found the best game (see the class)."""
        return self._require_best().game.source

    def surprise(self) -> np.ndarray:
        """How unlikely the policy finds where the best game has each decision: float32[D]."""
        model = Model(params=self._train_state.params, program=self._program, outlook=self._outlook)
        return np.asarray(disagreement(self.config, model, self.best_actions))

    def _require_best(self) -> _Best:
        if self._best is None:
            raise ValueError("no game was played yet: call seed_games or run first")
        return self._best

    def stats(self) -> dict:
        """Counters, speeds, last losses (each a mean over an iteration's updates), best game."""
        updates = int(self._train_state.num_updates)
        return {
            "iterations": self._num_iterations,
            "games": self._num_games,
            "moves": self._num_moves,
            "searched_moves": self._num_searched_moves,
            "drop_backups": self._num_backups,
            "updates": updates,
            "moves_per_second": self._num_moves / max(self._seconds["self_play"], 1e-9),
            "updates_per_second": updates / max(self._seconds["learning"], 1e-9),
            "self_play_seconds": self._seconds["self_play"],
            "learning_seconds": self._seconds["learning"],
            "annealing_seconds": self._seconds["annealing"],
            "loss": dict(self._loss),
            "default_cycles": self._default_cycles,
            "best_latency_cycles": None if self._best is None else self._best.cycles,
            "best_source": None if self._best is None else self._best.game.source,
            "network_play_latency": next(reversed(self.network_play_latencies), None),
        }
