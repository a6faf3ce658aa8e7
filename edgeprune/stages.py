"""The stages of a fit: each a function from earlier results to a frozen value that the run folder keeps.

A stage that is found in the run folder is not computed again, so a killed fit continues after the last finished one.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from edgeprune import backends
from edgeprune.backends import Artifact
from edgeprune.cost import Measurement
from edgeprune.decide import Rehearse
from edgeprune.device.fusion import fuse
from edgeprune.documents import QuantizeRow
from edgeprune.errors import QualityError
from edgeprune.evidence import first
from edgeprune.followers import Told, Training, tell, tune
from edgeprune.int8 import Held, held_in_int8, int8_file
from edgeprune.job import Job, evidence, export, fp32_cost, inputs, profiled
from edgeprune.pruning.allocation import (
    Allocation,
    Bounds,
    most_valuable,
    score_values,
    smallest_plan,
    uniform_within,
)
from edgeprune.pruning.check import TOLERANCE, difference
from edgeprune.pruning.curves import kl_divergence, measured_curves, relative_error
from edgeprune.pruning.dead import dead_channels, dead_last
from edgeprune.pruning.feasibility import reach
from edgeprune.pruning.importance import importance
from edgeprune.pruning.plan import Plan, apply, intersection, keeps_all
from edgeprune.pruning.problem import Vector
from edgeprune.pruning.stability import Stability
from edgeprune.pruning.surgery import prune
from edgeprune.pruning.trace import Captured
from edgeprune.quantization.gates import GateReport, check
from edgeprune.training.checkpoint import load_state, save_state
from edgeprune.training.evaluate import evaluate, evaluate_session
from edgeprune.training.fine_tune import re_estimate
from edgeprune.values import Value
from edgeprune.workload.tasks import Classify

_GATE_SAMPLES = 64
_NORM_BATCHES = 8  # that BatchNorm is re-estimated on; fine-tuning goes on from there
_CURVE_SAMPLES = 96
_DEAD_SAMPLES = 32  # on which masking a dead channel must change nothing
_BINDING = 5  # layers named when a budget is out of reach


class Evaluated(Value):
    """How good the dense model is, whatever it runs on."""

    validation: dict[str, float]
    test: dict[str, float]


class Dense(Value):
    """The dense model: how good it is and what its int8 file costs."""

    validation: dict[str, float]
    test: dict[str, float]
    artifact: Artifact
    measurement: Measurement
    fp32: Measurement


class Importance(Value):
    """Scores (channels,) and, when measured, damage (levels,) per group."""

    scores: dict[str, tuple[float, ...]]
    curves: dict[str, tuple[float, ...]] | None
    dead: dict[str, tuple[int, ...]] = {}  # channels that do nothing, per group; they go first
    samples: int = 0  # that the criterion looked at
    stability: Stability | None = None  # None where it looked at weights only
    told: tuple[str, ...] = ()  # what must be known of the criterion and of what it found

    @property
    def notes(self) -> tuple[str, ...]:
        """What the record must say of the channels."""
        listed = ", ".join(f"{len(channels)} of {name}" for name, channels in self.dead.items())
        return (*self.told, *((f"dead channels, which go first: {listed}",) if listed else ()))


class Floor(Value):
    """The smallest reachable cost, and whether it leaves room for a plan within the budget."""

    feasible: bool
    measurement: Measurement
    binding: tuple[str, ...]
    aim: Rehearse  # what the first plans are solved with


class Planned(Value):
    """One solved plan, and what it was solved with."""

    name: str
    plan: Plan
    aim: Rehearse
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
    quantization: tuple[QuantizeRow, ...] = ()  # what was tried so that int8 holds


def evaluated(job: Job) -> Evaluated:
    """Evaluate the dense model.

    Raises:
        QualityError: Its metric is not finite.
    """
    data, task = job.workload.data, job.workload.task
    job.progress.note("evaluating the dense model")
    validation = evaluate(job.captured.module, data.validation, task, device=job.device)
    test = evaluate(job.captured.module, data.test, task, device=job.device)
    primary = validation[task.primary]
    if not np.isfinite(primary):
        raise QualityError(f"the dense model's {task.primary} is {primary}", hint="check weights and data")
    return Evaluated(validation=validation, test=test)


def dense(job: Job, evaluated: Evaluated) -> Dense:
    """Export and profile the dense model; its profile gives the device model's first correction."""
    artifact = export(job, job.captured, "dense", job.deployed, "int8")
    measurement = profiled(job, artifact, macs=macs_of(job, Plan(keep={})))
    fp32 = fp32_cost(job, job.captured, "dense-fp32")
    return Dense(
        validation=evaluated.validation,
        test=evaluated.test,
        artifact=artifact,
        measurement=measurement,
        fp32=fp32,
    )


