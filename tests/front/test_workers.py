"""Where the parts of a sweep run: the same threads everywhere, nothing that listens, nobody left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from edgeprune.front import workers
from tests.front.test_flow import wait_for


def described(_: int) -> tuple[int, int, int, list[str]]:
    """This process, its threads for arrays and tensors, and the sockets on which it listens."""
    import torch
    from threadpoolctl import threadpool_info

    time.sleep(0.2)  # so that the other process gets a call too
    with workers.computing_with(1):
        most = max(pool["num_threads"] for pool in threadpool_info())
        return os.getpid(), most, torch.get_num_threads(), listening()


def listening() -> list[str]:
    """The listening TCP sockets of this process, by the kernel's tables."""
    state, inode = 3, 9
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/self/net/{name}").read_text().split("\n")
    ]
    known = {f"socket:[{line[inode]}]" for line in lines if line[state:] and line[state] == "0A"}
    found = []
    for handle in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            found.append(os.readlink(handle))  # noqa: PTH115  not the name of a file
    return sorted(known & set(found))


def test_what_listens_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)):
        assert len(listening()) == 1
    assert listening() == []


def test_processes_compute_with_the_asked_threads_and_listen_nowhere() -> None:
    with workers.processes(2, 1) as run:
        found = list(run(described, [(i,) for i in range(6)]))
        pids = {pid for pid, *_ in found}
        assert len(found) == 6 and len(pids) == 2 and os.getpid() not in pids
        assert all((most, torch_threads, sockets) == (1, 1, []) for _, most, torch_threads, sockets in found)
        assert not listening()
    for pid in pids:
        wait_for(lambda pid=pid: not Path(f"/proc/{pid}").exists(), 30)


def test_threads_are_as_before_after_a_call_in_this_process() -> None:
    import torch

    before = torch.get_num_threads()
    with workers.computing_with(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    assert list(workers.here(lambda a, b: a + b, [(1, 2), (3, 4)])) == [3, 7]


def die(number: int) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.slow
def test_a_killed_process_is_told_and_the_next_calls_run() -> None:
    with workers.processes(2, 1) as run:
        with pytest.raises(workers.WorkersLost):
            list(run(die, [(0,), (1,), (2,)]))
        assert sorted(run(die, [(0,), (2,), (3,)])) == [0, 2, 3]


@pytest.mark.slow
def test_workers_end_when_the_process_that_started_them_is_killed(root: Path) -> None:
    script = """
        import time
        from edgeprune.front import workers
        from tests.front.test_workers import forever
        with workers.processes(2, 1) as run:
            list(run(forever, [(1,), (2,)]))
    """
    line = [sys.executable, "-c", textwrap.dedent(script)]
    process = subprocess.Popen(line, cwd=root, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pids = [int(process.stdout.readline()) for _ in range(2)]
    process.kill()
    process.wait()
    process.stdout.close()
    for pid in pids:
        wait_for(lambda pid=pid: not Path(f"/proc/{pid}").exists(), 30)
    assert len(set(pids)) == 2


def forever(_: int) -> None:
    os.write(1, f"{os.getpid()}\n".encode())
    time.sleep(600)
