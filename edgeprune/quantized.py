"""A float model as int8 files that hold: the ladder of `edgeprune.ladder`, judged by every file that is asked for."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from edgeprune import backends
from edgeprune.backends import Artifact
from edgeprune.errors import UsageError, missing_extra
from edgeprune.ladder import Climbed, Context, Prepared, climb
from edgeprune.progress import SILENT, Progress
from edgeprune.pruning.groups import channel_groups
from edgeprune.pruning.plan import Plan
from edgeprune.pruning.surgery import prune
from edgeprune.pruning.trace import Captured, trace
from edgeprune.quantization.gates import check
from edgeprune.quantize_document import QuantizedRow, QuantizeRecord
from edgeprune.record import read_record
from edgeprune.spec import Spec
from edgeprune.training.checkpoint import load_state
from edgeprune.training.distil import teacher_for
from edgeprune.training.evaluate import evaluate, evaluate_session
from edgeprune.training.fine_tune import training_device
from edgeprune.workload import Dataset, Workload
from edgeprune.workload.load import load_workload
from edgeprune.workload.samples import batches

_GATE_SAMPLES = 64


@dataclass(frozen=True)
class Source:
    """The float model to quantise, and the problem that it is for."""

    workload: Workload
    captured: Captured
    spec: Spec


def from_model(spec: Spec) -> Source:
    """The model that a job names, as it is.

    Raises:
        UsageError, UnsupportedError: It cannot be loaded or captured.
    """
    workload = load_workload(spec)
    return Source(workload, trace(workload.model, workload.example), spec)


def from_run(path: Path) -> Source:
    """The pruned and tuned model of a finished run, in float, with the run's job.

    Raises:
        UsageError: Not a finished run, or one without a trained model.
    """
    record = read_record(path)
    chosen = [number for number, row in enumerate(record.rounds, 1) if row.decision == "accept"]
    if record.spec is None or not chosen:
        raise UsageError("this run holds no trained model", where=str(path), hint="its budget was out of reach")
    folder = path / f"round-{chosen[0]}-model"
    workload = load_workload(record.spec)
    whole = trace(workload.model, workload.example)
    plan = Plan.model_validate_json((folder / "plan.json").read_text(encoding="utf-8"))
    pruned = prune(whole, channel_groups(whole.graph), plan)
    load_state(pruned.module, folder / "model.safetensors")
    return Source(workload, Captured(pruned.module.eval(), pruned.graph), record.spec)


def quantize(source: Source, wanted: Sequence[str], out: Path, progress: Progress = SILENT) -> QuantizeRecord:
    """Write int8 files below `out`, one folder per format, that lose no more than `spec.quantize.max_drop`.

    The steps are chosen on the validation set; the test set is used once, for what is reported.

    Args:
        wanted: Backends, such as onnxruntime; every one that is installed and needs no asking when empty.

    Raises:
        MissingExtraError: A format is not installed.
        QualityError: A file does not pass a gate.
    """
    names = tuple(wanted) or backends.installed()
    for name in names:
        if reason := backends.get(name).missing():
            raise missing_extra(backends.get(name).EXTRA, f"exporting for {name} ({reason})")
    workload, captured, data = source.workload, source.captured, source.workload.data
    device = training_device(source.spec.fit.device)
    metrics = {
        "validation": evaluate(captured.module, data.validation, workload.task, device=device),
        "test": evaluate(captured.module, data.test, workload.task, device=device),
    }
    captured.module.cpu()
    fp32 = {part: found[workload.task.primary] for part, found in metrics.items()}
    with tempfile.TemporaryDirectory() as scratch:
        files: dict[tuple[int, str], Artifact] = {}

        def judge(number: int, prepared: Prepared) -> dict[str, float]:
            found = {}
            for name in names:
                folder = Path(scratch) / str(number) / name
                files[number, name] = _written(source, prepared, name, folder)
                session = backends.get(name).load(files[number, name].path)
                metrics = evaluate_session(session, data.validation, workload.task)
                found[backends.format_of(name)] = metrics[workload.task.primary]
            return found

        climbed = climb(captured, fp32["validation"], _context(source, names, device, progress), judge)
        chosen = {name: _moved(files[climbed.number, name], out / backends.format_of(name)) for name in names}
    return _record(source, climbed, chosen, fp32)


def _context(source: Source, names: Sequence[str], device: torch.device, progress: Progress) -> Context:
    workload, spec = source.workload, source.spec
    return Context(
        workload=workload,
        samples=_inputs(workload.data.calibration),
        weight_limit=min(backends.get(name).WEIGHT_LIMIT for name in names),
        mixes=not any(backends.get(name).FLOAT_LAYERS for name in names),
        spec=spec.quantize,
        training=spec.fit,
        device=device,
        teacher=lambda: teacher_for(source.captured.module, workload, device, progress) if spec.fit.distill else None,
        progress=progress,
    )


def _written(source: Source, prepared: Prepared, name: str, folder: Path) -> Artifact:
    folder.mkdir(parents=True)
    workload = source.workload
    return backends.get(name).export(
        prepared.captured.module,
        workload.example.numpy(),
        folder,
        "int8",
        _inputs(workload.data.calibration).numpy(),
        prepared.ranges,
        in_float=prepared.in_float,
    )


def _moved(artifact: Artifact, folder: Path) -> Artifact:
    """The artifact in its final place."""
    inside = backends.place(artifact)
    shutil.copytree(artifact.path.parents[len(inside.parts) - 1], folder, dirs_exist_ok=True)
    return artifact.model_copy(update={"path": folder / inside})


def _record(
    source: Source, climbed: Climbed, written: Mapping[str, Artifact], fp32: Mapping[str, float]
) -> QuantizeRecord:
    workload, prepared, chosen = source.workload, climbed.prepared, climbed.rows[climbed.number]
    task, data, limit = workload.task, workload.data, source.spec.quantize.limit()
    sign = 1 if task.higher_is_better else -1
    samples = _inputs(data.validation, _GATE_SAMPLES)
    module = source.captured.module if prepared.same else prepared.captured.module
    with torch.no_grad():
        reference = module.eval().cpu()(samples).numpy()
    rows = []
    for name, artifact in written.items():
        gates = check(artifact, reference, samples.numpy(), float_macs=prepared.float_macs)
        test = evaluate_session(backends.get(name).load(artifact.path), data.test, task)[task.primary]
        validation = chosen.metrics[backends.format_of(name)]
        rows.append(
            QuantizedRow(
                name=backends.format_of(name),
                path=artifact.path,
                precision=gates.precision,
                size_bytes=artifact.size_bytes,
                sha256=artifact.sha256,
                float_ops=gates.exceptions,
                snr_db=gates.snr_db,
                notes=artifact.notes,
                validation=validation,
                test=test,
                validation_drop=sign * (fp32["validation"] - validation),
                test_drop=sign * (fp32["test"] - test),
            )
        )
    return QuantizeRecord(
        metric=task.primary,
        higher_is_better=task.higher_is_better,
        max_drop=limit,
        holds=chosen.drop is not None and chosen.drop <= limit.allowed(fp32["validation"]),
        validation=fp32["validation"],
        test=fp32["test"],
        samples={part: len(getattr(data, part)) for part in ("train", "validation", "calibration", "test")},
        steps=climbed.rows,
        artifacts=tuple(rows),
        notes=data.notes,
    )


def _inputs(dataset: Dataset, count: int | None = None) -> torch.Tensor:
    """The first samples (n, ...), all of them without a count."""
    whole = torch.cat([x for x, _ in batches(dataset, 256)]) if count is None else None
    return whole if whole is not None else next(x for x, _ in batches(dataset, count or 1))
