"""A budget without a fit: the plan that the solver finds and its predicted cost. Nothing is trained or written."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import torch

from edgeprune.cost import Budget, Correction, Measurement
from edgeprune.device.energy import energy_text, within_energy
from edgeprune.device.estimate import as_run
from edgeprune.device.fusion import fuse
from edgeprune.documents import budget_row, figure, violation_row
from edgeprune.job import aimed, within_memories
from edgeprune.plan_document import BudgetPlan, WidthRow
from edgeprune.progress import SILENT, Progress
from edgeprune.pruning.allocation import Allocation, Bounds, Costing, most_valuable, score_values, uniform_within
from edgeprune.pruning.check import vetted
from edgeprune.pruning.criteria.evidence import Criterion, Evidence, Sampled
from edgeprune.pruning.feasibility import Reach, reach
from edgeprune.pruning.groups import ChannelGroups, channel_groups
from edgeprune.pruning.importance import DEFAULT, Ranking, find_criterion, importance
from edgeprune.pruning.layer_bounds import spans
from edgeprune.pruning.limits import Levels, width_levels
from edgeprune.pruning.opening import Opened, open_model, varied
from edgeprune.pruning.plan import Plan
from edgeprune.spec import Spec
from edgeprune.workload import Workload
from edgeprune.workload.criteria import load_criterion
from edgeprune.workload.samples import batches
from edgeprune.worth import layers_of, limit_rows

_GUARD = 0.005  # share of the latency budget: what the exporter may do to a plan's estimate
_WITHOUT_DATA = "l1"  # in the place of the default criterion, which needs data
_AT_ONCE = 32  # samples


@dataclass(frozen=True)
class Question:
    """Everything a plan depends on.

    Attributes:
        inputs: On which surgery is checked: real samples where there are some.
        samples: That the channels were scored on; 0 without data.
    """

    spec: Spec
    opened: Opened
    inputs: tuple[torch.Tensor, ...]
    groups: ChannelGroups
    levels: Levels
    costing: Costing
    budget: Budget
    bounds: Bounds
    ranking: Ranking
    samples: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """A solved question; without a plan where even the cheapest one does not fit, which `floor` then says."""

    asked: Question
    floor: Reach
    best: Allocation | None


def plan_budget(
    spec: Spec,
    model: torch.nn.Module,
    example: torch.Tensor,
    workload: Workload | None = None,
    progress: Progress = SILENT,
) -> BudgetPlan:
    """The plan within the budget by the device model, or what stands in the way.

    Args:
        example: One input, batch on axis 0; only its shape matters.
        workload: With its data, channels are scored by the job's criterion; without, by their weights.

    Raises:
        UsageError: Unknown target or runtime, no device model for a latency budget, layer bounds that cannot hold.
        UnsupportedError: The model cannot be captured.
        QualityError: A weight or a score is not finite.
    """
    return budget_document(solve_budget(spec, model, example, workload, progress=progress))


def solve_budget(
    spec: Spec,
    model: torch.nn.Module,
    example: torch.Tensor,
    workload: Workload | None = None,
    *,
    macs_share: float | None = None,
    progress: Progress = SILENT,
) -> Answer:
    """The plan within the budget, with all that it was solved from. Arguments and errors as for `plan_budget`.

    Args:
        macs_share: Limit on the model's multiply-accumulates as a share of those it has, beside the job's budget.
    """
    asked = _question(spec, open_model(model, example), example, workload, macs_share, progress)
    costing, levels, fit, scores = asked.costing, asked.levels, spec.fit, asked.ranking.scores
    found = reach(costing, asked.bounds, levels, fit.solver_limit_s)
    if not found.feasible:
        return Answer(asked, found, None)
    progress.note("solving")
    values = score_values(asked.groups, levels, scores)
    best = most_valuable("score", costing, asked.bounds, levels, values, scores, fit.solver_gap, fit.solver_limit_s)
    if best is None:
        step = fit.step or costing.target.runtime(costing.runtime).channel_step
        best = uniform_within(costing, asked.bounds, scores, step, fit.min_keep, levels)
    return Answer(asked, found, best or Allocation("smallest", found.plan, found.cost, None, 0.0))


def _question(
    spec: Spec,
    opened: Opened,
    example: torch.Tensor,
    workload: Workload | None,
    macs_share: float | None,
    progress: Progress,
) -> Question:
    fit, captured, aim = spec.fit, opened.captured, aimed(spec)
    samples = _samples(workload, fit.importance_samples)
    inputs = samples[0].inputs if samples else varied((example,))
    groups = vetted(captured, channel_groups(captured.graph), inputs)
    step = fit.step or aim.target.runtime(aim.runtime).channel_step
    levels = width_levels(groups, step, fit.min_keep, fit.blocks, spans(groups, fit.layers, fit.freeze))
    ops = fuse(captured.graph)
    costing = Costing(groups, ops, aim.target, aim.runtime, aim.threads, "int8", aim.latency, Correction())
    criterion = _criterion(fit.criterion, bool(samples))
    progress.note(f"scoring channels by {criterion.name}")
    loss = None if workload is None else workload.task.loss
    evidence = Evidence(captured, groups, samples, loss, fit.seed)
    ranking = importance(criterion, evidence)
    notes = (*opened.notes, *ranking.notes)
    if criterion.name != fit.criterion:
        notes += (f"no data: channels are scored by the size of their weights ({criterion.name})",)
    notes += (aim.note,) if aim.note else ()
    if aim.target.latency == "measured":
        notes += ("estimated by the device model; a fit measures this machine and corrects it",)
    if aim.target.runtime(aim.runtime).emulated:
        notes += ("estimated by the device model; a fit executes its files on an emulated core and corrects it",)
    asked = within_memories(spec.budget.parsed(), aim.target, aim.runtime)
    if macs_share is not None:
        macs = int(macs_share * sum(op.macs for op in ops))
        asked = asked.model_copy(update={"macs": min(macs, asked.macs or macs)})
    budget, energy = within_energy(asked, aim.target)
    notes += (energy,) if energy else ()
    limits, count = _bounds(budget, costing), criterion.seen(evidence)
    return Question(spec, opened, inputs, groups, levels, costing, budget, limits, ranking, count, notes)


def _samples(workload: Workload | None, count: int) -> tuple[Sampled, ...]:
    """The calibration samples that channels are scored on, at least one batch."""
    if workload is None:
        return ()
    most = max(1, count // _AT_ONCE)
    return tuple(Sampled((x,), y) for x, y in islice(batches(workload.data.calibration, _AT_ONCE), most))


def _criterion(name: str, has_data: bool) -> Criterion:
    """The job's criterion; without data another one for the default, which needs some. What was asked for is kept."""
    return find_criterion(_WITHOUT_DATA) if name == DEFAULT and not has_data else load_criterion(name)


