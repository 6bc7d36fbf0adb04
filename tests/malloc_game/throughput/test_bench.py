"""The benchmark: one loop for all environments, problems of exact size, and a complete report."""

import dataclasses
import functools
import json

import click.testing
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import malloc_game as mg
from agent.learning.config import AgentConfig, NetworkConfig, SearchConfig, SelfPlayConfig
from agent.throughput import benchmark as bench
from agent.throughput import report as bench_report
from agent.throughput.search import SearchRow, measure_search
from malloc_game.throughput.environments import (
    PEERS,
    Environment,
    malloc_environment,
    peer_environment,
    problem_with,
    random_legal,
)
from malloc_game.throughput.measurement import (
    Effort,
    Row,
    Speed,
    measure,
    median_seconds,
    play,
    start,
    state_bytes,
)

QUICK = Effort(run_seconds=0.0)


@pytest.fixture(scope="module")
def program():
    return mg.encode(problem_with(24))


@pytest.fixture(scope="module")
def game(program):
    return malloc_environment(program, observed=True)


def _counter(length: int) -> Environment:
    """A game of `length` moves that are all numbered; number m is legal at move m only."""

    def step(data, game, action, key):
        wrong = game["wrong"] + (action != game["move"])
        move = game["move"] + 1
        return {"move": jnp.where(move == data, 0, move), "wrong": wrong}

    return Environment(
        name="counter",
        data=jnp.int32(length),
        reset=lambda data, key: {"move": jnp.int32(0), "wrong": jnp.int32(0)},
        step=step,
        legal=lambda data, game: jnp.arange(length) == game["move"],
        stored=lambda game: game["move"],
    )


@pytest.mark.parametrize("num_decisions", [24, 64, 512])
def test_a_problem_has_exactly_the_decisions_asked_for(num_decisions):
    assert int(mg.encode(problem_with(num_decisions)).num_decisions) == num_decisions


def test_random_actions_are_legal_and_reach_every_legal_one():
    legal = jnp.array([[False, True, True, False], [False, False, False, True]])
    keys = jax.random.split(jax.random.key(0), 64)
    actions = np.asarray(jax.vmap(random_legal, in_axes=(0, None))(keys, legal))
    assert set(actions[:, 0]) == {1, 2}
    assert set(actions[:, 1]) == {3}


def test_the_loop_draws_only_legal_actions_and_plays_every_step():
    counter = _counter(5)
    games = start(counter, 3, counter.data)
    games = play(counter, counter.data, games, jax.random.key(0), None, num_steps=12)
    np.testing.assert_array_equal(games["move"], [2, 2, 2])
    np.testing.assert_array_equal(games["wrong"], [0, 0, 0])


def test_given_actions_are_played_instead():
    counter = _counter(5)
    games = start(counter, 2, counter.data)
    given = jnp.array([[0, 0], [1, 4], [2, 2]])
    games = play(counter, counter.data, games, jax.random.key(0), given, num_steps=3)
    np.testing.assert_array_equal(games["wrong"], [0, 1])


def test_our_games_start_in_the_middle_and_start_anew_when_over(program, game):
    loop = jax.jit(functools.partial(play, game, num_steps=15))
    games = start(game, 2, game.data)
    np.testing.assert_array_equal(games[0].position, [12, 12])
    state, observation = loop(game.data, games, jax.random.key(0), None)
    np.testing.assert_array_equal(state.position, [3, 3])
    expected = jax.jit(jax.vmap(mg.observe, in_axes=(None, 0)))(program, state)
    np.testing.assert_allclose(observation, expected, atol=1e-6)


def test_bytes_of_a_state_leave_out_the_observation(program, game):
    plain = malloc_environment(program, observed=False)
    state = jax.eval_shape(mg.init, program)
    expected = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    assert state_bytes(game) == state_bytes(plain) == expected


def test_what_needs_too_much_memory_is_compiled_but_not_run():
    counter = _counter(5)
    speed = measure(counter, 2, 4, Effort(run_seconds=0.0, memory_limit_bytes=1))
    assert speed.steps_per_second is None
    assert speed.compile_seconds > 0
    assert speed.memory_bytes > 1


def test_slow_calls_are_not_repeated(monkeypatch):
    monkeypatch.setattr("malloc_game.throughput.measurement._LONG_SECONDS", -1.0)
    calls = []
    median_seconds(lambda: calls.append(None), run_seconds=1.0)
    assert len(calls) == 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PEERS)