def importance_and_curves(job: Job) -> Importance:
    """Score every channel; measure what a group's width costs, within the time limit."""
    fit, module = job.run.spec.fit, job.captured.module
    job.progress.note(f"scoring channels by {fit.criterion}")
    seen = evidence(job, job.captured, job.groups)
    ranking = importance(job.criterion, seen)
    samples = inputs(job, fit.importance_samples)
    dead = dead_channels(job.captured, job.groups, (samples[:_DEAD_SAMPLES],))
    scores = dead_last(ranking.scores, dead)
    curves = None
    if fit.curves and job.groups.groups:
        damage = kl_divergence if isinstance(job.workload.task, Classify) else relative_error
        measured = measured_curves(
            Captured(module, job.captured.graph),
            job.groups,
            scores,
            job.levels,
            samples[:_CURVE_SAMPLES],
            damage,
            fit.curves_limit_s,
            job.progress,
        )
        curves = {name: tuple(curve.tolist()) for name, curve in measured.items()}
    found = Importance(
        scores={name: tuple(score.tolist()) for name, score in scores.items()},
        curves=curves,
        dead=dead,
        samples=job.criterion.seen(seen),
        stability=ranking.stability,
        told=ranking.notes,
    )
    for note in found.notes:
        job.progress.note(note)
    return found


def floor(job: Job, dense: Dense) -> Floor:
    """The smallest reachable cost: predicted, and measured where this machine is the target.

    A measured floor proves a budget out of reach, and together with the dense model it gives the device model a line
    to interpolate on.
    """
    whole = (Plan(keep={}), dense.measurement)
    aim = first(job, [whole])
    costing = replace(job.costing, correction=aim.correction)
    found = reach(costing, bounds(job, aim), job.levels, job.run.spec.fit.solver_limit_s)
    slowest = tuple(op.name for op in sorted(found.cost.ops, key=lambda op: -(op.latency_s or 0.0))[:_BINDING])
    binding = tuple(f"{layer} ({short.what})" for short in found.shortfalls for layer in short.layers) or slowest
    if not job.runs_files:
        return Floor(feasible=found.feasible, measurement=found.cost, binding=binding, aim=aim)
    plan = smallest_plan(costing, job.levels)
    pruned = prune(job.captured, job.groups, plan)
    measured = profiled(job, export(job, pruned, "smallest", job.deployed, "int8"), macs=macs_of(job, plan))
    return Floor(
        feasible=not job.budget.violations(measured.cost),
        measurement=measured,
        binding=binding,
        aim=first(job, [whole, (plan, measured)]),
    )


def anchors(job: Job, dense: Dense, floor: Floor) -> tuple[tuple[Plan, Measurement], ...]:
    """The profiled files that are no candidates: the dense model's and, where it was measured, the smallest one's."""
    found = [(Plan(keep={}), dense.measurement)]
    if job.runs_files:
        found.append((smallest_plan(job.costing, job.levels), floor.measurement))
    return tuple(found)


def bounds(job: Job, aim: Rehearse) -> Bounds:
    """What the solver may spend."""
    return Bounds(aim.latency_s, job.budget.ram_bytes, job.budget.size_bytes, job.budget.macs)


def allocations(
    job: Job, found: Importance, aim: Rehearse, only: str | None = None, limits: Bounds | None = None
) -> tuple[Allocation, ...]:
    """Plans within the budget by each way of spending it, or by the one named; each different from the others."""
    fit = job.run.spec.fit
    costing = replace(job.costing, correction=aim.correction)
    limits = bounds(job, aim) if limits is None else limits
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
        plans.append(uniform_within(costing, limits, scores, step, fit.min_keep, job.levels))
    different: dict[str, Allocation] = {}
    for plan in plans:
        if plan is not None and job.within is not None:
            both = intersection(plan.plan, job.within)
            plan = replace(plan, plan=both, predicted=costing.of(both))
        if plan is not None:
            different.setdefault(plan.plan.model_dump_json(), plan)
    return tuple(different.values())


