"""Workers: every result comes exactly once, whatever happens to the processes."""

import os
import signal
import time
from pathlib import Path

import pytest
import worker_tasks
import yaml
from dask_cluster import dask_cluster

from efv2_ros.workers.cluster import DaskWorkers
from efv2_ros.workers.errors import WorkerDiedError, WorkersError
from efv2_ros.workers.processes import LocalWorkers

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with dask_cluster(tmp_path_factory.mktemp("dask")) as cluster:
        yield cluster


@pytest.fixture(params=["processes", "cluster"])
def workers(request, monkeypatch):
    if request.param == "processes":
        workers = LocalWorkers(2)
    else:
        workers = DaskWorkers(request.getfixturevalue("cluster").address)
    with workers:
        yield workers


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_each_result_comes_once_with_its_tag(workers):
    for number in range(20):
        workers.submit(("task", number), worker_tasks.double, number)
    results = list(workers.results())
    assert sorted(results) == [(("task", number), 2 * number) for number in range(20)]
    assert list(workers.results()) == []


def test_results_may_bring_more_tasks(workers):
    workers.submit(0, worker_tasks.double, 0)
    seen = []
    for tag, _ in workers.results():
        seen.append(tag)
        if tag < 3:
            workers.submit(tag + 1, worker_tasks.double, tag)
    assert seen == [0, 1, 2, 3]


def test_an_exception_is_a_result(workers):
    workers.submit("bad", worker_tasks.fail, "no such thing")
    workers.submit("good", worker_tasks.double, 1)
    results = dict(workers.results())
    assert isinstance(results["bad"], ValueError)
    assert str(results["bad"]) == "no such thing"
    assert results["good"] == 2


def test_several_processes_work(workers):
    for tag in range(6):
        workers.submit(tag, worker_tasks.pid)
    pids = {pid for _, pid in workers.results()}
    assert len(pids) == 2
    assert os.getpid() not in pids


def test_a_wait_can_be_stopped(workers, tmp_path):
    marker = tmp_path / "pid"
    workers.submit(0, worker_tasks.wait_forever, str(marker))
    assert list(workers.results(marker.exists)) == []


def test_what_a_dead_process_did_is_done_again(tmp_path):
    with LocalWorkers(2) as workers:
        workers.submit("dies", worker_tasks.die_once, str(tmp_path / "marker"))
        for tag in range(5):
            workers.submit(tag, worker_tasks.double, tag)
        results = list(workers.results())
    assert len(results) == 6
    assert dict(results) == {"dies": "lived", **{tag: 2 * tag for tag in range(5)}}


def test_a_process_that_dies_between_tasks_is_replaced():
    with LocalWorkers(1) as workers:
        workers.submit(0, worker_tasks.pid)
        ((_, pid),) = workers.results()
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not is_alive(pid))
        time.sleep(0.5)  # the pool's thread notices it
        workers.submit(1, worker_tasks.double, 1)
        assert list(workers.results()) == [(1, 2)]


def test_a_task_that_kills_every_process_is_given_up():
    with LocalWorkers(2) as workers:
        workers.submit("dies", worker_tasks.die)
        workers.submit("good", worker_tasks.double, 1)
        results = dict(workers.results())
    assert isinstance(results["dies"], WorkerDiedError)
    assert results["good"] == 2


def test_no_process_is_left(tmp_path):
    marker = tmp_path / "pid"
    with LocalWorkers(1) as workers:
        workers.submit(0, worker_tasks.wait_forever, str(marker))
        list(workers.results(lambda: marker.exists() and marker.read_text() != ""))
        pid = int(marker.read_text())
        assert is_alive(pid)
    wait_for(lambda: not is_alive(pid))


def test_a_cluster_survives_the_death_of_a_worker(tmp_path):
    with dask_cluster(tmp_path) as cluster, DaskWorkers(cluster.address) as workers:
        workers.submit("dies", worker_tasks.die_once, str(tmp_path / "marker"))
        for tag in range(20):
            workers.submit(tag, worker_tasks.double, tag)
        results = list(workers.results())
        assert len(results) == 21
        assert dict(results) == {"dies": "lived", **{tag: 2 * tag for tag in range(20)}}
        assert sorted(each.poll() is None for each in cluster.workers) == [False, True]


def leaves(settings, path=()):
    """List the dotted names of the values in nested dictionaries."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield ".".join((*path, key))


def test_dask_knows_the_settings_that_come_with_the_package():
    import dask

    own = yaml.safe_load((ROOT / "config/dask.yaml").read_text())
    names = [each for each in leaves(own) if "environ" not in each]
    assert len(names) == 4
    for each in names:
        dask.config.get(each)


def test_no_scheduler():
    with pytest.raises(WorkersError, match=r"no Dask scheduler at tcp://127\.0\.0\.1:1"):
        DaskWorkers("tcp://127.0.0.1:1")
    with pytest.raises(WorkersError, match="no Dask scheduler at nonsense://x"):
        DaskWorkers("nonsense://x")


def test_another_version_of_the_package(cluster, monkeypatch):
    monkeypatch.setattr("efv2_ros.workers.cluster.__version__", "9.9")
    with DaskWorkers(cluster.address) as workers:
        workers.submit(0, worker_tasks.double, 1)
        ((_, error),) = workers.results()
        assert isinstance(error, WorkersError)
        assert "this is 9.9" in str(error)
