"""The run folder: every stage's result written atomically, so that a killed fit continues where it stopped.

Layout of `runs/<UTC time>-<name>/`:

    spec.toml      the resolved job; `edgeprune fit --config` on it repeats the run
    spec.json      the same with the schema and version, for `reopen`
    events.jsonl   one line per event
    stages/        one JSON file per finished stage
    <key>/         folders of files (checkpoints, artifacts), complete or absent
    unfinished/    what stages that are under way go on from; gone when they are finished
    tensorboard/   curves of the trainings, where the job asks for them
    record.json    the finished run; report.html and report.md are made from it
    lock           process and host that are writing

Every file is written beside its final name, flushed to disk and renamed; then the folder is flushed. A reader
therefore sees a whole file or none. No pickle, nothing in a run folder is code.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import re
import shutil
import socket
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self, TypeVar

from pydantic import ConfigDict, Field, ValidationError

import edgeprune
from edgeprune.documents import FitRecord
from edgeprune.errors import NoRoomError, UsageError
from edgeprune.spec import Spec, resolved_toml
from edgeprune.values import Value

__all__ = [
    "FitRecord",
    "Run",
    "create",
    "create_or_reopen",
    "lock_folder",
    "read_record",
    "reopen",
    "write_text",
    "written_by",
]

V = TypeVar("V", bound=Value)

_TEMPORARY = ".tmp-"
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class _Header(Value):
    """What `spec.json` holds."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["edgeprune.run/1"] = Field("edgeprune.run/1", alias="schema")
    edgeprune: str
    created: str
    name: str
    spec: Spec


