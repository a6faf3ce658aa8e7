"""A sweep: what all points share is computed once, each point is a fit of its own, and one record says what came out.

Every part is stored when it is finished, so a sweep that was killed goes on with what is left. A point's result does
not depend on where it ran: it has its own run folder, its own seed and always the same number of threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgeprune.documents import FitRecord, budget_row
from edgeprune.errors import NoRoomError, UsageError
from edgeprune.front import workers
from edgeprune.front.documents import (
    DenseRow,
    Failure,
    PointRow,
    Sweep,
    SweepRecord,
    dense_row,
    failed_row,
    failure,
    marked,
    point_row,
)
from edgeprune.front.folder import created, read_sweep, reopened, write_record
from edgeprune.front.grid import Point
from edgeprune.front.workers import Workers, WorkersLost, computing_with
from edgeprune.pipeline import fit_in, prepare
from edgeprune.progress import SILENT, Progress
from edgeprune.record import Run, create_or_reopen, read_record
from edgeprune.report.front import write_sweep_reports
from edgeprune.report.text import verdict_line
from edgeprune.spec import Spec
from edgeprune.target import load_target

_LIMITS = ("out", "budget.latency", "budget.ram", "budget.size")
_SHARED = ("evaluated", "dense", "importance")
_TRIES_TOGETHER = 2  # of calls whose workers were killed, before each is made on its own


def sweep(
    points: Sequence[Point],
    name: str,
    out: Path,
    *,
    jobs: int | None = None,
    cpus: int = 1,
    cluster: str | None = None,
    progress: Progress = SILENT,
) -> SweepRecord:
    """Fit every point and leave everything in a new folder below `out`.

    Args:
        jobs: Points that run beside each other on this machine; None: as many as it has CPUs for. Where a cost is
            measured here they run one after another, because whatever else computes would be measured with it.
        cpus: Threads that each point computes with. Results may depend on this number, never on `jobs`.
        cluster: Address of a Dask scheduler whose workers run the points instead. They must see the same files.

    Raises:
        UsageError: Several jobs, or a cluster, with a target that is measured on this machine.
        DeviceError, MissingExtraError: The cluster cannot be used. Errors of points are in the record.
    """
    with _workers(points, jobs, cpus, cluster) as run, created(out, name, points, cpus) as folder:
        return _play(folder, run, progress)


def resume_sweep(
    folder: Path, *, jobs: int | None = None, cluster: str | None = None, progress: Progress = SILENT
) -> SweepRecord:
    """Go on with a sweep: what is finished is kept, points that failed are tried again.

    Raises:
        UsageError: Not a sweep's folder, or one that another process works on; as of `sweep`.
        DeviceError, MissingExtraError: The cluster cannot be used.
    """
    with reopened(folder) as home:
        stored = read_sweep(home)
        with _workers(stored.points, jobs, stored.cpus, cluster) as run:
            return _play(home, run, progress)


@contextmanager
def _workers(points: Sequence[Point], jobs: int | None, cpus: int, cluster: str | None) -> Iterator[Workers]:
    measured = next((point.target for point in points if point.measured), None)
    if cluster is not None and jobs is not None:
        raise UsageError("a cluster has the workers that it has", where="--jobs", hint="leave out --jobs or --cluster")
    if measured is not None and (cluster is not None or (jobs or 1) > 1):
        raise UsageError(
            f"target {measured} is measured on this machine, where nothing else may compute meanwhile",
            where="--cluster" if cluster is not None else "--jobs",
            hint=f"sweep {measured} alone and without it: its points run one after another",
        )
    count = 1 if measured is not None else jobs or max(1, min((os.cpu_count() or 1) // cpus, len(points)))
    if cluster is not None:
        with workers.cluster(cluster) as run:
            yield run
    elif count == 1:
        yield workers.here
    else:
        with workers.processes(count, cpus) as run:
            yield run


def _play(folder: Path, run: Workers, progress: Progress) -> SweepRecord:
    stored = read_sweep(folder)
    told = progress if run is workers.here else SILENT
    left = [point for point in stored.points if not _finished(folder, point.name)]
    if len(left) < len(stored.points):
        progress.note(f"{len(stored.points) - len(left)} of {len(stored.points)} points are finished")
    unprepared: dict[str, Failure] = {}
    for target in dict.fromkeys(point.target for point in left):
        progress.note(f"preparing what the points on {target} share")
        for _, why in _outcomes(run, prepare_target, {target: (folder, target, told)}):
            if why is not None:
                unprepared[target] = why
    failed = {point.name: unprepared[point.target] for point in left if point.target in unprepared}
    for name, why in failed.items():
        progress.note(f"{name}: failed: {why.text}")
    ready = {point.name: (folder, point.name, told) for point in left if point.name not in failed}
    for number, (name, why) in enumerate(_outcomes(run, fit_point, ready), 1):
        said = verdict_line(read_record(_place(folder, name))) if why is None else f"failed: {why.text}"
        progress.note(f"{number} of {len(ready)}: {name}: {said}")
        if why is not None:
            failed[name] = why
    record = _record(folder, stored, failed)
    write_record(folder, record)
    write_sweep_reports(folder, record)
    return record


def _outcomes(
    run: Workers, function: Callable[..., tuple[str, Failure | None]], calls: Mapping[str, tuple[Any, ...]]
) -> Iterator[tuple[str, Failure | None]]:
    """What became of each call, by its name. Where workers were killed the calls left are made again, at last each on
    its own, so that one which takes all memory does not take the others with it."""
    left = dict(calls)
    for _ in range(_TRIES_TOGETHER):
        try:
            for name, why in run(function, list(left.values())) if left else ():
                del left[name]
                yield name, why
        except WorkersLost:
            continue
        return
    for name, arguments in left.items():
        try:
            yield from run(function, [arguments])
        except WorkersLost as err:
            why = Failure(
                code=NoRoomError("").code,
                exit_code=NoRoomError.exit_code,
                message=f"its worker was killed again and again: {err}",
                hint="often memory has run out: give it more, or fewer --jobs, and --resume the sweep",
            )
            yield name, why


def prepare_target(folder: Path, target: str, progress: Progress = SILENT) -> tuple[str, Failure | None]:
    """Finish what all points on a target share, in its own run folder; what another target has found is taken over
    as far as it does not depend on the target.

    Returns:
        The target and, where it failed, why.
    """
    try:
        stored = read_sweep(folder)
        ours = next(point.spec for point in stored.points if point.target == target)
        shared = _shared(folder, target)
        with computing_with(stored.cpus), _run_at(shared, ours, target) as run:
            if all((shared / "stages" / f"{key}.json").is_file() for key in _SHARED):
                return target, None
            for point in stored.points:
                if point.target != target and (_shared(folder, point.target) / "spec.json").is_file():
                    stages, folders = _alike(ours, point.spec)
                    run.adopt(_shared(folder, point.target), ("out", "budget", "target"), stages, folders)
            prepare(run, progress)
    except Exception as err:  # one target's error must not stop the others
        return target, failure(err)
    return target, None


def fit_point(folder: Path, name: str, progress: Progress = SILENT) -> tuple[str, Failure | None]:
    """Fit one point in its own run folder.

    Returns:
        The point's name and, where it failed, why.
    """
    try:
        stored = read_sweep(folder)
        point = next(point for point in stored.points if point.name == name)
        with computing_with(stored.cpus), _run_at(_place(folder, name), point.spec, name) as run:
            if not _finished(folder, name):
                run.adopt(_shared(folder, point.target), _LIMITS, _SHARED)
                fit_in(run, progress)
    except Exception as err:  # one point's error must not stop the others
        return name, failure(err)
    return name, None


def _run_at(path: Path, spec: Spec, name: str) -> Run:
    return create_or_reopen(path, spec.model_copy(update={"out": path.parent}), name)


def _alike(one: Spec, other: Spec) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The stages and folders of one target's preparation that hold for another target."""
    targets = [load_target(spec.target.name) for spec in (one, other)]
    offered = [target.runtime(spec.target.runtime) for target, spec in zip(targets, (one, other), strict=True)]
    steps = [spec.fit.step or runtime.channel_step for spec, runtime in zip((one, other), offered, strict=True)]
    stages = ("evaluated", "importance") if steps[0] == steps[1] else ("evaluated",)
    return stages, ("dense",) if offered[0].backend == offered[1].backend else ()


