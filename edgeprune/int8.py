"""The int8 files of one round of a fit: the ladder of `edgeprune.ladder`, judged by the deployed file.

All formats get the model and the ranges that made the deployed one hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgeprune import backends
from edgeprune.backends import Artifact
from edgeprune.job import Job, export, inputs
from edgeprune.ladder import Climbed, Context, Prepared, climb
from edgeprune.pruning.trace import Captured, copy_module
from edgeprune.quantization.layers import with_tensors
from edgeprune.training.checkpoint import load_state, save_state
from edgeprune.training.evaluate import evaluate_session


@dataclass(frozen=True)
class Held:
    """What was chosen, and the deployed file's metrics on validation."""

    climbed: Climbed
    validation: dict[str, float]


def held_in_int8(job: Job, number: int, tuned: Captured, fp32: float) -> Held:
    """Make the deployed int8 file of a round's model hold within the job's `quantize.max_drop`.

    Args:
        number: The round's.
        fp32: The model's primary metric on validation.
    """
    spec, task = job.run.spec, job.workload.task
    deployed = backends.get(job.deployed)
    seen: dict[int, dict[str, float]] = {}

    def judge(trial: int, prepared: Prepared) -> dict[str, float]:
        artifact = _file(job, number, trial, prepared, job.deployed)
        session = deployed.load(artifact.path, threads=1)
        seen[trial] = evaluate_session(session, job.workload.data.validation, task, progress=job.progress)
        return {backends.format_of(job.deployed): seen[trial][task.primary]}

    context = Context(
        workload=job.workload,
        samples=inputs(job, spec.fit.calibration_samples).cpu(),
        weight_limit=min(backends.get(name).WEIGHT_LIMIT for name in job.formats),
        mixes=not deployed.FLOAT_LAYERS,
        spec=spec.quantize,
        training=spec.fit,
        device=job.device,
        teacher=lambda: job.teacher if spec.fit.distill else None,
        stored=_stored(job, f"round-{number}-on-grid"),
        progress=job.progress,
    )
    here = Captured(copy_module(tuned.module), tuned.graph)
    here.module.cpu()
    climbed = climb(here, fp32, context, judge)
    return Held(climbed, seen[climbed.number])


def int8_file(job: Job, number: int, held: Held, backend: str) -> Artifact:
    """The file of a format, made as the deployed one was."""
    climbed = held.climbed
    return _file(job, number, climbed.number, climbed.prepared, backend)


def _file(job: Job, number: int, trial: int, prepared: Prepared, backend: str) -> Artifact:
    key = f"round-{number}-{backend}" + (f"-step-{trial}" if trial else "")
    whole = backends.get(backend).FLOAT_LAYERS
    in_float = () if whole else prepared.in_float
    samples = job.run.spec.fit.calibration_samples
    artifact = export(job, prepared.captured, key, backend, "int8", samples, prepared.ranges, in_float)
    if whole and prepared.in_float:
        note = f"in int8 here too, because {whole}: {', '.join(prepared.in_float)}"
        artifact = artifact.model_copy(update={"notes": (*artifact.notes, note)})
    return artifact


def _stored(job: Job, key: str) -> Callable[[Captured, Callable[[], Captured]], Captured]:
    """Training takes long: a killed fit finds its result in the run folder."""

    def trained(start: Captured, train: Callable[[], Captured]) -> Captured:
        folder = job.run.folder(key)
        if folder is not None:
            made = with_tensors(start, {})
            load_state(made.module, folder / "model.safetensors")
            return made
        made = train()
        with job.run.write_folder(key) as work:
            save_state(made.module, work / "model.safetensors")
        return made

    return trained
