"""Gradients held within limits before they change any weight."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from edgeprune.recipe import TrainSpec


def clip(parameters: Iterable[nn.Parameter], recipe: TrainSpec, limit_norm: float) -> torch.Tensor:
    """Clip all gradients in place.

    Args:
        limit_norm: Of all gradients together, where the recipe clips by it.

    Returns:
        The norm of all gradients before clipping; not finite when one of them is not.

    Source: by norm, Pascanu et al. 2013 (arXiv 1211.5063).
    """
    return nn.utils.clip_grad_norm_(parameters, limit_norm)
