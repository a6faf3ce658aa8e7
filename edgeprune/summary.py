"""From the stages of a run to its record: what was asked, what came out, and where every number comes from."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import torch

import edgeprune
from edgeprune.backends import format_of
from edgeprune.cost import Cost, Measurement, Violation
from edgeprune.device.energy import energy_text
from edgeprune.device.fusion import fuse
from edgeprune.documents import (
    ArtifactRow,
    CostRow,
    Figure,
    FitRecord,
    FrozenRow,
    KeepRow,
    MetricRow,
    RaceRow,
    RankingRow,
    RoundRow,
    StageRow,
    TimingRow,
    budget_row,
    figure,
    interval_ns,
    nanoseconds,
    op_rows,
    violation_row,
)
from edgeprune.evidence import Tried
from edgeprune.graph import Graph
from edgeprune.job import Job
from edgeprune.pruning.groups import ChannelGroups
from edgeprune.pruning.plan import Plan, apply
from edgeprune.record import Run
from edgeprune.schedule import Staged
from edgeprune.stages import Dense, Exported, Floor, Importance, Planned, Race, Tuned, bounds
from edgeprune.worth import limit_rows, worth_rows


@dataclass(frozen=True)
class Played:
    """One plan: what it was promised, its rehearsal and, if a round was spent on it, the trained result."""

    planned: Planned
    rehearsal: Measurement
    tuned: Tuned | None = None
    round: int | None = None  # that it was trained in

    def tried(self, job: Job) -> Tried:
        """What the search may know of it."""
        if self.tuned is None:
            return Tried(self.planned.plan, self.rehearsal)
        final, task = self.tuned.exported[job.deployed], job.workload.task
        sign = 1 if task.higher_is_better else -1
        return Tried(self.planned.plan, self.rehearsal, final.measurement, sign * final.validation[task.primary])


def summarize(
    job: Job,
    dense: Dense,
    found: Importance,
    race: Race,
    history: Sequence[Played],
    chosen: int,
    *,
    met: bool,
    reason: str,
) -> FitRecord:
    """The record of a run that trained a plan. `met` is about the cost limits; the drop is judged here."""
    played = history[chosen]
    tuned = played.tuned
    assert tuned is not None
    costing = replace(job.costing, correction=played.planned.aim.correction)
    task = job.workload.task
    deployed = tuned.exported[job.deployed]
    assert deployed.measurement is not None
    sign = 1 if task.higher_is_better else -1
    drop = sign * (dense.validation[task.primary] - deployed.validation[task.primary])
    violations = [] if met else list(job.budget.violations(deployed.measurement.cost))
    if job.budget.max_drop is not None:
        allowed = job.budget.max_drop.allowed(dense.validation[task.primary])
        if drop > allowed:
            violations.append(Violation(what="drop", needs=drop, limit=allowed))
    metric = MetricRow(
        name=task.primary,
        higher_is_better=task.higher_is_better,
        dense=dense.test[task.primary],
        pruned=tuned.test[task.primary],
        artifacts={format_of(name): found.test[task.primary] for name, found in tuned.exported.items()},
        validation_dense=dense.validation[task.primary],
        validation_pruned=tuned.validation[task.primary],
        validation_artifacts={format_of(job.deployed): deployed.validation[task.primary]},
        drop=drop,
    )
    return _record(job, "missed" if violations else "met", deployed.measurement).model_copy(
        update={
            "violations": tuple(violation_row(v) for v in violations),
            "metric": metric,
            "rounds": _round_rows(job, history, chosen, reason),
            "stages": _stage_rows(job),
            "rehearsals": tuple(_row_of(job, entry, entry.rehearsal) for entry in history),
            "correction": played.planned.aim.correction,
            "artifacts": {format_of(name): found.artifact.path for name, found in tuned.exported.items()},
            "costs": _cost_rows(job, dense, played.planned.plan, tuned),
            "layers": keep_rows(job.groups, played.planned.plan),
            "worth": worth_rows(job, found, played.planned.plan, played.planned.aim),
            "limits": limit_rows(costing, bounds(job, played.planned.aim), job.levels, played.planned.plan),
            "race": tuple(_race_row(entry, entry is race.plans[0]) for entry in race.plans),
            "quantization": tuned.quantization,
            "details": tuple(
                ArtifactRow(
                    name=format_of(name),
                    path=found.artifact.path,
                    precision=found.gates.precision,
                    size_bytes=stored_bytes(found),
                    sha256=found.artifact.sha256,
                    float_ops=found.gates.exceptions,
                    snr_db=found.gates.snr_db,
                    notes=found.artifact.notes,
                )
                for name, found in tuned.exported.items()
            ),
        }
    )


def infeasible(job: Job, dense: Dense, floor: Floor) -> FitRecord:
    """The record of a run that stopped before training: the smallest reachable cost is above the budget."""
    task = job.workload.task
    violations = job.budget.violations(floor.measurement.cost)
    return _record(job, "infeasible", floor.measurement).model_copy(
        update={
            "violations": tuple(violation_row(v) for v in violations),
            "metric": MetricRow(
                name=task.primary,
                higher_is_better=task.higher_is_better,
                dense=dense.test[task.primary],
                validation_dense=dense.validation[task.primary],
            ),
            "smallest": _figure(floor.measurement),
            "binding": floor.binding,
        }
    )


def _record(job: Job, verdict: str, measurement: Measurement) -> FitRecord:
    """What every record says, whatever the verdict."""
    spec, cost, data = job.run.spec, measurement.cost, job.workload.data
    found = job.run.load("importance", Importance)
    return FitRecord.model_validate(
        {
            "workload": job.workload.kind,
            "verdict": verdict,
            "source": cost.source,
            "target": job.target.name,
            "runtime": job.runtime,
            "threads": job.threads,
            "budget": budget_row(job.budget),
            "latency_ns": nanoseconds(cost.latency_s),
            "latency_interval_ns": interval_ns(cost.latency_interval_s),
            "ram_bytes": cost.ram_bytes,
            "ram_kind": cost.ram_kind,
            "size_bytes": cost.size_bytes,
            "macs": cost.macs,
            "metric": MetricRow(name=job.workload.task.primary),
            "run": job.run.path,
            "name": job.run.name,
            "created": job.run.created,
            "edgeprune": edgeprune.__version__,
            "spec": spec,
            "samples": {
                "train": len(data.train),
                "validation": len(data.validation),
                "calibration": len(data.calibration),
                "test": len(data.test),
            },
            "frozen": frozen_rows(job),
            "ranking": None if found is None else ranking_row(job, found),
            "ops": op_rows(measurement),
            "timings": timings(job.run),
            "environment": {
                **measurement.environment,
                "python": platform.python_version(),
                "torch": torch.__version__,
                "numpy": np.__version__,
                f"{job.runtime}_version": measurement.runtime_version,
            },
            "notes": (
                *measurement.notes,
                *filter(None, [energy_text(cost, job.target)]),
                *job.workload.data.notes,
                *job.notes,
                *(() if found is None else found.notes),
            ),
        }
    )


def ranking_row(job: Job, found: Importance) -> RankingRow:
    """By what the channels were ranked."""
    agreement = {} if found.stability is None else {"agreement": found.stability.mean, "groups": found.stability.groups}
    return RankingRow(criterion=job.criterion.name, samples=found.samples, **agreement)


def timings(run: Run) -> tuple[TimingRow, ...]:
    """Seconds of every stage, from the run's events; a resumed stage counts the time it took when it was computed."""
    file = run.path / "events.jsonl"
    if not file.is_file():
        return ()
    events = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return tuple(TimingRow(stage=e["stage"], seconds=e["seconds"]) for e in events if "seconds" in e)


