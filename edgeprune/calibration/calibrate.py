"""One calibration from start to end: write the design's networks, time them, fit, store."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import edgeprune
from edgeprune import backends
from edgeprune.backends import Precision
from edgeprune.calibration import store
from edgeprune.calibration.design import Entry, design, fingerprint, reference
from edgeprune.calibration.laws import Timed, fit
from edgeprune.calibration.rounds import Batch, rows, time_all
from edgeprune.calibration.store import Calibration, Machine, this_machine
from edgeprune.cost import Measurement
from edgeprune.device.fusion import absorb_padding
from edgeprune.device.ops import Op
from edgeprune.errors import UnsupportedError, UsageError, missing_extra
from edgeprune.progress import SILENT, Progress
from edgeprune.runner.bench import installed_version
from edgeprune.runner.opener import read_contents
from edgeprune.target import Target
from edgeprune.timing import Bench, run_bench
from edgeprune.units import format_time

ROUNDS, QUICK_ROUNDS, QUICK_SCALE = 3, 2, 0.35


@dataclass(frozen=True)
class Device:
    """What is calibrated: how files are timed on it, what it is, and the version of its runtime."""

    bench: Bench
    machine: Machine
    runtime_version: str


def calibrate(
    target: Target,
    *,
    runtime: str | None = None,
    precision: Precision = "int8",
    threads: int | None = None,
    quick: bool = False,
    fresh: bool = False,
    device: Device | None = None,
    progress: Progress = SILENT,
) -> Calibration:
    """Measure a device's latency model and store it. What was interrupted goes on after its last batch.

    Args:
        runtime, threads: The target's default when None.
        quick: A third of the networks, two rounds.
        fresh: Do not continue what was interrupted.
        device: The link to the device; None is this machine, which the target must then be.

    Raises:
        MeasurementError: The machine changed its speed during a batch and its repetition.
        MissingExtraError: The runtime is not installed.
        NoRoomError: The disk is full.
        UnsupportedError: No networks can be written for the runtime.
        UsageError: The target is not this machine, or does not run that runtime or precision.
    """
    runtime = runtime or target.default_runtime
    offered = target.runtime(runtime)
    threads = threads or offered.threads
    if precision not in offered.precisions:
        hint = f"one of {', '.join(offered.precisions)}"
        raise UsageError(f"{target.name} runs no {precision} on {runtime}", where="--precision", hint=hint)
    device = device or _this_one(target, runtime)
    entries = design(QUICK_SCALE if quick else 1.0)
    rounds = QUICK_ROUNDS if quick else ROUNDS
    head = {
        **{key: str(value) for key, value in device.machine.model_dump().items()},
        "runtime": device.runtime_version,
        "design": fingerprint(entries),
        "rounds": str(rounds),
    }
    path = store.path_of(target.name, runtime, precision, threads, device.machine)
    kept = path.with_suffix(".partial.json")
    kept.parent.mkdir(parents=True, exist_ok=True)
    if fresh:
        kept.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        progress.note(f"writing {len(entries)} small {precision} networks")
        files = {entry.network.name: Path(scratch) / f"{entry.network.name}.tflite" for entry in entries}
        base = Path(scratch) / "reference.tflite"
        timed = _written(entries, files, base, offered.backend, precision)
        batches = time_all(files, base, device.bench, offered.backend, threads, rounds, head, kept, progress)
    found = rows(batches)
    times = {row.name: row.latency_s for row in found}
    measured = [Timed(name, family, ops, times[name]) for name, family, ops in timed]
    source = f"calibrated on {device.machine.cpu}, {device.runtime_version}, {threads} thread(s), {len(found)} networks"
    fitted = fit(measured, runtime, precision, threads, source)
    calibration = Calibration(
        target=target.name,
        machine=device.machine,
        runtime=runtime,
        runtime_version=device.runtime_version,
        precision=precision,
        threads=threads,
        clock_mhz=_clocks(batches),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        edgeprune=edgeprune.__version__,
        design=fingerprint(entries),
        rounds=rounds,
        rows=found,
        judged=fitted.judged,
        model=fitted.model,
    )
    store.save(calibration)
    kept.unlink(missing_ok=True)
    return calibration


def foretold(path: Path, target: Target, measured: Measurement) -> str:
    """What this machine's calibration says of a file that was just measured; empty when nothing was calibrated.

    Raises:
        UsageError: The file, or the calibration's, cannot be read.
    """
    found = store.find(target, measured.runtime, measured.precision, measured.threads)
    if found.model is None or measured.p50_s is None or not found.calibrated:
        return found.note
    ops = read_contents(path, target.runtime(measured.runtime).backend).ops
    expected_s = found.model.total_s(absorb_padding(ops))
    apart = f"{format_time(expected_s)} expected, p50 is {(measured.p50_s / expected_s - 1) * 100:+.1f} % from it"
    return f"{found.note}: {apart}"


def _this_one(target: Target, runtime: str) -> Device:
    if target.latency != "measured":
        raise UsageError(
            f"target {target.name} is not this machine, and there is no link to it",
            where="--target",
            hint="run edgeprune calibrate --target host on the device itself",
        )
    backend = backends.get(target.runtime(runtime).backend)
    if reason := backend.missing():
        raise missing_extra(backend.EXTRA, f"calibrating {runtime} ({reason})")
    return Device(run_bench, this_machine(), installed_version(runtime))


def _written(
    entries: tuple[Entry, ...], files: dict[str, Path], base: Path, backend: str, precision: Precision
) -> list[tuple[str, str, tuple[Op, ...]]]:
    """Write every network; its name, family and operators as the file holds them."""
    writers = backends.writers()
    if backend not in writers:
        raise UnsupportedError(
            f"no networks can be written for {backend} files without a model",
            where="--runtime",
            hint=f"calibration knows {', '.join(sorted(writers))}",
        )
    writer = writers[backend]
    writer.write_network(reference(), base, precision)
    found = []
    for entry in entries:
        path = files[entry.network.name]
        writer.write_network(entry.network, path, precision)
        found.append((entry.network.name, entry.family, absorb_padding(writer.read_ops(path))))
    return found


def _clocks(batches: tuple[Batch, ...]) -> tuple[str, ...]:
    seen = sorted((clock for batch in batches for clock in batch.clock_mhz if clock), key=float)
    return (seen[0], seen[-1]) if seen else ()
