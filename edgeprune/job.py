"""One fit's job: what was asked for, opened and checked, and how its files are written, costed and fed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from edgeprune import backends
from edgeprune.backends import Artifact, Precision
from edgeprune.calibration.store import find
from edgeprune.cost import Budget, Correction, Measurement, Source
from edgeprune.device.energy import within_energy
from edgeprune.device.estimate import estimate
from edgeprune.device.fusion import fuse
from edgeprune.device.latency import DeviceModel
from edgeprune.device.standing import without_model_hint
from edgeprune.emulated import check_tools
from edgeprune.emulated_board import at_hand, emulated_target
from edgeprune.errors import MissingExtraError, QualityError, UsageError, missing_extra
from edgeprune.links import Link
from edgeprune.links.emulator import OF_THE_TARGET, EmulatedBoard, linked
from edgeprune.on_device import reached
from edgeprune.profiling import profile
from edgeprune.progress import SILENT, Progress
from edgeprune.pruning.allocation import Costing
from edgeprune.pruning.check import vetted
from edgeprune.pruning.criteria.evidence import Criterion, Evidence, Sampled
from edgeprune.pruning.groups import ChannelGroups, channel_groups
from edgeprune.pruning.layer_bounds import spans
from edgeprune.pruning.limits import Levels, width_levels
from edgeprune.pruning.opening import open_model
from edgeprune.pruning.plan import Plan
from edgeprune.pruning.trace import Captured
from edgeprune.quantization.ranges import RangePolicy
from edgeprune.record import Run
from edgeprune.spec import NO_DEVICE, Spec
from edgeprune.target import Target, load_target
from edgeprune.timing import Reference
from edgeprune.training.distil import Teacher, teacher_for
from edgeprune.training.fine_tune import check_recipe
from edgeprune.training.ranks import ALONE, Ranks
from edgeprune.workload import Workload
from edgeprune.workload.criteria import load_criterion
from edgeprune.workload.samples import batches

_SCORED_AT_ONCE = 32
COST_SAMPLES = 16  # to calibrate a file that is only costed: its ranges do not matter


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
    criterion: Criterion
    progress: Progress
    notes: tuple[str, ...] = ()  # what the user must know of the captured model and of what is not exported
    left_whole: frozenset[str] = frozenset()  # groups that did not pass the check
    start: Captured | None = None  # the whole model after stages of pruning; None: the dense model
    usual_s: float | None = None  # what the dense model's file usually takes; None before that is known
    within: Plan | None = None  # what plans may still keep after stages without regrowth; None: everything
    ranks: Ranks = ALONE  # the processes that train together
    link: Link | None = None  # to the device that files are measured on; None: this machine, or nowhere

    @property
    def runs_files(self) -> bool:
        """Whether files are run where they are profiled: on this machine, a linked device, or an emulated core."""
        return self.target.latency == "measured" or self.target.runtime(self.runtime).emulated

    @property
    def deployed(self) -> str:
        """The backend whose artifact the verdict rests on."""
        return self.target.runtime(self.runtime).backend

    @property
    def source(self) -> Captured:
        """The model that plans cut: the dense one, or what stages of pruning made of it."""
        return self.captured if self.start is None else self.start

    def after_stage(self, start: Captured, levels: Levels, within: Plan | None) -> Job:
        """The job of the next stage; its teacher is the same dense model."""
        return self.changed(start=start, levels=levels, within=within)

    def changed(self, **fields: Any) -> Job:
        """This job with other fields; what its teacher has computed is kept."""
        job = replace(self, **fields)
        if "teacher" in self.__dict__:  # its outputs took a pass over the training data
            job.__dict__["teacher"] = self.teacher
        return job

    @cached_property
    def teacher(self) -> Teacher:
        """The dense model, or its outputs where they never change."""
        return teacher_for(self.captured.module, self.workload, self.device, self.progress)


@dataclass(frozen=True)
class Aim:
    """What a job's model will run on, and what its latency is predicted by.

    Attributes:
        latency: None where nothing predicts it.
        note: What must be said about where `latency` is from; empty for the shipped one.
    """

    target: Target
    runtime: str
    threads: int
    latency: DeviceModel | None
    note: str


def aimed(spec: Spec) -> Aim:
    """The job's target, runtime and threads, those not given by default.

    Raises:
        UsageError: Unknown target or runtime; no device model for a latency budget.
    """
    target = load_target(spec.target.name)
    runtime = spec.target.runtime or target.default_runtime
    threads = spec.target.threads or target.runtime(runtime).threads
    found = find(target, runtime, "int8", threads)
    if found.model is None and (spec.budget.latency is not None or spec.budget.energy is not None):
        raise UsageError(
            f"no latency model for {target.name}, {runtime}, int8, {threads} thread(s)",
            where="--latency" if spec.budget.latency is not None else "--energy",
            hint=without_model_hint(target, "int8"),
        )
    return Aim(target, runtime, threads, found.model, found.note)


def sourced(spec: Spec, progress: Progress = SILENT) -> Spec:
    """The spec with the best source of costs at hand: where no device is named, the target's emulated board if it is
    set up here. A run keeps what was chosen, so that it is resumed with the same.

    Raises:
        UsageError: As of `aimed`.
    """
    if spec.target.device is not None:
        return spec
    aim = aimed(spec)
    if not at_hand(aim.target, aim.runtime, aim.threads, progress):
        return spec
    progress.note(f"costs are those of the emulated {aim.target.name}; --device {NO_DEVICE} would estimate them")
    return spec.model_copy(update={"target": spec.target.model_copy(update={"device": OF_THE_TARGET})})


def open_job(run: Run, workload: Workload, progress: Progress) -> Job:
    """Check everything that can be wrong before any time is spent.

    Raises:
        UsageError: Unknown target, runtime, format or criterion; no device model for a latency budget; a recipe that
            does not fit the task.
        DeviceError: The linked device is not reached.
        MissingExtraError: The deployed runtime or an asked-for format is not installed, here or on the device, or the
            target's emulator is not.
        UnsupportedError: The model cannot be captured, or computes something else than its capture.
        QualityError: A weight is not finite.
    """
    spec, fit = run.spec, run.spec.fit
    criterion = load_criterion(fit.criterion)
    aim = aimed(spec)
    target, runtime, unlike = aim.target, aim.runtime, ""
    offered = target.runtime(runtime)
    if offered.emulated:
        check_tools(target)
    formats = _formats(spec.fit.formats, offered.backend)
    link: Link | None = None
    if spec.target.device not in (None, NO_DEVICE):
        link = linked(spec.target.device, target, spec.target.python)
    if isinstance(link, EmulatedBoard):
        target = emulated_target(link, target, runtime, aim.threads)
    elif link is not None:
        target, unlike = reached(link, target, runtime, progress)
    check_evidence(spec.budget.require, target, runtime)
    budget, energy = within_energy(within_memories(spec.budget.parsed(), target, runtime), target)
    wanted = spec.fit.device
    cuda = wanted == "cuda" or (wanted == "auto" and torch.cuda.is_available())
    if cuda and not torch.cuda.is_available():
        raise UsageError("no CUDA device here", where="fit.device", hint="use cpu or auto")
    check_recipe(spec.train, workload.task, distill=fit.distill)
    progress.note("capturing the model")
    opened = open_model(workload.model, workload.example)
    captured = opened.captured
    notes = (*opened.notes, *_not_exported(spec.fit.formats), *filter(None, (aim.note, energy, unlike)))
    for note in notes:
        progress.note(note)
    groups, left_whole = _checked_groups(captured, workload, progress)
    own = spans(groups, fit.layers, fit.freeze)
    levels = width_levels(groups, fit.step or offered.channel_step, fit.min_keep, fit.blocks, own)
    costing = Costing(groups, fuse(captured.graph), target, runtime, aim.threads, "int8", aim.latency, Correction())
    device = torch.device("cuda" if cuda else "cpu")
    captured.module.to(device)
    return Job(
        run=run,
        workload=workload,
        target=target,
        runtime=runtime,
        threads=aim.threads,
        budget=budget,
        formats=formats,
        device=device,
        captured=captured,
        groups=groups,
        levels=levels,
        costing=costing,
        criterion=criterion,
        progress=progress,
        notes=notes,
        left_whole=left_whole,
        link=link,
    )


def check_evidence(required: str | None, target: Target, runtime: str) -> None:
    """Refuse a fit whose verdict would rest on less than is required: what is measured counts as emulated, too.

    Raises:
        UsageError: It would be emulated or estimated only.
    """
    emulated = target.runtime(runtime).emulated
    source = Source.MEASURED if target.latency == "measured" else Source.EMULATED if emulated else Source.ESTIMATED
    enough = {None: tuple(Source), "emulated": (Source.MEASURED, Source.EMULATED), "measured": (Source.MEASURED,)}
    if source not in enough[required]:
        raise UsageError(
            f"what {runtime} costs on {target.name} would be {source}, not {required}",
            where="--require",
            hint=f"{_better(target)}, or leave --require out",
        )


def _better(target: Target) -> str:
    """How a target's costs come to rest on more than an estimate."""
    linked = "link the device with --device"
    return linked if target.emulation is None else f"{linked}, or once: edgeprune emulate setup {target.name}"


