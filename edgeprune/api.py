"""The Python face: the same flow as the command line, with live objects where it takes files.

Everything here is reachable as `edgeprune.<name>`; importing `edgeprune` alone loads no torch.
"""

from __future__ import annotations

from typing import overload

import torch

from edgeprune.errors import UsageError
from edgeprune.pipeline import fit
from edgeprune.profiling import profile
from edgeprune.pruning import groups as _groups
from edgeprune.pruning import surgery
from edgeprune.pruning.groups import ChannelGroups
from edgeprune.pruning.importance import importance
from edgeprune.pruning.plan import Plan, uniform
from edgeprune.pruning.trace import Captured, CapturedModule, trace

__all__ = ["channel_groups", "fit", "profile", "prune"]

Example = torch.Tensor | tuple[torch.Tensor, ...]


def channel_groups(model: torch.nn.Module | Captured, example: Example | None = None) -> ChannelGroups:
    """What can shrink in a model, what is coupled to what, and what is frozen and why.

    Args:
        model: Any module, or one that is captured already.
        example: Its inputs, batch on axis 0; only shapes matter.

    Raises:
        UnsupportedError: The model cannot be captured.

    Example:
        >>> import edgeprune, torch
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 3))
        >>> [(group.name, group.width) for group in edgeprune.channel_groups(net, torch.zeros(1, 3, 8, 8)).groups]
        [('0', 8)]
    """
    return _groups.channel_groups(_captured(model, example).graph)


@overload
def prune(model: torch.nn.Module, example: Example, *, keep: float, step: int = 1, seed: int = 0) -> CapturedModule: ...


@overload
def prune(model: torch.nn.Module, example: Example, *, plan: Plan) -> CapturedModule: ...


def prune(
    model: torch.nn.Module,
    example: Example,
    *,
    keep: float | None = None,
    plan: Plan | None = None,
    criterion: str = "l1",
    step: int = 1,
    seed: int = 0,
) -> CapturedModule:
    """A smaller copy of the model that computes exactly what the model with those channels masked computes.

    The result is a captured program: it trains, switches modes, takes any batch size and exports, and its parameters
    keep their names.

    Args:
        keep: Share of every group's channels that stays, above 0 and at most 1, the best by `criterion`.
        plan: Which channels stay, instead of `keep`.
        criterion: Name of an importance criterion; those that need data use the example.
        step: Widths are multiples of it.

    Raises:
        UnsupportedError: The model cannot be captured.
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
    groups = _groups.channel_groups(captured.graph)
    if plan is None:
        assert keep is not None
        if not 0 < keep <= 1:
            raise UsageError(f"keep={keep:g} is not above 0 and at most 1")
        first = example[0] if isinstance(example, tuple) else example
        plan = uniform(groups, keep, step, importance(criterion, captured, groups, [first], seed))
    return surgery.prune(captured, groups, plan).module


def _captured(model: torch.nn.Module | Captured, example: Example | None) -> Captured:
    if isinstance(model, Captured):
        return model
    if example is None:
        raise UsageError("an example input is needed to capture the model")
    return trace(model, example)