def test_peers_play_in_the_same_loop(name):
    pytest.importorskip("jumanji" if name in ("BinPack-v2", "JobShop-v0") else "pgx")
    environment = peer_environment(name)

    def games_after(key):
        games = start(environment, 2, environment.data)
        return play(environment, environment.data, games, key, None, num_steps=3)

    with jax.numpy_rank_promotion("allow"):
        before, after = (
            jax.eval_shape(lambda key: start(environment, 2, environment.data), jax.random.key(0)),
            jax.eval_shape(games_after, jax.random.key(0)),
        )
        assert jax.tree.structure(before) == jax.tree.structure(after)
        assert 1000 < state_bytes(environment) < 100_000


def test_searches_are_timed_with_and_without_the_game(program):
    config = AgentConfig(
        network=NetworkConfig(hidden_size=8, num_bins=5),
        search=SearchConfig(num_simulations=2),
        self_play=SelfPlayConfig(num_games=2, chunk_moves=4),
    )
    row = measure_search(config, program, QUICK)
    assert (row.num_decisions, row.num_games, row.num_simulations) == (24, 2, 2)
    assert row.bare > 0
    assert row.self_play > 0


ROWS = [
    Row("jumanji BinPack-v2", None, 64, 2500, 1000.0, compile_seconds=1.0, memory_bytes=1 << 20),
    Row("mallocGame", 512, 64, 20_000, 6000.0, 7000.0, 8000.0, 2.0, 3 << 20),
    Row("mallocGame", 32768, 64, 20_000, 60.0, 70.0, 80.0, 2.0, 3 << 20),
    Row("mallocGame", 32768, 1024, 20_000, None, note="not run: needs 9.0 GiB, limit 8 GiB"),
]
SEARCH = SearchRow(512, 16, 8, bare=1000.0, self_play=700.0)


def test_the_report_has_a_line_for_each_measurement_and_each_goal():
    goals = bench._goals(ROWS, [SEARCH], {})
    report = bench_report.Report(bench.machine(), ROWS, [SEARCH], goals, ["chess: not measured"])
    text = bench_report.markdown(report)
    lines = [line.replace(" ", "") for line in text.splitlines()]
    assert "|jumanjiBinPack-v2|-|64|1,000|1.00x|-|-|2,500|1.0|1.0|" in lines
    assert "|mallocGame|512|64|6,000|6.00x|7,000|8,000|20,000|2.0|3.0|" in lines
    assert any("|32,768|1,024|notrun:needs9.0GiB,limit8GiB|" in line for line in lines)
    assert "|512|16|8|1,000|700|0.70|" in lines
    assert "chess: not measured" in text
    assert f"jax {jax.__version__}" in text
    assert {(goal.measured, goal.is_met) for goal in goals} == {
        (6.0, True),  # over BinPack
        (100.0, False),  # growth
        (0.7, True),  # self-play
    }


def test_the_command_measures_what_it_lists_and_writes_files(tmp_path, monkeypatch, program):
    speed = Speed(100.0, 1.0, 1 << 20)
    monkeypatch.setattr(
        "malloc_game.throughput.measurement.measure", lambda *args, **options: speed
    )
    monkeypatch.setattr(bench, "measure_search", lambda *args: SEARCH)
    monkeypatch.setattr(bench, "problem_with", lambda number: problem_with(24))
    monkeypatch.setattr(bench, "PEERS", ("absent",))
    monkeypatch.setattr(bench, "peer_environment", _absent)
    json_path, markdown_path = tmp_path / "bench.json", tmp_path / "bench.md"
    arguments = ["--quick", "--json", str(json_path), "--markdown", str(markdown_path)]
    result = click.testing.CliRunner().invoke(bench.main, arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout == markdown_path.read_text()
    assert result.stderr == ""  # no terminal, no progress
    content = json.loads(json_path.read_text())
    assert [row["speed"] for row in content["rows"]] == [100.0]
    assert content["searches"] == [dataclasses.asdict(SEARCH)]
    assert "absent: not measured, no package 'absent'" in result.stdout


def _absent(name):
    raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_a_file_that_cannot_be_written_is_one_line_and_exit_code_2(tmp_path, monkeypatch):
    report = bench_report.Report(bench.machine(), [], [], [], [])
    monkeypatch.setattr(bench, "run", lambda *args, **options: report)
    path = str(tmp_path / "missing" / "bench.json")
    result = click.testing.CliRunner().invoke(bench.main, ["--json", path])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: cannot write")
    assert len(result.stderr.splitlines()) == 1