def race(job: Job, found: Importance, aim: Rehearse) -> Race:
    """Tune each allocation for a few steps; the best on validation goes on. Uniform widths always take part."""
    fit, task = job.run.spec.fit, job.workload.task
    planned = [_planned(allocation, aim) for allocation in allocations(job, found, aim)]
    if not planned:
        raise QualityError("no plan holds the budget although the smallest one does", hint="try a smaller --step")
    if len(planned) == 1 or fit.race_steps == 0:
        return Race(plans=tuple(planned))
    raced = []
    for entry in planned:
        job.progress.note(f"racing {entry.name}")
        workspace = job.run.workspace("race") / entry.name
        pruned = prune(job.captured, job.groups, entry.plan)
        module = trained(job, pruned, entry.plan, workspace, steps=fit.race_steps)
        metric = evaluate(module.module, job.workload.data.validation, task, device=job.device)[task.primary]
        raced.append(entry.model_copy(update={"metric": metric}))
    sign = -1 if task.higher_is_better else 1
    return Race(plans=tuple(sorted(raced, key=lambda entry: sign * (entry.metric or 0.0))))


def replanned(job: Job, found: Importance, aim: Rehearse, name: str, tried: Sequence[Plan]) -> Planned | None:
    """The race's winner solved again, other than what was tried; None when there is no such plan.

    Where the solver comes back to a tried plan, the bound is moved a little: widths come in steps, and the device
    model is not sure to a percent either.
    """
    for move in (0.0, 0.015, 0.03):
        moved = 1 + move if aim.wider else 1 - move
        near = aim if aim.latency_s is None else aim.model_copy(update={"latency_s": aim.latency_s * moved})
        for allocation in allocations(job, found, near, only=name):
            if all(allocation.plan.keep != plan.keep for plan in tried):
                return _planned(allocation, near)
        if aim.latency_s is None:
            break
    return None


def solved(job: Job, found: Importance, aim: Rehearse, name: str, limits: Bounds) -> Planned | None:
    """The plan within other limits than the aim's, by one way of spending them; None when there is none."""
    return next((_planned(one, aim) for one in allocations(job, found, aim, name, limits)), None)


def is_whole(job: Job, plan: Plan) -> bool:
    """Whether the plan removes nothing."""
    return keeps_all(job.groups, plan)


def _planned(allocation: Allocation, aim: Rehearse) -> Planned:
    return Planned(
        name=allocation.name,
        plan=allocation.plan,
        aim=aim,
        predicted=allocation.predicted,
        gap=allocation.gap,
        seconds=allocation.seconds,
    )


def macs_of(job: Job, plan: Plan) -> int:
    """Multiply-accumulates of a plan's design."""
    return sum(op.macs for op in fuse(apply(plan, job.groups)))


def rehearse(job: Job, key: str, plan: Plan) -> Measurement:
    """Cut, check, export and profile a plan before any training is spent on it: weights do not change the cost."""
    pruned = prune(job.source, job.groups, plan)
    _check_surgery(job, pruned, plan)
    return profiled(job, export(job, pruned, key, job.deployed, "int8"), macs=macs_of(job, plan))


def _check_surgery(job: Job, pruned: Captured, plan: Plan) -> None:
    """Pruned must compute what masked computes, on a real batch.

    Raises:
        QualityError: It does not; nothing was trained or written.
    """
    error = difference(job.source, job.groups, plan, pruned, (inputs(job, 8),))
    if not error <= TOLERANCE:
        raise QualityError(
            f"the pruned model differs from the masked one by {error:.1e} (relative, allowed {TOLERANCE:.0e})",
            where=job.workload.name,
            hint="this is a fault in edgeprune's channel groups; please report the model",
        )


