"""Removing channels equals masking them, for every coupling and any plan."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgeprune.errors import UsageError
from edgeprune.pruning.groups import ChannelGroups, channel_groups
from edgeprune.pruning.masked import masked_outputs
from edgeprune.pruning.plan import Plan, apply
from edgeprune.pruning.surgery import prune
from edgeprune.pruning.trace import Captured, trace
from tests.pruning.nets import NETS, random_plan, randomised

_CACHE: dict[str, tuple[nn.Module, Captured, ChannelGroups]] = {}


def captured(name: str) -> tuple[nn.Module, Captured, ChannelGroups]:
    if name not in _CACHE:
        model = randomised(NETS[name]).double()
        found = trace(model, torch.zeros(1, 3, 16, 16, dtype=torch.float64))
        _CACHE[name] = (model, found, channel_groups(found.graph))
    return _CACHE[name]


@pytest.mark.parametrize("name", sorted(NETS))
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_pruned_computes_what_masked_computes(name: str, seed: int) -> None:
    _, dense, groups = captured(name)
    plan = random_plan(groups, seed)
    x = torch.randn(3, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    want, got = masked_outputs(dense, groups, plan, x), prune(dense, groups, plan).module(x)
    assert float(((want - got).abs().max() / want.abs().max()).detach()) <= 1e-9


@pytest.mark.parametrize("name", sorted(NETS))
def test_every_net_has_groups_and_capturing_changes_nothing(name: str) -> None:
    model, dense, groups = captured(name)
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    assert torch.equal(model(x), dense.module(x))
    assert groups.groups
    assert all(entry.reasons for entry in groups.frozen)


@pytest.mark.parametrize("name", sorted(set(NETS) - {"shuffled"}))
def test_tracing_the_pruned_model_gives_the_planned_graph(name: str) -> None:
    _, dense, groups = captured(name)
    plan = random_plan(groups, 1)
    pruned = prune(dense, groups, plan)
    assert pruned.graph == apply(plan, groups)
    assert trace(pruned.module, torch.zeros(1, 3, 16, 16, dtype=torch.float64)).graph == pruned.graph


@pytest.mark.parametrize("name", sorted(NETS))
def test_a_pruned_model_trains_a_step_and_its_argument_is_untouched(name: str) -> None:
    _, dense, groups = captured(name)
    before = {key: value.clone() for key, value in dense.module.state_dict().items()}
    pruned = prune(dense, groups, random_plan(groups, 2)).module.train()
    y = pruned(torch.randn(5, 3, 16, 16, dtype=torch.float64))
    y.square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in pruned.parameters() if p.grad is not None)
    assert any(p.grad is not None for p in pruned.parameters())
    assert all(torch.equal(before[key], value) for key, value in dense.module.state_dict().items())
    assert not pruned.eval().training


def test_batchnorm_and_dropout_follow_the_mode() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.5), nn.Flatten(), nn.Linear(1568, 4))
    found = trace(randomised(lambda: model), torch.zeros(1, 3, 16, 16)).module
    x = torch.randn(4, 3, 16, 16)
    before = found.get_buffer("1.running_mean").clone()
    found.train()
    assert not torch.equal(found(x), found(x))
    assert not torch.equal(found.get_buffer("1.running_mean"), before)
    found.eval()
    assert torch.equal(found(x), found(x))


def test_a_plan_survives_json() -> None:
    plan = random_plan(captured("residual")[2], 3)
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({"0.9": (0,)}, "unknown group '0.9'"),
        ({"0.0": ()}, "keeps no channel"),
        ({"0.0": (3, 1)}, "must ascend"),
        ({"0.0": (1, 1)}, "must ascend"),
        ({"0.0": (0, 99)}, r"within 0\.\.15"),
        ({"0.0": (-1, 2)}, "must ascend"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(keep: dict[str, tuple[int, ...]], message: str) -> None:
    _, _, groups = captured("plain")
    with pytest.raises(UsageError, match=message):
        apply(Plan(keep=keep), groups)
