"""A tiny real workload for whole-flow tests: handwritten digits, doubled to 16x16, and a small residual CNN."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import nn

from edgeprune.workload import Data, Workload
from edgeprune.workload.samples import TensorSet
from edgeprune.workload.tasks import Classify


class Net(nn.Module):
    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.a = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm_a = nn.BatchNorm2d(width)
        self.b = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm_b = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(x + self.norm_b(self.b(F.relu(self.norm_a(self.a(x))))))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


@lru_cache(maxsize=1)
def digits() -> dict[str, TensorSet]:
    images, labels = load_digits(return_X_y=True)
    x = (
        torch.from_numpy(images.astype(np.float32) / 16)
        .view(-1, 1, 8, 8)
        .repeat_interleave(2, 2)
        .repeat_interleave(2, 3)
    )
    y = torch.from_numpy(labels.astype(np.int64))
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    parts = {"train": order[:1100], "validation": order[1100:1400], "test": order[1400:]}
    return {name: TensorSet(x[index], y[index]) for name, index in parts.items()}


def job_files(folder: Path) -> dict[str, dict[str, object]]:
    """The sections `model` and `data` of a job on this problem, with its files written into a folder."""
    save_file(trained(), folder / "digits.safetensors")
    sets = {
        f"{axis}{suffix}": getattr(digits()[role], axis).numpy()
        for role, suffix in (("train", ""), ("validation", "_val"), ("test", "_test"))
        for axis in "xy"
    }
    np.savez(folder / "digits.npz", **sets)
    return {
        "model": {"entry": f"{__file__}:Net", "weights": folder / "digits.safetensors"},
        "data": {"source": f"npz:{folder / 'digits.npz'}"},
    }


@lru_cache(maxsize=1)
def trained() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model, train = Net(), digits()["train"]
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(6):
        for index in torch.randperm(len(train)).split(64):
            loss = F.cross_entropy(model(train.x[index]), train.y[index])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return model.state_dict()


def workload() -> Workload:
    sets = digits()
    model = Net()
    model.load_state_dict(trained())
    calibration = TensorSet(sets["train"].x[:128], sets["train"].y[:128])
    data = Data(sets["train"], sets["validation"], calibration, sets["test"])
    return Workload("digits", "user", model.eval(), sets["train"].x[:1], data, Classify())
