"""The plan applied to the user's own module."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils import _pytree as pytree

from edgeprune.errors import UnsupportedError
from edgeprune.pruning.groups import ChannelGroups, channel_groups
from edgeprune.pruning.observe import Observed, observe
from edgeprune.pruning.own_module import prune_module
from edgeprune.pruning.plan import Plan, shrinking_of
from edgeprune.pruning.surgery import prune
from edgeprune.pruning.trace import trace
from tests.pruning.detector import Detector, images
from tests.pruning.nets import NETS, Lambda, conv, random_plan, randomised
from tests.pruning.operator_nets import CASES
from tests.pruning.test_operators import opened

X = torch.randn(1, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
HARD_CODED = {"flattened_map", "padded_shortcut"}  # view(-1, 8 * 16); zeros for four channels on both sides


def masked_model(model: nn.Module, seen: Observed, groups: ChannelGroups, plan: Plan) -> nn.Module:
    """The user's own module with the weights of removed channels set to zero."""
    shrinking = shrinking_of(groups, plan)
    same = copy.deepcopy(model)
    for path, tensor in same.named_parameters():
        node = seen.graph.parameters[path]
        for axis in range(tensor.dim()):
            mask = shrinking.mask(node.name, axis)
            if mask is not None:
                tensor.data.index_fill_(axis, torch.from_numpy((~mask).nonzero()[0]), 0.0)
    return same


def heads(model: nn.Module, names: tuple[str, ...], example: Any) -> list[torch.Tensor]:
    """Everything that the named layers give, in order of execution."""
    found: list[torch.Tensor] = []
    handles = [
        model.get_submodule(name).register_forward_hook(lambda module, args, output: found.append(output))
        for name in names
    ]
    with torch.no_grad():
        model(example)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("name", sorted(set(NETS) - HARD_CODED))
def test_the_own_module_computes_what_the_masked_one_computes(name: str) -> None:
    model = randomised(NETS[name]).double()
    seen = observe(model, X)
    groups = channel_groups(seen.graph)
    plan = random_plan(groups, 5)
    small = prune_module(model, groups, plan, X)
    x = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    want, got = masked_model(model, seen, groups, plan)(x), small(x)
    assert float(((want - got).abs().max() / want.abs().max()).detach()) <= 1e-9
    assert type(small) is type(model)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_detector_with_its_python_equals_the_masked_one_up_to_its_heads_and_beyond(seed: int) -> None:
    model = randomised(Detector).double()
    seen = observe(model, images())
    groups = channel_groups(seen.graph)
    plan = random_plan(groups, seed)
    small, zeroed = prune_module(model, groups, plan, images(), seen), masked_model(model, seen, groups, plan)
    names = ("objectness", "deltas", "classify", "refine")
    for want, got in zip(heads(zeroed, names, images(2)), heads(small, names, images(2)), strict=True):
        assert want.shape == got.shape
        assert torch.allclose(want, got, rtol=0, atol=1e-9 * float(want.abs().max()))
    assert [r["labels"].tolist() for r in zeroed(images(2))] == [r["labels"].tolist() for r in small(images(2))]


def test_groups_found_by_capturing_serve_as_well() -> None:
    model = randomised(NETS["inverted_residual"]).double()
    groups = channel_groups(trace(model, X).graph)
    plan = random_plan(groups, 6)
    small = prune_module(model, groups, plan, X)
    seen = observe(model, X)
    assert {g.name: g.width for g in channel_groups(observe(small, X).graph).groups} == {
        name: len(kept) for name, kept in plan.keep.items()
    }
    assert len(seen.graph.parameters) == len(observe(small, X).graph.parameters)


def test_layers_say_their_new_sizes() -> None:
    model = randomised(NETS["inverted_residual"]).double()
    groups = channel_groups(observe(model, X).graph)
    small = prune_module(model, groups, Plan(keep={"stem.0": (0, 2, 5), "expand.0": (1, 2, 3, 9, 30)}), X)
    depthwise = small.get_submodule("depthwise.0")
    assert (depthwise.in_channels, depthwise.out_channels, depthwise.groups) == (5, 5, 5)
    assert small.get_submodule("stem.1").num_features == 3
    assert small.get_submodule("head").in_features == 3
    assert small.get_submodule("stem.0").in_channels == 3
    assert "BatchNorm2d(5, eps" in repr(small)


def test_sizes_written_out_in_python_are_refused_and_named() -> None:
    model = randomised(NETS["flattened_map"]).double()
    groups = channel_groups(observe(model, X).graph)
    plan = Plan(keep={"body2.0": (0, 1, 2, 3, 4)})
    with pytest.raises(UnsupportedError, match=r"does not follow the plan.*invalid for input of size 80") as caught:
        prune_module(model, groups, plan, X)
    assert "view(-1, 256)" in caught.value.hint


