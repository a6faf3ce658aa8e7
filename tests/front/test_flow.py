"""Sweeps from end to end: shared work is done once, results do not depend on who computes, nothing is done twice."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeprune import pipeline, stages
from edgeprune.errors import MeasurementError, MissingExtraError, UsageError
from edgeprune.front import flow, workers
from edgeprune.front.documents import SweepRecord
from edgeprune.front.flow import resume_sweep, sweep
from edgeprune.front.folder import read_sweep_record
from edgeprune.front.grid import Point, grid
from edgeprune.record import lock_folder, read_record
from edgeprune.spec import BudgetSpec
from tests.front.conftest import BOARD
from tests.test_pipeline import same_result

Points = Callable[..., tuple[Point, ...]]
LATENCIES = ("150us", "250us", "400us", "50us")


class Notes:
    """Keeps what is said; `then` is called with every line."""

    def __init__(self, then: Callable[[str], None] = lambda _: None) -> None:
        self.lines: list[str] = []
        self.then = then

    def note(self, text: str) -> None:
        self.lines.append(text)
        self.then(text)

    def track(self, items: Iterable[Any], label: str, total: int | None = None) -> Iterator[Any]:
        yield from items


@pytest.fixture(scope="module")
def reference(points: Points, tmp_path_factory: pytest.TempPathFactory) -> SweepRecord:
    """The sweep one point after another in this process."""
    return sweep(points(*LATENCIES), name="digits", out=tmp_path_factory.mktemp("here"), jobs=1)


def same_sweep(a: SweepRecord, b: SweepRecord) -> bool:
    """Equal in everything but times and places, also in every point's own record and plan."""
    apart = {"run", "created", "name"}
    left, right = ([row.model_dump(exclude={"run"}) for row in record.points] for record in (a, b))
    heads = [record.model_dump(exclude={*apart, "points"}) for record in (a, b)]
    pairs = zip(a.points, b.points, strict=True)
    trained = [(x.run, y.run) for x, y in pairs if x.verdict in ("met", "missed")]
    return (
        left == right and heads[0] == heads[1] and all(same_result(read_record(x), read_record(y)) for x, y in trained)
    )


@pytest.mark.slow
def test_every_point_is_decided_and_the_front_rises(reference: SweepRecord) -> None:
    assert [row.verdict for row in reference.points] == ["met", "met", "met", "infeasible"]
    assert reference.exit_code == 3 and reference.metric == "accuracy"
    for row in reference.points[:3]:
        assert row.latency_upper_ns is not None and row.budget.latency_ns is not None
        assert row.latency_upper_ns <= row.budget.latency_ns
    front = [row for row in reference.points if row.dominated_by is None and row.validation is not None]
    assert [row.validation for row in front] == sorted(row.validation or 0.0 for row in front)
    assert "the smallest reachable model: latency" in reference.points[3].reason
    assert read_sweep_record(reference.run) == reference
    assert all((reference.run / name).is_file() for name in ("report.html", "report.md", "sweep.json"))


@pytest.mark.slow
def test_a_point_is_what_a_fit_with_its_budget_gives(reference: SweepRecord, points: Points, tmp_path: Path) -> None:
    (point,) = points("250us")
    alone = pipeline.fit(point.spec.model_copy(update={"out": tmp_path}))
    assert same_result(alone, read_record(reference.points[1].run))


@pytest.mark.slow
def test_points_on_processes_give_the_same_record(reference: SweepRecord, points: Points, tmp_path: Path) -> None:
    assert same_sweep(sweep(points(*LATENCIES), name="digits", out=tmp_path, jobs=2), reference)


