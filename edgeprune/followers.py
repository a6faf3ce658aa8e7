"""What the other processes of a torchrun do: they open the leader's job and join in whenever it trains a model.

The leader tells them what to train by its plan; each makes the same pruned model, takes the leader's weights and works
on its part of every batch. Everything else, scores of channels among it, is the leader's work: it draws from one random
stream, so the plan is that of a single process.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import torch

from edgeprune.documents import FitRecord
from edgeprune.progress import SILENT, Progress
from edgeprune.pruning.groups import ChannelGroups, channel_groups
from edgeprune.pruning.opening import open_model
from edgeprune.pruning.plan import Plan
from edgeprune.pruning.surgery import prune
from edgeprune.pruning.trace import Captured
from edgeprune.spec import Spec
from edgeprune.training.distil import Teacher, teacher_for
from edgeprune.training.fine_tune import fine_tune, training_device
from edgeprune.training.guide import guide_of_plan, wants_guide
from edgeprune.training.ranks import Ranks
from edgeprune.values import Value
from edgeprune.workload import Workload
from edgeprune.workload.load import load_workload


class Training(Value):
    """A training that all processes join."""

    plan: Plan
    epochs: int | None
    steps: int | None


class Told(Value):
    """What the leader tells: its job, a training, or the end with the finished record."""

    spec: Spec | None = None
    training: Training | None = None
    record: FitRecord | None = None


def tell(ranks: Ranks, what: Told) -> None:
    """Tell the other processes, if there are any.

    Raises:
        DeviceError: One of them has ended.
    """
    ranks.tell(lambda: what.model_dump_json(by_alias=True))


def follow(ranks: Ranks, workload: Workload | None = None) -> FitRecord:
    """Join the leader's trainings until it ends; its record.

    Args:
        workload: The live model, data and task that the leader was given, if it was.

    Raises:
        DeviceError: The leader has ended before its fit did.
        EdgepruneError: The job cannot be opened here.
    """
    spec = _heard(ranks).spec
    assert spec is not None
    torch.manual_seed(spec.fit.seed)
    follower = _Follower(spec, workload or load_workload(spec), ranks)
    while (told := _heard(ranks)).training is not None:
        follower.train(told.training)
    assert told.record is not None
    return told.record


def _heard(ranks: Ranks) -> Told:
    return Told.model_validate_json(ranks.tell(str))


class _Follower:
    """The job as far as trainings need it."""

    def __init__(self, spec: Spec, workload: Workload, ranks: Ranks) -> None:
        self.spec, self.workload, self.ranks = spec, workload, ranks
        self.device = training_device(spec.fit.device)

    @cached_property
    def dense(self) -> Captured:
        captured = open_model(self.workload.model, self.workload.example).captured
        captured.module.to(self.device)
        return captured

    @cached_property
    def groups(self) -> ChannelGroups:
        return channel_groups(self.dense.graph)

    @cached_property
    def teacher(self) -> Teacher:
        return teacher_for(self.dense.module, self.workload, self.device)

    def train(self, training: Training) -> None:
        pruned = prune(self.dense, self.groups, training.plan)
        tune(
            self.spec,
            self.workload,
            self.dense,
            self.groups,
            pruned,
            training,
            teacher=self.teacher if self.spec.fit.distill else None,
            device=self.device,
            ranks=self.ranks,
        )


def tune(
    spec: Spec,
    workload: Workload,
    dense: Captured,
    groups: ChannelGroups,
    pruned: Captured,
    training: Training,
    *,
    teacher: Teacher | None,
    device: torch.device,
    ranks: Ranks,
    progress: Progress = SILENT,
    workspace: Path | None = None,
    curves: Path | None = None,
) -> None:
    """Fine-tune, in place, what a plan made of the dense model, by the job's recipe; the same call in all processes.

    Raises:
        EdgepruneError: As of `fine_tune`.
    """
    fine_tune(
        pruned.module,
        workload,
        settings=spec.fit,
        recipe=spec.train,
        teacher=teacher,
        guide=guide_of_plan(dense, groups, training.plan, pruned) if wants_guide(spec.train) else None,
        epochs=training.epochs,
        steps=training.steps,
        seed=spec.fit.seed,
        device=device,
        progress=progress,
        workspace=workspace,
        curves=curves,
        ranks=ranks,
    )