def keep_rows(groups: ChannelGroups, plan: Plan) -> tuple[KeepRow, ...]:
    """Dense and kept output channels of every layer, in execution order; none of a layer that went with its block."""
    small = apply(plan, groups)
    owner: dict[tuple[str, int], str] = {}
    for group in groups.groups:
        for path, axis in group.members:
            owner.setdefault((path, axis), group.name)
    rows = []
    for path, node in groups.graph.parameters.items():
        if path.endswith(".weight") and len(node.shape) > 1:
            kept = small.parameters[path].shape[0] if path in small.parameters else 0
            rows.append(
                KeepRow(
                    layer=path.removesuffix(".weight"),
                    group=owner.get((path, 0), ""),
                    dense=node.shape[0],
                    kept=kept,
                )
            )
    return tuple(rows)


def _round_rows(job: Job, history: Sequence[Played], chosen: int, reason: str) -> tuple[RoundRow, ...]:
    """The rounds in the order they were played; one that was not chosen says why."""
    rows: dict[int, RoundRow] = {}
    for i, played in enumerate(history):
        if played.round is None or played.tuned is None:
            continue
        final = played.tuned.exported[job.deployed]
        assert final.measurement is not None
        broken = "; ".join(str(violation) for violation in job.budget.violations(final.measurement.cost))
        rows[played.round] = _row_of(job, played, final.measurement).model_copy(
            update={
                "metric": played.tuned.validation[job.workload.task.primary],
                "decision": "accept" if i == chosen else "retry",
                "reason": reason if i == chosen else broken or "another round was better",
            }
        )
    return tuple(rows[number] for number in sorted(rows))


