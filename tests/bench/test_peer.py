"""How the peer's results are judged and which layers it is told to leave alone, without the peer."""

from __future__ import annotations

import copy

import torch
from torch import nn

from bench import peer
from bench.public_models import PublicModel

X = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))


def halved(columns: tuple[int, ...]) -> tuple[nn.Module, PublicModel]:
    """A network, and it without rows 1 and 3 of its first layer, in which the second layer keeps the given columns."""
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(6, 4), nn.GELU(), nn.Linear(4, 3)).eval()
    smaller = copy.deepcopy(dense)
    peer.number(smaller)
    for name, axis, kept in (("0.weight", 0, (0, 2)), ("0.bias", 0, (0, 2)), ("2.weight", 1, columns)):
        parameter = smaller.get_parameter(name)
        gradient = parameter.grad
        assert gradient is not None
        owner, _, last = name.rpartition(".")
        left = nn.Parameter(parameter.detach().index_select(axis, torch.tensor(kept)))
        left.grad = gradient.index_select(axis, torch.tensor(kept))
        setattr(smaller.get_submodule(owner), last, left)
    return dense, PublicModel(smaller, (X,))


def test_gradients_say_which_weights_are_left() -> None:
    dense, public = halved((0, 2))
    found = peer.judged(dense, public)
    assert found["exact"] and found["error"] < 1e-12
    assert all(parameter.grad is None for parameter in public.model.parameters())


def test_a_wrong_column_and_a_wrong_size_are_told() -> None:
    assert not peer.judged(*halved((0, 1)))["exact"]
    found = peer.judged(*halved((0, 1, 2)))
    assert not found["exact"] and "shapes" in found["reason"]


def test_a_pruned_output_is_not_judged() -> None:
    dense, public = halved((0, 2))
    last = public.model.get_submodule("2")
    assert isinstance(last, nn.Linear) and last.weight.grad is not None and last.bias.grad is not None
    for name in ("weight", "bias"):
        before = last.get_parameter(name)
        assert before.grad is not None
        left = nn.Parameter(before.detach()[:2])
        left.grad = before.grad[:2]
        setattr(last, name, left)
    assert "RemovedOutputError" in peer.judged(dense, public)["unjudged"]


def test_layers_that_name_classes_or_boxes_are_left_alone() -> None:
    model = nn.Module()
    model.add_module("body", nn.Sequential(nn.Linear(2, 2)))
    model.add_module("classifier", nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 5)))
    assert peer.ignored(PublicModel(model, ())) == {model.get_submodule("classifier.2")}
    detector = nn.Module()
    detector.add_module("rpn", nn.ModuleDict({"conv": nn.Conv2d(1, 1, 1), "cls_logits": nn.Conv2d(1, 1, 1)}))
    detector.add_module("head", nn.Sequential(nn.Conv2d(1, 1, 1)))
    named = {
        name for name, module in detector.named_modules() if module in peer.ignored(PublicModel(detector, (), ("x",)))
    }
    assert named == {"rpn.cls_logits", "head", "head.0"}
    detector.add_module("roi_heads", nn.ModuleDict({"conv": nn.Conv2d(1, 1, 1)}))
    left_alone = peer.ignored(PublicModel(detector, (), ("rpn", "roi_heads")))
    assert detector.get_submodule("roi_heads.conv") in left_alone
    assert detector.get_submodule("rpn.conv") not in left_alone
