"""What a plan's groups are worth and what shrinking them bought, for the record: all by the device model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from edgeprune.cost import Cost
from edgeprune.decide import Rehearse
from edgeprune.documents import LimitRow, Saving, WorthRow, nanoseconds
from edgeprune.job import Job
from edgeprune.pruning.allocation import Bounds, Costing
from edgeprune.pruning.groups import ChannelGroup
from edgeprune.pruning.limits import Levels, resized
from edgeprune.pruning.plan import Plan
from edgeprune.stages import Importance

_What = Literal["latency_ns", "ram_bytes", "size_bytes", "macs"]


def worth_rows(job: Job, found: Importance, plan: Plan, aim: Rehearse) -> tuple[WorthRow, ...]:
    """Per group: widths, the share of its importance that stays, its measured damage, and what its shrinking bought.

    Groups share operators (one's outputs are another's inputs), so the savings of single groups do not add up.
    """
    costing, full, widths = replace(job.costing, correction=aim.correction), _full(job), plan.widths(job.groups)
    dense, planned = _cost(costing, full), _cost(costing, widths)
    rows = []
    for i, group in enumerate(job.groups.groups):
        same = widths[i] == full[i]
        alone = dense if same else _cost(costing, (*full[:i], widths[i], *full[i + 1 :]))
        whole = planned if same else _cost(costing, (*widths[:i], full[i], *widths[i + 1 :]))
        rows.append(
            WorthRow(
                group=group.name,
                layers=layers_of(group),
                dense=group.width,
                kept=widths[i],
                importance=_importance_kept(found, group, plan),
                damage=_damage(found, group, job.levels[i], widths[i]),
                alone=_saving(dense, alone),
                final=_saving(whole, planned),
            )
        )
    return tuple(rows)


def limit_rows(costing: Costing, limits: Bounds, levels: Levels, plan: Plan) -> tuple[LimitRow, ...]:
    """Every limit the plan was solved under, and for how many shrunk groups it forbids the next wider level."""
    widths = plan.widths(costing.groups)
    dense, planned = _cost(costing, [group.width for group in costing.groups.groups]), _cost(costing, widths)
    wider = []
    for i, allowed in enumerate(levels):
        next_up = min((level for level in allowed if level > widths[i]), default=None)
        if next_up is not None:
            wider.append(_cost(costing, (*widths[:i], next_up, *widths[i + 1 :])))
    found: list[tuple[_What, float | None, float | None, float | None, list[float | None]]] = [
        ("latency_ns", limits.latency_s, dense.latency_s, planned.latency_s, [cost.latency_s for cost in wider]),
        ("ram_bytes", limits.ram_bytes, dense.ram_bytes, planned.ram_bytes, [cost.ram_bytes for cost in wider]),
        ("size_bytes", limits.size_bytes, dense.size_bytes, planned.size_bytes, [cost.size_bytes for cost in wider]),
        ("macs", limits.macs, dense.macs, planned.macs, [cost.macs for cost in wider]),
    ]
    rows = []
    for what, limit, before, now, nexts in found:
        if limit is not None and before is not None and now is not None:
            scale = 1e9 if what == "latency_ns" else 1.0
            rows.append(
                LimitRow(
                    what=what,
                    limit=limit * scale,
                    dense=before * scale,
                    planned=now * scale,
                    blocked=sum(cost is not None and cost > limit for cost in nexts),
                    shrunk=len(nexts),
                )
            )
    return tuple(rows)


def layers_of(group: ChannelGroup) -> tuple[str, ...]:
    """The layers whose parameters shrink with a group."""
    return tuple(dict.fromkeys(path.rpartition(".")[0] for path, _ in group.members))


def _full(job: Job) -> tuple[int, ...]:
    return tuple(group.width for group in job.groups.groups)


def _cost(costing: Costing, widths: Sequence[int]) -> Cost:
    if all(widths):
        return costing.of_ops(resized(costing.ops, costing.groups, widths)).cost
    groups = costing.groups.groups  # a group without channels takes its block with it
    return costing.of(Plan(keep={group.name: tuple(range(n)) for group, n in zip(groups, widths, strict=True)})).cost


def _saving(before: Cost, after: Cost) -> Saving:
    def less(a: float | None, b: float | None) -> float | None:
        return None if a is None or b is None else a - b

    ram, size = less(before.ram_bytes, after.ram_bytes), less(before.size_bytes, after.size_bytes)
    return Saving(
        latency_ns=nanoseconds(less(before.latency_s, after.latency_s)),
        ram_bytes=None if ram is None else round(ram),
        size_bytes=None if size is None else round(size),
    )


def _importance_kept(found: Importance, group: ChannelGroup, plan: Plan) -> float | None:
    score = np.array(found.scores.get(group.name, ()))
    if not len(score) or score.sum() <= 0:
        return None
    return float(score[list(plan.keep.get(group.name, range(group.width)))].sum() / score.sum())


def _damage(found: Importance, group: ChannelGroup, levels: Sequence[int], width: int) -> float | None:
    """The loss curve at a width; between two levels on the line through them."""
    if found.curves is None or group.name not in found.curves:
        return None
    return float(np.interp(width, levels, found.curves[group.name]))