def _checked_groups(captured: Captured, workload: Workload, progress: Progress) -> tuple[ChannelGroups, frozenset[str]]:
    """The channel groups that pass the check on a real batch, and the names of those that do not."""
    sample, _ = next(iter(batches(workload.data.calibration, 8)))
    groups = channel_groups(captured.graph)
    passed = vetted(captured, groups, (sample,))
    left = passed.frozen[len(groups.frozen) :]
    for entry in left:
        progress.note(f"left whole: {entry.name}: {entry.reasons[0]}")
    return passed, frozenset(entry.name for entry in left)


def _formats(asked: tuple[str, ...], deployed: str) -> tuple[str, ...]:
    """The backends to export for: those asked for, else all installed that need no asking; the deployed one always."""
    wanted = tuple(backends.of_format(name) for name in asked)
    for name in (deployed, *wanted):
        if reason := backends.get(name).missing():
            raise missing_extra(backends.get(name).EXTRA, f"exporting for {name} ({reason})")
    chosen = set(wanted) or backends.installed()
    return tuple(sorted({deployed, *chosen}))


def _unasked() -> tuple[str, ...]:
    """The backends that a model is exported for unless others are asked for."""
    return tuple(name for name in backends.names() if not backends.get(name).ON_REQUEST)


def _not_exported(asked: tuple[str, ...]) -> tuple[str, ...]:
    """What is left out because it is not installed, when all formats are wanted."""
    reasons = {name: backends.get(name).missing() for name in _unasked()} if not asked else {}
    return tuple(f"not exported for {name}: {reason}" for name, reason in reasons.items() if reason)


