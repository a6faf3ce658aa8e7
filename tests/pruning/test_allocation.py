"""Allocations hold their bounds by the exact cost of the graph they lead to."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.cost import Correction
from edgeprune.device.fusion import fuse
from edgeprune.device.profiles import load_latency_model
from edgeprune.pruning.allocation import (
    Bounds,
    Costing,
    holds,
    most_valuable,
    score_values,
    smallest,
    uniform_within,
)
from edgeprune.pruning.groups import channel_groups
from edgeprune.pruning.limits import resized, tabulate, width_levels
from edgeprune.pruning.plan import Plan, apply, removable_together, uniform
from edgeprune.pruning.trace import trace
from edgeprune.target import load_target
from tests.pruning.nets import NETS, randomised
from tests.pruning.test_blocks import found as found_block

BOARD = str(Path(__file__).parents[1] / "golden" / "test-board.toml")


@cache
def costing(name: str, where: str = BOARD) -> Costing:
    groups = channel_groups(trace(randomised(NETS[name]), torch.zeros(1, 3, 32, 32)).graph)
    target = load_target(where)
    model = load_latency_model(target, "onnxruntime", "int8", 1)
    return Costing(groups, fuse(groups.graph), target, "onnxruntime", 1, "int8", model, Correction())


def scores_of(found: Costing, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {group.name: rng.gamma(1.0, size=group.width) for group in found.groups.groups}


@pytest.mark.parametrize("where", [BOARD, "host"])
@pytest.mark.parametrize("name", ["residual", "dense_block", "inverted_residual", "padded_shortcut", "squeeze_excite"])
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 1000), share=st.floats(0.05, 0.95))
def test_every_allocation_holds_all_bounds_at_once(name: str, where: str, seed: int, share: float) -> None:
    found = costing(name, where)
    levels = width_levels(found.groups, 2, 0.1)
    scores = scores_of(found, seed)
    dense, least = found.of_ops(found.ops).cost, smallest(found, levels).cost
    assert dense.latency_s and least.latency_s and dense.size_bytes and least.size_bytes
    bounds = Bounds(
        latency_s=least.latency_s + share * (dense.latency_s - least.latency_s),
        size_bytes=least.size_bytes + share * (dense.size_bytes - least.size_bytes),
        ram_bytes=(least.ram_bytes or 0) + share * ((dense.ram_bytes or 0) - (least.ram_bytes or 0)),
        macs=(least.macs or 0) + share * ((dense.macs or 0) - (least.macs or 0)),
    )
    values = score_values(found.groups, levels, scores)
    best = most_valuable("score", found, bounds, levels, values, scores, 1e-4, 10.0)
    even = uniform_within(found, bounds, scores, 2, 0.1)
    assert best is not None
    assert holds(bounds, best.predicted)
    if even is not None:
        assert holds(bounds, even.predicted)
    for share in np.linspace(0.1, 1.0, 8):
        plan = uniform(found.groups, float(share), 2, scores)
        if holds(bounds, found.of(plan)):
            assert even is not None and even.predicted.cost.latency_s is not None
            assert all(len(kept) <= len(even.plan.keep[name]) for name, kept in plan.keep.items())


@pytest.mark.parametrize("name", ["residual", "dense_block", "inverted_residual", "padded_shortcut", "squeeze_excite"])
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_resized_operators_cost_what_the_planned_graph_costs(name: str, seed: int) -> None:
    found = costing(name)
    rng = np.random.default_rng(seed)
    # At one channel a depthwise convolution is fused as a plain one, which the device model rates otherwise.
    widths = [int(rng.integers(2, group.width + 1)) for group in found.groups.groups]
    plan = Plan(keep={group.name: tuple(range(n)) for group, n in zip(found.groups.groups, widths)})
    assert found.of_ops(resized(found.ops, found.groups, widths)).cost == found.of(plan).cost


def test_a_ram_limit_on_a_process_alone_removes_weights() -> None:
    """On this machine the RAM of the whole process counts, and in a small net most of it is weights."""
    found = costing("residual", "host")
    levels = width_levels(found.groups, 2, 0.1)
    scores = scores_of(found, 0)
    dense, least = found.of_ops(found.ops).cost, smallest(found, levels).cost
    assert dense.ram_bytes and least.ram_bytes and dense.size_bytes and dense.ram_kind == "process"
    assert dense.ram_bytes > 2 * dense.size_bytes
    bounds = Bounds(ram_bytes=(dense.ram_bytes + least.ram_bytes) / 2)
    best = most_valuable("score", found, bounds, levels, score_values(found.groups, levels, scores), scores, 1e-4, 10.0)
    assert best is not None and best.predicted.cost.size_bytes is not None
    assert best.predicted.cost.ram_bytes is not None and best.predicted.cost.ram_bytes <= bounds.ram_bytes
    assert best.predicted.cost.size_bytes < dense.size_bytes


def test_a_bound_below_the_smallest_model_has_no_plan() -> None:
    found = costing("residual")
    levels = width_levels(found.groups, 2, 0.1)
    scores = scores_of(found, 0)
    least = smallest(found, levels).cost
    assert least.latency_s is not None
    bounds = Bounds(latency_s=0.9 * least.latency_s)
    values = score_values(found.groups, levels, scores)
    assert most_valuable("score", found, bounds, levels, values, scores, 1e-4, 10.0) is None
    assert uniform_within(found, bounds, scores, 2, 0.1) is None


def test_a_correction_moves_every_prediction() -> None:
    plain = costing("residual")
    bent = replace(plain, correction=Correction(latency=2.0, latency_offset_s=1e-3, ram_bytes=100, size_bytes=-50))
    before, after = plain.of_ops(plain.ops).cost, bent.of_ops(bent.ops).cost
    assert before.latency_s and before.ram_bytes and before.size_bytes
    assert after.latency_s == pytest.approx(2 * before.latency_s + 1e-3)
    assert after.latency_interval_s == pytest.approx((0.9 * after.latency_s, 1.1 * after.latency_s))
    assert after.ram_bytes == before.ram_bytes + 100
    assert after.size_bytes == before.size_bytes - 50


@pytest.mark.parametrize("name", ["residual", "squeeze_excite", "inverted_residual", "dense_block", "padded_shortcut"])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_tables_know_what_a_plan_without_blocks_costs(name: str, seed: int) -> None:
    found = costing(name)
    levels = width_levels(found.groups, 2, 0.1, blocks=True)
    assert any(widths[0] == 0 for widths in levels)
    rng = np.random.default_rng(seed)
    choice = [int(rng.integers(len(widths))) if rng.random() < 0.5 else 0 for widths in levels]
    assert found.model is not None
    op_s = found.model.op_s
    said = tabulate(found.ops, found.groups, levels, op_s).at(choice)
    keep = {g.name: tuple(range(w[i])) for g, w, i in zip(found.groups.groups, levels, choice, strict=True)}
    real = sum(op_s(op) for op in fuse(apply(Plan(keep=keep), found.groups)))
    assert said == pytest.approx(real)


def test_macs_alone_are_a_limit_that_holds_exactly() -> None:
    found = costing("dense_block")
    levels = width_levels(found.groups, 2, 0.1)
    scores = scores_of(found, 3)
    dense, least = found.of_ops(found.ops).cost.macs, smallest(found, levels).cost.macs
    assert dense is not None and least is not None
    bound = (dense + least) // 2
    values = score_values(found.groups, levels, scores)
    best = most_valuable("score", found, Bounds(macs=bound), levels, values, scores, 0.0, 10.0)
    assert best is not None and best.predicted.cost.macs is not None
    assert best.predicted.cost.macs == sum(op.macs for op in fuse(apply(best.plan, found.groups))) <= bound
    assert not holds(Bounds(macs=best.predicted.cost.macs - 1), best.predicted)


def test_a_solve_may_remove_a_block() -> None:
    found = costing("residual")
    levels = width_levels(found.groups, 2, 0.5, blocks=True)
    kept = width_levels(found.groups, 2, 0.5)
    scores = scores_of(found, 0) | {"a.0": np.full(24, 1e-6)}
    least, reach = smallest(found, levels).cost.latency_s, smallest(found, kept).cost.latency_s
    assert least is not None and reach is not None and least < reach
    bounds = Bounds(latency_s=(least + reach) / 2)
    best = most_valuable("score", found, bounds, levels, score_values(found.groups, levels, scores), scores, 1e-4, 10.0)
    assert best is not None and best.plan.keep["a.0"] == () and holds(bounds, best.predicted)
    values = score_values(found.groups, kept, scores)
    assert most_valuable("score", found, bounds, kept, values, scores, 1e-4, 10.0) is None


def test_of_blocks_that_exclude_each_other_one_may_go() -> None:
    groups = found_block("parallel")[3]
    assert removable_together(groups) == ("a.0",)
    assert [widths[0] == 0 for widths in width_levels(groups, 1, 0.5, blocks=True)] == [
        group.name == "a.0" for group in groups.groups
    ]
