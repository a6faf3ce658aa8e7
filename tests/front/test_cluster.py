"""Sweeps on a Dask cluster that the test starts on the loopback: the record is that of the sweep without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeprune.errors import DeviceError, EdgepruneError, MissingExtraError, UsageError
from edgeprune.front import workers
from edgeprune.front.documents import SweepRecord
from edgeprune.front.flow import sweep
from edgeprune.front.grid import Point
from tests.front.test_flow import LATENCIES, kill_who_writes, same_sweep, wait_for

Cluster = Callable[..., str]


@pytest.fixture
def cluster(tmp_path: Path, root: Path) -> Iterator[Cluster]:
    """`cluster(nworkers=2, nthreads=1)`: the address of a scheduler with these workers, all processes of their own."""
    started: list[subprocess.Popen[bytes]] = []
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "DASK_LOGGING__DISTRIBUTED": "error"}
    environment.pop("PYTHONWARNINGS", None)

    def run(*arguments: str) -> None:
        line = [sys.executable, "-m", "dask", *arguments]
        started.append(subprocess.Popen(line, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL))

    def start(nworkers: int = 2, nthreads: int = 1) -> str:
        file = tmp_path / "scheduler.json"
        run("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
        wait_for(lambda: file.exists() and file.read_text().strip().endswith("}"), 60)
        if nworkers:
            line = ["worker", "--scheduler-file", str(file), "--nworkers", str(nworkers), "--nthreads", str(nthreads)]
            run(*line, "--no-dashboard", "--local-directory", str(tmp_path / "scratch"))
        address: str = json.loads(file.read_text())["address"]
        return address

    yield start
    for process in reversed(started):
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def reference(points: Callable[..., tuple[Point, ...]], tmp_path_factory: pytest.TempPathFactory) -> SweepRecord:
    """The sweep on two processes of this machine."""
    return sweep(points(*LATENCIES), name="digits", out=tmp_path_factory.mktemp("loky"), jobs=2)


@pytest.mark.slow
def test_a_cluster_of_two_workers_gives_the_record_of_two_processes(
    cluster: Cluster, reference: SweepRecord, points: Callable[..., tuple[Point, ...]], tmp_path: Path
) -> None:
    record = sweep(points(*LATENCIES), name="digits", out=tmp_path / "out", cluster=cluster())
    assert same_sweep(record, reference)
    holders = {(row.run / "lock").read_text() for row in record.points}
    assert len(holders) == 2 and f"process {os.getpid()} on" not in " ".join(holders)


@pytest.mark.slow
def test_a_sweep_outlives_a_worker_that_is_killed_in_the_middle(
    cluster: Cluster, reference: SweepRecord, points: Callable[..., tuple[Point, ...]], tmp_path: Path
) -> None:
    killed: list[int] = []
    watch = threading.Thread(target=kill_who_writes, args=(tmp_path / "out", killed))
    watch.start()
    record = sweep(points(*LATENCIES), name="digits", out=tmp_path / "out", cluster=cluster())
    watch.join()
    assert killed and killed != [os.getpid()] and same_sweep(record, reference)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("nworkers", "nthreads", "kind", "message"),
    [(0, 1, DeviceError, "has no workers"), (1, 2, UsageError, "has 2 threads, which would run points beside")],
)
def test_a_cluster_that_cannot_give_the_same_results_is_refused(
    cluster: Cluster, nworkers: int, nthreads: int, kind: type[EdgepruneError], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught, workers.cluster(cluster(nworkers, nthreads)):
        pass
    assert "--nthreads 1" in caught.value.hint


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_CONNECT_S", 0.5)
    for address in ("tcp://127.0.0.1:1", "nonsense://x"):
        with pytest.raises(DeviceError, match=f"no scheduler answers at {address}"), workers.cluster(address):
            pass


def test_without_dask_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="needs the extra 'cluster'"), workers.cluster("tcp://127.0.0.1:1"):
        pass