def _row_of(job: Job, played: Played, found: Measurement) -> RoundRow:
    """What a plan was predicted to cost and what a profile of its file then said."""
    planned, profiled = played.planned, found.cost
    predicted, plain = planned.predicted.cost, job.costing.of(planned.plan).cost
    factor = predicted.latency_s / plain.latency_s if predicted.latency_s and plain.latency_s else None
    return RoundRow(
        budget_ns=nanoseconds(job.budget.latency_s),
        predicted_ns=nanoseconds(predicted.latency_s),
        profiled_ns=nanoseconds(profiled.latency_s),
        source=profiled.source,
        predicted_interval_ns=interval_ns(predicted.latency_interval_s),
        profiled_interval_ns=interval_ns(profiled.latency_interval_s),
        predicted_ram_bytes=predicted.ram_bytes,
        profiled_ram_bytes=profiled.ram_bytes,
        size_bytes=profiled.size_bytes,
        plan=planned.name,
        correction=factor,
        solver_s=planned.seconds,
        solver_gap=planned.gap,
    )


def _stage_rows(job: Job) -> tuple[StageRow, ...]:
    rows = []
    for number in range(1, job.run.spec.fit.stages):
        stage = job.run.load(f"stage-{number}", Staged)
        if stage is not None:
            rows.append(
                StageRow(
                    plan=stage.planned.name,
                    predicted_ns=nanoseconds(stage.planned.predicted.cost.latency_s),
                    kept=sum(stage.planned.plan.widths(job.groups)),
                    dense=sum(group.width for group in job.groups.groups),
                    regrown=stage.regrown,
                )
            )
    return tuple(rows)


def _race_row(entry: Planned, chosen: bool) -> RaceRow:
    predicted = nanoseconds(entry.predicted.cost.latency_s)
    return RaceRow(round=1, plan=entry.name, metric=entry.metric, predicted_ns=predicted, chosen=chosen)


def _cost_rows(job: Job, dense: Dense, plan: Plan, tuned: Tuned) -> tuple[CostRow, ...]:
    task, graph = job.workload.task, job.groups.graph
    small = apply(plan, job.groups)
    macs, small_macs = _macs(graph), _macs(small)
    dense_int8 = f"dense {format_of(job.deployed)} int8"
    rows = [
        _row("dense fp32", "dense", dense.fp32, dense.test[task.primary], graph, macs, dense.fp32.cost),
        _row(dense_int8, "dense", dense.measurement, None, graph, macs, dense.measurement.cost),
        _row("pruned fp32", "pruned", tuned.fp32, tuned.test[task.primary], small, small_macs, tuned.fp32.cost),
    ]
    for name, found in tuned.exported.items():
        label = f"{format_of(name)} int8"
        cost = None if found.measurement is None else found.measurement.cost
        row = _row(label, "artifact", found.measurement, found.test[task.primary], small, small_macs, cost)
        rows.append(row.model_copy(update={"size_bytes": stored_bytes(found), "deployed": name == job.deployed}))
    return tuple(rows)


def stored_bytes(found: Exported) -> int | None:
    """What an artifact takes on its device: its files; of a C library the flash, where it was linked and counted."""
    if found.artifact.backend != "c":
        return found.artifact.size_bytes
    return None if found.measurement is None else found.measurement.cost.size_bytes


def _row(
    name: str, role: str, found: Measurement | None, metric: float | None, graph: Graph, macs: int, cost: Cost | None
) -> CostRow:
    return CostRow.model_validate(
        {
            "name": name,
            "role": role,
            "precision": "fp32" if name.endswith("fp32") else "int8",
            "metric": metric,
            "size_bytes": None if cost is None else cost.size_bytes,
            "parameters": parameter_count(graph),
            "macs": macs,
            "figures": () if found is None else (_figure(found),),
        }
    )


def _figure(found: Measurement) -> Figure:
    return figure(found.cost, found.target, runtime=found.runtime, threads=found.threads, precision=found.precision)


def parameter_count(graph: Graph) -> int:
    """Trainable elements: parameters that some node reads, running statistics left out."""
    return sum(
        prod(node.shape)
        for path, node in graph.parameters.items()
        if graph.users[node.name] and not path.endswith(("running_mean", "running_var"))
    )


def _macs(graph: Graph) -> int:
    return sum(op.macs for op in fuse(graph))


def frozen_rows(job: Job) -> tuple[FrozenRow, ...]:
    """What cannot shrink and why; what the check left whole is marked."""
    return tuple(
        FrozenRow(
            group=entry.name,
            channels=entry.width,
            layers=(entry.name,),
            reason="; ".join(entry.reasons),
            by_check=entry.name in job.left_whole,
        )
        for entry in job.groups.frozen
    )