def finish(job: Job, number: int, plan: Plan) -> Tuned:
    """Fine-tune the plan, export it everywhere, pass the gates, and profile and evaluate every file."""
    data, task, progress = job.workload.data, job.workload.task, job.progress
    key = f"round-{number}-model"
    folder = job.run.folder(key)
    dense = keeps_all(job.groups, plan)
    tuned = prune(job.captured if dense else job.source, job.groups, plan)
    epochs = 0 if dense else job.run.spec.fit.epochs
    if folder is None:
        if not dense:  # nothing was removed, nothing to recover
            progress.note("fine-tuning the plan")
            tuned = trained(job, tuned, plan, job.run.workspace(f"round-{number}-tuned"), epochs=epochs)
        with job.run.write_folder(key) as work:
            save_state(tuned.module, work / "model.safetensors")
            (work / "plan.json").write_text(plan.model_dump_json(indent=1, by_alias=True) + "\n")
    else:
        load_state(tuned.module, folder / "model.safetensors")
    progress.note("evaluating the pruned model")
    validation = evaluate(tuned.module, data.validation, task, device=job.device)
    test = evaluate(tuned.module, data.test, task, device=job.device)
    held = held_in_int8(job, number, tuned, validation[task.primary])
    exported = {}
    for name in job.formats:
        exported[name] = _exported(job, tuned, held, int8_file(job, number, held, name), macs_of(job, plan))
    fp32 = fp32_cost(job, tuned, f"round-{number}-fp32")
    rows = held.climbed.rows
    return Tuned(validation=validation, test=test, epochs=epochs, fp32=fp32, exported=exported, quantization=rows)


def publish(job: Job, tuned: Tuned) -> Tuned:
    """Copy the accepted files into the run's `artifacts` folder, where users look for them."""
    folder = job.run.folder("artifacts")
    if folder is None:
        with job.run.write_folder("artifacts") as work:
            for found in tuned.exported.values():
                source, inside = found.artifact.path, backends.place(found.artifact)
                if inside.parent.name:  # a folder of files
                    shutil.copytree(source.parent, work / inside.parent)
                    continue
                for file in source.parent.glob(f"{source.stem}*"):
                    if file.is_file():
                        shutil.copy2(file, work / file.name)
        folder = job.run.folder("artifacts")
        assert folder is not None
    moved = {}
    for name, found in tuned.exported.items():
        artifact = found.artifact.model_copy(update={"path": folder / backends.place(found.artifact)})
        moved[name] = found.model_copy(update={"artifact": artifact})
    return tuned.model_copy(update={"exported": moved})


def _exported(job: Job, tuned: Captured, held: Held, artifact: Artifact, macs: int | None) -> Exported:
    """Gates, cost and accuracy of one file, in its own runtime."""
    data, task, progress, prepared = job.workload.data, job.workload.task, job.progress, held.climbed.prepared
    samples = inputs(job, _GATE_SAMPLES, validation=True).cpu()
    module = tuned.module.eval() if prepared.same else prepared.captured.module.to(job.device).eval()
    with torch.no_grad():
        reference = module(samples.to(job.device)).float().cpu().numpy()
    progress.note(f"checking {artifact.path.name}")
    gates = check(artifact, reference, samples.numpy(), float_macs=prepared.float_macs)
    session = backends.get(artifact.backend).load(artifact.path, threads=1)
    validation = held.validation if artifact.backend == job.deployed else {}
    test = evaluate_session(session, data.test, task, progress=progress)
    runtimes = [name for name, offered in job.target.runtimes.items() if offered.backend == artifact.backend]
    runtime = job.runtime if artifact.backend == job.deployed else next(iter(runtimes), None)
    measurement = None if runtime is None else profiled(job, artifact, runtime, macs)
    return Exported(artifact=artifact, measurement=measurement, gates=gates, validation=validation, test=test)


def trained(
    job: Job, pruned: Captured, plan: Plan, workspace: Path, *, epochs: int | None = None, steps: int | None = None
) -> Captured:
    """A pruned model with its BatchNorm statistics measured anew and fine-tuned, by epochs or by steps.

    Args:
        plan: What it keeps of the dense model, which it learns from.
        workspace: Where its training goes on from after a kill.
    """
    spec, fit = job.run.spec, job.run.spec.fit
    module = pruned.module.to(job.device)
    re_estimate(
        module, job.workload.data.train, fit.batch_size, batches=_NORM_BATCHES, seed=fit.seed, device=job.device
    )
    training = Training(plan=plan, epochs=epochs, steps=steps)
    tell(job.ranks, Told(training=training))
    tune(
        spec,
        job.workload,
        job.captured,
        job.groups,
        pruned,
        training,
        teacher=job.teacher if fit.distill else None,
        device=job.device,
        ranks=job.ranks,
        progress=job.progress,
        workspace=workspace,
        curves=job.run.path / "tensorboard" / workspace.relative_to(job.run.workspaces),
    )
    return Captured(module.eval(), pruned.graph)
