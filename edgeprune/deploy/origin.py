"""What is to be deployed: the artifact of a run, or a bare model file, with what is known of it and real inputs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune import backends
from edgeprune.documents import BudgetRow, Figure, FitRecord
from edgeprune.errors import UsageError, did_you_mean
from edgeprune.record import read_record
from edgeprune.runner.opener import read_contents
from edgeprune.spec import Spec
from edgeprune.target import Target, load_target

Array = np.ndarray[Any, np.dtype[Any]]

REAL_VECTORS = 8
BOARD_BACKENDS = ("tflite", "onnxruntime", "openvino")

# by runtime
_ARTIFACTS = {"onnxruntime": "onnx", **dict.fromkeys(("tflm", "x-cube-ai", "vela"), "tflite"), "edgeprune-c": "c"}


@dataclass(frozen=True)
class Origin:
    """A model file and where it comes from.

    Attributes:
        samples: Real inputs (n, ...) float32, images NCHW.
        target: What it was fitted to; None for a bare file without one.
        budget: What the run's verdict was judged by; its latency is checked on the device too.
        exact: Whether all of it computes in integers, so that one version of a runtime has one answer.
    """

    path: Path
    backend: str
    precision: str
    threads: int
    samples: Array
    app: str
    target: Target | None = None
    budget: BudgetRow | None = None
    figures: tuple[Figure, ...] = ()
    metric: tuple[tuple[str, float], ...] = ()
    exact: bool = False
    notes: tuple[str, ...] = ()


def artifact_of(folder: Path, record: FitRecord, runtime: str | None = None) -> tuple[str, Path]:
    """The name and file of the artifact that a run's verdict rests on, or of that for another runtime.

    Raises:
        UsageError: The run has none, or its file is gone.
    """
    wanted = runtime or record.runtime
    name = _ARTIFACTS.get(wanted, wanted)
    if name not in record.artifacts:
        hint = did_you_mean(name, record.artifacts) if record.artifacts else "nothing was exported"
        raise UsageError(f"this run has no artifact for {wanted}", where=str(folder), hint=hint)
    path = record.artifacts[name]
    if path.is_file():
        return name, path
    moved = folder / path.relative_to(record.run) if path.is_relative_to(record.run) else path
    if not moved.is_file():
        raise UsageError(f"no such file: {moved}", where=str(folder / "record.json"))
    return name, moved


def from_run(folder: Path, runtime: str | None, threads: int | None, samples: Array | None, app: str | None) -> Origin:
    """What a run's verdict rests on.

    Args:
        samples: Real inputs instead of those of the job's test data.

    Raises:
        UsageError: The run is not finished, has no such artifact or missed its budget, or its data cannot be read.
    """
    record = read_record(folder)
    name, path = artifact_of(folder, record, runtime)
    target = load_target(record.target)
    chosen = target.runtime(runtime or record.runtime)
    _for_boards(chosen.backend, path)
    row = next((row for row in record.details if row.name == name), None)
    cost = next((row for row in record.costs if row.role == "artifact" and row.name.split(" ")[0] == name), None)
    deployed = name == _ARTIFACTS.get(record.runtime, record.runtime)
    metric = record.metric.artifacts.get(name)
    return Origin(
        path=path,
        backend=chosen.backend,
        precision=row.precision if row else "int8",
        threads=threads or (record.threads if deployed else chosen.threads),
        samples=_of_job(record.spec, folder) if samples is None else samples,
        app=app or app_name(record.name or folder.name),
        target=target,
        budget=record.budget if deployed else None,
        figures=cost.figures if cost else (),
        metric=() if metric is None else ((record.metric.name, metric),),
        exact=chosen.backend == "tflite" and row is not None and row.precision == "int8" and not row.float_ops,
        notes=() if record.verdict == "met" else (f"the run's verdict is {record.verdict}",),
    )


def from_file(path: Path, target: Target | None, threads: int | None, samples: Array | None, app: str | None) -> Origin:
    """A bare model file, of which nothing is known but what is in it.

    Raises:
        UsageError: No runtime of boards takes it, it cannot be read, or there are no real inputs.
    """
    backend = backends.for_file(path).NAME
    _for_boards(backend, path)
    if samples is None:
        raise UsageError(
            "a bare model file needs real inputs to test it with",
            where="--inputs",
            hint=f"--inputs FILE.npy: at least {REAL_VECTORS} samples (n, ...) float32, images NCHW",
        )
    found = read_contents(path, backend).inspection
    integer = found.integer_macs > found.float_macs
    runtime = None if target is None else next((r for r in target.runtimes.values() if r.backend == backend), None)
    return Origin(
        path=path,
        backend=backend,
        precision="int8" if integer else "fp32",
        threads=threads or (runtime.threads if runtime else 1),
        samples=samples,
        app=app or app_name(path.stem),
        target=target,
        exact=backend == "tflite" and integer and not found.float_ops,
    )


def read_samples(file: Path) -> Array:
    """The first real inputs of an .npy file, (n, ...) float32.

    Raises:
        UsageError: It is none, or holds too few, or values that are not finite.
    """
    try:
        values = np.load(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read the inputs: {error}", where=str(file), hint="an .npy file of numbers") from None
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "iuf" or values.ndim < 2:
        raise UsageError("not an array (n, ...) of numbers", where=str(file))
    return _checked(values[:REAL_VECTORS].astype(np.float32), str(file))


def app_name(text: str) -> str:
    """A name for folders, from any text."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:100] or "model"


def _for_boards(backend: str, path: Path) -> None:
    if backend not in BOARD_BACKENDS:
        raise UsageError(
            f"{path.name} is for microcontrollers; boards and phones run {', '.join(BOARD_BACKENDS)}",
            where=str(path),
            hint="name another artifact of the run with --runtime",
        )


def _of_job(spec: Spec | None, folder: Path) -> Array:
    """Samples spread evenly over the job's test set."""
    if spec is None:
        raise UsageError("the run does not say what its data was", where=str(folder), hint="give --inputs FILE.npy")
    try:
        test = _test_set(spec)
    except UsageError as error:
        hint = "run it where the fit ran, or give --inputs FILE.npy"
        raise UsageError(f"the run's data: {error.message}", where=error.where or str(folder), hint=hint) from None
    indices = np.linspace(0, len(test) - 1, REAL_VECTORS).round().astype(int)
    values = np.stack([np.asarray(test[int(index)][0], np.float32) for index in indices])
    return _checked(values, f"{folder}: its test data")


def _test_set(spec: Spec) -> Any:
    if spec.is_demo:
        from edgeprune.workload.demo import demo_scenes

        return demo_scenes("test", REAL_VECTORS * 4)
    from edgeprune.workload.data import load_data

    return load_data(spec.data, spec.fit.seed, spec.fit.calibration_samples).test


def _checked(values: Array, where: str) -> Array:
    if len(values) < REAL_VECTORS:
        raise UsageError(f"{len(values)} real inputs, at least {REAL_VECTORS} are needed", where=where)
    if not np.isfinite(values).all():
        raise UsageError("an input has values that are not finite", where=where)
    return values
