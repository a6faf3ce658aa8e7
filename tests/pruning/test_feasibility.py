"""What can be reached, and what is named where the budget cannot be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgeprune.device.fusion import fuse
from edgeprune.device.latency import LatencyModel
from edgeprune.device.memory import live_totals, tensor_elements
from edgeprune.pruning.allocation import Bounds, Costing, holds, plan_at, smallest, smallest_plan
from edgeprune.pruning.feasibility import layer_of, reach
from edgeprune.pruning.limits import width_levels
from edgeprune.pruning.plan import apply
from tests.pruning.test_allocation import costing


def test_a_budget_above_the_narrowest_plan_is_feasible() -> None:
    found = costing("residual")
    levels = width_levels(found.groups, 2, 0.1)
    least = smallest(found, levels)
    cost = least.cost
    bounds = Bounds(cost.latency_s, cost.ram_bytes, cost.size_bytes, cost.macs)
    answer = reach(found, bounds, levels)
    assert answer.feasible and answer.cost == least and answer.shortfalls == ()


@pytest.mark.parametrize(
    ("key", "what"), [("latency_s", "latency"), ("ram_bytes", "RAM"), ("size_bytes", "size"), ("macs", "MACs")]
)
def test_every_limit_that_cannot_be_held_is_named_with_its_dearest_layers(key: str, what: str) -> None:
    found = costing("residual")
    levels = width_levels(found.groups, 2, 0.1)
    least = getattr(smallest(found, levels).cost, key)
    bounds = Bounds(**{key: 0.9 * least})
    answer = reach(found, bounds, levels)
    assert not answer.feasible
    (short,) = answer.shortfalls
    assert short.what == what and short.needs == pytest.approx(least) and short.limit == pytest.approx(0.9 * least)
    assert str(short).startswith(f"{what}: {short.layers[0]}")
    layers = {layer_of(found.groups.graph, op) for op in found.ops}
    assert set(short.layers) <= layers


def test_the_first_layer_named_for_ram_is_where_the_peak_is() -> None:
    found = costing("residual")
    levels = width_levels(found.groups, 2, 0.1)
    (short,) = reach(found, Bounds(ram_bytes=1), levels).shortfalls
    graph = apply(smallest_plan(found, levels), found.groups)
    ops = fuse(graph)
    totals = live_totals(ops, tensor_elements(ops), in_place=True)
    peak = ops[totals.index(max(totals))]
    assert short.layers[0] == layer_of(graph, peak) and short.needs >= max(totals)


def test_two_limits_out_of_reach_are_both_named() -> None:
    found = costing("residual")
    levels = width_levels(found.groups, 2, 0.1)
    answer = reach(found, Bounds(latency_s=1e-9, size_bytes=10), levels)
    assert [short.what for short in answer.shortfalls] == ["latency", "size"]


def test_the_fastest_plan_need_not_be_the_narrowest(monkeypatch: pytest.MonkeyPatch) -> None:
    found = costing("residual")
    assert found.latency is not None
    plain = LatencyModel.op_s
    monkeypatch.setattr(
        LatencyModel,
        "op_s",
        lambda self, op: plain(self, op) * (5.0 if op.weights and op.kernel > 1 and op.in_channels % 8 else 1.0),
    )
    slow = replace(found)
    levels = width_levels(slow.groups, 2, 0.1)
    narrowest, fastest = smallest(slow, levels).cost.latency_s, _fastest_s(slow, levels)
    assert narrowest is not None and fastest < narrowest
    answer = reach(slow, Bounds(latency_s=(fastest + narrowest) / 2), levels)
    assert answer.feasible and holds(Bounds(latency_s=(fastest + narrowest) / 2), answer.cost)
    short = reach(slow, Bounds(latency_s=0.9 * fastest), levels)
    assert not short.feasible and short.shortfalls[0].needs == pytest.approx(fastest, rel=1e-3)


def _fastest_s(found: Costing, levels: tuple[tuple[int, ...], ...]) -> float:
    """The best of many random choices, moved one group at a time until nothing is gained."""
    rng = np.random.default_rng(0)

    def cost(choice: list[int]) -> float:
        seconds = found.of(plan_at(found.groups, levels, choice, None)).cost.latency_s
        assert seconds is not None
        return seconds

    best = np.inf
    for _ in range(4):
        choice = [int(rng.integers(len(widths))) for widths in levels]
        for _ in range(3):
            for g, widths in enumerate(levels):
                tried = [[*choice[:g], i, *choice[g + 1 :]] for i in range(len(widths))]
                choice = min(tried, key=cost)
        best = min(best, cost(choice))
    return best
