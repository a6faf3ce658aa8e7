"""The stages of a fit: each a function from earlier results to a frozen value that the run folder keeps.

A stage that is found in the run folder is not computed again, so a killed fit continues after the last finished one.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from edgeprune import backends
from edgeprune.backends import Artifact, Precision
from edgeprune.cost import Budget, Correction, Measurement
from edgeprune.decide import Round, corrected
from edgeprune.device.estimate import estimate
from edgeprune.device.fusion import fuse
from edgeprune.device.latency import load_latency_model
from edgeprune.errors import QualityError, UsageError, missing_extra
from edgeprune.profiling import profile
from edgeprune.progress import Progress
from edgeprune.pruning.allocation import (
    Allocation,
    Bounds,
    Costing,
    holds,
    most_valuable,
    score_values,
    smallest,
    smallest_plan,
    uniform_within,
)
from edgeprune.pruning.curves import kl_divergence, measured_curves, relative_error
from edgeprune.pruning.groups import ChannelGroups, channel_groups
from edgeprune.pruning.importance import importance
from edgeprune.pruning.limits import Levels, width_levels
from edgeprune.pruning.plan import Plan, keeps_all
from edgeprune.pruning.solver import Vector
from edgeprune.pruning.surgery import masked, prune
from edgeprune.pruning.trace import Captured, trace
from edgeprune.quantization.gates import GateReport, check
from edgeprune.quantization.ranges import RangePolicy
from edgeprune.record import Run
from edgeprune.target import Target, load_target
from edgeprune.training.checkpoint import load_state, save_state
from edgeprune.training.distil import Teacher, teacher_for
from edgeprune.training.evaluate import evaluate, evaluate_session
from edgeprune.training.fine_tune import fine_tune, re_estimate
from edgeprune.values import Value
from edgeprune.workload import Workload
from edgeprune.workload.samples import batches
from edgeprune.workload.tasks import Classify

_GATE_SAMPLES = 64
_NORM_BATCHES = 8  # that BatchNorm is re-estimated on; fine-tuning goes on from there
_COST_SAMPLES = 16  # to calibrate a file that is only costed: its ranges do not matter
_CURVE_SAMPLES = 96
_MEASURED_GUARD = 0.02  # of the latency budget: what a later measurement of the same file may add
_ESTIMATED_GUARD = 0.005  # what the exporter may do to a plan's estimate
_BINDING = 5  # layers named when a budget is out of reach
_EXACT = 1e-4  # largest |pruned - masked| / |masked| in fp32


@dataclass(frozen=True)
class Job:
    """One fit: what was asked for, opened and checked, and the dense model's picture of itself."""

    run: Run
    workload: Workload
    target: Target
    runtime: str
    threads: int
    budget: Budget
    formats: tuple[str, ...]  # backends to export for; the deployed one among them
    device: torch.device
    captured: Captured
    groups: ChannelGroups
    levels: Levels
    costing: Costing
    progress: Progress

    @property
    def deployed(self) -> str:
        """The backend whose artifact the verdict rests on."""
        return self.target.runtime(self.runtime).backend

    @cached_property
    def teacher(self) -> Teacher:
        """The dense model, or its outputs where they never change."""
        return teacher_for(self.captured.module, self.workload, self.device, self.progress)


class Dense(Value):
    """The dense model: how good it is and what its int8 file costs."""

    validation: dict[str, float]
    test: dict[str, float]
    artifact: Artifact
    measurement: Measurement
    fp32: Measurement
    anchor: Round


class Importance(Value):
    """Scores (channels,) and, when measured, damage (levels,) per group."""

    scores: dict[str, tuple[float, ...]]
    curves: dict[str, tuple[float, ...]] | None


class Floor(Value):
    """The smallest reachable cost, and whether it leaves room for a plan within the budget."""

    feasible: bool
    measurement: Measurement
    binding: tuple[str, ...]
    correction: Correction  # what the first plan is solved with
    anchor: Round | None


class Planned(Value):
    """One solved plan."""

    name: str
    plan: Plan
    predicted: Measurement
    gap: float | None
    seconds: float
    metric: float | None = None  # of the race, on validation


