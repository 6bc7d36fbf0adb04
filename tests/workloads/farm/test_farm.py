"""The farm: independent tasks on processes of this machine or a Ray cluster."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import os
import pathlib
import socket
import time

import pytest

import malloc_game as mg
from malloc_game.solvers import Result
from tests.helpers import farm_tasks
from tests.helpers.paths import ROOT
from tests.helpers.toy import toy
from workloads.benchmark import Case, load, run
from workloads.errors import WorkloadError
from workloads.farm import FarmError, Limits, LocalFarm, RayFarm, Task, TaskLost, open_farm


def _wait(condition) -> None:
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_tasks_have_values_or_errors_and_equal_ones_are_one():
    tasks = [
        Task.of(farm_tasks.double, 3),
        Task.of(farm_tasks.fail, "no"),
        Task.of(farm_tasks.die),
        Task.of(farm_tasks.double, 3),
    ]
    with LocalFarm(workers=2) as farm:
        done = {found.task: found for found in farm.map(tasks)}
    value, raised, lost, _ = (done[task] for task in tasks)
    assert len(done) == 3
    assert (value.value, value.error) == (6, None)
    assert isinstance(raised.error, UnicodeDecodeError) and raised.error.reason == "no"
    assert isinstance(lost.error, TaskLost) and "SIGKILL" in str(lost.error)


def test_tasks_come_as_they_get_done(tmp_path):
    file = str(tmp_path / "log")
    slow, quick = Task.of(farm_tasks.wait_for, file, "slow"), Task.of(farm_tasks.double, 1)
    with LocalFarm(workers=2) as farm:
        answers = farm.map([slow, quick])
        assert next(answers).task == quick
        pathlib.Path(file + ".go").touch()
        assert next(answers).value == "slow"


def test_a_task_over_its_limits_ends_with_all_that_it_started(tmp_path):
    pids = tmp_path / "pids"
    with LocalFarm(limits=Limits(memory_bytes=128 << 20)) as farm:
        (big,) = farm.map([Task.of(farm_tasks.take, 256, str(pids))])
    assert isinstance(big.error, TaskLost) and "GiB" in str(big.error)
    _wait(lambda: not _lives(int(pids.read_text())))
    with LocalFarm(limits=Limits(seconds=0.5)) as farm:
        (long,) = farm.map([Task.of(time.sleep, 600)])
    assert isinstance(long.error, TaskLost) and "0.5 s" in str(long.error)


def test_which_farm_a_command_gets():
    assert open_farm(1, None, Limits()) is None
    with open_farm(1, None, Limits(seconds=1)) as limited, open_farm(2, None, Limits()) as pool:
        assert isinstance(limited, LocalFarm) and isinstance(pool, LocalFarm)
    with pytest.raises(WorkloadError, match="--workers"):
        open_farm(2, "auto", Limits())


def test_a_cluster_needs_ray(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FarmError, match=r"mallocgame\[farm\]"):
        RayFarm("auto")


# -- a benchmark -----------------------------------------------------------------------------


def _prover(problem, seconds, seed, goal=0.0, **options):
    """Finds nothing, and proves that there is nothing."""
    mapping = mg.all_default(problem)
    cycles = mg.latency(problem, mapping).cycles
    return Result(mapping, cycles, 0.0, cycles, {"improvements": [[0.0, cycles]]})


def _follower(problem, seconds, seed, goal=0.0, **options):
    """Finds nothing; how good that is depends on what is proven."""
    mapping = mg.all_default(problem)
    return Result(mapping, mg.latency(problem, mapping).cycles, 0.0, None, {})


def _gives_up(problem, seconds, seed, **options):
    os._exit(7)


SOLVERS = {"follower": _follower, "cpsat": _prover}


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    directory = tmp_path_factory.mktemp("problems")
    found = []
    for name, gain in (("one", 1), ("two", 2)):
        drawn = f"cycles 8 8 8 8\nx 4 temp D1 u{gain} . .\n"
        problem = toy(drawn, memory_kib=4)
        mg.save_problem(problem, directory / f"{name}.json.gz", mg.all_default(problem))
        found.append(Case.of_file(directory / f"{name}.json.gz"))
    return found


def _without_times(rows):
    nothing = {"seconds": 0.0, "cpu_seconds": 0.0}
    return [dataclasses.replace(row, **nothing) for row in rows]


def _is_same_bench(cases, farm, tmp_path):
    here = run(cases, SOLVERS, 3.0, [0], tmp_path / "here")
    there = run(cases, SOLVERS, 3.0, [0], tmp_path / "there", farm=farm)
    assert [row.is_optimal for row in here] == [True] * 4  # the prover went first
    assert _without_times(here) == _without_times(there)
    assert len(load(tmp_path / "there").runs) == 4
    files = [sorted((tmp_path / x / "assignments").iterdir()) for x in ("here", "there")]
    assert [x.read_bytes() for x in files[0]] == [x.read_bytes() for x in files[1]]


@pytest.mark.slow
def test_a_bench_on_a_farm_is_the_same_and_lost_pairs_are_run_again(cases, tmp_path):
    with LocalFarm() as farm:
        _is_same_bench(cases, farm, tmp_path)
        out = tmp_path / "lost"
        run(cases[:1], SOLVERS, 3.0, [0], out)
        with pytest.raises(FarmError, match=r"1 pairs were lost, the first: two-toy: .*status 7"):
            run(cases, {"follower": _gives_up}, 3.0, [0], out, farm=farm)
        rows = run(cases, {"follower": _follower}, 3.0, [0], out, farm=farm)
    assert [row.error for row in rows] == [None, None]


# -- Ray -------------------------------------------------------------------------------------


_LEAN = {"include_dashboard": False, "no_monitor": True, "include_log_monitor": False}


def _node(**more):
    """A node of one CPU. Ray does not wait for its agents where it knows their ports."""
    names = ("metrics_agent", "metrics_export", "dashboard_agent_listen", "runtime_env_agent")
    with contextlib.ExitStack() as open_sockets:
        sockets = [open_sockets.enter_context(socket.socket()) for _ in names]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        ports = {f"{n}_port": s.getsockname()[1] for n, s in zip(names, sockets, strict=True)}
    return {"num_cpus": 1, "object_store_memory": 80 << 20, **ports, **more}


@pytest.fixture(scope="module")
def cluster():
    """A Ray cluster of two nodes on this machine, one CPU each."""
    pytest.importorskip("ray", reason="Ray is not installed (mallocgame[farm])")
    from ray.cluster_utils import Cluster

    told = {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        # On a busy machine Ray's own processes take long to start.
        "RAY_agent_register_timeout_ms": "300000",
        "RAY_raylet_start_wait_time_s": "300",
        "RAY_gcs_rpc_server_reconnect_timeout_s": "300",
        "RAY_gcs_server_request_timeout_seconds": "300",
        "RAY_worker_register_timeout_seconds": "300",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in told.items():
            patch.setenv(name, value)
        try:
            cluster = Cluster(initialize_head=True, head_node_args=_node(**_LEAN))
            second = cluster.add_node(**_node())
        except Exception as error:  # it gives its own processes 15 s, which is not to be changed
            pytest.skip(f"Ray does not start on this machine: {error}")
        yield cluster, second
        cluster.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_node_that_dies_costs_one_task(cluster, tmp_path):
    import ray

    both, second = cluster
    file = str(tmp_path / "log")
    tasks = [Task.of(farm_tasks.wait_for, file, name) for name in ("a", "b")]
    tasks += [Task.of(farm_tasks.double, 2), Task.of(farm_tasks.fail, "no")]
    with RayFarm(both.address, Limits(seconds=600)) as farm:
        answers = farm.map(tasks)

        def begun() -> list[str]:
            path = pathlib.Path(file)
            return path.read_text().split("\n")[:-1] if path.exists() else []

        # `map` submits when it is first asked, and that waits: so ask in a thread.
        with concurrent.futures.ThreadPoolExecutor(1) as asking:
            all_done = asking.submit(list, answers)
            _wait(lambda: len(begun()) == 2)  # one on each node
            both.remove_node(second, allow_graceful=False)
            _wait(lambda: sum(node["Alive"] for node in ray.nodes()) == 1)
            pathlib.Path(file + ".go").touch()
            done = {found.task: found for found in all_done.result()}
    assert [done[task].value for task in tasks] == ["a", "b", 4, None]
    assert isinstance(done[tasks[3]].error, UnicodeDecodeError)
    # The one that was lost began once more, and nothing else did.
    assert len(begun()) == 3
