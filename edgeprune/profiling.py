"""What a model file costs on a target: measured on a device that is linked or is this machine, else estimated.

A measured verdict rests on the 99 %-confidence upper bound of the asked-for percentile over one run in a fresh
process (`timing`). Beside a reference file, the file's ratio to it is told.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune import backends, vela
from edgeprune.backends import Array, Inspection, Precision
from edgeprune.benchmark_binary import measure_by_binary
from edgeprune.cost import Measurement, Percentile
from edgeprune.device.estimate import estimate
from edgeprune.device.latency import DeviceModel
from edgeprune.device_facts import unlike
from edgeprune.device_lock import device_lock
from edgeprune.emulated import profile_emulated
from edgeprune.emulated_board import profile_on_board
from edgeprune.errors import UsageError
from edgeprune.generated import profile_generated
from edgeprune.links import Link
from edgeprune.links.emulator import EmulatedBoard
from edgeprune.measured import file_bytes, measured
from edgeprune.on_device import There, described, held, linkable, needs_runtime, place_of
from edgeprune.percentiles import percentile
from edgeprune.progress import SILENT, Progress
from edgeprune.runner.opener import Contents, Times, read_contents, read_times
from edgeprune.target import Target
from edgeprune.timing import Reference, Turns, here, run_bench, steady_run
from edgeprune.values import Value

RUNS = 200
_OP_RUNS = 200
_INPUT_SAMPLES = 8
_ARENAS = ("tflm", "edgeprune-c")  # runtimes whose RAM is an arena that the file's backend can plan
_WRITTEN = ("tflite", "c")  # backends whose files are or become C libraries: a .tflite file is written as C
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
    device: Link | None = None,
    benchmark_binary: str | None = None,
    progress: Progress = SILENT,
) -> Measurement:
    """The cost of a model file on a target, op by op: executed on an emulated core where the runtime says so.

    Of a runtime that takes C libraries and is not emulated the library is written and counted, not executed; of an NPU
    the compiler is asked.

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
        device: Where the target is reached; the file is then measured there, without the times of operators. On an
            emulated board it is counted.
        benchmark_binary: TFLite's benchmark program, here or on the device, for one without Python.

    Raises:
        BudgetError: It overflows the memories of an emulated target.
        DeviceError: The device is not reached.
        MeasurementError: The machine changed its speed during the run and its repetition.
        MissingExtraError: The runtime is not installed.
        NoRoomError: The file does not fit on the device.
        UsageError: The file cannot be read, or the target does not run it.
    """
    backend = backends.for_file(path)
    if not path.is_file():
        raise UsageError("there is no such model file", where=str(path))
    runtime = runtime or default_runtime(target, backend.NAME, path)
    if device is not None:
        linkable(target, runtime, device)
    if device is None and target.runtime(runtime).emulated and backend.NAME in _WRITTEN:
        return profile_emulated(path, target, must_fit=must_fit, progress=progress)
    if target.runtime(runtime).backend == "c" and backend.NAME in _WRITTEN:
        return profile_generated(path, target, runtime, progress)
    if target.runtime(runtime).backend != backend.NAME:
        raise UsageError(
            f"runtime {runtime} of target {target.name} takes files for {target.runtime(runtime).backend}",
            where=str(path),
            hint=f"export for {target.runtime(runtime).backend}, or choose another --runtime",
        )
    if runtime == vela.RUNTIME:
        return vela.profile_vela(path, target, runtime, progress)
    threads = threads or target.runtime(runtime).threads
    if device is not None:
        how = at, runs, inputs, reference, benchmark_binary
        return _there(path, target, device, runtime, threads, *how, progress)
    arena = runtime in _ARENAS
    contents = read_contents(path, backend.NAME, arena=arena)
    if target.latency != "measured":
        return _estimated(path, contents, target, runtime, threads, latency)
    place = here()
    with tempfile.TemporaryDirectory() as scratch, device_lock(place.name, progress):
        samples = _save_inputs(inputs, Path(scratch))
        run = steady_run(place, path, backend.NAME, threads, at, runs, samples, reference, progress)
        times: Times = ()
        if per_op:
            progress.note(f"timing the operators of {path.name}")
            times = read_times(path, backend.NAME, _OP_RUNS, threads, samples)
    return measured(path, run, contents.ops, times, target, runtime, at, reference)


def default_runtime(target: Target, backend: str, path: Path) -> str:
    """The target's runtime for files of that backend: its default one if that takes them, else the first that does.

    Raises:
        UsageError: None of the target's runtimes does.
    """
    if target.runtime().backend == backend or (target.runtime().emulated and backend in _WRITTEN):
        return target.default_runtime
    for name, offered in target.runtimes.items():
        if offered.backend == backend:
            return name
    takes = ", ".join(sorted({offered.backend for offered in target.runtimes.values()}))
    raise UsageError(f"target {target.name} cannot run {path.suffix} files", where=str(path), hint=f"it takes: {takes}")


def _there(
    path: Path,
    target: Target,
    device: Link,
    runtime: str,
    threads: int,
    at: Percentile,
    runs: int,
    inputs: Array | None,
    reference: Reference | None,
    benchmark_binary: str | None,
    progress: Progress,
) -> Measurement:
    """On a linked device: measured by one of the programs that can, or counted where the board is emulated."""
    if isinstance(device, EmulatedBoard):
        if benchmark_binary is not None:
            raise UsageError("a benchmark program cannot be counted", where="--benchmark-binary")
        with tempfile.TemporaryDirectory() as scratch:
            samples = _save_inputs(inputs, Path(scratch))
            return profile_on_board(path, target, device, runtime, threads, inputs=samples, progress=progress)
    if benchmark_binary is not None:
        return _by_binary(path, target, device, runtime, threads, runs, benchmark_binary, progress)
    return _measured_there(path, target, device, runtime, threads, at, runs, inputs, reference, progress)


def _measured_there(
    path: Path,
    target: Target,
    device: Link,
    runtime: str,
    threads: int,
    at: Percentile,
    runs: int,
    inputs: Array | None,
    reference: Reference | None,
    progress: Progress,
) -> Measurement:
    """Measured by the runner script on a linked device."""
    backend = target.runtime(runtime).backend
    files = [*backends.files(backend, path), *(backends.files(backend, reference.path) if reference else ())]
    with tempfile.TemporaryDirectory() as scratch, held(device, files, progress) as there:
        needs_runtime(there, backend)
        samples = _save_inputs(inputs, Path(scratch))
        run = steady_run(place_of(there), path, backend, threads, at, runs, samples, reference, progress)
    found = measured(path, run, (), (), target, runtime, at, reference)
    where = {**found.environment, **described(there.facts, device.name)}
    return _noted(found.model_copy(update={"environment": where}), there, target)


def _by_binary(
    path: Path,
    target: Target,
    device: Link,
    runtime: str,
    threads: int,
    runs: int,
    binary: str,
    progress: Progress,
) -> Measurement:
    """Measured by the benchmark program of the runtime on a linked device."""
    inspection = read_contents(path, target.runtime(runtime).backend).inspection
    with held(device, [path], progress) as there:
        found = measure_by_binary(there, binary, path, target, runtime, threads, runs, _precision(inspection))
    return _noted(found, there, target)


def _noted(found: Measurement, there: There, target: Target) -> Measurement:
    """The measurement with what must be said of the device."""
    other = unlike(there.facts, target)
    notes = [f"{there.link.name} does not look like {target.name}: {other}"] if other else []
    notes += ["operators are not timed on a linked device"]
    return found.model_copy(update={"notes": (*found.notes, *notes)})


def _precision(inspection: Inspection) -> Precision:
    """What most of the arithmetic is done in."""
    return "int8" if inspection.integer_macs > inspection.float_macs else "fp32"


def _estimated(
    path: Path, contents: Contents, target: Target, runtime: str, threads: int, latency: DeviceModel | None
) -> Measurement:
    priced = estimate(contents.ops, target, runtime, _precision(contents.inspection), threads, latency)
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
        document = run_bench(Turns(tuple(everything), names.pop(), threads, runs, samples, min_time_s))
    medians = [percentile(np.array(own) * 1e-9, 0.5) for own in document["samples_ns"]]
    repeats = np.array(medians[len(paths) :])
    noise = float(np.max(np.abs(repeats / np.median(repeats) - 1)))
    fewest = min(len(own) for own in document["samples_ns"])
    return Comparison(p50_s=tuple(medians[: len(paths)]), noise=noise, runs=fewest)
