"""One run of each experiment: what is measured, on which pairs, with which seeds."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

import malloc_game as mg
from agent.learning.buckets import make_task
from agent.learning.config import SelfPlayConfig
from agent.learning.pretrained import load_pretrained
from agent.learning.trainer import Trainer
from agent.learning.training_config import TrainingConfig
from agent.learning.zero_shot_play import latencies, with_simulations, zero_shot
from agent.planner.lns_windows import WindowSearch
from agent.planner.pretrained_planner import planning_config
from agent.planner.problem_planner import ProblemPlanner
from agent.planner.self_play_planner import SelfPlayPlanner
from tests.helpers import learning
from tests.helpers.training_for_tests import changed
from workloads.programs.suite_problems import Pair, pairs

# From scratch on one program each, in minutes: the shortest and longer ones, some of test families.
CURVE_PAIRS = ("strassen_wide-tpu7x", "lstm-tpu7x", "alexnet-v5e", "train_mlp-v4",
               "train_mlp-tpu7x", "scan_transformer-v5e")  # fmt: skip
CURVE_SEEDS = 5
CURVE_ITERATIONS, CURVE_EVERY = 120, 8
# One network for these three, of one padded shape.
ABLATION_PAIRS = ("lstm-tpu7x", "alexnet-v5e", "train_mlp-v4")
ABLATION_SEEDS = 3
EVALUATION_SIMULATIONS = 32
BACKUP_ITERATIONS = 18
PLANNING_SEEDS = 3
PLANNING_ITERATIONS = 12
LEAD_WINDOWS = 60

SCRATCH = changed(
    learning.CONFIG,
    agent={
        "network": {"num_bins": 61},
        "search": {"num_simulations": 16},
        "self_play": {"chunk_moves": 32},
        "train": {
            "learning_rate": 2e-3,
            "batch_size": 128,
            "unroll_steps": 4,
            "td_steps": 24,
            "discount": 0.97,
            "return_scale": 20.0,
        },
        "imitate_best": True,
        "imitate_fraction": 0.125,
    },
    replay={"capacity": 32768},
)


@dataclasses.dataclass(frozen=True)
class Run:
    """One line of the journal to be. measure: returns what is to be noted of it."""

    experiment: str
    variant: str
    pair: str  # or several, with "+" between them
    seed: int
    measure: Callable[[], dict[str, Any]]

    @property
    def key(self) -> tuple:
        """What the run is. After a change of this module's settings, remove its lines."""
        return self.experiment, self.variant, self.pair, self.seed


def _pairs(*names: str) -> list[Pair]:
    known = {pair.name: pair for pair in pairs()}
    return [known[name] for name in names]


def _test_pairs() -> list[Pair]:
    return [pair for pair in pairs() if pair.split == "test" and pair.contended]


def _task(pair: Pair, has_hints: bool = False):
    problem = mg.load_problem(pair.path())
    return make_task(problem, mg.load_reference(pair.path(), problem), has_hints)


def _train(config: TrainingConfig, chosen: list[Pair], seed: int, iterations: int) -> dict:
    """Curves of one network for `chosen`: iterations, games, latencies of a game without noise."""
    trainer = Trainer(config, [_task(pair) for pair in chosen], seed=seed)
    judged = dataclasses.replace(config.agent, search=SCRATCH.agent.search)
    judged = with_simulations(judged, EVALUATION_SIMULATIONS)
    curve, games = [], 0
    for number in range(iterations + 1):
        if number:
            games = trainer.iterate()["games"]
        if number % CURVE_EVERY == 0 or number == iterations:
            found = latencies(judged, trainer.params, trainer._buckets)
            curve.append([number, games, {pair.name: found[pair.name] for pair in chosen}])
    return {"curve": curve, "best_in_training": trainer.best_cycles()}


def optimum() -> Iterator[Run]:
    """One network for problems so small that their optima are known by trying everything."""
    for seed in range(CURVE_SEEDS):
        yield Run(
            "optimum", "from scratch", f"{len(learning.PROBLEMS)} small problems", seed,
            functools.partial(learning.learn, seed),
        )  # fmt: skip


def curves() -> Iterator[Run]:
    """A network of its own for each program, from nothing."""
    for seed in range(CURVE_SEEDS):
        for pair in _pairs(*CURVE_PAIRS):
            yield Run(
                "curves", "from scratch", pair.name, seed,
                functools.partial(_train, SCRATCH, [pair], seed, CURVE_ITERATIONS),
            )  # fmt: skip


def _variants() -> dict[str, TrainingConfig]:
    no_reanalyse = changed(SCRATCH, reanalyse={"fraction": 0.0})
    found = {"as it is": SCRATCH}
    for number in (4, 8, 32, 64, 128):
        found[f"{number} simulations"] = changed(
            SCRATCH, agent={"search": {"num_simulations": number}}
        )
    return found | {
        "no reanalyse": no_reanalyse,
        "true dynamics, no reanalyse": changed(no_reanalyse, agent={"search": {"dynamics": "env"}}),
        "no self-imitation": changed(SCRATCH, agent={"imitate_best": False}, return_fraction=0.0),
        "no Gumbel noise": changed(SCRATCH, agent={"search": {"gumbel_scale": 0.0}}),
    }


def ablations() -> Iterator[Run]:
    """One network for three programs, with one thing changed."""
    chosen = _pairs(*ABLATION_PAIRS)
    for seed in range(ABLATION_SEEDS):
        for name, config in _variants().items():
            yield Run(
                "ablations", name, "+".join(ABLATION_PAIRS), seed,
                functools.partial(_train, config, chosen, seed, CURVE_ITERATIONS),
            )  # fmt: skip


