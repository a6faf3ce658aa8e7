"""The criterion of a job: a built-in one, or the user's own function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from edgeprune.errors import EdgepruneError, UsageError
from edgeprune.pruning.criteria.evidence import Criterion, Evidence, Found, Score
from edgeprune.pruning.groups import ChannelGroups
from edgeprune.pruning.importance import find_criterion
from edgeprune.workload.entries import is_entry, load_entry

_GIVES = "give {group name: array of one number per channel} for every group of evidence.groups.groups"


def load_criterion(name: str) -> Criterion:
    """A built-in criterion, or the user's own: `file.py:name` of a function. This runs the user's code.

    Raises:
        UsageError: No such criterion, or what the name leads to is no function.
    """
    if not is_entry(name):
        return find_criterion(name)
    found = load_entry(name, "criterion")
    if isinstance(found, Criterion):
        return replace(found, own=True)
    if not callable(found) or isinstance(found, type):
        raise UsageError(
            f"{name} is {'a class' if isinstance(found, type) else type(found).__name__}, not a function",
            where="criterion",
            hint=_GIVES,
        )
    return own_criterion(found, name)


def own_criterion(function: Callable[[Evidence], Mapping[str, Any]], name: str) -> Criterion:
    """The user's function as a criterion: what it gives is checked, and the model is held to stay as it is.

    Args:
        function: Takes `Evidence`, whose `batches` and `loss` may be empty, and gives per group name one number per
            channel, larger stays: arrays, tensors or lists.
    """

    def score(evidence: Evidence) -> Found:
        return _scored(function, name, evidence)

    score.__doc__ = function.__doc__
    return Criterion(name, score, "weights", own=True)


def _scored(function: Callable[[Evidence], Any], name: str, evidence: Evidence) -> Found:
    module = evidence.captured.module
    gradients = [(p, p.grad) for p in module.parameters()]
    before = {path: value.detach().clone() for path, value in module.state_dict().items()}
    try:
        given = function(evidence)
    except EdgepruneError:
        raise
    except Exception as err:  # whatever the user's code raises
        raise UsageError(
            f"{name} failed: {type(err).__name__}: {err}", where="criterion", hint="--debug shows the traceback"
        ) from err
    finally:
        changed = _restored(module, before)
        for parameter, gradient in gradients:
            parameter.grad = gradient
    if changed:
        raise UsageError(f"{name} changed {changed}", where="criterion", hint="work on copies: value.detach().clone()")
    if not isinstance(given, Mapping):
        raise UsageError(f"{name} gave {type(given).__name__}, not a dictionary", where="criterion", hint=_GIVES)
    return Found(_rows(given, name, evidence.groups))


@torch.no_grad()
def _restored(module: torch.nn.Module, before: Mapping[str, torch.Tensor]) -> str:
    """Puts values back that are not as they were; the first one's path."""
    changed = ""
    for path, value in module.state_dict().items():
        if not torch.equal(value, before[path]):
            value.copy_(before[path])
            changed = changed or path
    return changed


def _rows(given: Mapping[str, Any], name: str, groups: ChannelGroups) -> dict[str, Score]:
    missing = [group.name for group in groups.groups if group.name not in given]
    if missing:
        raise UsageError(f"{name} gave no scores for group {missing[0]!r}", where="criterion", hint=_GIVES)
    return {group.name: _row(given[group.name], group.name, group.width, name) for group in groups.groups}


def _row(value: Any, group: str, width: int, name: str) -> Score:
    found = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    if found.dtype.kind not in "fiub":
        raise UsageError(f"{name} gave {found.dtype} for group {group!r}, not numbers", where="criterion", hint=_GIVES)
    if found.shape != (width,):
        raise UsageError(
            f"{name} gave {found.shape} for group {group!r}, which has {width} channels", where="criterion", hint=_GIVES
        )
    row: Score = found.astype(np.float64)
    if not np.isfinite(row).all():
        wrong = int((~np.isfinite(row)).sum())
        raise UsageError(
            f"{name} gave {wrong} of {width} scores of group {group!r} that are not finite", where="criterion"
        )
    if row.min(initial=0.0) < 0:
        raise UsageError(
            f"{name} gave {row.min():g} for a channel of group {group!r}: scores are not negative",
            where="criterion",
            hint="subtract the smallest score of all groups from all of them",
        )
    return row
