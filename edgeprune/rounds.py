"""Rehearsals and rounds: plans solved, exported and profiled untrained, then trained and confirmed, until one holds.

What is decided when is `decide.search`; here each of its moves is a stage of the run, so that a killed fit goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgeprune import stages
from edgeprune.cost import Measurement
from edgeprune.decide import Accept, GiveUp, Rehearse, Seen, Trial, search
from edgeprune.evidence import Evidence, evidence, guard
from edgeprune.job import Job
from edgeprune.pruning.plan import Plan
from edgeprune.stages import Importance, Planned, Race, Tuned
from edgeprune.summary import Played


def play(
    job: Job, anchors: Sequence[tuple[Plan, Measurement]], found: Importance, first: Planned
) -> tuple[list[Played], Accept | GiveUp]:
    """Everything that was tried, in order, and the verdict.

    Args:
        anchors: Plans that were profiled and are no candidates.
        first: The plan that won the race, after stages with its scores of then; later ones are solved in the same way.
    """

    def known(history: Sequence[Played]) -> Evidence:
        return evidence(job, anchors, [played.tried(job) for played in history])

    def seen(history: Sequence[Played]) -> tuple[tuple[Trial, ...], tuple[Seen, ...]]:
        evident = known(history)
        return evident.trials, evident.anchors

    def propose(history: Sequence[Played], decided: Rehearse) -> Played | None:
        number, playing = len(history) + 1, 1 + sum(played.tuned is not None for played in history)
        job.progress.note(f"rehearsal {number}: {decided.reason}")
        tried = [played.planned.plan for played in history]

        def solved() -> Race:
            planned = stages.replanned(job, found, known(history).aim(decided), first.name, tried)
            return Race(plans=() if planned is None else (planned,))

        plans = job.run.stage(f"round-{playing}-plan-{number}", Race, solved).plans
        return _rehearsed(job, playing, number, plans[0]) if plans else None

    def train(number: int, history: Sequence[Played], trial: int) -> Played:
        played, settled = history[trial], job.changed(usual_s=known(history).usual_s)
        plan = played.planned.plan
        tuned = job.run.stage(f"round-{number}-tuned", Tuned, lambda: stages.finish(settled, number, plan))
        return replace(played, tuned=tuned, round=number)

    return search(
        job.budget,
        _rehearsed(job, 1, 1, first),
        rounds=job.run.spec.fit.rounds,
        rehearsals=job.run.spec.fit.rehearsals,
        guard=guard(job),
        seen=seen,
        propose=propose,
        train=train,
    )


def _rehearsed(job: Job, playing: int, number: int, planned: Planned) -> Played:
    """A plan with the cost of its exported, still untrained file."""
    key = f"round-{playing}-rehearsal-{number}"
    return Played(planned, job.run.stage(key, Measurement, lambda: stages.rehearse(job, key, planned.plan)))
