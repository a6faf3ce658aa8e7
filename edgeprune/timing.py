"""Timing model files: a run in a process of its own, and its repetition where the machine was not itself.

A run is one call of a `Bench`, which may be this machine's or another's. It is thrown away and repeated once when the
machine changed its speed meanwhile (see `percentiles.disturbed`); a second disturbed run is an error, never a number.
Beside a reference file it is the reference that says what the machine did (`percentiles.paired`).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune import backends
from edgeprune.backends import Array
from edgeprune.cost import Percentile
from edgeprune.errors import MeasurementError, UsageError, missing_extra
from edgeprune.percentiles import (
    QUANTILES,
    Paired,
    Slice,
    Stretch,
    disturbed,
    needed_runs,
    paired,
    slowdown,
)
from edgeprune.progress import Progress
from edgeprune.runner import bench
from edgeprune.runner.opener import child_environment

MIN_TIME_S = 1.0
_PAIRED_TIME_S = 3.0  # of the file itself: long enough to meet the states that a shared machine goes through
_COOL_DOWN_S = 3.0
_TIMEOUT_S = 900
_THROTTLED_NOW = 0xF  # the higher bits say that it was so since the board started
BENCH = Path(bench.__file__)  # the runner script


@dataclass(frozen=True)
class Reference:
    """Another file of the runtime that runs beside the profiled one.

    Attributes:
        usual_s: The median it is known to take; None when that is not known yet.
    """

    path: Path
    usual_s: float | None = None

    def slowed(self, seconds: float) -> float:
        """How much slower the machine usually is than beside a reference that took so long; at least 1."""
        return 1.0 if self.usual_s is None else max(1.0, self.usual_s / seconds)


@dataclass(frozen=True)
class Turns:
    """What a run is asked for: files of one runtime, timed in turns.

    Attributes:
        runs: Of each file at least.
        samples: .npy file of samples (n, ...) float32; noise when None.
        min_time_s: Spent on each file at least.
        reference: Timed between stretches of the files.
    """

    paths: tuple[Path, ...]
    runtime: str
    threads: int
    runs: int
    samples: Path | None = None
    min_time_s: float = MIN_TIME_S
    reference: Path | None = None

    @property
    def where(self) -> str:
        """The files, for a message."""
        return ", ".join(path.name for path in self.paths)

    def options(self, there: Callable[[Path], str] = str) -> list[str]:
        """The runner script's options, with files as they are named where it runs."""
        options = ["--runtime", self.runtime, "--threads", str(self.threads)]
        options += ["--min-runs", str(self.runs), "--min-time", str(self.min_time_s)]
        options += [part for path in self.paths for part in ("--model", there(path))]
        options += ["--inputs", there(self.samples)] if self.samples else []
        options += ["--reference", there(self.reference)] if self.reference else []
        return options


# Times files on a device; the document of `runner/bench.py`, with the samples of each file in the order given.
Bench = Callable[[Turns], Mapping[str, Any]]


@dataclass(frozen=True)
class Place:
    """Where files are timed.

    Attributes:
        name: Of the device's lock.
        cool: Waits until a machine that was not itself may be so again.
    """

    name: str
    bench: Bench
    cool: Callable[[], None]


def here() -> Place:
    """This machine."""
    return Place("host", run_bench, lambda: time.sleep(_COOL_DOWN_S))


@dataclass(frozen=True)
class Run:
    """A benchmark document, the latencies that count, and what the machine did meanwhile."""

    document: Mapping[str, Any]
    latencies_s: Array
    slowdown: float | None
    paired: Paired | None
    disturbed: bool


def steady_run(
    place: Place,
    path: Path,
    runtime: str,
    threads: int,
    at: Percentile,
    runs: int,
    samples: Path | None,
    reference: Reference | None,
    progress: Progress,
) -> Run:
    """One run; a disturbed one is repeated once after a pause.

    Args:
        at: The percentile that needs enough runs.
        runs: At least so many.
        samples: .npy file of samples (n, ...) float32; noise when None.

    Raises:
        MeasurementError: The machine was not itself during the run and its repetition, or too slow for `at`.
        MissingExtraError, UsageError: The runtime is not installed, or cannot run the file.
    """
    needed = needed_runs(QUANTILES[at])
    faults = []
    beside, least_s = (reference.path, _PAIRED_TIME_S) if reference else (None, MIN_TIME_S)
    for attempt in (1, 2):
        progress.note(f"timing {path.name} on {runtime}, {threads} thread(s)" + (", again" if attempt > 1 else ""))
        run = _run(place.bench(Turns((path,), runtime, threads, max(runs, needed), samples, least_s, beside)))
        if len(run.latencies_s) < needed and not run.disturbed:
            raise MeasurementError(
                f"only {len(run.latencies_s)} runs in {run.document['wall_s']:.0f} s: {at} needs {needed}",
                where=str(path),
                hint="judge on p50, or estimate instead of measuring",
            )
        if not run.disturbed:
            return run
        faults.append(_fault(run))
        if attempt == 1:
            place.cool()
    raise MeasurementError(
        f"the machine was not itself during the run and its repetition: {'; '.join(faults)}",
        where=str(path),
        hint="let it cool down, end other jobs, fix the CPU clock, then repeat",
    )


def _run(document: Mapping[str, Any]) -> Run:
    latencies_s, throttled = np.array(document["samples_ns"][0]) * 1e-9, _throttled(document)
    if document.get("stretches"):
        stretches = [Stretch(int(runs), reference_ns * 1e-9) for runs, reference_ns in document["stretches"]]
        found = paired(latencies_s, stretches)
        return Run(document, found.latencies_s, found.slowdown, found, found.disturbed or throttled)
    slices = tuple(Slice(int(runs), float(others)) for runs, others in document["slices"])
    change = slowdown(latencies_s, slices)
    return Run(document, latencies_s, change, None, disturbed(latencies_s, slices) or throttled)


def _fault(run: Run) -> str:
    slower = f"it became slower by {(run.slowdown or 0.0) * 100:.0f} %"
    if run.paired is None or run.paired.kept == 1:
        return slower
    return f"{slower} and was far slower than usual in {(1 - run.paired.kept) * 100:.0f} % of it"


def _throttled(document: Mapping[str, Any]) -> bool:
    """Whether the board says that it was: a flag that was raised meanwhile, or one of those that say "now"."""
    before, after = (str(document[moment].get("throttled", "")) for moment in ("before", "after"))
    return before != after or any(_now(text) for text in (before, after))


def _now(flags: str) -> bool:
    """Whether a Raspberry Pi's flags (`throttled=0x50005`) say that it lacks voltage or is slowed down right now."""
    try:
        return bool(int(flags.rpartition("=")[2], 16) & _THROTTLED_NOW)
    except ValueError:
        return False


def run_bench(turns: Turns) -> dict[str, Any]:
    """The document of the runner script (`runner/bench.py`), run in a fresh process on this machine.

    Raises:
        MissingExtraError: The runtime is not installed.
        UsageError: The runtime cannot run a file.
    """
    command, where, runtime = [sys.executable, str(BENCH), *turns.options()], turns.where, turns.runtime
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=False, env=child_environment())
    except subprocess.TimeoutExpired:
        raise UsageError(f"the run took more than {_TIMEOUT_S} s", where=where) from None
    if done.returncode == bench.EXIT_NO_RUNTIME:
        raise missing_extra(backends.get(runtime).EXTRA or "all", f"running {runtime}")
    if done.returncode != 0:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise UsageError(f"{runtime} cannot run it (status {done.returncode}): {last[:300]}", where=where)
    document: dict[str, Any] = json.loads(done.stdout)
    return document
