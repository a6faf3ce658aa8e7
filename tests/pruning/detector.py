"""A small detector of the usual make: what it decides in Python depends on its data."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.pruning.nets import conv

ANCHORS = 3


class Detector(nn.Module):
    """Backbone, two-level pyramid, proposals by top-k and a Python loop, regions by indexing, box head."""

    def __init__(self, width: int = 8, pyramid: int = 12, hidden: int = 20, classes: int = 4) -> None:
        super().__init__()
        self.stem = conv(3, width, s=2)
        self.middle = conv(width, 2 * width, s=2)
        self.deep = conv(2 * width, 3 * width, s=2)
        self.lateral = nn.ModuleList([nn.Conv2d(2 * width, pyramid, 1), nn.Conv2d(3 * width, pyramid, 1)])
        self.smooth = nn.ModuleList([nn.Conv2d(pyramid, pyramid, 3, padding=1) for _ in range(2)])
        self.proposer = nn.Conv2d(pyramid, 10, 3, padding=1)
        self.objectness = nn.Conv2d(10, ANCHORS, 1)
        self.deltas = nn.Conv2d(10, 4 * ANCHORS, 1)
        self.first = nn.Linear(pyramid * 4, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.classify = nn.Linear(hidden, classes)
        self.refine = nn.Linear(hidden, 4 * classes)

    def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        middle = self.middle(self.stem(torch.stack(images)))
        deep = self.lateral[1](self.deep(middle))
        fine = self.lateral[0](middle) + F.interpolate(deep, size=middle.shape[-2:], mode="nearest")
        levels = [self.smooth[0](fine), self.smooth[1](deep)]
        side = float(images[0].shape[-1])
        results = []
        for number in range(len(images)):
            boxes = self.proposals(levels, number, side)
            regions = cut(levels, number, boxes, side)
            features = F.relu(self.second(F.relu(self.first(regions.flatten(1)))))
            scores = F.softmax(self.classify(features), -1)
            shifts = self.refine(features).unflatten(-1, (-1, 4))
            best, label = scores.max(-1)
            refined = boxes + shifts[torch.arange(len(boxes)), label]
            keep = survivors(refined, best, 0.7)
            results.append({"boxes": refined[keep], "scores": best[keep], "labels": label[keep]})
        return results

    def proposals(self, levels: list[torch.Tensor], number: int, side: float) -> torch.Tensor:
        boxes, scores = [], []
        for level in levels:
            x = F.relu(self.proposer(level))
            score = self.objectness(x)[number].permute(1, 2, 0).flatten()
            delta = self.deltas(x)[number].view(ANCHORS, 4, *x.shape[-2:]).permute(2, 3, 0, 1).reshape(-1, 4)
            chosen = score.topk(min(6, len(score))).indices
            scores.append(score[chosen])
            boxes.append(anchors(x.shape[-2], x.shape[-1], side).to(delta)[chosen] + 4 * delta[chosen].tanh())
        found = torch.cat(boxes).clamp(0, side - 1)
        return found[survivors(found, torch.cat(scores), 0.5)]


def anchors(height: int, width: int, side: float) -> torch.Tensor:
    """(positions * ANCHORS, 4) boxes around every position."""
    ys, xs = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    at = torch.stack([xs * side / width, ys * side / height], -1).reshape(-1, 1, 2)
    half = torch.tensor([[6.0, 6.0], [4.0, 9.0], [9.0, 4.0]])
    return torch.cat([at - half, at + half], -1).reshape(-1, 4)


def survivors(boxes: torch.Tensor, scores: torch.Tensor, limit: float) -> torch.Tensor:
    """Non-maximum suppression, one pair at a time, in Python."""
    keep: list[int] = []
    for i in scores.argsort(descending=True).tolist():
        if all(bool(overlap(boxes[i], boxes[j]) < limit) for j in keep):
            keep.append(i)
    return torch.tensor(keep, dtype=torch.long)


def overlap(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    inner = (torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2])).clamp(min=0).prod()
    outer = (a[2:] - a[:2]).clamp(min=0).prod() + (b[2:] - b[:2]).clamp(min=0).prod()
    return inner / (outer - inner + 1e-6)


def cut(levels: list[torch.Tensor], number: int, boxes: torch.Tensor, side: float) -> torch.Tensor:
    """(boxes, channels, 2, 2): four points of each box, from the level that suits its size."""
    channels = levels[0].shape[1]
    level_of = ((boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(-1) > 120).long()
    out = torch.zeros((len(boxes), channels, 2, 2), dtype=levels[0].dtype)
    for k, level in enumerate(levels):
        here = torch.where(level_of == k)[0]
        scaled = boxes[here] * level.shape[-1] / side
        xs = scaled[:, 0::2].long().clamp(0, level.shape[-1] - 1)
        ys = scaled[:, 1::2].long().clamp(0, level.shape[-2] - 1)
        batch = torch.full((len(here),), number)
        out[here] = level[
            batch[:, None, None, None],
            torch.arange(channels)[None, :, None, None],
            ys[:, None, :, None],
            xs[:, None, None, :],
        ]
    return out


def images(count: int = 1, side: int = 64, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(3, side, side, generator=generator, dtype=dtype) for _ in range(count)]
