"""The flow: from a job to a record, through rehearsals and rounds until the budget is met or proven out of reach."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from edgeprune import stages
from edgeprune.decide import Accept
from edgeprune.documents import FitRecord
from edgeprune.followers import Told, follow, tell
from edgeprune.job import Job, open_job, sourced
from edgeprune.progress import SILENT, Progress
from edgeprune.record import Run, create, reopen, write_text
from edgeprune.report.files import write_reports
from edgeprune.rounds import play
from edgeprune.schedule import staged
from edgeprune.spec import Spec
from edgeprune.stages import Dense, Evaluated, Floor, Importance, Race
from edgeprune.summary import infeasible, summarize
from edgeprune.training.ranks import ALONE, Ranks, joined
from edgeprune.workload import Workload
from edgeprune.workload.load import load_workload


def fit(spec: Spec, progress: Progress = SILENT, workload: Workload | None = None) -> FitRecord:
    """Fit a model to a budget and leave everything in a new run folder.

    Args:
        workload: A live model, data and task instead of those the spec names; `resume` must be given the same.

    Raises:
        EdgepruneError: Bad input before anything is spent, or a stage that fails; what was finished stays.
    """
    with joined() as ranks:
        if not ranks.leads:
            return follow(ranks, workload)
        spec = sourced(spec, progress)
        opened = workload or load_workload(spec)
        with create(spec, f"{opened.name}-{spec.target.name}") as run:
            return _led(run, opened, progress, ranks)


def resume(path: Path, progress: Progress = SILENT, workload: Workload | None = None) -> FitRecord:
    """Continue a run after its last finished stage; the result is that of an uninterrupted run.

    Args:
        workload: The live model, data and task that the run was started with, if it was.

    Raises:
        UsageError: Not a run folder, or another process is writing it.
    """
    with joined() as ranks:
        if not ranks.leads:
            return follow(ranks, workload)
        with reopen(path) as run:
            return _led(run, workload or load_workload(run.spec), progress, ranks)


def prepare(run: Run, progress: Progress = SILENT) -> None:
    """Finish the stages of an open run that do not depend on its limits, for other runs to adopt.

    Raises:
        EdgepruneError: As of `fit`.
    """
    torch.manual_seed(run.spec.fit.seed)
    job = open_job(run, load_workload(run.spec), progress)
    _dense(job)
    _importance(job)


def fit_in(run: Run, progress: Progress = SILENT, workload: Workload | None = None) -> FitRecord:
    """Fit in an open run folder; what it holds or has adopted is not computed again.

    Args:
        workload: As of `fit`.

    Raises:
        EdgepruneError: As of `fit`.
    """
    return _run(run, workload or load_workload(run.spec), progress)


def _led(run: Run, workload: Workload, progress: Progress, ranks: Ranks) -> FitRecord:
    """The whole flow, with other processes to train with."""
    tell(ranks, Told(spec=run.spec))
    record = _run(run, workload, progress, ranks)
    tell(ranks, Told(record=record))
    return record


def _run(run: Run, workload: Workload, progress: Progress, ranks: Ranks = ALONE) -> FitRecord:
    """The whole flow. Every `run.stage` is loaded when it is there already, so this function is also the resume."""
    torch.manual_seed(run.spec.fit.seed)
    job = open_job(run, workload, progress).changed(ranks=ranks)
    dense = _dense(job)
    floor = run.stage("floor", Floor, lambda: stages.floor(job, dense))
    if not floor.feasible:
        return _finished(run, infeasible(job, dense, floor))
    found = _importance(job)
    race = run.stage("race", Race, lambda: stages.race(job, found, floor.aim))
    last, fresh, first = staged(job, found, floor.aim, race.plans[0])
    history, verdict = play(last, stages.anchors(job, dense, floor), fresh, first)
    played = history[verdict.trial]
    assert played.tuned is not None
    history[verdict.trial] = replace(played, tuned=stages.publish(job, played.tuned))
    write_text(run.path / "plan.json", played.planned.plan.model_dump_json(by_alias=True, indent=1) + "\n")
    met = isinstance(verdict, Accept)
    record = summarize(job, dense, found, race, history, verdict.trial, met=met, reason=verdict.reason)
    return _finished(run, record)


def _dense(job: Job) -> Dense:
    evaluated = job.run.stage("evaluated", Evaluated, lambda: stages.evaluated(job))
    return job.run.stage("dense", Dense, lambda: stages.dense(job, evaluated))


def _importance(job: Job) -> Importance:
    return job.run.stage("importance", Importance, lambda: stages.importance_and_curves(job))


def _finished(run: Run, record: FitRecord) -> FitRecord:
    run.finish(record)
    write_reports(run.path, record)
    return record
