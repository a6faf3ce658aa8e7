"""What the profiles of a run say of its device model: the anchors and trials of the search, and each next aim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from edgeprune.cost import Correction, Measurement, Source
from edgeprune.decide import Rehearse, Seen, Trial, first_aim
from edgeprune.device.corrected import op_factors
from edgeprune.job import Job
from edgeprune.pruning.plan import Plan

# Shares of the latency budget that plans leave free, besides the margin that profiles show.
_MEASURED_GUARD = 0.01  # what a later measurement of the same file may add
_ESTIMATED_GUARD = 0.005  # what the exporter may do to a plan's estimate


@dataclass(frozen=True)
class Tried:
    """A plan with its profiles: of the exported, untrained file and, once it was trained, of the final one."""

    plan: Plan
    rehearsed: Measurement
    confirmed: Measurement | None = None
    quality: float | None = None


@dataclass(frozen=True)
class Evidence:
    """The same profiles beside what the device model says, with all that was learnt about single operators.

    Attributes:
        usual_s: What the dense file takes, a median over the profiles that it was timed beside; None without any.
    """

    anchors: tuple[Seen, ...]
    trials: tuple[Trial, ...]
    ops: dict[str, float]
    usual_s: float | None

    def aim(self, decided: Rehearse) -> Rehearse:
        """The decided aim with the factors on single operators, which its line was drawn for."""
        return decided.model_copy(update={"correction": decided.correction.model_copy(update={"ops": self.ops})})


def guard(job: Job) -> float:
    """Share of the latency budget that plans leave free, besides the margin that profiles show."""
    return _MEASURED_GUARD if job.target.latency == "measured" else _ESTIMATED_GUARD


def evidence(job: Job, anchors: Sequence[tuple[Plan, Measurement]], tried: Sequence[Tried] = ()) -> Evidence:
    """What the profiles so far say.

    Only operators that were run teach: the estimate of an exported file comes from the same prices. What was timed
    beside the dense file typically takes its ratio of what that one usually takes, whatever the machine was like.

    Args:
        anchors: Plans that were profiled and are no candidates: the dense model first, the smallest one.
    """
    profiles = [*anchors, *((one.plan, one.rehearsed) for one in tried)]
    profiles += [(one.plan, one.confirmed) for one in tried if one.confirmed is not None]
    run = [(plan, found) for plan, found in profiles if found.cost.source is not Source.ESTIMATED]
    plain = replace(job.costing, correction=Correction())
    ops = op_factors([(plain.of(plan).ops, found.ops) for plan, found in run])
    bent = replace(job.costing, correction=Correction(ops=ops))

    beside_s = [found.reference_s for _, found in profiles if found.reference_s is not None]
    usual_s = median(beside_s) if beside_s else None

    def seen(plan: Plan, found: Measurement) -> Seen:
        beside = None if usual_s is None or found.to_reference is None else found.to_reference * usual_s
        return Seen(plain=bent.of(plan).cost, cost=found.cost, typical_s=found.typical_s if beside is None else beside)

    trials = tuple(
        Trial(
            rehearsed=seen(one.plan, one.rehearsed),
            confirmed=None if one.confirmed is None else seen(one.plan, one.confirmed),
            quality=one.quality,
            widest=one.plan.widths(job.groups) == tuple(widths[-1] for widths in job.levels),
        )
        for one in tried
    )
    return Evidence(tuple(seen(plan, found) for plan, found in anchors), trials, ops, usual_s)


def first(job: Job, anchors: Sequence[tuple[Plan, Measurement]]) -> Rehearse:
    """What the first plans are solved with."""
    known = evidence(job, anchors)
    return known.aim(first_aim(job.budget, known.anchors, guard(job)))
