"""Sharpness-aware minimisation: gradients from where the loss is highest nearby.

Source: Foret et al. 2021 (arXiv 2010.01412).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def uphill(model: nn.Module, parameters: Sequence[nn.Parameter], radius: float) -> Iterator[None]:
    """Within, the weights are moved by `radius` along their gradient (equation 2); afterwards they are as before.

    The model's buffers are as before too: statistics of a batch are taken once, at the weights that are trained.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    moved = [p for p in parameters if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    before = [p.detach().clone() for p in moved]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    with torch.no_grad():
        for parameter, gradient in zip(moved, gradients, strict=True):
            parameter.add_(gradient * (radius / (norm + 1e-12)))
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(moved, before, strict=True):
                parameter.copy_(value)
            for buffer, value in buffers:
                buffer.copy_(value)
