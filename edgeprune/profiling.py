"""What a model file costs on a target: measured where this machine is the target, else estimated from the file.

A measured verdict rests on the 99 %-confidence upper bound of the asked-for percentile over one run in a fresh
process. The run is thrown away and repeated once when the machine changed its speed meanwhile (see
`percentiles.disturbed`); a second disturbed run is an error, never a number. Beside a reference file it is the
reference that says what the machine did (`percentiles.paired`), and the file's ratio to it is told.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune import backends
from edgeprune.backends import Array
from edgeprune.cost import Cost, Measurement, OpCost, Percentile, Source
from edgeprune.device.estimate import estimate
from edgeprune.device.latency import DeviceModel
from edgeprune.device.ops import Op
from edgeprune.device_lock import device_lock
from edgeprune.emulated import profile_emulated
from edgeprune.errors import MeasurementError, UsageError, missing_extra
from edgeprune.percentiles import (
    QUANTILES,
    Paired,
    Slice,
    Stretch,
    bounds,
    disturbed,
    needed_runs,
    paired,
    percentile,
    slowdown,
)
from edgeprune.progress import SILENT, Progress
from edgeprune.runner import bench
from edgeprune.runner.opener import Contents, Times, child_environment, read_contents, read_times
from edgeprune.target import Target
from edgeprune.values import Value

RUNS = 200
MIN_TIME_S = 1.0
_TOLD = 1.02  # a correction to the machine's usual speed that is worth a note
_PAIRED_TIME_S = 3.0  # of the file itself: long enough to meet the states that a shared machine goes through
_COOL_DOWN_S = 3.0
_OP_RUNS = 200
_INPUT_SAMPLES = 8
_TIMEOUT_S = 900
_ARENAS = ("tflm", "edgeprune-c")  # runtimes whose RAM is an arena that the file's backend can plan
_EMULATED = ("tflite", "c")  # backends whose files are executed: a .tflite file is written as C for it
_NOISE_REPEATS = 10


def profile(
    path: Path,
    target: Target,
    *,
    runtime: str | None = None,
    threads: int | None = None,
    at: Percentile = "p90",
    runs: int = RUNS,
    inputs: Array | None = None,
    per_op: bool = True,
    latency: DeviceModel | None = None,
    reference: Reference | None = None,
    must_fit: bool = True,
    progress: Progress = SILENT,
) -> Measurement:
    """The cost of a model file on a target, op by op: executed on an emulated core where the runtime says so.

    Args:
        path: A .tflite, .onnx or OpenVINO .xml file.
        runtime, threads: The target's default for this kind of file when None.
        at: The percentile whose upper bound is the verdict's latency (measured only).
        runs: At least so many timed inferences, and at least one second of them.
        inputs: Samples (n, ...) float32 as the model was trained on, images NCHW; noise when None.
        per_op: Fill the operator table, from a pass of its own.
        latency: A calibrated or corrected device model instead of the shipped one (estimates only).
        reference: Timed between stretches of this file (measured only). Where it runs faster than usual, so does the
            machine, and the verdict's latency is that of its usual speed. Never the other way: what is slow counts.

        must_fit: Whether what overflows the memories of an emulated target is an error rather than a cost.

    Raises:
        BudgetError: It overflows the memories of an emulated target.
        MeasurementError: The machine changed its speed during the run and its repetition.
        MissingExtraError: The runtime is not installed.
        UsageError: The file cannot be read, or the target does not run it.
    """
    backend = backends.for_file(path)
    if not path.is_file():
        raise UsageError("there is no such model file", where=str(path))
    runtime = runtime or default_runtime(target, backend.NAME, path)
    if target.runtime(runtime).emulated and backend.NAME in _EMULATED:
        return profile_emulated(path, target, must_fit=must_fit, progress=progress)
    if target.runtime(runtime).backend != backend.NAME:
        raise UsageError(
            f"runtime {runtime} of target {target.name} takes files for {target.runtime(runtime).backend}",
            where=str(path),
            hint=f"export for {target.runtime(runtime).backend}, or choose another --runtime",
        )
    threads = threads or target.runtime(runtime).threads
    arena = runtime in _ARENAS
    contents = read_contents(path, backend.NAME, arena=arena)
    if target.latency != "measured":
        return _estimated(path, contents, target, runtime, threads, latency)
    with tempfile.TemporaryDirectory() as scratch, device_lock("host", progress):
        samples = _save_inputs(inputs, Path(scratch))
        run = _steady_run(path, backend.NAME, threads, at, runs, samples, reference, progress)
        times: Times = ()
        if per_op:
            progress.note(f"timing the operators of {path.name}")
            times = read_times(path, backend.NAME, _OP_RUNS, threads, samples)
    return _measured(path, run, contents, times, target, runtime, at, reference)


def default_runtime(target: Target, backend: str, path: Path) -> str:
    """The target's runtime for files of that backend: its default one if that takes them, else the first that does.

    Raises:
        UsageError: None of the target's runtimes does.
    """
    if target.runtime().backend == backend or (target.runtime().emulated and backend in _EMULATED):
        return target.default_runtime
    for name, offered in target.runtimes.items():
        if offered.backend == backend:
            return name
    takes = ", ".join(sorted({offered.backend for offered in target.runtimes.values()}))
    raise UsageError(f"target {target.name} cannot run {path.suffix} files", where=str(path), hint=f"it takes: {takes}")


def file_bytes(path: Path) -> int:
    """All files of the artifact: an OpenVINO .xml counts with its .bin."""
    files = [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
    return sum(file.stat().st_size for file in files)


def _estimated(
    path: Path, contents: Contents, target: Target, runtime: str, threads: int, latency: DeviceModel | None
) -> Measurement:
    precision = "int8" if contents.inspection.integer_macs > contents.inspection.float_macs else "fp32"
    priced = estimate(contents.ops, target, runtime, precision, threads, latency)
    update: dict[str, Any] = {"size_bytes": file_bytes(path)}
    if contents.arena_bytes is not None:
        update |= {"ram_bytes": contents.arena_bytes, "ram_kind": "arena"}
    return priced.model_copy(update={"cost": priced.cost.model_copy(update=update)})


def _save_inputs(inputs: Array | None, folder: Path) -> Path | None:
    if inputs is None:
        return None
    file = folder / "inputs.npy"
    np.save(file, np.ascontiguousarray(inputs[:_INPUT_SAMPLES], np.float32), allow_pickle=False)
    return file


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
class _Run:
    """A benchmark document, the latencies that count, and what the machine did meanwhile."""

    document: dict[str, Any]
    latencies_s: Array
    slowdown: float | None
    paired: Paired | None
    disturbed: bool


def _steady_run(
    path: Path,
    runtime: str,
    threads: int,
    at: Percentile,
    runs: int,
    samples: Path | None,
    reference: Reference | None,
    progress: Progress,
) -> _Run:
    """One run; a disturbed one is repeated once after a pause."""
    needed = needed_runs(QUANTILES[at])
    faults = []
    beside: dict[str, Any] = {"reference": reference.path, "min_time_s": _PAIRED_TIME_S} if reference else {}
    for attempt in (1, 2):
        progress.note(f"timing {path.name} on {runtime}, {threads} thread(s)" + (", again" if attempt > 1 else ""))
        run = _run(run_bench([path], runtime, threads, max(runs, needed), samples, **beside))
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
            time.sleep(_COOL_DOWN_S)
    raise MeasurementError(
        f"the machine was not itself during the run and its repetition: {'; '.join(faults)}",
        where=str(path),
        hint="let it cool down, end other jobs, fix the CPU clock, then repeat",
    )


def _run(document: dict[str, Any]) -> _Run:
    latencies_s, throttled = np.array(document["samples_ns"][0]) * 1e-9, _throttled(document)
    if document.get("stretches"):
        stretches = [Stretch(int(runs), reference_ns * 1e-9) for runs, reference_ns in document["stretches"]]
        found = paired(latencies_s, stretches)
        return _Run(document, found.latencies_s, found.slowdown, found, found.disturbed or throttled)
    slices = tuple(Slice(int(runs), float(others)) for runs, others in document["slices"])
    change = slowdown(latencies_s, slices)
    return _Run(document, latencies_s, change, None, disturbed(latencies_s, slices) or throttled)


def _fault(run: _Run) -> str:
    slower = f"it became slower by {(run.slowdown or 0.0) * 100:.0f} %"
    if run.paired is None or run.paired.kept == 1:
        return slower
    return f"{slower} and was far slower than usual in {(1 - run.paired.kept) * 100:.0f} % of it"


def _throttled(document: dict[str, Any]) -> bool:
    return bool(document["before"].get("throttled") != document["after"].get("throttled"))


def run_bench(
    paths: Sequence[Path],
    runtime: str,
    threads: int,
    runs: int,
    samples: Path | None = None,
    min_time_s: float = MIN_TIME_S,
    reference: Path | None = None,
) -> dict[str, Any]:
    """The document of the runner script (`runner/bench.py`), run in a fresh process on this machine.

    Raises:
        MissingExtraError: The runtime is not installed.
        UsageError: The runtime cannot run a file.
    """
    command = [sys.executable, str(Path(bench.__file__)), "--runtime", runtime, "--threads", str(threads)]
    command += ["--min-runs", str(runs), "--min-time", str(min_time_s)]
    command += [part for path in paths for part in ("--model", str(path))]
    command += ["--inputs", str(samples)] if samples else []
    command += ["--reference", str(reference)] if reference else []
    where = ", ".join(path.name for path in paths)
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


def _measured(
    path: Path,
    run: _Run,
    contents: Contents,
    times: Times,
    target: Target,
    runtime: str,
    at: Percentile,
    reference: Reference | None,
) -> Measurement:
    document, latencies_s = run.document, run.latencies_s
    slowed = reference.slowed(run.paired.reference_s) if reference and run.paired else 1.0
    lower, upper = (slowed * bound for bound in bounds(latencies_s, QUANTILES[at]))
    cost = Cost(
        source=Source.MEASURED,
        latency_s=upper,
        latency_interval_s=(lower, upper),
        ram_bytes=max(0, document["peak_rss_bytes"] - document["empty_rss_bytes"]),
        ram_kind="process",
        size_bytes=file_bytes(path),
    )
    return Measurement(
        cost=cost,
        target=target.name,
        runtime=runtime,
        runtime_version=document["runtime_version"],
        threads=document["threads"],
        precision=document["precision"][0],
        runs=len(latencies_s),
        **{f"{name}_s": percentile(latencies_s, quantile) for name, quantile in QUANTILES.items()},
        to_reference=run.paired.to_reference if run.paired else None,
        reference_s=run.paired.reference_s if run.paired else None,
        load_s=document["load_ns"] * 1e-9,
        ops=op_table(times, contents.ops),
        environment=_environment(run, at),
        notes=_notes(run, slowed),
    )


def _notes(run: _Run, slowed: float) -> tuple[str, ...]:
    notes = []
    warm = run.document["warm_up"]
    if not warm["settled"]:
        notes.append(f"warm-up did not settle within {warm['seconds']:g} s")
    if run.slowdown is None:
        notes.append("other jobs used the CPU throughout: a falling clock would not have been noticed")
    if run.paired is not None and run.paired.kept < 1:
        left_out = f"{(1 - run.paired.kept) * 100:.0f} % of the run"
        notes.append(f"{left_out} left out: the dense file beside it was far slower than usual")
    if slowed > _TOLD:
        notes.append(
            f"the latency is {slowed:.2f} times what was timed: the dense file beside it ran faster than usual"
        )
    return tuple(notes)


def _environment(run: _Run, at: Percentile) -> dict[str, str]:
    document = run.document
    facts = {name: str(document[name]) for name in ("cpu", "system", "python", "cpu_share", "preemptions")}
    facts |= {"judged_at": at, "first_run_ns": str(document["first_ns"])}
    if run.paired is not None:
        facts["stretches_kept"] = f"{run.paired.kept:.3f}"
    else:
        facts["others_cpus_max"] = f"{max((others for _, others in document['slices']), default=0.0):.2f}"
    for moment in ("before", "after"):
        facts |= {f"{name}_{moment}": value for name, value in document[moment].items()}
    return facts


def op_table(times: Times, ops: tuple[Op, ...]) -> tuple[OpCost, ...]:
    """Operator times with the file's names, kinds and multiply-accumulates, where the profiler's rows match them.

    Runtimes name their rows by node or output; XNNPACK does not name them at all, so layers with weights are matched
    in order when there are as many of them on both sides. What does not match keeps the profiler's own name and type.
    """
    named = {key: op for op in ops for key in (*op.nodes, op.output, op.name)}
    matched = [named.get(_plain(name)) for name, _, _ in times]
    if not any(matched):
        layers = [op for op in ops if op.weights]
        rows = [index for index, (_, kind, _) in enumerate(times) if kind.startswith(("Convolution", "Fully"))]
        if len(layers) == len(rows):
            for index, op in zip(rows, layers):
                matched[index] = op
    return tuple(
        OpCost(name=op.name, kind=op.kind, latency_s=seconds, macs=op.macs)
        if op
        else OpCost(name=name, kind=kind, latency_s=seconds, macs=0)
        for (name, kind, seconds), op in zip(times, matched)
    )


def _plain(name: str) -> str:
    """A node's name before the runtime rewrote it: `relu_nchwc`, `node_Conv_36_token_1`."""
    return name.removesuffix("_nchwc").split("_token_")[0]