@pytest.mark.slow
def test_what_points_share_is_computed_once(points: Points, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two boards that differ in their name only share all but the costs; one with another channel step less."""
    text = BOARD.read_text(encoding="utf-8").replace("step = 4", "step = 8")
    for name in ("twin-board", "coarse-board"):
        board = text if name == "coarse-board" else BOARD.read_text(encoding="utf-8")
        (tmp_path / f"{name}.toml").write_text(board.replace("test-board", name, 1))
        shape = BOARD.with_name("test-board.onnxruntime.json").read_text(encoding="utf-8")
        (tmp_path / "test-board.onnxruntime.json").write_text(shape.replace('"test-board"', f'"{name}"', 1))
    calls: list[str] = []

    def counted(name: str) -> Callable[..., Any]:
        honest = getattr(stages, name)

        def call(job: Any, *arguments: Any) -> Any:
            calls.append(f"{name} {job.target.name}")
            return honest(job, *arguments)

        return call

    for name in ("evaluated", "dense", "importance_and_curves"):
        monkeypatch.setattr(stages, name, counted(name))
    targets = (str(BOARD), str(tmp_path / "twin-board.toml"), str(tmp_path / "coarse-board.toml"))
    spec = points("250us")[0].spec
    free = spec.model_copy(
        update={"budget": BudgetSpec(), "fit": spec.fit.model_copy(update={"step": None, "epochs": 0, "race_steps": 0})}
    )
    record = sweep(grid(free, targets, {"size": ("24kB",)}), name="digits", out=tmp_path / "out", jobs=1)
    assert [row.verdict for row in record.points] == ["met"] * 3
    assert calls == [
        "evaluated test-board",
        "dense test-board",
        "importance_and_curves test-board",
        "dense twin-board",
        "dense coarse-board",
        "importance_and_curves coarse-board",
    ]


@pytest.mark.slow
def test_a_failing_point_is_one_line_and_the_others_go_on(
    reference: SweepRecord, points: Points, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One point ends with an error and one with a bug; a resumed sweep tries them again and nothing else."""
    honest, tried = flow.fit_in, []

    def failing(run: Any, progress: Any) -> Any:
        tried.append(run.name)
        if run.name.endswith("250us"):
            raise MeasurementError("slower by 9 %", where="model.onnx", hint="close other programs")
        if run.name.endswith("400us"):
            raise KeyError("stem")
        return honest(run, progress)

    monkeypatch.setattr(flow, "fit_in", failing)
    notes = Notes()
    record = sweep(points(*LATENCIES), name="digits", out=tmp_path, jobs=1, progress=notes)
    assert [row.verdict for row in record.points] == ["met", "failed", "failed", "infeasible"]
    assert record.exit_code == 6 and record.points[2].exit_code == 1
    said = [line for line in notes.lines if re.match(r"\d of \d: ", line)]
    assert len(said) == 4 and said[1].endswith("failed: slower by 9 %; at model.onnx; close other programs")
    tried.clear()
    monkeypatch.setattr(flow, "fit_in", lambda run, progress: tried.append(run.name) or honest(run, progress))
    assert same_sweep(resume_sweep(record.run, jobs=1), reference)
    assert tried == ["test-board-250us", "test-board-400us"]
    monkeypatch.setattr(flow, "prepare", lambda *_: pytest.fail("nothing is left to do"))
    assert same_sweep(resume_sweep(record.run, jobs=1), reference) and len(tried) == 2


@pytest.mark.slow
def test_what_cannot_be_prepared_fails_on_its_target_alone(
    points: Points, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = flow.prepare

    def failing(run: Any, progress: Any) -> None:
        if run.name == "rpi4":
            raise MissingExtraError("needs the extra 'tflite'")
        honest(run, progress)

    monkeypatch.setattr(flow, "prepare", failing)
    monkeypatch.setattr(flow, "fit_in", lambda run, _: pytest.fail(run.name) if "rpi4" in run.name else fit_in(run))
    fit_in = pipeline.fit_in
    record = sweep(points("30us", targets=("rpi4", str(BOARD))), name="digits", out=tmp_path, jobs=1)
    assert [row.verdict for row in record.points] == ["failed", "infeasible"]
    assert record.points[0].reason == "needs the extra 'tflite'" and record.exit_code == 7


def command(problem: dict[str, Any], out: Path) -> list[str]:
    line = [sys.executable, "-m", "edgeprune", "sweep", "--model", problem["model"]["entry"]]
    line += ["--weights", str(problem["model"]["weights"]), "--data", problem["data"]["source"]]
    line += ["--target", str(BOARD), "--latency", ",".join(LATENCIES), "--epochs", "1", "--step", "4"]
    line += ["--format", "onnxruntime", "--out", str(out), "--jobs", "2"]
    settings = ("schedule=one-shot", "race_steps=4", "calibration_samples=32")
    for setting in (*settings, "curves_limit_s=600.0", "solver_limit_s=600.0"):
        line += ["--set", f"fit.{setting}"]
    return line


def wait_for(condition: Callable[[], Any], limit_s: float = 240.0) -> Any:
    """What the condition says once it is true."""
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        if found := condition():
            return found
        time.sleep(0.02)
    return pytest.fail("waited in vain")


@pytest.mark.slow
def test_a_sweep_that_is_killed_goes_on_where_it_was(
    reference: SweepRecord, problem: dict[str, Any], tmp_path: Path, root: Path
) -> None:
    """kill -9 on the sweep alone: its workers end by themselves, what was finished stays as it was."""
    process = subprocess.Popen(command(problem, tmp_path), cwd=root, stderr=subprocess.DEVNULL)
    (done,) = wait_for(lambda: list(tmp_path.glob("*/points/*/record.json"))[:1])
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    (folder,) = tmp_path.iterdir()
    for lock in folder.glob("points/*/lock"):
        pid = int(lock.read_text().split()[1])
        wait_for(lambda pid=pid: not Path(f"/proc/{pid}").exists(), 60)
    before = {file: file.stat().st_mtime_ns for file in folder.glob("points/*/record.json")}
    record = resume_sweep(folder, jobs=1)
    assert same_sweep(record, reference) and done in before
    assert {file: file.stat().st_mtime_ns for file in before} == before


@pytest.mark.slow
def test_ctrl_c_stops_all_processes_and_names_the_command_that_continues(
    reference: SweepRecord, problem: dict[str, Any], tmp_path: Path, root: Path
) -> None:
    """As a terminal does it: the signal goes to the sweep and to its workers."""
    process = subprocess.Popen(
        command(problem, tmp_path), cwd=root, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_for(lambda: list(tmp_path.glob("*/points/*/stages/race.json")))
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    (folder,) = tmp_path.iterdir()
    assert process.returncode == 130 and "Traceback" not in said
    assert f"\nerror: interrupted\nat {folder}\nhint: continue with edgeprune sweep --resume {folder}\n" in said
    for lock in folder.glob("points/*/lock"):
        assert not Path(f"/proc/{lock.read_text().split()[1]}").exists()
    assert same_sweep(resume_sweep(folder, jobs=1), reference)


def kill_who_writes(folder: Path, killed: list[int]) -> None:
    """Kill the process that is fitting a point, in the middle of it."""

    def middle() -> Path | None:
        for race in folder.glob("*/points/*/stages/race.json"):
            if not (race.parents[1] / "record.json").exists():
                return race.parents[1]
        return None

    pid = int((wait_for(middle) / "lock").read_text().split()[1])
    killed.append(pid)
    os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_process_does_not_stop_the_sweep(reference: SweepRecord, points: Points, tmp_path: Path) -> None:
    killed: list[int] = []
    watch = threading.Thread(target=kill_who_writes, args=(tmp_path, killed))
    watch.start()
    record = sweep(points(*LATENCIES), name="digits", out=tmp_path, jobs=2)
    watch.join()
    assert killed and same_sweep(record, reference)


def test_a_point_whose_worker_always_dies_does_not_take_the_others_along() -> None:
    made: list[tuple[str, ...]] = []

    def run(function: Any, calls: Any) -> Iterator[Any]:
        names = tuple(name for (name,) in calls)
        made.append(names)
        for name in names:
            if name == "greedy":
                raise workers.WorkersLost("a worker was killed")
            yield name, None

    found = dict(flow._outcomes(run, lambda name: (name, None), {name: (name,) for name in ("a", "greedy", "b", "c")}))
    assert list(found) == ["a", "greedy", "b", "c"] and [found[name] for name in "abc"] == [None] * 3
    why = found["greedy"]
    assert why is not None and why.exit_code == 11 and "killed again and again: a worker was killed" in why.text
    assert made == [("a", "greedy", "b", "c"), ("greedy", "b", "c"), ("greedy",), ("b",), ("c",)]


def test_where_costs_are_measured_nothing_runs_beside(points: Points, tmp_path: Path) -> None:
    on_host = points("4ms", targets=("host",))
    for wrong in ({"jobs": 2}, {"cluster": "tcp://127.0.0.1:1"}):
        with pytest.raises(UsageError, match="target host is measured on this machine"):
            sweep(on_host, name="x", out=tmp_path, **wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="a cluster has the workers that it has"):
        sweep(points("1ms"), name="x", out=tmp_path, jobs=2, cluster="tcp://127.0.0.1:1")
    assert not list(tmp_path.iterdir())
    with flow._workers(on_host, None, 1, None) as run:
        assert run is workers.here


@pytest.mark.slow
def test_two_processes_do_not_run_one_sweep(reference: SweepRecord) -> None:
    lock = lock_folder(reference.run)
    with pytest.raises(UsageError, match="is being written by process"):
        resume_sweep(reference.run)
    os.close(lock)