def export(
    job: Job,
    captured: Captured,
    key: str,
    backend: str,
    precision: Precision,
    samples: int = COST_SAMPLES,
    ranges: RangePolicy | None = None,
    in_float: tuple[str, ...] = (),
) -> Artifact:
    """The artifact in the run folder's `key`; exported unless it is there already.

    Args:
        in_float: Paths of weights whose layers stay float.
    """
    folder = job.run.folder(key)
    if folder is None:
        job.progress.note(f"exporting {key} ({backend}, {precision})")
        calibration = inputs(job, samples).cpu().numpy()
        example = job.workload.example.numpy()
        module = captured.module.cpu().eval()
        with job.run.write_folder(key) as work:
            artifact = backends.get(backend).export(
                module,
                example,
                work,
                precision,
                calibration if precision == "int8" else None,
                ranges or RangePolicy(),
                job.target,
                in_float,
            )
            (work / "artifact.json").write_text(
                artifact.model_copy(update={"path": backends.place(artifact)}).model_dump_json()
            )
        module.to(job.device)
        folder = job.run.folder(key)
        assert folder is not None
    stored = Artifact.model_validate_json((folder / "artifact.json").read_text())
    return stored.model_copy(update={"path": folder / stored.path})


def profiled(job: Job, artifact: Artifact, runtime: str | None = None, macs: int | None = None) -> Measurement:
    """The artifact's cost on the job's target, at the budget's percentile, on real inputs; its MACs as designed.

    A file that is not the deployed one is estimated where a linked device cannot run it, and the notes say why.
    """
    deployed = runtime in (None, job.runtime)

    def on(target: Target, link: Link | None) -> Measurement:
        return profile(
            artifact.path,
            target,
            runtime=runtime or job.runtime,
            threads=job.threads if deployed else None,
            at=job.budget.at,
            inputs=inputs(job, 8).cpu().numpy(),
            must_fit=False,
            reference=reference(job) if artifact.backend == job.deployed and deployed else None,
            device=link,
            progress=job.progress,
        )

    try:
        found = on(job.target, job.link)
    except (MissingExtraError, UsageError) as error:
        if job.link is None or deployed:
            raise
        found = on(job.target.model_copy(update={"latency": "estimated"}), None)
        notes = (*found.notes, f"estimated, not measured: {error.message}")
        found = found.model_copy(update={"notes": notes})
    if found.counts is not None and found.counts.mismatches:
        raise QualityError(
            f"{found.counts.mismatches} output values differ from the reference kernels",
            where=str(artifact.path),
            hint="this is a fault in edgeprune's C kernels; please report the model",
        )
    return found.model_copy(update={"cost": found.cost.model_copy(update={"macs": macs})})


