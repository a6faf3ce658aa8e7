"""Gradients held within limits before they change any weight."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from edgeprune.recipe import TrainSpec

_SMALLEST_WEIGHTS = 1e-3  # norm that a unit's weights count with at least, so that those at zero can grow


def clip(parameters: Sequence[nn.Parameter], recipe: TrainSpec, limit_norm: float) -> torch.Tensor:
    """Clip all gradients in place.

    Args:
        parameters: In the model's order, the last layer last.
        limit_norm: Of all gradients together, where the recipe clips by it.

    Returns:
        The norm of all gradients before clipping; not finite when one of them is not.

    Source: by norm and by value, Pascanu et al. 2013 (arXiv 1211.5063) and Mikolov 2012; adaptively, Brock et al. 2021
    (arXiv 2102.06171), equation 3, where the last layer is left out too.
    """
    if recipe.clip == "norm":
        return nn.utils.clip_grad_norm_(parameters, limit_norm)
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if recipe.clip == "value":
        nn.utils.clip_grad_value_(parameters, recipe.clip_value)
    elif recipe.clip == "adaptive":
        matrices = [index for index, p in enumerate(parameters) if p.ndim > 1]
        for parameter in parameters[: matrices[-1] if matrices else None]:
            _clip_units(parameter, recipe.clip_factor)
    return norm


@torch.no_grad()
def _clip_units(parameter: nn.Parameter, factor: float) -> None:
    """Shorten the gradient of each unit to a share of the norm of its weights."""
    if parameter.grad is None:
        return
    limit = factor * _unit_norms(parameter).clamp(min=_SMALLEST_WEIGHTS)
    norms = _unit_norms(parameter.grad)
    parameter.grad.mul_(torch.where(norms > limit, limit / norms.clamp(min=1e-6), 1.0))


def _unit_norms(tensor: torch.Tensor) -> torch.Tensor:
    """Norms (units, 1, ...) of the weights that make each output, of a vector (a bias, a scale) its own norm."""
    axes = tuple(range(1, tensor.ndim)) if tensor.ndim > 1 else None
    norms: torch.Tensor = torch.linalg.vector_norm(tensor, dim=axes, keepdim=True)
    return norms
