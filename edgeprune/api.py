"""The Python face: the same flow as the command line, with live objects where it takes files.

Everything here is reachable as `edgeprune.<name>`; importing `edgeprune` alone loads no torch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, overload

import torch

from edgeprune.errors import UsageError
from edgeprune.pipeline import fit
from edgeprune.profiling import profile
from edgeprune.pruning import groups as _groups
from edgeprune.pruning import surgery
from edgeprune.pruning.groups import ChannelGroups
from edgeprune.pruning.importance import importance
from edgeprune.pruning.observe import Observed, capture
from edgeprune.pruning.own_module import prune_module
from edgeprune.pruning.plan import Plan, uniform
from edgeprune.pruning.trace import Captured

__all__ = ["channel_groups", "fit", "profile", "prune"]

Example = Any  # tensors, alone or inside tuples (inputs in order), dicts (inputs by name), lists and objects


def channel_groups(model: torch.nn.Module | Captured, example: Example | None = None) -> ChannelGroups:
    """What can shrink in a model, what is coupled to what, and what is frozen and why.

    A model whose Python depends on data, such as a detector, cannot be captured; then it is run on the example, the
    groups are those of the path that it took, and `notes` of the result say so.

    Args:
        model: Any module, or one that is captured already.
        example: Its inputs, batch on axis 0; only shapes matter where the model can be captured.

    Raises:
        UnsupportedError: The model can be neither captured nor run.

    Example:
        >>> import edgeprune, torch
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 3))
        >>> [(group.name, group.width) for group in edgeprune.channel_groups(net, torch.zeros(1, 3, 8, 8)).groups]
        [('0', 8)]
    """
    return _groups_of(_captured(model, example))


@overload
def prune(
    model: torch.nn.Module, example: Example, *, keep: float, step: int = 1, seed: int = 0
) -> torch.nn.Module: ...


@overload
def prune(model: torch.nn.Module, example: Example, *, plan: Plan) -> torch.nn.Module: ...


def prune(
    model: torch.nn.Module,
    example: Example,
    *,
    keep: float | None = None,
    plan: Plan | None = None,
    criterion: str = "l1",
    step: int = 1,
    seed: int = 0,
) -> torch.nn.Module:
    """A smaller copy of the model that computes exactly what the model with those channels masked computes.

    The result is a captured program: it trains, switches modes, takes any batch size and exports, and its parameters
    keep their names. Where the model's Python depends on data (a detector's does) it cannot be captured: then the
    result is a copy of the model's own class with smaller layers, checked on the example, and its `pruning_notes` say
    so.

    Args:
        keep: Share of every group's channels that stays, above 0 and at most 1, the best by `criterion`.
        plan: Which channels stay, instead of `keep`.
        criterion: Name of an importance criterion; those that need data use the example.
        step: Widths are multiples of it.

    Raises:
        UnsupportedError: The model can be neither captured nor run, or its own Python does not follow the plan.
        UsageError: Neither or both of `keep` and `plan`, a share out of range, or a plan that does not fit.

    Example:
        >>> import edgeprune, torch
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 3))
        >>> small = edgeprune.prune(net, torch.zeros(1, 3, 8, 8), keep=0.5)
        >>> small(torch.zeros(2, 3, 8, 8)).shape
        torch.Size([2, 4, 4, 4])
    """
    if (keep is None) == (plan is None):
        raise UsageError("prune needs either keep=0.5 or plan=Plan(...)")
    captured = _captured(model, example)
    groups = _groups_of(captured)
    if plan is None:
        assert keep is not None
        if not 0 < keep <= 1:
            raise UsageError(f"keep={keep:g} is not above 0 and at most 1")
        first = example[0] if isinstance(example, tuple) else example
        plan = uniform(groups, keep, step, importance(criterion, captured, groups, [first], seed))
    if isinstance(captured, Observed):
        own = prune_module(model, groups, plan, example, captured)
        own.pruning_notes = captured.notes  # type: ignore[assignment]
        return own
    return surgery.prune(captured, groups, plan).module


def _groups_of(captured: Captured) -> ChannelGroups:
    groups = _groups.channel_groups(captured.graph)
    return replace(groups, notes=captured.notes) if isinstance(captured, Observed) else groups


def _captured(model: torch.nn.Module | Captured, example: Example | None) -> Captured:
    if isinstance(model, Captured):
        return model
    if example is None:
        raise UsageError("an example input is needed to capture the model")
    return capture(model, example)