class Race(Value):
    """The raced plans, best first."""

    plans: tuple[Planned, ...]


class Exported(Value):
    """A file with what its runtime says of it."""

    artifact: Artifact
    measurement: Measurement | None
    gates: GateReport
    validation: dict[str, float]
    test: dict[str, float]


class Tuned(Value):
    """The fine-tuned pruned model and all its files."""

    validation: dict[str, float]
    test: dict[str, float]
    epochs: int
    fp32: Measurement
    exported: dict[str, Exported]  # by backend


def open_job(run: Run, workload: Workload, progress: Progress) -> Job:
    """Check everything that can be wrong before any time is spent.

    Raises:
        UsageError: Unknown target, runtime or format; no device model for a latency budget.
        MissingExtraError: The deployed runtime or an asked-for format is not installed.
        UnsupportedError: The model cannot be captured.
    """
    spec = run.spec
    target = load_target(spec.target.name)
    runtime = spec.target.runtime or target.default_runtime
    offered = target.runtime(runtime)
    threads = spec.target.threads or offered.threads
    formats = _formats(spec.fit.formats, offered.backend)
    budget = spec.budget.parsed()
    latency = load_latency_model(target, runtime, "int8", threads)
    if budget.latency_s is not None and latency is None:
        raise UsageError(
            f"no latency model for {target.name}, {runtime}, int8, {threads} thread(s)",
            where="--latency",
            hint=f"edgeprune targets show {target.name} lists what it has; --ram and --size need no model",
        )
    wanted = spec.fit.device
    cuda = wanted == "cuda" or (wanted == "auto" and torch.cuda.is_available())
    if cuda and not torch.cuda.is_available():
        raise UsageError("no CUDA device here", where="fit.device", hint="use cpu or auto")
    progress.note("capturing the model")
    captured = trace(workload.model, workload.example)
    groups = channel_groups(captured.graph)
    levels = width_levels(groups, spec.fit.step or offered.channel_step, spec.fit.min_keep)
    costing = Costing(groups, fuse(captured.graph), target, runtime, threads, "int8", latency, Correction())
    device = torch.device("cuda" if cuda else "cpu")
    captured.module.to(device)
    return Job(
        run, workload, target, runtime, threads, budget, formats, device, captured, groups, levels, costing, progress
    )


def _formats(asked: tuple[str, ...], deployed: str) -> tuple[str, ...]:
    """The backends to export for: the asked ones, else all that are installed; the deployed one always."""
    for name in (deployed, *asked):
        if reason := backends.get(name).missing():
            raise missing_extra(backends.get(name).EXTRA, f"exporting for {name} ({reason})")
    chosen = set(asked) or {name for name in backends.names() if not backends.get(name).missing()}
    return tuple(sorted({deployed, *chosen}))


def dense(job: Job) -> Dense:
    """Evaluate, export and profile the dense model; its profile gives the device model's first correction."""
    data, task = job.workload.data, job.workload.task
    job.progress.note("evaluating the dense model")
    validation = evaluate(job.captured.module, data.validation, task, device=job.device)
    test = evaluate(job.captured.module, data.test, task, device=job.device)
    primary = validation[task.primary]
    if not np.isfinite(primary):
        raise QualityError(f"the dense model's {task.primary} is {primary}", hint="check weights and data")
    artifact = _export(job, job.captured, "dense", job.deployed, "int8")
    measurement = _profile(job, artifact)
    predicted = job.costing.of_ops(job.costing.ops)
    seen = Round(correction=Correction(), predicted=predicted.cost, profiled=measurement.cost)
    fp32 = _fp32_cost(job, job.captured, "dense-fp32")
    return Dense(
        validation=validation,
        test=test,
        artifact=artifact,
        measurement=measurement,
        fp32=fp32,
        anchor=seen,
    )


