"""`edgeprune profile`: what one model file costs on one target."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgeprune.cli import options
from edgeprune.cli.terminal import only_results_on_stdout, progress
from edgeprune.errors import UsageError


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
    benchmark_binary: options.BenchmarkBinary = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Measure a model file, execute it on a microcontroller's emulated core, or estimate it.

    Measured is what runs on this machine, or on the device that --device names; --target then says what that is.
    With --device emulator the target's own runtime runs it here, which counts instructions and estimates latency.
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
        from edgeprune.deploy.origin import artifact_of
        from edgeprune.record import read_record

        record = read_record(artifact)
        _, path = artifact_of(artifact, record, runtime)
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

        there: dict[str, Any] = {}
        chosen = None if target is None and device is not None else load_target(target or "host")
        if device is not None:
            from edgeprune.links.emulator import EmulatedBoard, linked
            from edgeprune.on_device import as_target

            link = linked(device, chosen, python)
            there = {"device": link, "benchmark_binary": benchmark_binary, "progress": progress(quiet=False)}
            chosen = chosen or (link.target if isinstance(link, EmulatedBoard) else as_target(link))
        assert chosen is not None
        judged = percentiles[at or "p90"]
        result = measure(path, chosen, runtime=runtime, threads=threads, at=judged, runs=runs, **there)
        if not there and (told := foretold(path, chosen, result)):
            result = result.model_copy(update={"notes": (*result.notes, told)})
    document = profile_record(result, path)
    typer.echo(document.to_json() if json else profile_table(document), nl=False)


def _library(folder: Path) -> Path | None:
    """The report of the C library that a folder holds."""
    found = sorted(folder.glob("*.c.json")) if folder.is_dir() else []
    return found[0] if len(found) == 1 else None