class Run:
    """An open run folder; one process writes it at a time. Close it, or use it in a `with`."""

    def __init__(self, path: Path, header: _Header, lock: int) -> None:
        self.path = path
        self.spec = header.spec
        self.name = header.name
        self.created = header.created
        self._release = weakref.finalize(self, os.close, lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another process continue this run. Closing twice does nothing."""
        self._release()

    def load(self, key: str, kind: type[V]) -> V | None:
        """The stored result of a stage, or None when that stage has not finished.

        Raises:
            UsageError: The file is there but is not a `kind`: it was edited or written by another version.
        """
        file = self._stage_file(key)
        try:
            text = file.read_bytes()
        except FileNotFoundError:
            return None
        return _parsed(text, kind, file)

    def save(self, key: str, value: Value) -> None:
        """Store a stage's result; after a crash at any point it is there whole or not at all.

        Raises:
            NoRoomError: The disk is full; what was stored before is intact.
        """
        write_text(self._stage_file(key), value.model_dump_json(by_alias=True, indent=1) + "\n")
        shutil.rmtree(self.workspace(key), ignore_errors=True)

    def workspace(self, key: str) -> Path:
        """Where a stage that is not finished may keep what it goes on from after a kill; it goes with `save`."""
        return self.workspaces / _checked(key)

    @property
    def workspaces(self) -> Path:
        """The folder of all workspaces."""
        return self.path / "unfinished"

    def stage(self, key: str, kind: type[V], compute: Callable[[], V]) -> V:
        """The stored result of a finished stage, else the computed one, stored."""
        stored = self.load(key, kind)
        if stored is not None:
            return stored
        started = time.perf_counter()
        value = compute()
        self.save(key, value)
        self.event(key, seconds=round(time.perf_counter() - started, 3))
        return value

    def folder(self, key: str) -> Path | None:
        """The folder written under this key, or None when it was not finished."""
        path = self.path / _checked(key)
        return path if path.is_dir() else None

    @contextlib.contextmanager
    def write_folder(self, key: str) -> Iterator[Path]:
        """A temporary folder that becomes `path/key` when the block succeeds and vanishes when it fails.

        Raises:
            NoRoomError: The disk is full, also when a library inside the block says so.
            FileExistsError: The key was written before; finished folders are never replaced.
        """
        final = self.path / _checked(key)
        if final.exists():
            raise FileExistsError(f"{final} is already written")
        work = self.path / f"{_TEMPORARY}{key}"
        shutil.rmtree(work, ignore_errors=True)
        try:
            with _room(final):
                work.mkdir()
            with _room(final, only_full=True):
                yield work
            with _room(final):
                for folder, _, files in os.walk(work):
                    for name in files:
                        _sync(Path(folder, name))
                    _sync(Path(folder))
                work.replace(final)
                _sync(self.path)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise

    def event(self, stage: str, **fields: str | int | float | bool | None) -> None:
        """Append one line to `events.jsonl`."""
        finite = {key: _finite(value) for key, value in fields.items()}
        line = {"time": _now().isoformat(timespec="milliseconds"), "stage": stage, **finite}
        file = self.path / "events.jsonl"
        with _room(file):
            _write(file, (json.dumps(line, ensure_ascii=False) + "\n").encode(), os.O_APPEND, sync=False)

    def adopt(
        self, source: Path, apart: Collection[str], stages: Iterable[str] = (), folders: Iterable[str] = ()
    ) -> None:
        """Take over what another run has finished of these stages and folders, unless it is here already.

        Args:
            apart: Dotted keys of the job that the two runs may differ in: what was computed does not depend on them.

        Raises:
            UsageError: Not a run folder, or one of another job.
            NoRoomError: The disk is full.
        """
        differing = [key for key in _differing(self.spec, _header(source).spec) if not _below(key, apart)]
        if differing:
            raise UsageError(
                f"its results are not those of this job: {', '.join(differing)} differ",
                where=str(source),
                hint="start again in a new folder",
            )
        for key in stages:
            file = source / "stages" / f"{_checked(key)}.json"
            if file.is_file() and not self._stage_file(key).exists():
                write_text(self._stage_file(key), file.read_text(encoding="utf-8"))
                self.event(key, adopted=str(source))
        for key in folders:
            if (source / _checked(key)).is_dir() and self.folder(key) is None:
                with self.write_folder(key) as work:
                    shutil.copytree(source / key, work, dirs_exist_ok=True)

    def finish(self, record: FitRecord) -> None:
        """Store the whole run's record."""
        write_text(self.path / "record.json", record.to_json())
        shutil.rmtree(self.workspaces, ignore_errors=True)

    def _stage_file(self, key: str) -> Path:
        return self.path / "stages" / f"{_checked(key)}.json"


def create(spec: Spec, name: str) -> Run:
    """A new run folder `spec.out/<UTC time>-<name>`, locked by this process.

    Raises:
        UsageError: The folder cannot be made.
        NoRoomError: The disk is full.
    """
    stem = f"{_now():%Y%m%dT%H%M%SZ}-{re.sub(r'[^A-Za-z0-9._-]+', '-', name).strip('-.') or 'run'}"
    with _room(spec.out):
        spec.out.mkdir(parents=True, exist_ok=True)
        path = _fresh_folder(spec.out, stem)
    return _begun(path, spec, name, lock_folder(path))


def create_or_reopen(path: Path, spec: Spec, name: str) -> Run:
    """The run at exactly this path, new or continued; waits while another process writes it.

    Raises:
        UsageError: Another job's run lies there, or the folder cannot be made.
        NoRoomError: The disk is full.
    """
    with _room(path):
        path.mkdir(parents=True, exist_ok=True)
    lock = lock_folder(path, wait=True)
    if not (path / "spec.json").is_file():
        return _begun(path, spec, name, lock)
    try:
        header = _header(path)
        if differing := _differing(header.spec, spec):
            raise UsageError(f"another job's run lies here: {', '.join(differing)} differ", where=str(path))
        _tidy(path)
    except BaseException:
        os.close(lock)
        raise
    return Run(path, header, lock)


def reopen(path: Path) -> Run:
    """An existing run folder, locked by this process; half-written leftovers are swept.

    Raises:
        UsageError: Not a run folder, one of another schema, or one that another process is writing.
    """
    header = _header(path)
    lock = lock_folder(path)
    _tidy(path)
    return Run(path, header, lock)


def _begun(path: Path, spec: Spec, name: str, lock: int) -> Run:
    """The header is written last: a folder without it was never begun."""
    header = _Header(
        edgeprune=edgeprune.__version__,
        created=_now().isoformat(timespec="seconds"),
        name=name,
        spec=spec,
    )
    run = Run(path, header, lock)
    with _room(path):
        (path / "stages").mkdir(exist_ok=True)
    write_text(path / "spec.toml", resolved_toml(spec))
    write_text(path / "spec.json", header.model_dump_json(by_alias=True, indent=2) + "\n")
    return run


def _tidy(path: Path) -> None:
    """Remove what a kill left half written, and what finished stages need no more."""
    needless = [work for work in path.glob("unfinished/*") if (path / "stages" / f"{work.name}.json").exists()]
    for leftover in (*path.glob(f"{_TEMPORARY}*"), *path.glob(f"stages/{_TEMPORARY}*"), *needless):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
    _cut_torn_line(path / "events.jsonl")


def _differing(one: Spec, other: Spec) -> list[str]:
    """The dotted keys in which two jobs differ."""
    left, right = one.model_dump(mode="json"), other.model_dump(mode="json")
    found = []
    for section, value in left.items():
        if isinstance(value, dict):
            found += [f"{section}.{key}" for key in value if value[key] != right[section][key]]
        elif value != right[section]:
            found.append(section)
    return found


def _below(key: str, apart: Collection[str]) -> bool:
    """Whether the key or its section is among them."""
    return key in apart or key.partition(".")[0] in apart


def read_record(path: Path) -> FitRecord:
    """The record of a finished run folder, without locking it.

    Raises:
        UsageError: Not a run folder, not finished, or written by another version.
    """
    _header(path)
    file = path / "record.json"
    if not file.is_file():
        raise UsageError(
            f"this run has not finished: {path}",
            where=str(file),
            hint=f"edgeprune fit --resume {path}",
        )
    return _parsed(file.read_bytes(), FitRecord, file)


def written_by(out: Path, pid: int) -> Path | None:
    """The newest run folder below `out` that this process of this machine opened last; None when there is none."""
    holder = f"process {pid} on {socket.gethostname()}"
    for path in sorted(out.glob("*/lock"), key=lambda file: file.stat().st_mtime_ns, reverse=True):
        if path.read_text(encoding="utf-8").strip() == holder:
            return path.parent
    return None


def write_text(path: Path, text: str) -> None:
    """Write a whole file or nothing: beside its name, flushed, renamed, folder flushed.

    Raises:
        NoRoomError: The disk is full; an older file of this name is intact.
    """
    work = path.with_name(f"{_TEMPORARY}{path.name}")
    with _room(path):
        try:
            _write(work, text.encode(), os.O_TRUNC)
            work.replace(path)
            _sync(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                work.unlink(missing_ok=True)
            raise


def _checked(key: str) -> str:
    if _KEY.fullmatch(key) is None:
        raise ValueError(f"not a stage key: {key!r}")
    return key


def _parsed(text: bytes, kind: type[V], file: Path) -> V:
    try:
        return kind.model_validate_json(text)
    except ValidationError as err:
        first = err.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            f"not a {kind.__name__} of this version ({where or 'JSON'}: {first['msg']})",
            where=str(file),
            hint="run folders are read by the version that wrote them; start a new run",
        ) from None


def _header(path: Path) -> _Header:
    file = path / "spec.json"
    if not file.is_file():
        raise UsageError(
            f"not a run folder: {path}",
            where=str(file),
            hint="run folders lie in runs/ and hold a spec.json",
        )
    text = file.read_bytes()
    with contextlib.suppress(ValueError, AttributeError):
        schema = json.loads(text).get("schema")
        if schema != "edgeprune.run/1":
            raise UsageError(
                f"unknown schema {schema!r}: this edgeprune {edgeprune.__version__} reads edgeprune.run/1",
                where=str(file),
                hint="use the edgeprune that wrote it",
            )
    return _parsed(text, _Header, file)


def _fresh_folder(parent: Path, stem: str) -> Path:
    """Two runs may start within one second."""
    number = 1
    while True:
        path = parent / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
            continue
        return path


def lock_folder(path: Path, *, wait: bool = False) -> int:
    """Take a folder's lock until the returned handle is closed, or its process ends: a stale file cannot block.

    Args:
        wait: Wait for another process that holds it.

    Raises:
        UsageError: Another process holds it.
    """
    file = path / "lock"
    with _room(file):
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            holder = file.read_text(encoding="utf-8").strip() or "another process"
            os.close(handle)
            raise UsageError(
                f"this run is being written by {holder}",
                where=str(file),
                hint="wait for it or stop it; the lock ends with its process",
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    return handle


def _cut_torn_line(file: Path) -> None:
    """A kill in the middle of a write leaves half a line at the end."""
    with contextlib.suppress(FileNotFoundError), file.open("r+b") as stream:
        stream.truncate(stream.read().rfind(b"\n") + 1)


@contextlib.contextmanager
def _room(path: Path, *, only_full: bool = False) -> Iterator[None]:
    """Turn the system's refusals to write `path` into errors for the user."""
    try:
        yield
    except Exception as err:
        full = "No space left on device" in str(err) or "Disk quota exceeded" in str(err)
        if full or (isinstance(err, OSError) and err.errno in (errno.ENOSPC, errno.EDQUOT)):
            raise NoRoomError(
                "the disk is full",
                where=str(path),
                hint="free some room, then continue with edgeprune fit --resume RUN; what was written is intact",
            ) from err
        refused = isinstance(err, OSError) and err.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)
        if refused and not only_full:
            raise UsageError(f"cannot write here: {err}", where=str(path), hint="choose --out DIR") from err
        raise


def _write(path: Path, content: bytes, how: int, *, sync: bool = True) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | how, 0o644)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(handle, rest) :]
        if sync:
            os.fsync(handle)
    finally:
        os.close(handle)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _finite(value: str | int | float | bool | None) -> str | int | float | bool | None:
    """JSON has no literal for infinity and not-a-number."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _now() -> datetime:
    return datetime.now(UTC)