def _finished(folder: Path, name: str) -> bool:
    return (_place(folder, name) / "record.json").is_file()


def _place(folder: Path, name: str) -> Path:
    return folder / "points" / name


def _shared(folder: Path, target: str) -> Path:
    return folder / "shared" / target


def _record(folder: Path, stored: Sweep, failed: Mapping[str, Failure]) -> SweepRecord:
    rows: list[PointRow] = []
    dense: dict[str, DenseRow] = {}
    some: FitRecord | None = None
    for point in stored.points:
        path = _place(folder, point.name)
        if (why := failed.get(point.name)) is not None:
            rows.append(failed_row(point, budget_row(point.spec.budget.parsed()), path, why))
            continue
        record = some = read_record(path)
        rows.append(point_row(point, record))
        found = dense_row(point.target, record)
        if found is not None:
            dense.setdefault(point.target, found)
    higher = some is None or some.metric.higher_is_better
    return SweepRecord(
        workload=None if some is None else some.workload,
        metric="" if some is None else some.metric.name,
        higher_is_better=higher,
        points=marked(rows, higher_is_better=higher),
        dense=tuple(dense.values()),
        cpus=stored.cpus,
        run=folder,
        name=stored.name,
        created=stored.created,
        edgeprune=stored.edgeprune,
    )
