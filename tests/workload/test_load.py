from pathlib import Path

import numpy as np
import pytest
import torch

from edgeprune.augmentations import Jitter
from edgeprune.errors import UsageError
from edgeprune.spec import DataSpec, FitSpec, ModelSpec, Spec
from edgeprune.workload.augment import augmentation, random_flip, random_shift
from edgeprune.workload.load import load_workload

CODE = """
import torch
from torch import nn

def make(classes: int = 4):
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes))
def colour(): return nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
def flat(): return nn.Linear(10, 4)
def other(): return nn.Softmax(dim=5)
class Tuple(nn.Module):
    def forward(self, x): return x, x
class Summed(nn.Module):
    def forward(self, x): return x.sum(dim=0)
class Infinite(nn.Module):
    def forward(self, x): return x.flatten(1)[:, :4] / 0
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(CODE)
    x = np.random.default_rng(0).integers(0, 256, (40, 8, 8)).astype(np.uint8)
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(40) % 4)
    return tmp_path


def job(folder: Path, model: str = "make", data: str = "d.npz", args: dict | None = None, **more: object) -> Spec:
    return Spec(
        model=ModelSpec(entry=f"{folder / 'nets.py'}:{model}", args=args or {}),
        data=DataSpec(source=f"npz:{folder / data}", **more),
        fit=FitSpec(calibration_samples=8),
    )


def test_model_data_and_task_come_together(folder: Path) -> None:
    workload = load_workload(job(folder))
    assert (workload.name, workload.kind, workload.task.primary) == ("make", "user", "accuracy")
    assert workload.example.shape == (1, 1, 8, 8) and not workload.model.training and workload.augment is None
    assert len(workload.data.calibration) == 8 and workload.notes == workload.data.notes != ()


@pytest.mark.parametrize(
    ("model", "args", "message"),
    [
        ("colour", {}, r"does not take inputs of shape \(1, 8, 8\): its first layer '0' takes \(3, height, width\)"),
        ("flat", {}, r"shape \(1, 8, 8\): its first layer '' takes \(…, 10\)"),
        ("other", {}, "its first layer is unknown"),
        ("make", {"classes": 3}, "train labels go from 0 to 3, the model has 3 outputs"),
        ("Tuple", {}, "the model gives tuple, not one tensor"),
        ("Summed", {}, r"8 samples gave outputs \(1, 8, 8\)"),
        ("Infinite", {}, "outputs on the first samples are not finite"),
    ],
)
def test_models_that_do_not_fit_the_data_are_named(folder: Path, model: str, args: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_workload(job(folder, model, args=args))


def test_sets_of_different_shapes_are_named(folder: Path) -> None:
    x, y = np.zeros((8, 1, 8, 8), np.float32), np.arange(8) % 4
    np.savez(folder / "e.npz", x=x, y=y, x_val=x[:, :, :6], y_val=y, x_test=x, y_test=y)
    with pytest.raises(UsageError, match=r"validation samples are \(1, 6, 8\), training samples \(1, 8, 8\)"):
        load_workload(job(folder, data="e.npz"))


def test_image_augmentation_of_other_inputs_is_refused(folder: Path) -> None:
    np.savez(folder / "v.npz", x=np.zeros((40, 10), np.float32), y=np.arange(40) % 4)
    with pytest.raises(UsageError, match=r"flip and crop are for images, not for inputs \(10,\)"):
        load_workload(job(folder, "flat", "v.npz", flip=True))


def test_the_jobs_augmentation_is_the_workloads_also_of_the_demo(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demo = load_workload(job(folder))
    monkeypatch.setattr("edgeprune.workload.demo.demo_workload", lambda *_: demo)
    entries = [{"name": "cutout", "size": 2}, {"name": "mixup", "alpha": 0.3}]
    data = DataSpec.model_validate({"source": f"npz:{folder / 'd.npz'}", "augment": entries})
    for spec in (job(folder).model_copy(update={"data": data}), Spec(data=DataSpec(augment=data.augment))):
        workload = load_workload(spec)
        assert workload.augment is not None and workload.mixup_alpha == 0.3
        with pytest.raises(UsageError, match="jitter is for sensors"):
            load_workload(spec.model_copy(update={"data": DataSpec(source=data.source, augment=(Jitter(),))}))


def test_augmentation_is_repeatable_and_keeps_shape_and_content() -> None:
    augment = augmentation(DataSpec(flip=True, crop=2))
    assert augment is not None and augmentation(DataSpec()) is None
    x = torch.rand(16, 3, 8, 10)
    one, same, other = (augment(x, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert one.shape == x.shape and torch.equal(one, same) and not torch.equal(one, other)


def test_a_flip_mirrors_some_samples_and_leaves_the_rest() -> None:
    x = torch.rand(64, 1, 4, 5)
    flipped = random_flip(x, torch.Generator().manual_seed(0))
    kinds = [torch.equal(a, b) + 2 * torch.equal(a, b.flip(2)) for a, b in zip(flipped, x)]
    assert set(kinds) == {1, 2}


def test_a_shift_moves_each_sample_by_at_most_its_reach() -> None:
    x = torch.zeros(200, 2, 9, 9)
    x[:, :, 4, 4] = 1
    moved = random_shift(x, 2, torch.Generator().manual_seed(0))
    places = moved[:, 0].flatten(1).argmax(1)
    rows, columns = places // 9, places % 9
    assert (moved.sum((1, 2, 3)) == 2).all() and torch.equal(moved[:, 0], moved[:, 1])
    assert set(rows.tolist()) == set(columns.tolist()) == {2, 3, 4, 5, 6}