def _drop_backup(pair: Pair, backups: int, seed: int) -> dict:
    agent = dataclasses.replace(
        SCRATCH.agent,
        rules="piecemeal",
        self_play=dataclasses.replace(
            SelfPlayConfig(), num_games=32, chunk_moves=32, drop_backups=backups
        ),
    )
    program = mg.encode(mg.load_problem(pair.path()), rules="piecemeal")
    planner = SelfPlayPlanner(program, agent, seed)
    curve: list = []

    def note(stats: dict) -> None:
        curve.append([len(curve) + 1, stats["games"], stats["best_latency_cycles"]])

    planner.run(iterations=BACKUP_ITERATIONS, callback=note)
    played = planner.network_play_latencies
    return {"curve": curve, "cycles": planner.best_latency_cycles, "network": played}


def drop_backup() -> Iterator[Run]:
    """Piecemeal rules, as in the paper: with and without playing anew after a dead end."""
    for seed in range(ABLATION_SEEDS):
        for pair in _pairs(*ABLATION_PAIRS):
            for name, backups in (("drop-backup", 8), ("stuck values are dropped", 0)):
                yield Run(
                    "drop_backup", name, pair.name, seed,
                    functools.partial(_drop_backup, pair, backups, seed),
                )  # fmt: skip


def _plan(pair: Pair, seed: int, *, is_trained: bool, annealing: int, windows: int) -> dict:
    agent, params = load_pretrained()
    config = planning_config(agent)
    own = dataclasses.replace(config.self_play, annealing_rounds=annealing, lns_windows=windows)
    config = dataclasses.replace(config, self_play=own)
    problem = mg.load_problem(pair.path())
    planner = ProblemPlanner(problem, config, seed, params if is_trained else None)
    curve = [[0, planner.best_cycles]]
    for number in range(1, PLANNING_ITERATIONS + 1):
        planner.run(iterations=1)
        curve.append([number, planner.best_cycles])
    stats = planner.stats()
    return {
        "curve": curve,
        "cycles": planner.best_cycles,
        "source": planner.best_source,
        "games": stats["games"],
        "stretches": stats["lns_windows"],  # as it is called in journals
        "network": planner.planner.network_play_latencies,
    }


_PLANS: dict[str, dict[str, Any]] = {
    "fine-tuned: games only": {"is_trained": True, "annealing": 0, "windows": 0},
    "games only, untrained": {"is_trained": False, "annealing": 0, "windows": 0},
    "games and annealing": {"is_trained": True, "annealing": 4, "windows": 0},
    "everything": {"is_trained": True, "annealing": 4, "windows": 3},
}


def planning() -> Iterator[Run]:
    """Test families: one game of the pretrained agent, then planning in its several ways."""
    for seed in range(PLANNING_SEEDS):
        for pair in _test_pairs():
            if seed == 0:  # without noise: nothing is drawn
                yield Run(
                    "planning", "zero-shot", pair.name, 0, functools.partial(_zero_shot, pair)
                )
            for name, how in _PLANS.items():
                yield Run(
                    "planning", name, pair.name, seed,
                    functools.partial(_plan, pair, seed, **how),
                )  # fmt: skip


def _zero_shot(pair: Pair) -> dict:
    problem = mg.load_problem(pair.path())
    return {"cycles": zero_shot(problem, load_pretrained(), EVALUATION_SIMULATIONS)[1]}


def _lead(pair: Pair, seed: int, is_led: bool) -> dict:
    """So many LNS windows from the best simple play on, led by the policy or anywhere."""
    agent, params = load_pretrained()
    config = planning_config(agent)
    config = dataclasses.replace(
        config, self_play=dataclasses.replace(config.self_play, annealing_rounds=0, lns_windows=0)
    )
    problem = mg.load_problem(pair.path())
    planner = ProblemPlanner(problem, config, seed, params)
    weights = planner._weights() if is_led else None
    search = WindowSearch(problem, seed)
    search.go_on_from(planner.best_assignment, planner.best_cycles)
    curve = [[0, planner.best_cycles]]
    for number in range(LEAD_WINDOWS // 4):
        search.start(4, None, weights)
        curve.append([4 * (number + 1), search.finish().cycles])
    search.close()
    return {"curve": curve, "cycles": curve[-1][1]}


def lead() -> Iterator[Run]:
    """Test families: do LNS windows find more where the policy disagrees with the mapping?"""
    for seed in range(PLANNING_SEEDS):
        for pair in _test_pairs():
            for name, is_led in (("led by the policy", True), ("anywhere", False)):
                yield Run(
                    "lead", name, pair.name, seed,
                    functools.partial(_lead, pair, seed, is_led),
                )  # fmt: skip


EXPERIMENTS: dict[str, Callable[[], Iterator[Run]]] = {
    "planning": planning,
    "lead": lead,
    "optimum": optimum,
    "curves": curves,
    "ablations": ablations,
    "drop_backup": drop_backup,
}


def record(run: Run) -> dict[str, Any]:
    """Do it: a line of the journal."""
    began = time.monotonic()
    found = run.measure()
    jax.clear_caches()
    known = [pair for pair in pairs() if pair.name in run.pair.split("+")]
    return {
        "experiment": run.experiment,
        "variant": run.variant,
        "pair": run.pair,
        "seed": run.seed,
        "xla_default": {pair.name: pair.xla_default for pair in known},
        "bound": {pair.name: pair.bound for pair in known},
        "sha256": {pair.name: pair.sha256 for pair in known},
        **_plain(found),
        "seconds": round(time.monotonic() - began, 1),
        "jax": jax.__version__,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value.item() if isinstance(value, np.generic) else value
