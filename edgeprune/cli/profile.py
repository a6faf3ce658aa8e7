"""`edgeprune profile`: what one model file costs on one target."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeprune.cli import options
from edgeprune.cli.terminal import only_results_on_stdout, progress
from edgeprune.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from edgeprune.documents import FitRecord

# by runtime
_ARTIFACTS = {"onnxruntime": "onnx", **dict.fromkeys(("tflm", "x-cube-ai", "vela"), "tflite"), "edgeprune-c": "c"}


def profile(
    artifact: Annotated[
        Path, typer.Argument(metavar="ARTIFACT|RUN", help="Model file, or the folder of a run or of a C library.")
    ],
    target: options.Target = None,
    runtime: options.Runtime = None,
    threads: options.Threads = None,
    runs: Annotated[int, typer.Option(min=1, metavar="N", help="At least so many timed runs.")] = 200,
    at: options.At = None,
    device: options.Device = None,
    python: options.DevicePython = None,
    benchmark_binary: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="TFLite's benchmark_model, here or on the device, where that has no Python."),
    ] = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Measure a model file, execute it on a microcontroller's emulated core, or estimate it.

    Measured is what runs on this machine, or on the device that --device names; --target then says what that is.
    Of a run folder it takes the artifact that the verdict rests on, and the run's target, runtime and threads; of the
    folder of a C library, the library.
    """
    from edgeprune.cost import Percentile
    from edgeprune.documents import profile_record
    from edgeprune.report.summary import profile_table

    percentiles: dict[str, Percentile] = {"p50": "p50", "p90": "p90", "p99": "p99"}
    if at is not None and at not in percentiles:
        raise UsageError(f"unknown percentile {at!r}", where="--at", hint="p50, p90 or p99")
    path = artifact
    if library := _library(artifact):
        path = library
    elif artifact.is_dir():
        from edgeprune.record import read_record

        record = read_record(artifact)
        path = _deployed(artifact, record, runtime)
        if target in (None, record.target):
            target, runtime, threads = record.target, runtime or record.runtime, threads or record.threads
    elif not artifact.is_file():
        raise UsageError(f"no such file: {artifact}", where="profile")
    if device is None and (python or benchmark_binary):
        raise UsageError("--python and --benchmark-binary are about a device", hint="name it with --device")
    with only_results_on_stdout(debug=debug):
        from edgeprune.calibration.calibrate import foretold
        from edgeprune.profiling import profile as measure
        from edgeprune.target import load_target

        linked: dict[str, Any] = {}
        if device is not None:
            from edgeprune.links import connect
            from edgeprune.on_device import as_target

            linked = {"device": connect(device, python), "benchmark_binary": benchmark_binary}
            linked["progress"] = progress(quiet=False)
        chosen = as_target(linked["device"]) if linked and target is None else load_target(target or "host")
        judged = percentiles[at or "p90"]
        result = measure(path, chosen, runtime=runtime, threads=threads, at=judged, runs=runs, **linked)
        if not linked and (told := foretold(path, chosen, result)):
            result = result.model_copy(update={"notes": (*result.notes, told)})
    document = profile_record(result, path)
    typer.echo(document.to_json() if json else profile_table(document), nl=False)


def _library(folder: Path) -> Path | None:
    """The report of the C library that a folder holds."""
    found = sorted(folder.glob("*.c.json")) if folder.is_dir() else []
    return found[0] if len(found) == 1 else None


def _deployed(folder: Path, record: FitRecord, runtime: str | None) -> Path:
    """The artifact that the verdict rests on, or that of another runtime."""
    wanted = runtime or record.runtime
    name = _ARTIFACTS.get(wanted, wanted)
    if name not in record.artifacts:
        hint = did_you_mean(name, record.artifacts) if record.artifacts else "nothing was exported"
        raise UsageError(f"this run has no artifact for {wanted}", where=str(folder), hint=hint)
    path = record.artifacts[name]
    if path.is_file():
        return path
    moved = folder / path.relative_to(record.run) if path.is_relative_to(record.run) else path
    if not moved.is_file():
        raise UsageError(f"no such file: {moved}", where=str(folder / "record.json"))
    return moved
