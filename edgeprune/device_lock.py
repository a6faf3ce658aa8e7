"""One measurement at a time per device: whoever measures holds its lock, across all processes of this machine.

Only measuring takes turns. What else computes here meanwhile is found by the measurement itself (see `percentiles`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgeprune.progress import SILENT, Progress


@contextlib.contextmanager
def device_lock(device: str, progress: Progress = SILENT) -> Iterator[None]:
    """Hold a device while the block runs; waits for the process that holds it. The lock ends with its process.

    Args:
        device: `host`, or where the device hangs. Every name is a device of its own.
    """
    handle = _opened(Path(tempfile.gettempdir()) / f"edgeprune-{re.sub(r'[^A-Za-z0-9.-]', '-', device)}.lock")
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.note(f"waiting for {device}: another process measures on it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _opened(file: Path) -> int:
    """A handle on the file, made when it is not there. It holds nothing, so reading rights are enough to lock it:
    other users' locks count, and a link put in its place is refused."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_CLOEXEC, 0o644))
    return os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
