"""Child processes that always end: a group of their own, a time limit, a limit on what they may print.

A child that does not end by itself is first given the end of its stdin, which is what a shell on the far side of a
link waits for to end what it runs; then its whole group is killed, and it is reaped.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

MOST_BYTES = 256 * 2**20
_PIECE = 2**16
_LOOK_S = 0.1  # how often it is seen whether the child has ended
_GRACE_S = 2.0


@dataclass(frozen=True)
class Ended:
    """How a program ended: its exit status (negative: the signal that killed it) and all it wrote."""

    status: int
    stdout: bytes
    stderr: bytes

    @property
    def last_line(self) -> str:
        """The last line of stderr, which says why it failed; `no message` when there is none."""
        lines = [line for line in self.stderr.decode(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip()[:300] if lines else "no message"


class TimeOutError(Exception):
    """The child had not ended in time; it has now."""


class TooMuchError(Exception):
    """The child wrote more than it may; it is ended."""


def run_child(
    command: Sequence[str],
    *,
    head: bytes = b"",
    data: BinaryIO | None = None,
    timeout_s: float,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    most_bytes: int = MOST_BYTES,
) -> Ended:
    """Run a program to its end.

    Args:
        head: What its stdin begins with.
        data: What follows there, to its end. Without it, stdin stays open until the child ends: the end of stdin then
            tells a program that waits for it that nobody is there any more.
        environment, folder: Those of this process when None.
        most_bytes: Of stdout and stderr together.

    Raises:
        FileNotFoundError: There is no such program.
        TimeOutError: It took longer than `timeout_s`.
        TooMuchError: It wrote more than `most_bytes`.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=environment,
        cwd=folder,
    )
    try:
        stdout, stderr = _converse(process, head, data, time.monotonic() + timeout_s, most_bytes)
    finally:
        _end(process)
    return Ended(process.returncode, stdout, stderr)


def _converse(
    process: subprocess.Popen[bytes], head: bytes, data: BinaryIO | None, deadline: float, most_bytes: int
) -> tuple[bytes, bytes]:
    """Feed stdin and collect what is written, until the child has ended and nothing more arrives.

    What it left running in the background may hold its pipes open for ever, so their end is not waited for.
    """
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    written: dict[Any, bytearray] = {process.stdout: bytearray(), process.stderr: bytearray()}
    feed = _Feed(process.stdin, head, data)
    with selectors.DefaultSelector() as selector:
        for pipe in written:
            selector.register(pipe, selectors.EVENT_READ)
        selector.register(process.stdin, selectors.EVENT_WRITE)
        while True:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeOutError
            ended = process.poll() is not None
            arrived = False
            for key, _ in selector.select(0 if ended else min(_LOOK_S, left_s)):
                if key.fileobj is process.stdin:
                    if not feed.more():
                        selector.unregister(process.stdin)
                        if data is not None:
                            _close(process.stdin)
                    continue
                arrived = True
                piece = os.read(key.fd, _PIECE)
                written[key.fileobj] += piece
                if not piece:
                    selector.unregister(key.fileobj)
            if sum(map(len, written.values())) > most_bytes:
                raise TooMuchError
            if ended and not arrived:
                return bytes(written[process.stdout]), bytes(written[process.stderr])


class _Feed:
    """Writes to a child's stdin as much as it takes at once."""

    def __init__(self, pipe: IO[bytes], head: bytes, data: BinaryIO | None) -> None:
        self._pipe, self._waiting, self._data = pipe, head, data
        os.set_blocking(pipe.fileno(), False)

    def more(self) -> bool:
        """Write some; False when nothing is left, or nobody reads."""
        if not self._waiting and self._data is not None:
            self._waiting = self._data.read(_PIECE)
        if not self._waiting:
            return False
        try:
            self._waiting = self._waiting[os.write(self._pipe.fileno(), self._waiting) :]
        except BlockingIOError:
            return True
        except BrokenPipeError:
            return False
        return bool(self._waiting) or self._data is not None


def _close(pipe: IO[bytes]) -> None:
    with contextlib.suppress(BrokenPipeError):
        pipe.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Reap the child; one that still runs is told so by the end of its stdin, then killed with its group."""
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    _close(process.stdin)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_S)
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    process.stdout.close()
    process.stderr.close()