def within_memories(budget: Budget, target: Target, runtime: str) -> Budget:
    """The budget with the memories of a microcontroller as limits too: a C library for it must fit them."""
    if target.runtime(runtime).backend != "c":
        return budget
    memory = target.memory
    sizes = {"ram_bytes": memory.ram_block_bytes or memory.ram_bytes, "size_bytes": memory.flash_bytes}
    given = {name: getattr(budget, name) for name in sizes}
    return budget.model_copy(
        update={name: min(filter(None, (limit, given[name])), default=None) for name, limit in sizes.items()}
    )


def reference(job: Job) -> Reference | None:
    """The dense model's deployed file, beside which others are timed; None before it is written."""
    folder = job.run.folder("dense")
    if folder is None:
        return None
    path = folder / Artifact.model_validate_json((folder / "artifact.json").read_text()).path
    return Reference(path, job.usual_s)


def fp32_cost(job: Job, captured: Captured, key: str) -> Measurement:
    """The same model in fp32 on the deployed runtime: measured where files are, else estimated."""
    if job.target.latency == "measured":
        return profiled(job, export(job, captured, key, job.deployed, "fp32"))
    return estimate(fuse(captured.graph), job.target, job.runtime, "fp32", job.threads)


def inputs(job: Job, count: int, *, validation: bool = False) -> torch.Tensor:
    """The first samples of the calibration set, which is drawn from the training data (or of the validation set)."""
    source = job.workload.data.validation if validation else job.workload.data.calibration
    parts, have = [], 0
    for x, _ in batches(source, 64):
        parts.append(x)
        have += len(x)
        if have >= count:
            break
    return torch.cat(parts)[:count].to(job.device)


def evidence(job: Job, captured: Captured, groups: ChannelGroups) -> Evidence:
    """What channels of a model are scored on: the first samples of the calibration set with their targets, by 32."""
    left = job.run.spec.fit.importance_samples
    taken = []
    for x, y in batches(job.workload.data.calibration, _SCORED_AT_ONCE):
        if left <= 0:
            break
        taken.append(Sampled((x[:left].to(job.device),), y[:left].to(job.device)))
        left -= len(x)
    return Evidence(captured, groups, tuple(taken), job.workload.task.loss, job.run.spec.fit.seed)