def _bounds(budget: Budget, costing: Costing) -> Bounds:
    """The budget less what the verdict will demand on top of a central estimate: the interval's upper end must hold."""
    latency_s = budget.latency_s
    if latency_s is not None and costing.latency is not None:
        ops = as_run(costing.ops, costing.runtime)
        latency_s *= (1 - _GUARD) * costing.latency.total_s(ops) / costing.latency.interval_s(ops)[1]
    return Bounds(latency_s, budget.ram_bytes, budget.size_bytes, budget.macs)


def budget_document(answer: Answer) -> BudgetPlan:
    """What an answer says: the plan, its predicted cost, or what stands in the way."""
    asked, found, best = answer.asked, answer.floor, answer.best
    cost = found.cost if best is None else best.predicted
    costing, groups = asked.costing, asked.groups
    plan = Plan(keep={}) if best is None else best.plan
    widths = (found.plan if best is None else plan).widths(groups)
    return BudgetPlan.model_validate(
        {
            "model": asked.spec.model.entry or "demo",
            "verdict": "infeasible" if best is None else "feasible",
            "budget": budget_row(asked.budget),
            "criterion": asked.ranking.criterion,
            "dense": _figure(costing.of_ops(costing.ops)),
            "planned": _figure(cost),
            "groups": tuple(
                WidthRow(group=group.name, layers=layers_of(group), dense=group.width, kept=kept)
                for group, kept in zip(groups.groups, widths, strict=True)
            ),
            "allocation": "" if best is None else best.name,
            "gap": None if best is None else best.gap,
            "seconds": None if best is None else best.seconds,
            "limits": () if best is None else limit_rows(costing, asked.bounds, asked.levels, plan),
            "violations": tuple(violation_row(v) for v in asked.budget.violations(cost.cost)) if best is None else (),
            "binding": tuple(str(short) for short in found.shortfalls),
            "plan": None if best is None else plan.model_dump(mode="json", by_alias=True),
            "notes": (*cost.notes, *filter(None, [energy_text(cost.cost, costing.target)]), *asked.notes),
        }
    )


def _figure(found: Measurement) -> dict[str, object]:
    made = figure(
        found.cost, found.target, runtime=found.runtime, threads=found.threads, precision=found.precision
    ).model_dump()
    return {**made, "size_bytes": found.cost.size_bytes, "macs": found.cost.macs}
