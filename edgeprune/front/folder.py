"""The folder of a sweep, which survives anything as a run folder does.

Layout of `runs/<UTC time>-<name>-sweep/`:

    sweep.json     the points, written once
    shared/        one run folder per target with the stages that do not depend on the limits
    points/        one run folder per point: an ordinary run, which every verb can read
    record.json    what came out; report.html and report.md are made from it
    lock           process and host that run the sweep
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

import edgeprune
from edgeprune.errors import UsageError
from edgeprune.front.documents import Sweep, SweepRecord
from edgeprune.front.grid import Point, slug
from edgeprune.record import lock_folder, write_text

_JOB, _RECORD = "sweep.json", "record.json"


@contextlib.contextmanager
def created(out: Path, name: str, points: Sequence[Point], cpus: int) -> Iterator[Path]:
    """A new sweep's folder below `out`, locked by this process while the block runs.

    Raises:
        UsageError: The folder cannot be made.
    """
    now = datetime.now(UTC)
    stem = f"{now:%Y%m%dT%H%M%SZ}-{slug(name)}-sweep"
    folder, number = Path.cwd() / out / stem, 1
    try:
        while folder.exists():
            number += 1
            folder = folder.with_name(f"{stem}-{number}")
        folder.mkdir(parents=True)
    except OSError as err:
        raise UsageError(f"cannot write here: {err}", where=str(out), hint="choose --out DIR") from err
    sweep = Sweep(
        edgeprune=edgeprune.__version__,
        created=now.isoformat(timespec="seconds"),
        name=name,
        cpus=cpus,
        points=tuple(
            point.model_copy(update={"spec": point.spec.model_copy(update={"out": folder / "points"})})
            for point in points
        ),
    )
    lock = lock_folder(folder)
    try:
        write_text(folder / _JOB, sweep.model_dump_json(by_alias=True, indent=1) + "\n")
        yield folder
    finally:
        os.close(lock)


@contextlib.contextmanager
def reopened(folder: Path) -> Iterator[Path]:
    """An existing sweep's folder, locked by this process while the block runs.

    Raises:
        UsageError: Not a sweep's folder, one of another version, one that was moved, or one that runs elsewhere.
    """
    folder = Path.cwd() / folder
    home = read_sweep(folder).points[0].spec.out.parent
    if not (home.is_dir() and home.samefile(folder)):
        raise UsageError(
            f"this sweep was started as {home}", where=str(folder), hint="move it back, or start a new sweep"
        )
    lock = lock_folder(folder)
    try:
        yield home
    finally:
        os.close(lock)


def is_sweep(folder: Path) -> bool:
    """Whether the folder is that of a sweep."""
    return (folder / _JOB).is_file()


def read_sweep(folder: Path) -> Sweep:
    """The job of a sweep's folder.

    Raises:
        UsageError: Not a sweep's folder, or one of another version.
    """
    file = folder / _JOB
    if not file.is_file():
        raise UsageError(
            f"not a sweep's folder: {folder}",
            where=str(file),
            hint="they lie in runs/ and hold a sweep.json; the workers of a cluster must see the same file system",
        )
    try:
        sweep = Sweep.model_validate_json(file.read_bytes())
    except ValidationError as err:
        raise UsageError(f"not a sweep of this version: {err.errors()[0]['msg']}", where=str(file)) from None
    if sweep.edgeprune != edgeprune.__version__:
        raise UsageError(
            f"this sweep is one of edgeprune {sweep.edgeprune}, this is {edgeprune.__version__}",
            where=str(file),
            hint="every process of a sweep needs the version that started it",
        )
    return sweep


def write_record(folder: Path, record: SweepRecord) -> None:
    """Store what came out, whole or not at all."""
    write_text(folder / _RECORD, record.to_json())


def read_sweep_record(folder: Path) -> SweepRecord:
    """What came out of a finished sweep.

    Raises:
        UsageError: Not a sweep's folder, one that has not finished, or one of another version.
    """
    read_sweep(folder)
    file = folder / _RECORD
    if not file.is_file():
        raise UsageError(
            f"this sweep has not finished: {folder}", where=str(file), hint=f"edgeprune sweep --resume {folder}"
        )
    try:
        return SweepRecord.model_validate_json(file.read_bytes())
    except ValidationError as err:
        raise UsageError(f"not a sweep of this version: {err.errors()[0]['msg']}", where=str(file)) from None