class Comparison(Value):
    """Medians of several files timed in turns in one process, and how far apart ten copies of one file lie."""

    p50_s: tuple[float, ...]
    noise: float
    runs: int


def compare_p50(
    paths: Sequence[Path],
    *,
    threads: int = 1,
    runs: int = RUNS,
    min_time_s: float = 0.5,
    inputs: Array | None = None,
) -> Comparison:
    """Median latencies of files of one runtime, in the order given, for benchmarks on noisy machines.

    `noise` is the largest relative distance of the median of any of ten further copies of the first file from their
    common median: differences below it mean nothing.

    Args:
        min_time_s: Seconds for each file and each copy.

    Raises:
        UsageError: The files are for different runtimes, or one cannot be run.
    """
    names = {backends.for_file(path).NAME for path in paths}
    if len(names) != 1:
        raise UsageError(f"{len(paths)} files for {', '.join(sorted(names))} cannot be timed in one process")
    with tempfile.TemporaryDirectory() as scratch, device_lock("host"):
        samples = _save_inputs(inputs, Path(scratch))
        everything = [*paths, *[paths[0]] * _NOISE_REPEATS]
        document = run_bench(everything, names.pop(), threads, runs, samples, min_time_s)
    medians = [percentile(np.array(own) * 1e-9, 0.5) for own in document["samples_ns"]]
    repeats = np.array(medians[len(paths) :])
    noise = float(np.max(np.abs(repeats / np.median(repeats) - 1)))
    fewest = min(len(own) for own in document["samples_ns"])
    return Comparison(p50_s=tuple(medians[: len(paths)]), noise=noise, runs=fewest)
