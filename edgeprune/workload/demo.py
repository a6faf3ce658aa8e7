"""The built-in problem: a CNN that reads the one whole digit in a cluttered scene, too slow for small boards as it is.

Its weights are shipped and come from `tools/train_demo.py`, trained on the training scenes alone.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from edgeprune.workload import Array, Data, Workload
from edgeprune.workload.demo_scenes import CLASSES, scenes
from edgeprune.workload.samples import TensorSet, part
from edgeprune.workload.splits import stratified_draw
from edgeprune.workload.tasks import Classify
from edgeprune.workload.weights import load_weights, read_weights

SCENES = {"train": 2000, "validation": 500, "test": 1000}  # the network was trained on all of train
FIT_SCENES = 1500  # of train, that a fit fine-tunes on: enough to recover, and minutes faster
MEAN, STD = 0.28, 0.18  # of scenes scaled to 0..1
WEIGHTS = Path(__file__).with_name("demo.safetensors")


def demo_workload(seed: int = 0, calibration_samples: int = 256) -> Workload:
    """The demo's trained network, scenes and task. The scenes are always the same ones.

    Args:
        seed: Of the calibration set's draw from the training scenes.
    """
    sets = {split: demo_scenes(split, count) for split, count in SCENES.items()}
    train = part(sets["train"], range(FIT_SCENES))
    assert isinstance(train, TensorSet)
    drawn = stratified_draw(train.y.numpy(), calibration_samples, seed)
    data = Data(
        train=train,
        validation=sets["validation"],
        calibration=part(train, drawn.tolist()),
        test=sets["test"],
        notes=("built-in scenes of handwritten digits; no digit appears in two of training, validation and test",),
    )
    return Workload("demo", "demo", demo_model(), train.x[:1], data, Classify())


def demo_scenes(split: str, count: int) -> TensorSet:
    """`count` scenes of a split as the network takes them: (count, 1, 64, 64) float32."""
    images, labels = scenes(split, count)
    return TensorSet(normalised(images), torch.from_numpy(labels))


def demo_model() -> nn.Module:
    """The dense network with its trained weights, in eval mode."""
    model = demo_network()
    load_weights(model, read_weights(WEIGHTS), str(WEIGHTS))
    return model.eval()


class Residual(nn.Module):
    """Two convolutions with a way around them; the inner width is free."""

    def __init__(self, channels: int, inner: int, kernel: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, inner, kernel, padding=kernel // 2, bias=False)
        self.norm1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, channels, kernel, padding=kernel // 2, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(inner)) + x)


def demo_network(
    widths: tuple[int, int, int] = (32, 64, 128), inner: tuple[int, int, int] = (32, 48, 128)
) -> nn.Module:
    """The demo's CNN with fresh weights: (n, 1, 64, 64) float32 to (n, 10) logits.

    Args:
        widths: Channels at full, half and quarter resolution.
        inner: Channels between the two convolutions of the residual blocks there.
    """
    layers: list[nn.Module] = []
    channels = 1
    for stage, (width, middle, blocks, kernel) in enumerate(zip(widths, inner, (1, 3, 1), (5, 5, 3))):
        stride = 1 if stage == 0 else 2
        layers += [nn.Conv2d(channels, width, 5, stride, 2, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [Residual(width, middle, kernel) for _ in range(blocks)]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES))


def normalised(images: Array) -> torch.Tensor:
    """Scenes (n, 64, 64) uint8 as the network takes them: (n, 1, 64, 64) float32."""
    return ((torch.from_numpy(images).float() / 255 - MEAN) / STD)[:, None]
