"""Runs a model file in the runtime of an emulated board, or the same way on this machine, and reads what came of it."""

from __future__ import annotations

import contextlib
import json
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.boards import plugin
from edgeprune.boards.kit import Kit
from edgeprune.boards.overlay import emulation_of
from edgeprune.boards.plugin import Tally
from edgeprune.errors import DeviceError, UsageError
from edgeprune.runner import bench, marked

Array = np.ndarray[Any, np.dtype[Any]]
_SCRIPT = Path(marked.__file__)
_TIMEOUT_S = 3600.0  # of a large file on a machine that others use too
# Nothing of the caller's: what a guest's memory looks like, and so which cache lines meet, depends on it.
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Executed:
    """A file as it ran.

    Attributes:
        outputs: Its answers to the inputs, or to noise.
        precision: What most of it was computed in.
        version: Of the runtime.
        machine: The architecture that ran it.
        libraries: Shared objects that were loaded with the runtime.
        tallies: Counts of each run, the first one's first; empty where nothing counted.
        anonymous_bytes: What the process holds of memory that is of no file, more than before the model was loaded.
    """

    outputs: tuple[Array, ...]
    precision: str
    version: str
    machine: str
    libraries: tuple[str, ...]
    tallies: tuple[Tally, ...]
    anonymous_bytes: int


def execute(
    path: Path, runtime: str, kit: Kit | None, *, runs: int = 3, inputs: Path | None = None, delegates: bool = True
) -> Executed:
    """Run a file on a kit's board, counted, or on this machine where there is none.

    Args:
        inputs: .npy file of samples (n, ...) float32, the first of which counts; noise when None.
        delegates: Whether LiteRT may use XNNPACK's kernels.

    Raises:
        DeviceError: The emulator cannot be started, or takes too long.
        UsageError: The runtime cannot run the file there.
    """
    who = f"{runtime} on this machine" if kit is None else f"{runtime} on an emulated {kit.target.name}"
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as scratch:
        folder = Path(scratch)
        for file in (path, path.with_suffix(".bin")) if path.suffix == ".xml" else (path,):
            (folder / f"model{file.suffix}").symlink_to(file.absolute())
        counts = folder / "counts"
        script = [
            "--runtime",
            runtime,
            "--model",
            f"model{path.suffix}",
            "--runs",
            str(runs),
            "--outputs",
            "outputs.npz",
        ]
        script += ["--inputs", str(inputs.absolute())] if inputs else []
        script += [] if delegates else ["--no-delegates"]
        if kit is None:
            command = [sys.executable, "-B", str(_SCRIPT), *script]
        else:
            counting = plugin.option(emulation_of(kit.target), counts)
            command = [*kit.command(*counting, "-seed", "1"), "-B", str(_SCRIPT), *script]
        with _running(command, folder, None if kit is None else _ENVIRONMENT) as process:
            imported, before = _line(process, path, who), _anonymous_bytes(process.pid)
            _go_on(process)
            ran, after = _line(process, path, who), _anonymous_bytes(process.pid)
            _go_on(process)
            _ended(process, path, who)
        with np.load(folder / "outputs.npz", allow_pickle=False) as saved:
            outputs = tuple(saved[name] for name in saved.files)
        tallies = plugin.read_tallies(counts.read_text()) if kit is not None else ()
    return Executed(
        outputs,
        ran["precision"],
        imported["version"],
        imported["machine"],
        tuple(imported["loaded"]),
        tallies,
        max(0, after - before),
    )


@contextlib.contextmanager
def _running(
    command: Sequence[str], folder: Path, environment: dict[str, str] | None
) -> Iterator[subprocess.Popen[bytes]]:
    try:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except FileNotFoundError:
        raise DeviceError(f"{command[0]} cannot be started", where=command[0]) from None
    try:
        yield process
    finally:
        process.kill()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        process.wait()


def _line(process: subprocess.Popen[bytes], path: Path, who: str) -> dict[str, Any]:
    """The next line of JSON that the script says; what it complains of otherwise.

    Raises:
        DeviceError, UsageError: As in `execute`.
    """
    assert process.stdout is not None and process.stderr is not None
    complaints, answer, deadline = b"", b"", time.monotonic() + _TIMEOUT_S
    with selectors.DefaultSelector() as selector:
        for stream in (process.stdout, process.stderr):
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            if time.monotonic() > deadline:
                raise DeviceError(f"no answer within {_TIMEOUT_S:.0f} s", where=str(path))
            for key, _ in selector.select(1.0):
                piece = key.fileobj.read1(65536)  # type: ignore[union-attr]  # both are buffered readers
                if not piece:
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stderr:
                    complaints += piece
                else:
                    answer += piece
                if answer.endswith(b"\n"):
                    return dict(json.loads(answer))
    raise _failed(process.wait(), complaints, path, who)


def _ended(process: subprocess.Popen[bytes], path: Path, who: str) -> None:
    """Wait for the end of a script that has nothing more to say."""
    try:
        _, complaints = process.communicate(timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise DeviceError(f"no end within {_TIMEOUT_S:.0f} s", where=str(path)) from None
    if process.returncode != 0:
        raise _failed(process.returncode, complaints, path, who)


def _failed(status: int, complaints: bytes, path: Path, who: str) -> Exception:
    lines = [line for line in complaints.decode(errors="replace").splitlines() if line.strip()]
    last = lines[-1].strip()[:300] if lines else "no message"
    if status == bench.EXIT_NO_RUNTIME:
        return DeviceError(f"{who} cannot be loaded: {last}", where="edgeprune emulate setup")
    number = -status if status < 0 else status - 128 if status > 128 else 0
    if number:
        last = f"ended by {signal.Signals(number).name}" if number in set(signal.Signals) else last
    return UsageError(f"{who} cannot run it: {last}", where=str(path))


def _go_on(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # its end says more
        process.stdin.write(b"\n")
        process.stdin.flush()


_MAPPING = re.compile(r"[0-9a-f]+-[0-9a-f]+ (?P<access>\S+) \S+ \S+ \d+\s*(?P<name>.*)")


def _anonymous_bytes(pid: int) -> int:
    """Bytes that a process holds of no file, in memory or swapped; of QEMU without its own heap and translated code."""
    try:
        return anonymous_bytes(Path(f"/proc/{pid}/smaps").read_text())
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0


def anonymous_bytes(smaps: str) -> int:
    """The same of the text of /proc/PID/smaps.

    Left out are mappings of code that may be written, the heap of the program itself, and whatever has a name.
    """
    total, counts = 0, False
    for line in smaps.splitlines():
        if found := _MAPPING.fullmatch(line):
            access, name = found["access"], found["name"]
            counts = not name and not ("w" in access and "x" in access)
        elif counts and line.startswith(("Rss:", "Swap:")):
            total += int(line.split()[1]) * 1024
    return total
