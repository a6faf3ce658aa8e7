"""Pruning in stages: smaller and smaller budgets, with a short fine-tune and fresh scores between them.

    geometric: every stage leaves the same share of the one before
    agp:       c_k = c_N + (c_0 - c_N) (1 - k/N)^3, which removes much at first (Zhu & Gupta 2017, equation 1)

Every stage solves its plan on the whole model's groups. What its fine-tune taught is written back to the kept channels
of the whole model; removed ones keep the weights that they had, so a later stage may take them back with those (the
splicing of dynamic network surgery, Guo et al. 2016, for whole channels) unless `fit.regrowth` is off. The last stage
is the search for the budget itself: it rehearses, trains and confirms from the weights and scores that are handed on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from edgeprune import stages
from edgeprune.decide import Rehearse
from edgeprune.errors import QualityError
from edgeprune.job import Job, evidence
from edgeprune.pruning.allocation import Bounds
from edgeprune.pruning.groups import channel_groups
from edgeprune.pruning.importance import importance
from edgeprune.pruning.limits import Levels
from edgeprune.pruning.plan import Plan
from edgeprune.pruning.surgery import prune, written_back
from edgeprune.pruning.trace import Captured
from edgeprune.stages import Importance, Planned
from edgeprune.training.checkpoint import load_state, save_state
from edgeprune.values import Value

_OUT = -1.0  # score of a channel that may not come back: below every other


class Staged(Value):
    """One stage before the last: its plan, and the scores after its fine-tune."""

    planned: Planned
    scores: dict[str, tuple[float, ...]]
    regrown: int  # channels that the stage before had removed


def stage_limit(dense: float, final: float, schedule: str, stage: int, of: int) -> float:
    """What a plan may cost after this many of `of` stages; the last stage's limit is `final`, also where dense is less.

    Args:
        schedule: `geometric` or `agp`.
        stage: 1 to `of`.
    """
    if final <= 0 or dense <= final:
        return final
    left = stage / of
    return dense * (final / dense) ** left if schedule == "geometric" else final + (dense - final) * (1 - left) ** 3


def staged(job: Job, found: Importance, aim: Rehearse, winner: Planned) -> tuple[Job, Importance, Planned]:
    """The job with the weights to prune from, the scores and the first plan of the last stage.

    Without stages, or with a plan that removes nothing, they are those that came in.
    """
    fit = job.run.spec.fit
    if fit.schedule == "one-shot" or fit.stages == 1 or stages.is_whole(job, winner.plan):
        return job, found, winner
    previous: Plan | None = None
    for number in range(1, fit.stages):
        stage = job.run.stage(f"stage-{number}", Staged, partial(_stage, job, found, aim, winner, number, previous))
        job, found = _after(job, found, stage, number)
        previous = stage.planned.plan
    last = partial(_solved, job, found, aim, winner, fit.stages)
    return job, found, job.run.stage(f"stage-{fit.stages}", Planned, last)


def _stage(job: Job, found: Importance, aim: Rehearse, winner: Planned, number: int, previous: Plan | None) -> Staged:
    planned = _solved(job, found, aim, winner, number)
    job.progress.note(f"stage {number} of {job.run.spec.fit.stages}: {planned.name}")
    workspace = job.run.workspace(f"stage-{number}")
    pruned = prune(job.source, job.groups, planned.plan)
    tuned = stages.trained(job, pruned, planned.plan, workspace, steps=job.run.spec.fit.race_steps)
    whole = written_back(job.source, job.groups, planned.plan, tuned)
    key = f"stage-{number}-model"
    if job.run.folder(key) is None:
        with job.run.write_folder(key) as work:
            save_state(whole.module, work / "model.safetensors")
    return Staged(
        planned=planned,
        scores=_rescored(job, found, planned.plan, tuned),
        regrown=0 if previous is None else regrown(previous, planned.plan),
    )


def _solved(job: Job, found: Importance, aim: Rehearse, winner: Planned, number: int) -> Planned:
    """The plan of a stage, in the way of the race's winner.

    Raises:
        QualityError: What the stages before left cannot be cut down to this one's limits.
    """
    planned = stages.solved(job, found, aim, winner.name, _limits(job, aim, number))
    if planned is None:
        raise QualityError(
            f"stage {number} has no plan within its limits", where="fit.schedule", hint="use fewer stages or regrowth"
        )
    return planned


def _limits(job: Job, aim: Rehearse, number: int) -> Bounds:
    fit, final = job.run.spec.fit, stages.bounds(job, aim)
    dense = replace(job.costing, correction=aim.correction).of_ops(job.costing.ops).cost

    def at(whole: float | None, limit: float | None) -> float | None:
        if whole is None or limit is None:
            return limit
        return stage_limit(whole, limit, fit.schedule, number, fit.stages)

    return Bounds(
        at(dense.latency_s, final.latency_s),
        at(dense.ram_bytes, final.ram_bytes),
        at(dense.size_bytes, final.size_bytes),
        at(dense.macs, final.macs),
    )


def regrown(previous: Plan, plan: Plan) -> int:
    """How many channels the plan keeps that the stage before had removed."""
    return sum(len({*kept} - {*previous.keep.get(name, kept)}) for name, kept in plan.keep.items())


def _after(job: Job, found: Importance, stage: Staged, number: int) -> tuple[Job, Importance]:
    """What the next stage goes on from: the written-back weights and the fresh scores."""
    folder = job.run.folder(f"stage-{number}-model")
    assert folder is not None
    whole = prune(job.captured, job.groups, Plan(keep={}))
    load_state(whole.module, folder / "model.safetensors")
    whole.module.to(job.device)
    fresh = found.model_copy(update={"scores": stage.scores})
    if job.run.spec.fit.regrowth:
        return job.after_stage(whole, job.levels, None), fresh
    plan, names = stage.planned.plan, [group.name for group in job.groups.groups]
    levels = capped(job.levels, plan.widths(job.groups))
    scores = {name: _without_removed(score, plan.keep.get(name)) for name, score in stage.scores.items()}
    curves = found.curves and {
        name: tuple(np.interp(left, before, found.curves[name]).tolist())
        for name, before, left in zip(names, job.levels, levels, strict=True)
        if name in found.curves
    }
    return job.after_stage(whole, levels, plan), fresh.model_copy(update={"scores": scores, "curves": curves})


def capped(levels: Levels, widths: tuple[int, ...]) -> Levels:
    """The levels up to a plan's widths."""
    return tuple((*(w for w in own if w < width), width) for own, width in zip(levels, widths, strict=True))