def importance_and_curves(job: Job) -> Importance:
    """Score every channel; measure what a group's width costs, within the time limit."""
    fit, module = job.run.spec.fit, job.captured.module
    job.progress.note(f"scoring channels by {fit.criterion}")
    inputs = _inputs(job, fit.importance_samples)
    scores = importance(fit.criterion, job.captured, job.groups, list(torch.split(inputs, 32)), fit.seed)
    curves = None
    if fit.curves and job.groups.groups:
        damage = kl_divergence if isinstance(job.workload.task, Classify) else relative_error
        measured = measured_curves(
            Captured(module, job.captured.graph),
            job.groups,
            scores,
            job.levels,
            inputs[:_CURVE_SAMPLES],
            damage,
            fit.curves_limit_s,
            job.progress,
        )
        curves = {name: tuple(curve.tolist()) for name, curve in measured.items()}
    return Importance(scores={name: tuple(score.tolist()) for name, score in scores.items()}, curves=curves)


def floor(job: Job, dense: Dense) -> Floor:
    """The smallest reachable cost: predicted, and measured where this machine is the target.

    A measured floor proves a budget out of reach, and together with the dense model it gives the device model a line
    to interpolate on.
    """
    costing = replace(job.costing, correction=corrected(dense.anchor))
    least = smallest(costing, job.levels)
    binding = tuple(op.name for op in sorted(least.ops, key=lambda op: -(op.latency_s or 0.0))[:_BINDING])
    if job.target.latency != "measured":
        feasible = holds(bounds(job, costing), least)
        return Floor(feasible=feasible, measurement=least, binding=binding, correction=costing.correction, anchor=None)
    pruned = prune(job.captured, job.groups, smallest_plan(costing, job.levels))
    measured = _profile(job, _export(job, pruned, "smallest", job.deployed, "int8"))
    seen = Round(correction=costing.correction, predicted=least.cost, profiled=measured.cost)
    return Floor(
        feasible=not job.budget.violations(measured.cost),
        measurement=measured,
        binding=binding,
        correction=corrected(seen, [dense.anchor]),
        anchor=seen,
    )


def bounds(job: Job, costing: Costing) -> Bounds:
    """What the solver may spend: the budget less what the verdict will demand on top of a central estimate."""
    latency_s = job.budget.latency_s
    if latency_s is not None:
        if job.target.latency == "measured":
            latency_s *= 1 - _MEASURED_GUARD
        elif costing.latency is not None:
            latency_s *= (1 - _ESTIMATED_GUARD) / costing.latency.band.high  # the interval's upper end must hold
    return Bounds(latency_s, job.budget.ram_bytes, job.budget.size_bytes)


def allocations(job: Job, found: Importance, correction: Correction, only: str | None = None) -> tuple[Allocation, ...]:
    """Plans within the budget by each way of spending it, or by the one named; each different from the others."""
    fit = job.run.spec.fit
    costing = replace(job.costing, correction=correction)
    limits = bounds(job, costing)
    scores = {name: np.array(score) for name, score in found.scores.items()}
    values: dict[str, Mapping[str, Vector]] = {"score": score_values(job.groups, job.levels, scores)}
    if found.curves is not None:
        values["curves"] = {name: -np.array(curve) for name, curve in found.curves.items()}
    plans: list[Allocation | None] = []
    for name, value in values.items():
        if only in (None, name):
            plans.append(
                most_valuable(name, costing, limits, job.levels, value, scores, fit.solver_gap, fit.solver_limit_s)
            )
    if only in (None, "uniform"):
        step = fit.step or job.target.runtime(job.runtime).channel_step
        plans.append(uniform_within(costing, limits, scores, step, fit.min_keep))
    different: dict[str, Allocation] = {}
    for plan in plans:
        if plan is not None:
            different.setdefault(plan.plan.model_dump_json(), plan)
    return tuple(different.values())


def race(job: Job, found: Importance, correction: Correction) -> Race:
    """Tune each allocation for a few steps; the best on validation goes on. Uniform widths always take part."""
    fit, task = job.run.spec.fit, job.workload.task
    planned = [_planned(allocation) for allocation in allocations(job, found, correction)]
    if not planned:
        raise QualityError("no plan holds the budget although the smallest one does", hint="try a smaller --step")
    if len(planned) == 1 or fit.race_steps == 0:
        return Race(plans=tuple(planned))
    raced = []
    for entry in planned:
        job.progress.note(f"racing {entry.name}")
        module = _tuned(job, prune(job.captured, job.groups, entry.plan), steps=fit.race_steps)
        metric = evaluate(module.module, job.workload.data.validation, task, device=job.device)[task.primary]
        raced.append(entry.model_copy(update={"metric": metric}))
    sign = -1 if task.higher_is_better else 1
    return Race(plans=tuple(sorted(raced, key=lambda entry: sign * (entry.metric or 0.0))))


