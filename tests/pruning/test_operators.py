"""Every operator that people deploy: pruned equals masked for random plans, the planned graph is what comes out."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils import _pytree as pytree

from edgeprune.pruning.check import TOLERANCE, difference
from edgeprune.pruning.groups import ChannelGroups, channel_groups
from edgeprune.pruning.plan import apply
from edgeprune.pruning.surgery import prune
from edgeprune.pruning.trace import Captured, trace
from tests.pruning.nets import random_plan
from tests.pruning.operator_nets import CASES

Inputs = tuple[torch.Tensor, ...]


@cache
def opened(name: str) -> tuple[nn.Module, Inputs, Captured]:
    torch.manual_seed(0)
    model, inputs = CASES[name]()
    model = model.double().eval()
    for key, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point() and not key.endswith(("_u", "_v")):
            nn.init.uniform_(tensor, 0.4, 1.2) if "var" in key else nn.init.normal_(tensor, 0.1, 0.5)
    inputs = tuple(x.double() if x.is_floating_point() else x for x in inputs)
    return model, inputs, trace(model, inputs)


@cache
def grouped(name: str, by_head: bool) -> ChannelGroups:
    return channel_groups(opened(name)[2].graph, by_head)


@pytest.mark.parametrize("name", sorted(CASES))
def test_capturing_changes_nothing(name: str) -> None:
    model, inputs, dense = opened(name)
    one = tuple(x[:1] for x in inputs)
    for given_inputs in (inputs, one):
        want, got = (pytree.tree_leaves(f(*given_inputs)) for f in (model, dense.module))
        for w, g in zip(want, got, strict=True):
            torch.testing.assert_close(g, w, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("by_head", [False, True])
@pytest.mark.parametrize("name", sorted(CASES))
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_pruned_computes_what_masked_computes(name: str, by_head: bool, seed: int) -> None:
    _, inputs, dense = opened(name)
    groups = grouped(name, by_head)
    plan = random_plan(groups, seed)
    assert difference(dense, groups, plan, prune(dense, groups, plan), inputs) <= TOLERANCE


@pytest.mark.parametrize("by_head", [False, True])
@pytest.mark.parametrize("name", sorted(CASES))
def test_tracing_the_pruned_model_gives_the_planned_graph(name: str, by_head: bool) -> None:
    _, inputs, dense = opened(name)
    groups = grouped(name, by_head)
    plan = random_plan(groups, 1)
    pruned = prune(dense, groups, plan)
    assert pruned.graph == apply(plan, groups)
    again = trace(pruned.module, inputs).graph
    assert [(n.op, n.shapes) for n in again.nodes if n.op != "parameter"] == [
        (n.op, n.shapes) for n in pruned.graph.nodes if n.op != "parameter"
    ]
    assert again.parameter_count == pruned.graph.parameter_count


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_pruned_model_trains_a_step(name: str) -> None:
    _, inputs, dense = opened(name)
    pruned = prune(dense, grouped(name, False), random_plan(grouped(name, False), 2)).module.train()
    outputs = pytree.tree_leaves(pruned(*inputs))
    sum(y.square().mean() for y in outputs).backward()
    gradients = [p.grad for p in pruned.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("name", sorted(CASES))
def test_something_can_be_pruned(name: str) -> None:
    groups = grouped(name, False)
    assert groups.groups, groups.frozen
    assert all(entry.reasons for entry in groups.frozen)
