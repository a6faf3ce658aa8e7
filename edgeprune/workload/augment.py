"""Random flips and shifts of training batches."""

from __future__ import annotations

from collections.abc import Callable

import torch

from edgeprune.spec import DataSpec

Augment = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


def augmentation(spec: DataSpec) -> Augment | None:
    """What the spec asks for, each sample by its own draw; None when it asks for nothing."""
    if not spec.flip and not spec.crop:
        return None

    def augment(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        shifted = random_shift(x, spec.crop, generator) if spec.crop else x
        return random_flip(shifted, generator) if spec.flip else shifted

    return augment


def random_flip(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Images (n, c, h, w), each mirrored left to right with even odds."""
    mirrored = torch.rand(len(x), generator=generator) < 0.5
    return torch.where(mirrored.to(x.device)[:, None, None, None], x.flip(3), x)


def random_shift(x: torch.Tensor, most: int, generator: torch.Generator) -> torch.Tensor:
    """Images (n, c, h, w), each moved by up to `most` pixels both ways; zeros move in."""
    count, _, height, width = x.shape
    padded = torch.nn.functional.pad(x, (most, most, most, most))
    offsets = torch.randint(0, 2 * most + 1, (2, count, 1), generator=generator)
    rows = (offsets[0] + torch.arange(height)).to(x.device)[:, None, :, None]
    columns = (offsets[1] + torch.arange(width)).to(x.device)[:, None, None, :]
    samples = torch.arange(count, device=x.device)[:, None, None, None]
    channels = torch.arange(x.shape[1], device=x.device)[None, :, None, None]
    return padded[samples, channels, rows, columns]
