"""What networks are looked up by, made of and given, without the libraries they come from."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bench import public_models
from bench.public_models import Listed, PublicModel, nms, public_model, randomised, read_list
from edgeprune.errors import MissingExtraError, UsageError
from tests.pruning.nets import NETS


def test_without_torchvision_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    monkeypatch.delenv(public_models.VARIABLE, raising=False)
    with pytest.raises(MissingExtraError, match="torchvision, which does not load") as caught:
        public_models.torchvision_models()
    assert public_models.VARIABLE in caught.value.hint


class Library:
    """Stands in for torchvision.models."""

    @staticmethod
    def get_model_builder(name: str) -> Any:
        builders = {"residual": lambda weights=None: NETS["residual"](), "wide": Wide}
        if name not in builders:
            raise ValueError(f"Unknown model {name}")
        return builders[name]


class Wide(nn.Module):
    """Takes nothing below 100 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.unfold(2, 100, 100)[:, :, 0, 0, 0])


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(public_models, "torchvision_models", lambda: Library)


def test_a_model_comes_with_its_listed_or_the_smallest_input(library: None) -> None:
    listed = public_model(Listed("torchvision", "residual", input="2x3x32x48"))
    assert listed.inputs[0].shape == (2, 3, 32, 48)
    assert public_model(Listed("torchvision", "residual")).inputs[0].shape == (1, 3, 64, 64)
    assert public_model(Listed("torchvision", "wide")).inputs[0].shape == (1, 3, 128, 128)


def test_unknown_names_and_libraries_are_refused(library: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="Unknown model resnet51"):
        public_model(Listed("torchvision", "resnet51"))
    with pytest.raises(UsageError, match="no library 'keras'"):
        public_model(Listed("keras", "residual"))
    monkeypatch.setattr(public_models, "LADDER", (64,))
    with pytest.raises(UsageError, match="wide takes no square image") as caught:
        public_model(Listed("torchvision", "wide"))
    assert caught.value.hint == "name its input"


def test_without_timm_the_error_says_so(library: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match="timm, which does not load"):
        public_model(Listed("timm", "resnet18"))


def test_a_list_is_read_and_anything_else_refused(tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_text("library,model,input,peer_exact\ntimm,a,1x3x8x8,1\ntorchvision,b,,\n")
    assert read_list(file) == [Listed("timm", "a", "", "1x3x8x8", True), Listed("torchvision", "b")]
    file.write_text("name\na\n")
    with pytest.raises(UsageError, match="no list of models"):
        read_list(file)
    with pytest.raises(UsageError, match="no such list of models"):
        read_list(tmp_path / "none.csv")


def test_the_outputs_of_named_heads_are_compared_in_the_precision_of_the_model() -> None:
    net = nn.Sequential()
    net.add_module("body", nn.Linear(3, 4))
    net.add_module("head", nn.Linear(4, 2))
    net.add_module("tail", nn.ReLU())
    x = torch.randn(5, 3)
    public = PublicModel(net, (x,), ("body", "head"))
    body, head = public.outputs(net)
    assert torch.equal(body, net.body(x)) and torch.equal(head, net.head(net.body(x)))  # type: ignore[operator]
    assert public.outputs(net.double())[1].dtype == torch.float64
    assert not any(module._forward_hooks for module in net.modules())
    assert len(PublicModel(net, (x,)).outputs(net)) == 1


def test_statistics_norms_and_constants_leave_no_channel_neutral() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norms = nn.ModuleList([nn.BatchNorm2d(8), nn.LayerNorm(8), nn.GroupNorm(2, 8)])
            self.scale = nn.Parameter(torch.full((8,), 1e-6))
            self.token = nn.Parameter(torch.zeros(1, 1, 8))
            self.fc = nn.Linear(8, 8)

    model = randomised(Scaled)
    assert not model.training
    for name, value in model.state_dict().items():
        assert name.endswith("num_batches_tracked") or len(value.unique()) == value.numel(), name
    assert float(model.get_parameter("scale").detach().min()) >= 0.1
    torch.manual_seed(0)
    assert torch.equal(model.get_parameter("fc.weight"), Scaled().fc.weight)  # drawn already
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), randomised(Scaled).state_dict().values()))


def test_boxes_that_overlap_a_better_one_go() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30], [0, 0, 10, 10], [20, 20, 30, 24]])
    scores = torch.tensor([0.6, 0.9, 0.5, 0.1, 0.7])
    assert nms(boxes, scores, 0.5).tolist() == [1, 4, 2]  # the last two share 0.4 of their union
    assert nms(boxes, scores, 0.3).tolist() == [1, 4]
    assert nms(boxes[:0], scores[:0], 0.5).tolist() == []
