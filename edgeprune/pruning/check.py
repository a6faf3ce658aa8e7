"""The proof of surgery: the pruned model against the full-size model with the same channels masked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from edgeprune.pruning.groups import ChannelGroups
from edgeprune.pruning.masked import masked_outputs
from edgeprune.pruning.plan import Plan, keeps_all, removable_together
from edgeprune.pruning.surgery import prune
from edgeprune.pruning.trace import Captured, copy_module

TOLERANCE = 1e-5  # of the largest output, in single precision
_DOUBLE = 1e-9


@dataclass(frozen=True)
class Checked:
    """A pruned model that was compared with its masked original.

    Attributes:
        plan: What was really removed.
        error: max |pruned - masked| / max |masked| on the inputs of the check.
        excluded: Groups that were left whole because removing their channels changed the result, with their error.
    """

    pruned: Captured
    plan: Plan
    error: float
    excluded: Mapping[str, float]


def checked_prune(captured: Captured, groups: ChannelGroups, plan: Plan, inputs: tuple[Any, ...]) -> Checked:
    """Prune, compare on real inputs, and leave out whatever group does not pass.

    Args:
        inputs: As the model takes them, batch on axis 0.

    Raises:
        UsageError: The plan does not fit the model.
    """
    excluded: dict[str, float] = {}
    while True:
        pruned = prune(captured, groups, plan)
        error = difference(captured, groups, plan, pruned, inputs)
        if error <= TOLERANCE or keeps_all(groups, plan):
            return Checked(pruned, plan, error, excluded)
        # Groups that pass alone and fail together: leave out all that are still in.
        excluded |= _failing(captured, groups, plan, inputs) or dict.fromkeys(plan.keep, error)
        left = {name: kept for name, kept in plan.keep.items() if name not in excluded}
        plan = plan.model_copy(update={"keep": left})


def vetted(captured: Captured, groups: ChannelGroups, inputs: tuple[Any, ...], seed: int = 0) -> ChannelGroups:
    """The groups that pass the check at half of their channels, drawn at random; the others frozen, with their error.

    Groups that do not pass it without any channel are not removable.

    Args:
        inputs: As the model takes them, batch on axis 0.
    """
    rng = np.random.default_rng(seed)
    half = {
        group.name: tuple(sorted(rng.choice(group.width, (group.width + 1) // 2, replace=False).tolist()))
        for group in groups.groups
        if group.width > 1
    }
    excluded = checked_prune(captured, groups, Plan(keep=half), inputs).excluded
    passed = groups.without({name: f"pruned differs from masked by {error:.1e}" for name, error in excluded.items()})
    blocks = Plan(keep=dict.fromkeys(removable_together(passed), ()))
    needed = checked_prune(captured, passed, blocks, inputs).excluded
    return replace(
        passed, groups=tuple(replace(g, removable=g.removable and g.name not in needed) for g in passed.groups)
    )


def _failing(captured: Captured, groups: ChannelGroups, plan: Plan, inputs: tuple[Any, ...]) -> dict[str, float]:
    errors = {}
    for name, kept in plan.keep.items():
        alone = Plan(keep={name: kept})
        error = difference(captured, groups, alone, prune(captured, groups, alone), inputs)
        if not error <= TOLERANCE:
            errors[name] = error
    return errors


def difference(
    captured: Captured, groups: ChannelGroups, plan: Plan, pruned: Captured, inputs: tuple[Any, ...]
) -> float:
    """max |pruned - masked| / max |masked| over all floating-point outputs; infinite where the pruned model fails.

    In the model's precision first; where rounding could explain what is found, in double precision, scaled so that
    `TOLERANCE` is the limit in both.
    """
    error = _difference(captured, groups, plan, pruned, inputs)
    if TOLERANCE < error < float("inf"):
        double = [Captured(copy_module(c.module).double(), c.graph) for c in (captured, pruned)]
        exact = tuple(x.double() if torch.is_tensor(x) and x.is_floating_point() else x for x in inputs)
        try:
            error = _difference(double[0], groups, plan, double[1], exact) * (TOLERANCE / _DOUBLE)
        except RuntimeError:  # a constant of the program is bound to single precision
            return error
    return error


@torch.no_grad()
def _difference(
    captured: Captured, groups: ChannelGroups, plan: Plan, pruned: Captured, inputs: tuple[Any, ...]
) -> float:
    want = masked_outputs(captured, groups, plan, *_copied(inputs))
    try:
        got = pruned.module.eval()(*_copied(inputs))
    except (RuntimeError, IndexError, ValueError):  # a size that does not fit
        return float("inf")
    return relative_difference(want, got)


def relative_difference(expected: Any, found: Any) -> float:
    """max |found - expected| / max |expected| over all floating-point tensors of two outputs, which may nest."""
    want, got = _tensors(expected), _tensors(found)
    if [t.shape for t in want] != [t.shape for t in got]:
        return float("inf")
    pairs = [(w.double(), g.double()) for w, g in zip(want, got, strict=True) if w.numel()]
    scale = max((float(w.abs().max()) for w, _ in pairs), default=0.0)
    worst = max((float((w - g).abs().max()) for w, g in pairs), default=0.0)
    if not worst < float("inf"):  # infinite or not a number
        return float("inf")
    return worst / scale if scale > 0 else worst


def _copied(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """A model may write into its inputs."""
    copies: tuple[Any, ...] = pytree.tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, inputs)
    return copies


def _tensors(outputs: Any) -> list[torch.Tensor]:
    return [t for t in pytree.tree_leaves(outputs) if isinstance(t, torch.Tensor) and t.is_floating_point()]