def test_sizes_written_out_that_fit_by_accident_are_refused() -> None:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.head((m.stem(x) / 8**0.5 if m.stem.out_channels == 8 else m.stem(x) / 2).mean((2, 3)))

    model = Lambda(forward, stem=nn.Conv2d(3, 8, 3), head=nn.Linear(8, 4)).double().eval()
    groups = channel_groups(observe(model, X).graph)
    with pytest.raises(UnsupportedError, match="has other values"):
        prune_module(model, groups, Plan(keep={"stem": (0, 1, 2, 3)}), X)


def test_rounding_of_numbers_that_cancel_is_no_difference() -> None:
    """In single precision little is left of the large numbers, and that little differs."""

    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = m.stem(x).mean((2, 3))
        return (m.head(y) - m.same(y)) * 1e3

    torch.manual_seed(0)
    layers = {"stem": nn.Conv2d(3, 512, 3), "head": nn.Linear(512, 4), "same": nn.Linear(512, 4)}
    model = Lambda(forward, **layers).eval()
    model.same.load_state_dict({key: value + 3e-6 for key, value in model.head.state_dict().items()})
    x = X.float()
    groups = channel_groups(observe(model, x).graph)
    small = prune_module(model, groups, Plan(keep={"stem": tuple(range(0, 512, 2))}), x)
    assert small.stem.weight.dtype == torch.float32 and small.stem.out_channels == 256


def test_python_that_takes_another_path_when_smaller_is_refused() -> None:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = m.stem(x)
        return m.head((F.relu(y) if y.shape[1] == 8 else torch.sigmoid(y)).mean((2, 3)))

    model = Lambda(forward, stem=nn.Conv2d(3, 8, 3), head=nn.Linear(8, 4)).double().eval()
    groups = channel_groups(observe(model, X).graph)
    with pytest.raises(UnsupportedError, match="takes another path: it runs aten.sigmoid.default"):
        prune_module(model, groups, Plan(keep={"stem": (0, 1, 2, 3)}), X)


def test_tied_weights_stay_tied() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(11, 8)
            self.inner = nn.Linear(8, 8)
            self.head = nn.Linear(8, 11, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.head(F.relu(self.inner(self.embed(ids))))

    torch.manual_seed(0)
    model = Tied().double().eval()
    ids = torch.tensor([[1, 5, 3]])
    seen = observe(model, ids)
    groups = channel_groups(seen.graph)
    assert groups.groups
    plan = random_plan(groups, 2)
    small = prune_module(model, groups, plan, ids)
    assert small.head.weight is small.embed.weight
    assert small.embed.embedding_dim == small.embed.weight.shape[1] < 8
    assert torch.allclose(small(ids), masked_model(model, seen, groups, plan)(ids), rtol=0, atol=1e-9)


def test_mode_hooks_and_the_given_model_are_left_alone() -> None:
    calls: list[tuple[int, ...]] = []
    model = randomised(NETS["plain"]).double().train()
    model[0].register_forward_hook(lambda module, args, output: calls.append(tuple(output.shape)))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    groups = channel_groups(observe(model, X).graph)
    small = prune_module(model, groups, Plan(keep={"0.0": (0, 1, 2)}), X)
    assert small.training and model.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    calls.clear()
    small(torch.randn(2, 3, 16, 16, dtype=torch.float64)).sum().backward()
    assert calls == [(2, 3, 16, 16)]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in small.parameters())


def test_a_pruned_own_module_saves_and_loads_by_its_state() -> None:
    model = randomised(NETS["residual"]).double()
    groups = channel_groups(observe(model, X).graph)
    plan = random_plan(groups, 8)
    first, second = prune_module(model, groups, plan, X), prune_module(model, groups, plan, X)
    with torch.no_grad():
        for tensor in second.parameters():
            tensor.zero_()
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(X), second(X))


def test_a_model_that_cannot_be_copied_is_refused() -> None:
    class Single(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(conv(3, 8), conv(8, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x)

        def __deepcopy__(self, memo: object) -> nn.Module:
            raise TypeError("there can only be one")

    model = Single().double().eval()
    groups = channel_groups(observe(model, X).graph)
    with pytest.raises(UnsupportedError, match="cannot be copied: there can only be one"):
        prune_module(model, groups, Plan(keep={"body.0.0": (0, 1)}), X)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CASES))
def test_every_operator_in_the_own_module_is_exact_or_refused(name: str) -> None:
    model, inputs, dense = opened(name)
    groups = channel_groups(dense.graph)
    plan = random_plan(groups, 1)
    try:
        small = prune_module(model, groups, plan, inputs)
    except UnsupportedError as err:
        assert "does not follow the plan" in err.message or "stay when the model's own Python runs" in err.message
        return
    for want, got in zip(*(pytree.tree_leaves(f(*inputs)) for f in (prune(dense, groups, plan).module, small))):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


def test_a_plan_that_removes_a_block_is_refused() -> None:
    model = randomised(NETS["residual"]).double()
    groups = channel_groups(trace(model, X).graph)
    with pytest.raises(UnsupportedError, match="would still run blocks"):
        prune_module(model, groups, Plan(keep={"a.0": ()}), X)
