"""The Python face: the same flow as the command line, with live objects where it takes files.

Everything here is reachable as `edgeprune.<name>`; importing `edgeprune` alone loads no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, overload

import torch

from edgeprune.errors import UsageError
from edgeprune.pipeline import fit
from edgeprune.profiling import profile
from edgeprune.pruning import groups as _groups
from edgeprune.pruning import surgery
from edgeprune.pruning.check import checked_prune
from edgeprune.pruning.criteria.evidence import Criterion, Evidence, Loss, Sampled
from edgeprune.pruning.groups import ChannelGroups
from edgeprune.pruning.importance import importance
from edgeprune.pruning.observe import Observed
from edgeprune.pruning.opening import Opened, open_model, varied
from edgeprune.pruning.own_module import prune_module
from edgeprune.pruning.plan import Plan, uniform
from edgeprune.pruning.trace import Captured, Example, positional
from edgeprune.workload.criteria import load_criterion, own_criterion

OwnScores = Callable[[Evidence], Mapping[str, Any]]  # per group name one number per channel, larger stays

__all__ = ["Plan", "Pruned", "channel_groups", "fit", "profile", "prune"]


@dataclass(frozen=True)
class Pruned:
    """A smaller model, what was removed, and how that is known to be exact.

    Attributes:
        model: Trains, switches modes, takes any batch size and exports; its parameters keep their names. A captured
            program, or where the model's Python depends on data (a detector's does) a copy of the model's own class.
        plan: What was really removed; the same plan on the same model gives the same tensors.
        error: max |pruned - masked| / max |masked| over the outputs on the example; None without a check, and for a
            copy of the model's own class, where every tensor on the way is compared instead.
        excluded: Groups that were left whole because removing their channels changed the result, with their error.
        notes: What the user must know: groups left whole, branches of training mode that are not in the model, why a
            model was not captured.
    """

    model: torch.nn.Module
    plan: Plan
    error: float | None
    excluded: Mapping[str, float]
    notes: tuple[str, ...]


def channel_groups(
    model: torch.nn.Module | Captured, example: Example | None = None, *, by_head: bool = False
) -> ChannelGroups:
    """What can shrink in a model, what is coupled to what, and what is frozen and why.

    A model whose Python depends on data, such as a detector, cannot be captured; then it is run on the example, the
    groups are those of the path that it took, and `notes` of the result say so.

    Args:
        model: Any module, or one that is captured already.
        example: Its input, its inputs in order (a tuple) or by name (a dict), batch on axis 0; only shapes matter.
        by_head: Remove whole attention heads and whole groups of grouped layers, instead of thinning all alike.

    Raises:
        UnsupportedError: The model can be neither captured nor run, or computes something else than its capture.
        QualityError: A weight is not finite; named.

    Example:
        >>> import edgeprune, torch
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 3))
        >>> [(group.name, group.width) for group in edgeprune.channel_groups(net, torch.zeros(1, 3, 8, 8)).groups]
        [('0', 8)]
    """
    if isinstance(model, Captured):
        return _groups.channel_groups(model.graph, by_head)
    if example is None:
        raise UsageError("an example input is needed to capture the model")
    return _groups_of(open_model(model, example, observing=True), by_head)


@overload
def prune(
    model: torch.nn.Module,
    example: Example,
    *,
    keep: float,
    by_head: bool = False,
    criterion: str | OwnScores = "l1",
    batches: Iterable[tuple[Any, torch.Tensor]] = (),
    loss: Loss | None = None,
    step: int = 1,
    seed: int = 0,
    check: bool = True,
) -> Pruned: ...


@overload
def prune(model: torch.nn.Module, example: Example, *, plan: Plan, check: bool = True) -> Pruned: ...


def prune(
    model: torch.nn.Module,
    example: Example,
    *,
    keep: float | None = None,
    plan: Plan | None = None,
    by_head: bool = False,
    criterion: str | OwnScores = "l1",
    batches: Iterable[tuple[Any, torch.Tensor]] = (),
    loss: Loss | None = None,
    step: int = 1,
    seed: int = 0,
    check: bool = True,
) -> Pruned:
    """A smaller copy of the model that computes exactly what the model with those channels masked computes.

    Args:
        example: Its input, its inputs in order (a tuple) or by name (a dict), batch on axis 0. Real samples make the
            check and the criteria that need data worth more; where all numbers are equal, noise takes their place.
        keep: Share of every group's channels that stays, above 0 and at most 1, the best by `criterion`.
        plan: Which channels stay, instead of `keep`.
        by_head: Remove whole attention heads and whole groups of grouped layers; a plan knows this of itself.
        criterion: Name of an importance criterion (docs/criteria.md), `file.py:name` of your own, or the function
            itself; those that need inputs only use the example.
        batches: Pairs (inputs, targets) that criteria use instead of the example; inputs as for `example`.
        loss: Of (outputs, targets), the mean over a batch; for criteria that need the loss's gradient.
        step: Widths are multiples of it.
        seed: Of criteria that draw at random.
        check: Compare pruned with masked on the example; a group that does not pass is left whole and named.

    Raises:
        UnsupportedError: The model can be neither captured nor run, computes something else than its capture, or its
            own Python does not follow the plan.
        UsageError: Neither or both of `keep` and `plan`, a share out of range, a plan that does not fit, a criterion
            that is unknown or lacks what it needs.
        QualityError: A weight or a score is not finite; named.

    Example:
        >>> import edgeprune, torch
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 3))
        >>> small = edgeprune.prune(net, torch.zeros(1, 3, 8, 8), keep=0.5)
        >>> small.model(torch.zeros(2, 3, 8, 8)).shape
        torch.Size([2, 4, 4, 4])
        >>> small.error < 1e-5, dict(small.excluded)
        (True, {})
    """
    if (keep is None) == (plan is None):
        raise UsageError("prune needs either keep=0.5 or plan=Plan(...)")
    if keep is not None and not 0 < keep <= 1:
        raise UsageError(f"keep={keep:g} is not above 0 and at most 1")
    opened = open_model(model, example, observing=True)
    groups = _groups_of(opened, by_head or (plan is not None and plan.by_head))
    inputs = varied(positional(model, example))
    if plan is None:
        assert keep is not None
        given = tuple(Sampled(positional(model, x), y) for x, y in batches) or (Sampled(inputs),)
        ranking = importance(_criterion(criterion), Evidence(opened.captured, groups, given, loss, seed))
        plan = uniform(groups, keep, step, ranking.scores)
        opened = replace(opened, notes=(*opened.notes, *ranking.notes))
    if isinstance(opened.captured, Observed):
        own = prune_module(model, groups, plan, example, opened.captured)
        return Pruned(own, plan, None, {}, opened.notes)
    return _pruned(opened, groups, plan, inputs if check else None)


def _criterion(criterion: str | OwnScores) -> Criterion:
    if isinstance(criterion, str):
        return load_criterion(criterion)
    return own_criterion(criterion, getattr(criterion, "__name__", "the criterion"))


def _groups_of(opened: Opened, by_head: bool) -> ChannelGroups:
    return replace(_groups.channel_groups(opened.captured.graph, by_head), notes=opened.notes)


def _pruned(opened: Opened, groups: ChannelGroups, plan: Plan, inputs: tuple[object, ...] | None) -> Pruned:
    if inputs is None:
        model = surgery.prune(opened.captured, groups, plan).module
        return Pruned(model, plan, None, {}, (*opened.notes, "not checked against the masked model"))
    done = checked_prune(opened.captured, groups, plan, inputs)
    left = (f"left whole: {name}: pruned differs from masked by {error:.1e}" for name, error in done.excluded.items())
    return Pruned(done.pruned.module, done.plan, done.error, done.excluded, (*opened.notes, *left))
