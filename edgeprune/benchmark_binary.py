"""TFLite's own benchmark program on a device, for phones and boards without Python.

It reports the mean, least and most of its runs and no single ones, so a measurement by it has no percentiles.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from edgeprune.cost import Cost, Measurement, Source
from edgeprune.device_facts import Facts
from edgeprune.errors import DeviceError, MeasurementError, UsageError
from edgeprune.measured import file_bytes
from edgeprune.on_device import There, described
from edgeprune.target import Target
from edgeprune.timing import MIN_TIME_S

_MOST_S = 120
_STATISTIC = re.compile(r"\b(count|first|curr|min|max|avg|std)=([-+0-9.e]+)")
_INIT = re.compile(r"Inference timings in us: Init: ([-+0-9.e]+), First inference: ([-+0-9.e]+)")
_MEMORY = re.compile(r"[Mm]emory footprint.*\(MB\): init=[-+0-9.e]+ overall=([-+0-9.e]+)")


@dataclass(frozen=True)
class Report:
    """What the program says of one model; times in seconds."""

    runs: int
    mean_s: float
    least_s: float
    most_s: float
    deviation_s: float
    init_s: float | None
    first_s: float | None
    memory_bytes: int | None


def measure_by_binary(
    there: There, binary: str, path: Path, target: Target, runtime: str, threads: int, runs: int, precision: str
) -> Measurement:
    """The cost of a .tflite file as the device's benchmark program reports it.

    Args:
        binary: A file here, which is sent, else a path on the device.
        precision: Of the file, which the program does not tell.

    Raises:
        DeviceError: The program cannot be started there.
        MeasurementError: It ended well and reported no runs.
        UsageError: It cannot run the file, or is neither here nor a path there.
    """
    if path.suffix != ".tflite":
        raise UsageError("a benchmark binary runs .tflite files only", where=str(path))
    program, version = _program(there, Path(binary))
    there.progress.note(f"timing {path.name} by {program} on {there.link.name}, {threads} thread(s)")
    options = {
        "graph": there.send([path]),
        "num_threads": threads,
        "num_runs": runs,
        "min_secs": MIN_TIME_S,
        "max_secs": _MOST_S,
        "warmup_runs": 5,
        "warmup_min_secs": 0.5,
    }
    ended = there.program(program, *(f"--{key}={value}" for key, value in options.items()))
    if ended.status in (126, 127):
        raise DeviceError(f"{there.link.name} cannot start the binary: {ended.last_line}", where=program)
    if ended.status != 0:
        raise UsageError(
            f"the benchmark binary ended with status {ended.status}: {ended.last_line}", where=str(path), hint=program
        )
    report = read_report((ended.stdout + b"\n" + ended.stderr).decode(errors="replace"))
    after = there.link.describe(there.folder)
    return _measurement(report, path, target, runtime, threads, precision, version, there, after)


def read_report(text: str) -> Report:
    """The last statistics that the program printed, which are of the timed runs.

    Raises:
        MeasurementError: There are none.
    """
    lines = [dict(_STATISTIC.findall(line)) for line in text.splitlines() if "count=" in line]
    if not lines or not {"count", "curr"} <= set(lines[-1]):
        raise MeasurementError("the benchmark binary reported no runs", hint="is it TFLite's benchmark_model?")
    last = {key: float(value) for key, value in lines[-1].items()}
    init, memory = _INIT.search(text), _MEMORY.search(text)
    return Report(
        runs=int(last["count"]),
        mean_s=last.get("avg", last["curr"]) * 1e-6,  # all runs alike: the program prints one of them only
        least_s=last.get("min", last["curr"]) * 1e-6,
        most_s=last.get("max", last["curr"]) * 1e-6,
        deviation_s=last.get("std", 0.0) * 1e-6,
        init_s=float(init[1]) * 1e-6 if init else None,
        first_s=float(init[2]) * 1e-6 if init else None,
        memory_bytes=round(float(memory[1]) * 2**20) if memory else None,
    )


def _program(there: There, binary: Path) -> tuple[str, str]:
    """The program as it is started there, and what is known of its version."""
    if binary.is_file():
        name = there.send([binary])
        there.program("chmod", "700", name)
        return f"./{name}", f"{binary.name}, sha256 {hashlib.sha256(binary.read_bytes()).hexdigest()[:12]}"
    if not binary.is_absolute():
        raise UsageError(
            f"no such file: {binary}", where="--benchmark-binary", hint="a file here, or an absolute path on the device"
        )
    return str(binary), f"{binary} on the device"


def _measurement(
    report: Report,
    path: Path,
    target: Target,
    runtime: str,
    threads: int,
    precision: str,
    version: str,
    there: There,
    after: Facts,
) -> Measurement:
    environment = described(there.facts, there.link.name)
    environment |= {"judged_at": "mean", "deviation_ns": f"{report.deviation_s * 1e9:.0f}"}
    environment |= {} if report.first_s is None else {"first_run_ns": f"{report.first_s * 1e9:.0f}"}
    for moment, facts in (("before", there.facts), ("after", after)):
        if facts.temperature_c is not None:
            environment[f"temperature_c_{moment}"] = f"{facts.temperature_c:.1f}"
    return Measurement(
        cost=Cost(
            source=Source.MEASURED,
            latency_s=report.mean_s,
            latency_interval_s=(report.least_s, report.most_s),
            ram_bytes=report.memory_bytes,
            ram_kind=None if report.memory_bytes is None else "process",
            size_bytes=file_bytes(path),
        ),
        target=target.name,
        runtime=runtime,
        runtime_version=version,
        threads=threads,
        precision=precision,
        runs=report.runs,
        load_s=report.init_s,
        environment=environment,
        notes=(
            f"the latency is the mean of {report.runs} runs, the interval the least and the most of them: the "
            "benchmark binary reports no single runs, so there are no percentiles and a falling clock is not noticed",
        ),
    )
