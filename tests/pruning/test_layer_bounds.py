"""Bounds of single layers: which groups a pattern names, what it allows, and what is refused."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.errors import UsageError
from edgeprune.pruning.allocation import Bounds, most_valuable, score_values, smallest, uniform_within
from edgeprune.pruning.groups import ChannelGroups, channel_groups
from edgeprune.pruning.layer_bounds import Span, spans
from edgeprune.pruning.limits import width_levels
from edgeprune.pruning.trace import trace
from edgeprune.spec import LayerBound
from tests.pruning.nets import NETS, randomised
from tests.pruning.test_allocation import costing, scores_of


@cache
def groups_of(name: str) -> ChannelGroups:
    return channel_groups(trace(randomised(NETS[name]), torch.zeros(1, 3, 16, 16)).graph)


def test_a_pattern_names_groups_by_the_layers_that_compute_or_continue_them() -> None:
    groups = groups_of("inverted_residual")
    everything = spans(groups, {"*": LayerBound(keep=0.5)})
    assert set(everything) == {group.name for group in groups.groups}
    for group in groups.groups:
        assert everything[group.name].least == -(-group.width // 2)
        for path, axis in group.members:  # norms and depthwise layers name the group that they continue
            if axis == 0:
                assert group.name in spans(groups, {path.rpartition(".")[0]: LayerBound(frozen=True)})


def test_bounds_of_several_patterns_all_hold() -> None:
    groups = groups_of("plain")
    found = spans(groups, {"*": LayerBound(max=12), "1.0": LayerBound(min=4), "1.*": LayerBound(keep=0.25)})
    assert found["0.0"] == Span(0, 12, "", "*")
    assert (found["1.0"].least, found["1.0"].most) == (6, 12)
    assert spans(groups, {}, ["0.0"])["0.0"] == Span(16, 16, "0.0", "")


@pytest.mark.parametrize(
    ("layers", "message", "hint"),
    [
        ({"2.0": LayerBound(max=4)}, "'2.0' matches no layer", "did you mean"),
        ({"0.0": LayerBound(min=17)}, "0.0 has 16 channels, '0.0' asks for at least 17", ""),
        (
            {"*": LayerBound(max=8), "1.0": LayerBound(min=12)},
            r"1.0 contradict each other: at least 12 \('1.0'\) and at most 8 \('\*'\) of 24 channels",
            "",
        ),
        ({"0.0": LayerBound(frozen=True, max=8)}, r"at least 16 \('0.0'\) and at most 8 \('0.0'\)", ""),
        ({"head": LayerBound(max=4)}, "head cannot keep at most 4 of", "leave it out of 'head'"),
    ],
)
def test_what_cannot_hold_is_refused(layers: dict[str, LayerBound], message: str, hint: str) -> None:
    groups = groups_of("plain")
    if "head" in layers:
        (name,) = [frozen.name for frozen in groups.frozen]
        layers = {name: layers["head"]}
        message, hint = message.replace("head", name), hint.replace("head", name)
    with pytest.raises(UsageError, match=message) as caught:
        spans(groups, layers)
    assert hint in caught.value.hint and caught.value.where == "fit.layers"


@settings(max_examples=60, deadline=None)
@given(least=st.integers(0, 24), more=st.integers(1, 24), step=st.sampled_from([1, 4, 8]), blocks=st.booleans())
def test_levels_stay_within_the_span(least: int, more: int, step: int, blocks: bool) -> None:
    groups = groups_of("residual")
    group = groups.by_name["a.0"]
    span = Span(min(least, group.width), min(least + more, group.width))
    levels = width_levels(groups, step, 0.1, blocks, {"a.0": span})
    free = width_levels(groups, step, 0.1, blocks)
    at = groups.groups.index(group)
    positive = [width for width in levels[at] if width]
    assert positive and all(span.least <= width <= span.most for width in positive)
    assert (levels[at][0] == 0) == (free[at][0] == 0 and span.least == 0)
    assert levels[at + 1 :] == free[at + 1 :] and levels[:at] == free[:at]


def test_every_plan_keeps_to_the_bounds() -> None:
    found = costing("residual")
    own = spans(found.groups, {"a.0": LayerBound(min=10, max=14)}, ["stem.*"])
    levels = width_levels(found.groups, 2, 0.1, spans=own)
    assert own
    scores = scores_of(found, 0)
    dense, least = found.of_ops(found.ops).cost.latency_s, smallest(found, levels).cost.latency_s
    assert dense is not None and least is not None
    for share in (0.1, 0.5, 2.0):
        bounds = Bounds(latency_s=least + share * (dense - least))
        best = most_valuable(
            "score", found, bounds, levels, score_values(found.groups, levels, scores), scores, 1e-4, 10.0
        )
        even = uniform_within(found, bounds, scores, 2, 0.1, levels)
        assert best is not None
        for allocation in (best, even):
            if allocation is not None:
                for name, span in own.items():
                    assert span.least <= len(allocation.plan.keep[name]) <= span.most
    assert np.all(np.diff(levels[found.groups.groups.index(found.groups.by_name["a.0"])]) > 0)
