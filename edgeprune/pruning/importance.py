"""Importance: one number per channel and group, larger stays.

A criterion is a function in `criteria`, found by its name. The default, `logit_taylor`, ranks channels by what they do
to the model's outputs rather than to its loss, whose gradient vanishes at convergence.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from edgeprune.errors import QualityError, UsageError, did_you_mean
from edgeprune.pruning.criteria import activations, connections, gradients, motion, second_order, weights
from edgeprune.pruning.criteria.evidence import Criterion, Evidence, Found, Sampled, Scores, registered
from edgeprune.pruning.groups import ChannelGroups
from edgeprune.pruning.sites import Site, owners, producing_weights, sites
from edgeprune.pruning.stability import SHAKY, Stability, stability
from edgeprune.pruning.trace import CapturedModule, evaluating

__all__ = [
    "CRITERIA",
    "DEFAULT",
    "Evidence",
    "Ranking",
    "Sampled",
    "Scores",
    "Site",
    "find_criterion",
    "importance",
    "owners",
    "producing_weights",
    "sites",
]

CRITERIA = registered(*map(vars, (weights, activations, gradients, second_order, connections, motion)))
DEFAULT = "logit_taylor"
_NAMED = 4  # groups in a note


@dataclass(frozen=True)
class Ranking:
    """What a criterion says of a model.

    Attributes:
        scores: (channels,) per group, larger stays; never negative.
        stability: How well two halves of the batches agree; None without data or with one batch.
        notes: What the user must know of it.
    """

    criterion: str
    scores: Scores
    stability: Stability | None = None
    notes: tuple[str, ...] = ()


def find_criterion(name: str) -> Criterion:
    """The built-in criterion of that name.

    Raises:
        UsageError: There is none.
    """
    if name not in CRITERIA:
        raise UsageError(
            f"unknown criterion {name!r}", where="criterion", hint=did_you_mean(name, [*CRITERIA, "file.py:name"])
        )
    return CRITERIA[name]


def importance(criterion: str | Criterion, evidence: Evidence) -> Ranking:
    """Every channel's score by a criterion. The model, its mode and torch's random state are left as they were.

    Raises:
        UsageError: Unknown criterion; the evidence lacks what it needs; the user's own gives something else than one
            number per channel, or changes the model.
        QualityError: Scores that are not finite; the group is named.
    """
    chosen = find_criterion(criterion) if isinstance(criterion, str) else criterion
    check_evidence(chosen, evidence)
    module = evidence.captured.module
    if not evidence.groups.groups:
        return Ranking(chosen.name, {})
    with _own_randomness(module, evidence.seed), evaluating(module), torch.enable_grad():
        found = chosen.score(evidence)
    _check_scores(chosen, found, evidence.groups)
    agreement = None if found.halves is None else stability(*found.halves)
    return Ranking(chosen.name, found.scores, agreement, _notes(chosen, found, agreement))


def check_evidence(criterion: Criterion, evidence: Evidence) -> None:
    """Refuse evidence that lacks what the criterion needs.

    Raises:
        UsageError: It does.
    """
    if criterion.needs != "weights" and not evidence.batches:
        raise UsageError(
            f"criterion {criterion.name!r} needs data",
            where="criterion",
            hint=f"give data, or take one that looks at weights only: {', '.join(without_data())}",
        )
    if criterion.needs == "targets" and (evidence.loss is None or any(b.targets is None for b in evidence.batches)):
        raise UsageError(
            f"criterion {criterion.name!r} needs a loss and targets, not inputs alone",
            where="criterion",
            hint=f"give both, or take {DEFAULT}, which needs inputs only",
        )


def without_data() -> tuple[str, ...]:
    """The built-in criteria that need none."""
    return tuple(name for name, one in CRITERIA.items() if one.needs == "weights" and name != "random")


@contextmanager
def _own_randomness(module: CapturedModule, seed: int) -> Iterator[None]:
    """A random state of its own for what runs inside: models that draw numbers give the same scores each time."""
    places = {p.device.index or 0 for p in module.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(places)):
        torch.manual_seed(seed)
        yield


def _check_scores(criterion: Criterion, found: Found, groups: ChannelGroups) -> None:
    for name, score in found.scores.items():
        if not np.isfinite(score).all():
            raise QualityError(
                f"criterion {criterion.name!r} gives non-finite scores",
                where=name,
                hint="check the function" if criterion.own else "check the weights and the data",
            )


def _notes(criterion: Criterion, found: Found, agreement: Stability | None) -> tuple[str, ...]:
    notes = [criterion.note] if criterion.note else []
    alike = [name for name, score in found.scores.items() if len(score) > 1 and np.ptp(score) == 0]
    if alike:
        named = ", ".join(alike[:_NAMED]) + (f" and {len(alike) - _NAMED} more" if len(alike) > _NAMED else "")
        notes.append(f"{criterion.name} says nothing of {named}: all channels score alike, the first ones stay")
    if agreement is not None and agreement.mean < SHAKY:
        notes.append(
            f"{criterion.name} ranks channels differently on two halves of the samples (Spearman {agreement.mean:.2f}, "
            f"below {SHAKY:g}): take more, with fit.importance_samples, or another criterion"
        )
    return tuple(notes)
