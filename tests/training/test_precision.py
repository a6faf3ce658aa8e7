"""Fewer bits and compiled models: what is chosen, what is refused, and that training still learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edgeprune.errors import UnsupportedError, UsageError
from edgeprune.recipe import TrainSpec
from edgeprune.training import fine_tune as module
from edgeprune.training.fine_tune import fine_tune
from edgeprune.training.precision import forward_of, half_type
from tests.training.test_fine_tune import SETTINGS, toy_net, toy_workload, weights
from tests.training.test_resume import EVERY_STEP, Stop, Stopping, bits, told

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("precision", "device", "has_bfloat16", "expected"),
    [
        ("auto", CPU, True, None),
        ("auto", CUDA, True, torch.bfloat16),
        ("auto", CUDA, False, None),
        ("fp32", CUDA, True, None),
        ("bf16", CPU, True, torch.bfloat16),
        ("fp16", CUDA, False, torch.float16),
    ],
)
def test_the_type_is_what_the_device_has(
    monkeypatch: pytest.MonkeyPatch, precision: str, device: torch.device, has_bfloat16: bool, expected: Any
) -> None:
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: has_bfloat16)
    assert half_type(TrainSpec.model_validate({"precision": precision}), device) == expected


def test_what_the_device_has_not_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: False)
    with pytest.raises(UsageError, match="this GPU has no bfloat16"):
        half_type(TrainSpec(precision="bf16"), CUDA)
    with pytest.raises(UsageError, match="fp16 trains on CUDA only") as caught:
        fine_tune(toy_net(), toy_workload(), settings=SETTINGS, recipe=TrainSpec(precision="fp16"), device="cpu")
    assert caught.value.where == "train.precision"


@pytest.mark.parametrize(
    ("recipe", "where"),
    [({"compile": True, "attention_weight": 1.0}, "train.compile"), ({"sam": 0.1, "precision": "fp16"}, "train.sam")],
)
def test_what_cannot_go_together_is_refused(recipe: dict[str, object], where: str) -> None:
    with pytest.raises(UsageError) as caught:
        fine_tune(toy_net(), toy_workload(), settings=SETTINGS, recipe=TrainSpec.model_validate(recipe))
    assert caught.value.where == where


def test_bfloat16_learns_with_weights_in_full_precision() -> None:
    model = toy_net()
    settings = SETTINGS.model_copy(update={"epochs": 6, "patience": 6})
    result = fine_tune(model, toy_workload(), settings=settings, recipe=TrainSpec(precision="bf16"), device="cpu")
    assert result.best_metric > 0.7 and weights(model).dtype == torch.float32


def smooth() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 4))


def test_a_scaled_loss_trains_like_a_plain_one_and_resumes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The scale begins so high that the first steps overflow and are left out; it shrinks until they do not."""
    monkeypatch.setattr(module, "half_type", lambda recipe, device: torch.float16)
    options = {"settings": SETTINGS.model_copy(update={"epochs": 4, "patience": 4}), "recipe": EVERY_STEP}
    whole = smooth()
    expected = fine_tune(whole, toy_workload(), **options)
    assert expected.best_metric > 0.7 and expected.halvings == 0 and weights(whole).isfinite().all()
    with pytest.raises(Stop):
        fine_tune(smooth(), toy_workload(), workspace=tmp_path, progress=Stopping(9), **options)
    model = smooth()
    assert told(fine_tune(model, toy_workload(), workspace=tmp_path, **options)) == told(expected)
    assert bits(model) == bits(whole)


def test_a_model_that_cannot_be_compiled_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(x: torch.Tensor) -> torch.Tensor:
        raise torch._dynamo.exc.Unsupported("it branches on data")

    monkeypatch.setattr("torch.compile", lambda model, fullgraph: broken)
    with pytest.raises(UnsupportedError, match="torch cannot compile this model: it branches on data") as caught:
        fine_tune(toy_net(), toy_workload(), settings=SETTINGS, recipe=TrainSpec(compile=True))
    assert caught.value.hint == "train.compile = false"
    model = toy_net()
    assert forward_of(model, TrainSpec()) is model


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns about itself
def test_a_compiled_model_trains_like_the_model_itself() -> None:
    plain, compiled = smooth(), smooth()
    for model, recipe in ((plain, TrainSpec()), (compiled, TrainSpec(compile=True))):
        fine_tune(model, toy_workload(), settings=SETTINGS, recipe=recipe, epochs=2)
    torch.testing.assert_close(weights(plain), weights(compiled), rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_model_that_branches_on_its_data_is_not_compiled_in_parts() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = smooth()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x) if x.sum() > 0 else -self.net(x)

    with pytest.raises(UnsupportedError, match="torch cannot compile this model"):
        fine_tune(Branching(), toy_workload(), settings=SETTINGS, recipe=TrainSpec(compile=True))
