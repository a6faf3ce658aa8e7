"""Per-operator correction: it finds what each operator really takes, and does no harm where it cannot tell."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.cost import Correction, OpCost
from edgeprune.device.corrected import Corrected, matched, op_factors
from edgeprune.device.fusion import fuse
from edgeprune.device.latency import Band, LatencyModel
from edgeprune.device.ops import Op
from edgeprune.pruning.groups import channel_groups
from edgeprune.pruning.plan import apply, uniform
from edgeprune.pruning.trace import trace
from tests.digits import Net, digits

MODEL = LatencyModel(
    runtime="made-up",
    precision="int8",
    threads=1,
    conv_s_per_mac=1e-10,
    first_conv_s_per_mac=2e-10,
    depthwise_s_per_mac=4e-10,
    element_s=1e-9,
    weight_s=1e-9,
    per_op_s=1e-6,
    band=Band(low=0.9, high=1.1),
)


def row(name: str, latency_s: float | None, macs: int = 0, kind: str = "conv") -> OpCost:
    return OpCost(name=name, kind=kind, latency_s=latency_s, macs=macs)


def rows(ops: tuple[Op, ...]) -> list[OpCost]:
    return [row(op.name, MODEL.op_s(op), op.macs, op.kind) for op in ops]


def device(ops: tuple[Op, ...], truth: dict[str, float]) -> list[OpCost]:
    """The exported file's profile: other names, and a transpose that the graph does not have."""
    measured = [row(f"f{i}", truth[op.name] * MODEL.op_s(op), op.macs, op.kind) for i, op in enumerate(ops)]
    return [row("t", 1e-6, kind="Transpose (ND, X8)"), *measured]


def test_names_differ_and_order_and_work_do_not() -> None:
    ours = [
        row("a", 1, 10),
        row("relu", 1, kind="activation"),
        row("b", 1, 20),
        row("c", 1, 10),
        row("s", 1, kind="add"),
    ]
    theirs = [
        row("0", 1, kind="Transpose (ND, X8)"),
        row("1", 1, 10),
        row("2", 1, 20),
        row("3", 1, kind="Constant Pad (ND, X8)"),
        row("4", 1, 10),
        row("5", 1, kind="Add (ND, QS8)"),
    ]
    assert matched(ours, theirs) == {0: 1, 2: 2, 3: 4, 4: 5}


@cache
def widths() -> dict[float, tuple[Op, ...]]:
    """One network at several shares of its channels."""
    groups = channel_groups(trace(Net(), digits()["train"].x[:1]).graph)
    return {s: fuse(apply(uniform(groups, s, 4), groups)) for s in (1.0, 0.5, 0.25, 0.75)}


@given(factors=st.lists(st.floats(0.5, 2.0), min_size=8, max_size=8), share=st.sampled_from([1.0, 0.5, 0.25]))
def test_the_corrected_model_predicts_the_profiled_net_op_by_op(factors: list[float], share: float) -> None:
    """Learnt on two widths of a net, judged on a third: closer to each operator than one factor for the net."""
    nets = widths()
    truth = {op.name: factors[i % len(factors)] for i, op in enumerate(nets[1.0])}
    learnt = op_factors([(rows(ops), device(ops, truth)) for s, ops in nets.items() if s in (1.0, share)])
    target = nets[0.75]
    assert set(learnt) == {op.name for op in target}
    real = np.array([truth[op.name] * MODEL.op_s(op) for op in target])
    plain = np.array([MODEL.op_s(op) for op in target])
    bent = plain * np.array([learnt[op.name] for op in target])
    bent_error = np.abs(np.log(bent / bent.sum() / (real / real.sum()))).max()
    plain_error = np.abs(np.log(plain / plain.sum() / (real / real.sum()))).max()
    assert bent_error <= max(0.5 * plain_error, 0.06)


def test_rows_without_a_match_share_what_the_rest_took() -> None:
    ours = [row("conv", 1.0, 100), row("x", 0.5, kind="activation"), row("y", 0.5, kind="norm")]
    theirs = [row("1", 1.0, 100), row("2", 3.0, kind="Something else")]
    found = op_factors([(ours, theirs)])
    assert found["x"] == found["y"] > 1 > found["conv"]


def test_a_profile_without_times_teaches_nothing() -> None:
    ours = [row("conv", 1.0, 100)]
    assert op_factors([(ours, [])]) == op_factors([(ours, [row("1", None, 100)])]) == op_factors([]) == {}


def test_one_wild_row_does_not_decide_alone() -> None:
    ours = [row("a", 1.0, 100), row("b", 1.0, 200)]
    found = op_factors([(ours, [row("1", 1000.0, 100), row("2", 1.0, 200)])])
    assert 1 / 4 <= found["b"] and found["a"] <= 4


def test_a_corrected_model_is_a_model_with_a_fixed_time_and_factors() -> None:
    ops = fuse(trace(Net(), digits()["train"].x[:1]).graph)
    first = ops[0].name
    bent = Corrected(MODEL, Correction(latency=2.0, latency_offset_s=1e-3, ops={first: 3.0}))
    assert bent.op_s(ops[0]) == pytest.approx(6 * MODEL.op_s(ops[0]))
    assert bent.op_s(ops[1]) == pytest.approx(2 * MODEL.op_s(ops[1]))
    total = bent.total_s(ops)
    assert total == pytest.approx(1e-3 + 2 * MODEL.total_s(ops) + 4 * MODEL.op_s(ops[0]))
    assert bent.total_s(()) == 1e-3
    assert bent.interval_s(ops) == pytest.approx((0.9 * total, 1.1 * total))
    assert bent.source == MODEL.source and math.isclose(bent.band.high, 1.1)