def replanned(job: Job, found: Importance, correction: Correction, name: str) -> Planned | None:
    """The race's winner solved again with another correction; None when the budget is out of its reach."""
    plans = allocations(job, found, correction, only=name)
    return _planned(plans[0]) if plans else None


def _planned(allocation: Allocation) -> Planned:
    return Planned(
        name=allocation.name,
        plan=allocation.plan,
        predicted=allocation.predicted,
        gap=allocation.gap,
        seconds=allocation.seconds,
    )


def rehearse(job: Job, number: int, planned: Planned) -> Measurement:
    """Cut, check, export and profile the plan before any training is spent on it: weights do not change the cost."""
    pruned = prune(job.captured, job.groups, planned.plan)
    _check_surgery(job, pruned, planned.plan)
    return _profile(job, _export(job, pruned, f"round-{number}-rehearsal", job.deployed, "int8"))


def _check_surgery(job: Job, pruned: Captured, plan: Plan) -> None:
    """Pruned must compute what masked computes, on a real batch.

    Raises:
        QualityError: It does not; nothing was trained or written.
    """
    inputs = _inputs(job, 8)
    with torch.no_grad():
        want = masked(job.captured, job.groups, plan).eval()(inputs)
        got = pruned.module.eval()(inputs)
    error = float((want - got).abs().max() / want.abs().max().clamp_min(1e-12))
    if not error <= _EXACT:
        raise QualityError(
            f"the pruned model differs from the masked one by {error:.1e} (relative, allowed {_EXACT:.0e})",
            where=job.workload.name,
            hint="this is a fault in edgeprune's channel groups; please report the model",
        )


def finish(job: Job, number: int, planned: Planned) -> Tuned:
    """Fine-tune the plan, export it everywhere, pass the gates, and profile and evaluate every file."""
    data, task, progress = job.workload.data, job.workload.task, job.progress
    key = f"round-{number}-model"
    tuned = prune(job.captured, job.groups, planned.plan)
    folder = job.run.folder(key)
    dense = keeps_all(job.groups, planned.plan)
    epochs = 0 if dense else job.run.spec.fit.epochs
    if folder is None:
        if not dense:  # nothing was removed, nothing to recover
            progress.note(f"fine-tuning plan {planned.name}")
            tuned = _tuned(job, tuned, epochs=epochs)
        with job.run.write_folder(key) as work:
            save_state(tuned.module, work / "model.safetensors")
            (work / "plan.json").write_text(planned.plan.model_dump_json(indent=1, by_alias=True) + "\n")
    else:
        load_state(tuned.module, folder / "model.safetensors")
    progress.note("evaluating the pruned model")
    validation = evaluate(tuned.module, data.validation, task, device=job.device)
    test = evaluate(tuned.module, data.test, task, device=job.device)
    exported = {}
    for name in job.formats:
        artifact = _export(job, tuned, f"round-{number}-{name}", name, "int8", job.run.spec.fit.calibration_samples)
        exported[name] = _exported(job, tuned, artifact)
    fp32 = _fp32_cost(job, tuned, f"round-{number}-fp32")
    return Tuned(validation=validation, test=test, epochs=epochs, fp32=fp32, exported=exported)


def publish(job: Job, tuned: Tuned) -> Tuned:
    """Copy the accepted files into the run's `artifacts` folder, where users look for them."""
    folder = job.run.folder("artifacts")
    if folder is None:
        with job.run.write_folder("artifacts") as work:
            for found in tuned.exported.values():
                for file in found.artifact.path.parent.glob(f"{found.artifact.path.stem}*"):
                    shutil.copy2(file, work / file.name)
        folder = job.run.folder("artifacts")
        assert folder is not None
    moved = {}
    for name, found in tuned.exported.items():
        artifact = found.artifact.model_copy(update={"path": folder / found.artifact.path.name})
        moved[name] = found.model_copy(update={"artifact": artifact})
    return tuned.model_copy(update={"exported": moved})