def _without_removed(score: tuple[float, ...], kept: tuple[int, ...] | None) -> tuple[float, ...]:
    inside = set(range(len(score)) if kept is None else kept)
    return tuple(value if index in inside else _OUT for index, value in enumerate(score))


def _rescored(job: Job, found: Importance, plan: Plan, tuned: Captured) -> dict[str, tuple[float, ...]]:
    """Scores of the whole model's channels: of the kept ones as the tuned model says, of the others as they were.

    The fresh scores are scaled to the sum that the same channels had, so that both can be compared.
    """
    ranking = importance(job.criterion, evidence(job, tuned, channel_groups(tuned.graph)))
    for note in ranking.notes:
        job.progress.note(note)
    fresh = ranking.scores
    kept = {name: np.array(plan.keep.get(name, range(len(score)))) for name, score in found.scores.items()}
    return merged({name: np.array(score) for name, score in found.scores.items()}, fresh, kept)


def merged(
    old: Mapping[str, np.ndarray], fresh: Mapping[str, np.ndarray], kept: Mapping[str, np.ndarray]
) -> dict[str, tuple[float, ...]]:
    """Old scores (channels,) per group with the fresh ones of the kept channels in their places, at the same sum.

    A group that the tuned model no longer has, or has at another width, keeps its old scores.
    """
    same = [name for name in old if name in fresh and len(fresh[name]) == len(kept[name]) > 0]
    before = sum(float(old[name][kept[name]].sum()) for name in same)
    after = sum(float(fresh[name].sum()) for name in same)
    scale = before / after if after > 0 and before > 0 else 1.0
    result = {}
    for name, score in old.items():
        score = score.copy()
        if name in same:
            score[kept[name]] = scale * fresh[name]
        result[name] = tuple(score.tolist())
    return result
