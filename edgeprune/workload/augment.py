"""What is done to training batches at random; every draw is from the given generator, on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from edgeprune.augmentations import Augmentation, Cutout, Jitter, Mixup, Scale, SpecAugment
from edgeprune.errors import UsageError
from edgeprune.spec import DataSpec

Augment = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


def augmentation(spec: DataSpec) -> Augment | None:
    """What the spec asks for but mixing, each sample by its own draw; None when it asks for nothing."""
    steps: list[Augment] = []
    if spec.crop:
        steps.append(lambda x, generator: random_shift(x, spec.crop, generator))
    if spec.flip:
        steps.append(random_flip)
    steps += [_step(entry) for entry in spec.augment if not isinstance(entry, Mixup)]
    if not steps:
        return None

    def augment(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        for step in steps:
            x = step(x, generator)
        return x

    return augment


def mixup_alpha(spec: DataSpec) -> float:
    """The parameter of mixing; 0 without."""
    return next((entry.alpha for entry in spec.augment if isinstance(entry, Mixup)), 0.0)


def check_augmentation(spec: DataSpec, shape: tuple[int, ...]) -> None:
    """Refuse what means nothing for samples of this shape, which is without the axis of samples.

    Raises:
        UsageError: Image operations on what is no image, and so on; masks that are larger than the samples; two mixups.
    """
    if (spec.flip or spec.crop) and len(shape) != 3:
        raise UsageError(f"flip and crop are for images, not for inputs {shape}", where="[data]")
    if sum(isinstance(entry, Mixup) for entry in spec.augment) > 1:
        raise UsageError("mixup stands twice", where="data.augment", hint="leave one of them out")
    for entry in spec.augment:
        problem = _problem(entry, shape)
        if problem:
            raise UsageError(f"{entry.name} {problem}", where="data.augment", hint=f"samples are {shape}")


def _problem(entry: Augmentation, shape: tuple[int, ...]) -> str:
    if isinstance(entry, Cutout):
        if len(shape) != 3:
            return "is for images (channels, height, width)"
        return f"of {entry.size} pixels is larger than the images" if entry.size > min(shape[1:]) else ""
    if isinstance(entry, SpecAugment):
        if len(shape) not in (2, 3):
            return "is for spectrograms (frequencies, time) or (channels, frequencies, time)"
        too_large = entry.frequencies > shape[-2] or entry.times > shape[-1]
        return f"with {entry.frequencies} frequencies and {entry.times} times is too large" if too_large else ""
    if isinstance(entry, Jitter | Scale) and len(shape) != 2:
        return "is for sensors (channels, time)"
    return ""


def _step(entry: Augmentation) -> Augment:
    if isinstance(entry, Cutout):
        return lambda x, generator: cutout(x, entry.size, generator)
    if isinstance(entry, SpecAugment):
        bands, spans = (entry.frequencies, entry.bands), (entry.times, entry.spans)
        return lambda x, generator: spec_augment(x, bands, spans, generator)
    if isinstance(entry, Jitter):
        return lambda x, generator: jitter(x, entry.std, generator)
    assert isinstance(entry, Scale)
    return lambda x, generator: scale(x, entry.std, generator)


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


def cutout(x: torch.Tensor, size: int, generator: torch.Generator) -> torch.Tensor:
    """Images (n, c, h, w), each without a square of side `size` whose centre is anywhere: at an edge less goes.

    Source: DeVries & Taylor 2017 (arXiv 1708.04552).
    """
    masks = []
    for length in x.shape[2:]:
        first = torch.randint(0, length, (len(x), 1), generator=generator) - size // 2
        positions = torch.arange(length)
        masks.append((positions >= first) & (positions < first + size))
    hole = masks[0][:, None, :, None] & masks[1][:, None, None, :]
    return x.masked_fill(hole.to(x.device), 0.0)


def spec_augment(
    x: torch.Tensor, frequencies: tuple[int, int], times: tuple[int, int], generator: torch.Generator
) -> torch.Tensor:
    """Spectrograms (n, frequencies, time) or (n, c, frequencies, time) without some bands and spans.

    Args:
        frequencies: The widest band and how many there are; each is 0 to that many wide.
        times: The same of the spans of time.

    Source: Park et al. 2019 (arXiv 1904.08779), section 2, without warping of time.
    """
    for axis, (widest, count) in ((x.ndim - 2, frequencies), (x.ndim - 1, times)):
        length = x.shape[axis]
        for _ in range(count):
            width = torch.randint(0, widest + 1, (len(x), 1), generator=generator)
            first = (torch.rand(len(x), 1, generator=generator) * (length - width + 1)).long()
            positions = torch.arange(length)
            mask = (positions >= first) & (positions < first + width)
            sizes = [len(x)] + [length if a == axis else 1 for a in range(1, x.ndim)]
            x = x.masked_fill(mask.reshape(sizes).to(x.device), 0.0)
    return x


def jitter(x: torch.Tensor, std: float, generator: torch.Generator) -> torch.Tensor:
    """Signals (n, c, t) under normal noise of this deviation.

    Source: Um et al. 2017 (arXiv 1706.00527), jittering.
    """
    return x + std * torch.randn(x.shape, generator=generator).to(x)


def scale(x: torch.Tensor, std: float, generator: torch.Generator) -> torch.Tensor:
    """Signals (n, c, t), each channel of each sample times a normal factor of mean one and this deviation.

    Source: Um et al. 2017 (arXiv 1706.00527), scaling.
    """
    return x * (1 + std * torch.randn((*x.shape[:2], 1), generator=generator).to(x))


@dataclass(frozen=True)
class Mixture:
    """How a batch is mixed: every sample with a partner (n,) of the same batch, by one share for all."""

    share: float
    partner: torch.Tensor

    def of_inputs(self, x: torch.Tensor) -> torch.Tensor:
        """The mixed inputs (n, ...)."""
        return self.share * x + (1 - self.share) * x[self.partner.to(x.device)]


@dataclass(frozen=True)
class Mixed:
    """The targets (n, ...) that samples were mixed with, and the share of their own."""

    share: float
    others: torch.Tensor

    def loss(self, loss: Callable[[torch.Tensor], torch.Tensor], targets: torch.Tensor) -> torch.Tensor:
        """The mixed loss, of one's own targets (n, ...) and of the partners'."""
        return self.share * loss(targets) + (1 - self.share) * loss(self.others)


def mixture(count: int, alpha: float, generator: torch.Generator) -> Mixture:
    """A draw for a batch of that many samples; the share is from Beta(alpha, alpha).

    Source: Zhang et al. 2018 (arXiv 1710.09412).
    """
    seed = int(torch.randint(2**31, (1,), generator=generator))
    share = float(np.random.default_rng(seed).beta(alpha, alpha))
    return Mixture(share, torch.randperm(count, generator=generator))