def _exported(job: Job, tuned: Captured, artifact: Artifact) -> Exported:
    """Gates, cost and accuracy of one file, in its own runtime."""
    data, task, progress = job.workload.data, job.workload.task, job.progress
    samples = _inputs(job, _GATE_SAMPLES, validation=True).cpu()
    with torch.no_grad():
        reference = tuned.module.eval()(samples.to(job.device)).float().cpu().numpy()
    progress.note(f"checking {artifact.path.name}")
    gates = check(artifact, reference, samples.numpy())
    session = backends.get(artifact.backend).load(artifact.path, threads=1)
    decides = artifact.backend == job.deployed
    validation = evaluate_session(session, data.validation, task, progress=progress) if decides else {}
    test = evaluate_session(session, data.test, task, progress=progress)
    runtimes = [name for name, offered in job.target.runtimes.items() if offered.backend == artifact.backend]
    runtime = job.runtime if artifact.backend == job.deployed else next(iter(runtimes), None)
    measurement = None if runtime is None else _profile(job, artifact, runtime)
    return Exported(artifact=artifact, measurement=measurement, gates=gates, validation=validation, test=test)


def _tuned(job: Job, pruned: Captured, *, epochs: int | None = None, steps: int | None = None) -> Captured:
    fit = job.run.spec.fit
    module = pruned.module.to(job.device)
    re_estimate(
        module, job.workload.data.train, fit.batch_size, batches=_NORM_BATCHES, seed=fit.seed, device=job.device
    )
    fine_tune(
        module,
        job.workload,
        teacher=job.teacher if fit.distill else None,
        settings=fit,
        epochs=epochs,
        steps=steps,
        seed=fit.seed,
        device=job.device,
        progress=job.progress,
    )
    return Captured(module.eval(), pruned.graph)


def _export(
    job: Job, captured: Captured, key: str, backend: str, precision: Precision, samples: int = _COST_SAMPLES
) -> Artifact:
    """The artifact in the run folder's `key`; exported unless it is there already."""
    folder = job.run.folder(key)
    if folder is None:
        job.progress.note(f"exporting {key} ({backend}, {precision})")
        calibration = _inputs(job, samples).cpu().numpy()
        example = job.workload.example.numpy()
        module = captured.module.cpu().eval()
        with job.run.write_folder(key) as work:
            artifact = backends.get(backend).export(
                module, example, work, precision, calibration if precision == "int8" else None, RangePolicy()
            )
            (work / "artifact.json").write_text(
                artifact.model_copy(update={"path": Path(artifact.path.name)}).model_dump_json()
            )
        module.to(job.device)
        folder = job.run.folder(key)
        assert folder is not None
    stored = Artifact.model_validate_json((folder / "artifact.json").read_text())
    return stored.model_copy(update={"path": folder / stored.path})


def _profile(job: Job, artifact: Artifact, runtime: str | None = None) -> Measurement:
    return profile(
        artifact.path,
        job.target,
        runtime=runtime or job.runtime,
        threads=job.threads if runtime in (None, job.runtime) else None,
        at=job.budget.at,
        inputs=_inputs(job, 8).cpu().numpy(),
        progress=job.progress,
    )


def _fp32_cost(job: Job, captured: Captured, key: str) -> Measurement:
    """The same model in fp32 on the deployed runtime: measured where this machine is the target, else estimated."""
    if job.target.latency == "measured":
        return _profile(job, _export(job, captured, key, job.deployed, "fp32"))
    return estimate(fuse(captured.graph), job.target, job.runtime, "fp32", job.threads)


def _inputs(job: Job, count: int, *, validation: bool = False) -> torch.Tensor:
    """The first samples of the calibration set, which is drawn from the training data (or of the validation set)."""
    source = job.workload.data.validation if validation else job.workload.data.calibration
    parts, have = [], 0
    for x, _ in batches(source, 64):
        parts.append(x)
        have += len(x)
        if have >= count:
            break
    return torch.cat(parts)[:count].to(job.device)
