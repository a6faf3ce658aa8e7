"""Where the parts of a sweep run: in this process, in processes of this machine, or on a cluster of the user's.

Joblib carries the calls: to loky processes here, which talk through pipes, or to the workers of a Dask scheduler that
the user has started. Nothing listens on a socket that the user did not open. Calls are given names and paths and
return small values; everything else goes through files.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol, TypeVar

from edgeprune.errors import DeviceError, UsageError, missing_extra

T = TypeVar("T")

_CONNECT_S = 10
_LOOK_S = 0.5  # between two looks whether the sweep's own process is still there


class WorkersLost(Exception):
    """Worker processes were killed; calls that had not returned may be made again."""


class Workers(Protocol):
    """Runs calls somewhere."""

    def __call__(self, function: Callable[..., T], calls: Sequence[tuple[Any, ...]]) -> Iterator[T]:
        """What the function returns for each tuple of arguments, as they finish.

        Raises:
            WorkersLost: Workers were killed and not all calls can return.
        """
        ...


def here(function: Callable[..., T], calls: Sequence[tuple[Any, ...]]) -> Iterator[T]:
    """One call after another, in this process."""
    for arguments in calls:
        yield function(*arguments)


@contextlib.contextmanager
def processes(jobs: int, cpus: int) -> Iterator[Workers]:
    """So many processes of this machine with `cpus` threads each; they end with this one, however that ends."""
    from joblib import Parallel, delayed, parallel_config
    from joblib.externals.loky import get_reusable_executor

    def run(function: Callable[..., T], calls: Sequence[tuple[Any, ...]]) -> Iterator[T]:
        wanted = (delayed(_as_child)(os.getpid(), function, arguments) for arguments in calls)
        with parallel_config(backend="loky", n_jobs=jobs, inner_max_num_threads=cpus):
            parallel = Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="all")
        try:
            yield from parallel(wanted)
        except BrokenProcessPool as err:
            raise WorkersLost(_first_line(err)) from err

    try:
        yield run
    finally:
        get_reusable_executor().shutdown(wait=True, kill_workers=True)


@contextlib.contextmanager
def cluster(address: str) -> Iterator[Workers]:
    """The workers of the Dask scheduler at this address.

    Raises:
        MissingExtraError: Dask is not installed.
        DeviceError: No scheduler answers, or it has no workers.
        UsageError: A worker runs several calls at once, in threads: results would depend on what runs beside them.
    """
    if importlib.util.find_spec("distributed") is None:
        raise missing_extra("cluster", "a sweep on a cluster")
    from distributed import Client
    from distributed.scheduler import KilledWorker
    from joblib import Parallel, delayed, parallel_config

    hint = "start one: dask scheduler; then: dask worker ADDRESS --nworkers 2 --nthreads 1"
    try:
        client = Client(address, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as err:
        raise DeviceError(
            f"no scheduler answers at {address}: {_first_line(err)}", where="--cluster", hint=hint
        ) from err
    with client:
        try:
            client.wait_for_workers(1, timeout=_CONNECT_S)
        except TimeoutError:
            raise DeviceError(f"the scheduler at {address} has no workers", where="--cluster", hint=hint) from None
        for worker, threads in client.nthreads().items():
            if threads != 1:
                raise UsageError(
                    f"the worker at {worker} has {threads} threads, which would run points beside each other",
                    where="--cluster",
                    hint="start workers with --nthreads 1, and more of them with --nworkers",
                )

        def run(function: Callable[..., T], calls: Sequence[tuple[Any, ...]]) -> Iterator[T]:
            with parallel_config(backend="dask", client=client):
                parallel = Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="all")
            try:
                yield from parallel(delayed(function)(*arguments) for arguments in calls)
            except KilledWorker as err:
                raise WorkersLost(_first_line(err)) from err

        yield run


@contextlib.contextmanager
def computing_with(cpus: int) -> Iterator[None]:
    """While the block runs, this process computes with so many threads: rounding depends on how many there are."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    with threadpool_limits(cpus), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what weakens a result is said in its record
        torch.set_num_threads(cpus)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _as_child(parent: int, function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    """The call in a process that leaves Ctrl-C to its parent and ends when that is gone."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not any(thread.name == "parent-watch" for thread in threading.enumerate()):
        threading.Thread(target=_end_without, args=(parent,), name="parent-watch", daemon=True).start()
    return function(*arguments)


def _end_without(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os.kill(os.getpid(), signal.SIGKILL)


def _first_line(err: BaseException) -> str:
    return next((line.strip() for line in str(err).splitlines() if line.strip()), type(err).__name__)
