"""The loop: from a job to a record, one round after another until the budget is met or proven out of reach."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from edgeprune import stages
from edgeprune.cost import Correction, Measurement
from edgeprune.decide import Accept, GiveUp, Retry, Round, decide
from edgeprune.documents import FitRecord
from edgeprune.job import Job, open_job
from edgeprune.progress import SILENT, Progress
from edgeprune.pruning.plan import keeps_all
from edgeprune.record import Run, create, reopen, write_text
from edgeprune.report.files import write_reports
from edgeprune.spec import Spec
from edgeprune.stages import Dense, Evaluated, Floor, Importance, Planned, Race, Tuned
from edgeprune.summary import Played, infeasible, summarize
from edgeprune.workload import Workload
from edgeprune.workload.load import load_workload


def fit(spec: Spec, progress: Progress = SILENT, workload: Workload | None = None) -> FitRecord:
    """Fit a model to a budget and leave everything in a new run folder.

    Args:
        workload: A live model, data and task instead of those the spec names; `resume` must be given the same.

    Raises:
        EdgepruneError: Bad input before anything is spent, or a stage that fails; what was finished stays.
    """
    opened = workload or load_workload(spec)
    with create(spec, f"{opened.name}-{spec.target.name}") as run:
        return _run(run, opened, progress)


def resume(path: Path, progress: Progress = SILENT, workload: Workload | None = None) -> FitRecord:
    """Continue a run after its last finished stage; the result is that of an uninterrupted run.

    Args:
        workload: The live model, data and task that the run was started with, if it was.

    Raises:
        UsageError: Not a run folder, or another process is writing it.
    """
    with reopen(path) as run:
        return _run(run, workload or load_workload(run.spec), progress)


def prepare(run: Run, progress: Progress = SILENT) -> None:
    """Finish the stages of an open run that do not depend on its limits, for other runs to adopt.

    Raises:
        EdgepruneError: As of `fit`.
    """
    torch.manual_seed(run.spec.fit.seed)
    job = open_job(run, load_workload(run.spec), progress)
    _dense(job)
    _importance(job)


def fit_in(run: Run, progress: Progress = SILENT) -> FitRecord:
    """Fit in an open run folder; what it holds or has adopted is not computed again.

    Raises:
        EdgepruneError: As of `fit`.
    """
    return _run(run, load_workload(run.spec), progress)


def _run(run: Run, workload: Workload, progress: Progress) -> FitRecord:
    """The whole flow. Every `run.stage` is loaded when it is there already, so this function is also the resume."""
    torch.manual_seed(run.spec.fit.seed)
    job = open_job(run, workload, progress)
    rounds = run.spec.fit.rounds
    dense = _dense(job)
    floor = run.stage("floor", Floor, lambda: stages.floor(job, dense))
    if not floor.feasible:
        return _finished(run, infeasible(job, dense, floor))
    found = _importance(job)
    race = run.stage("race", Race, lambda: stages.race(job, found, floor.correction))
    winner = race.plans[0]
    anchors = [dense.anchor, *([floor.anchor] if floor.anchor else [])]

    history = [_rehearsed(job, 1, winner, floor.correction)]
    while True:
        decision = decide(job.budget, [played.round for played in history], rounds, anchors)
        if isinstance(decision, Retry):
            number = len(history) + 1
            planned = _replanned(job, number, found, decision.correction, winner.name)
            if planned is None:  # the corrected model has no room for this way of spending the budget
                rounds = len(history)
                continue
            progress.note(f"round {number}: {decision.reason}")
            history.append(_rehearsed(job, number, planned, decision.correction))
        elif isinstance(decision, Accept | GiveUp):
            played = history[decision.round]
            if played.tuned is not None:
                break
            history[decision.round] = _confirmed(job, decision.round + 1, played)
    met = isinstance(decision, Accept)
    history[decision.round] = replace(played, tuned=stages.publish(job, played.tuned))
    write_text(run.path / "plan.json", played.planned.plan.model_dump_json(by_alias=True, indent=1) + "\n")
    record = summarize(job, dense, found, race, history, decision.round, met=met, reason=decision.reason)
    return _finished(run, record)


def _dense(job: Job) -> Dense:
    evaluated = job.run.stage("evaluated", Evaluated, lambda: stages.evaluated(job))
    return job.run.stage("dense", Dense, lambda: stages.dense(job, evaluated))


def _importance(job: Job) -> Importance:
    return job.run.stage("importance", Importance, lambda: stages.importance_and_curves(job))


def _replanned(job: Job, number: int, found: Importance, correction: Correction, name: str) -> Planned | None:
    plans = job.run.stage(
        f"round-{number}-plan",
        Race,
        lambda: Race(plans=tuple(p for p in (stages.replanned(job, found, correction, name),) if p is not None)),
    ).plans
    return plans[0] if plans else None


def _rehearsed(job: Job, number: int, planned: Planned, correction: Correction) -> Played:
    """A plan with the cost of its exported, still untrained file."""
    profiled = job.run.stage(f"round-{number}-rehearsal", Measurement, lambda: stages.rehearse(job, number, planned))
    widest = keeps_all(job.groups, planned.plan)
    played = Round(correction=correction, predicted=planned.predicted.cost, profiled=profiled.cost, widest=widest)
    return Played(planned, played, None)


def _confirmed(job: Job, number: int, played: Played) -> Played:
    """The same plan trained, exported, and its deployed file profiled again: the number a verdict rests on."""
    tuned = job.run.stage(f"round-{number}-tuned", Tuned, lambda: stages.finish(job, number, played.planned))
    measurement = tuned.exported[job.deployed].measurement
    assert measurement is not None
    final = played.round.model_copy(update={"profiled": measurement.cost, "confirmed": True})
    return Played(played.planned, final, tuned)


def _finished(run: Run, record: FitRecord) -> FitRecord:
    run.finish(record)
    write_reports(run.path, record)
    return record
