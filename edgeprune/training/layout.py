"""Memory layout: convolutions run faster here with channels last, unless the program's views forbid it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def channels_last_if_it_runs(model: nn.Module, batch: torch.Tensor) -> torch.memory_format:
    """The layout for batches (n, ...), to which the model's weights are brought too.

    Only images can have channels last, and a captured program may hold views that need the usual layout: it is tried.
    The choice rests on the program alone, not on timing, so that a seed gives the same numbers every time.
    """
    if batch.ndim != 4 or batch.shape[1] == 0:
        return torch.contiguous_format
    was_training = model.training
    model.eval()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        with torch.no_grad():
            model(batch[:2].to(memory_format=torch.channels_last))
        return torch.channels_last
    except RuntimeError:
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        return torch.contiguous_format
    finally:
        model.train(was_training)


@contextmanager
def restored_layout(model: nn.Module) -> Iterator[None]:
    """Afterwards the weights are in the usual layout again, as exporters and files expect."""
    try:
        yield
    finally:
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
