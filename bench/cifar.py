"""ResNet-20 trained on CIFAR-10, and its data: lossless mosaics of 32 x 32 images, one per class and split.

The folder is `EDGEPRUNE_SHARED`/data, by default `../shared/data` beside the repository. The network's shortcuts have
no parameters: every second pixel, zeros for the new channels (He et al. 2016, option A). They tie channel positions
across stages.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from bench.cells import ROOT
from edgeprune.errors import UsageError
from edgeprune.spec import DataSpec
from edgeprune.workload import Data, Workload
from edgeprune.workload.augment import augmentation
from edgeprune.workload.samples import TensorSet, labels_of
from edgeprune.workload.splits import stratified_draw, stratified_split
from edgeprune.workload.tasks import Classify
from edgeprune.workload.weights import load_weights, read_weights

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # what the weights were trained with
WEIGHTS = "cifar10_resnet/resnet20-12fca82f.th"
VALIDATION_SHARE = 0.1
SIDE = 32


def shared_data() -> Path:
    """The folder with the data sets and weights.

    Raises:
        UsageError: It is not there.
    """
    folder = Path(os.environ.get("EDGEPRUNE_SHARED", ROOT / ".." / "shared")) / "data"
    if not folder.is_dir():
        raise UsageError("no CIFAR-10 here", where=str(folder), hint="set EDGEPRUNE_SHARED (make: SHARED=FOLDER)")
    return folder


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut without parameters."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.missing = stride, width - before

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.missing:
            half = self.missing // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, self.missing - half))
        return F.relu(y + x)


class ResNet(nn.Module):
    """Three stages of `blocks` blocks, 16, 32 and 64 channels wide; inputs (n, 3, 32, 32), outputs (n, 10)."""

    def __init__(self, blocks: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Block(16, 16, 1) for _ in range(blocks)))
        self.layer2 = nn.Sequential(Block(16, 32, 2), *(Block(32, 32, 1) for _ in range(blocks - 1)))
        self.layer3 = nn.Sequential(Block(32, 64, 2), *(Block(64, 64, 1) for _ in range(blocks - 1)))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        y: torch.Tensor = self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return y


def resnet20() -> nn.Module:
    """With its trained weights, in eval mode."""
    file = shared_data() / WEIGHTS
    model = ResNet(3)
    load_weights(model, read_weights(file), str(file))
    return model.eval()


def read_split(split: str) -> TensorSet:
    """All images of `train` (20,000) or `test` (10,000), normalised, classes in order.

    Raises:
        UsageError: A mosaic is missing.
    """
    images, labels = [], []
    for label in range(10):
        files = sorted((shared_data() / "cifar10").glob(f"{split}_{label}_*.webp"))
        if not files:
            raise UsageError(f"no {split} images of class {label}", where=str(shared_data() / "cifar10"))
        with Image.open(files[0]) as mosaic:
            pixels = np.array(mosaic.convert("RGB"))
        rows, columns = pixels.shape[0] // SIDE, pixels.shape[1] // SIDE
        tiles = pixels.reshape(rows, SIDE, columns, SIDE, 3).transpose(0, 2, 4, 1, 3)
        images.append(tiles.reshape(-1, 3, SIDE, SIDE))
        labels.append(np.full(rows * columns, label))
    x = torch.from_numpy(np.concatenate(images)).float() / 255
    x = (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    return TensorSet(x, torch.from_numpy(np.concatenate(labels)))


def workload(train_images: int, test_images: int) -> Workload:
    """Training images (a tenth of them for validation), flips and shifts by 4 pixels, and test images.

    Args:
        train_images: Of the 20,000, drawn with equal classes.
        test_images: Of the 10,000.
    """
    whole, test = (
        _drawn(read_split(split), count) for split, count in (("train", train_images), ("test", test_images))
    )
    stay, off = stratified_split(labels_of(whole), VALIDATION_SHARE, 0)
    train, validation = _part(whole, stay), _part(whole, off)
    calibration = _drawn(train, 256)
    data = Data(train, validation, calibration, test)
    augment = augmentation(DataSpec(flip=True, crop=4))
    return Workload("resnet20", "user", resnet20(), train.x[:1], data, Classify(), augment)


def _drawn(source: TensorSet, count: int) -> TensorSet:
    return source if count >= len(source) else _part(source, stratified_draw(labels_of(source), count, 0))


def _part(source: TensorSet, indices: np.ndarray) -> TensorSet:
    chosen = torch.from_numpy(indices)
    return TensorSet(source.x[chosen], source.y[chosen])
