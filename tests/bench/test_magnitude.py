"""The setting of the comparison: half of all channels, the smallest ones over all groups."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.magnitude import magnitudes, smallest_share
from edgeprune.pruning.groups import channel_groups
from edgeprune.pruning.trace import trace
from tests.pruning.nets import NETS

CAPTURED = trace(NETS["residual"](), torch.randn(1, 3, 16, 16))
GROUPS = channel_groups(CAPTURED.graph)
COUNT = sum(group.width for group in GROUPS.groups)


def test_a_magnitude_is_the_mean_over_layers_of_the_squared_norm_of_a_channel() -> None:
    scores = magnitudes(GROUPS, dict(CAPTURED.module.named_parameters()).get)
    group = GROUPS.by_name["a.0"]
    path = "a.0.weight", "a.1.weight", "a2.weight"
    first, norm, second = (CAPTURED.module.get_parameter(name).detach().double().square() for name in path)
    want = (first.sum((1, 2, 3)) + norm + second.sum((0, 2, 3))).numpy()
    np.testing.assert_allclose(scores[group.name], want / want.mean(), rtol=1e-5)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.95), st.floats(0.01, 0.5))
def test_the_smallest_go_and_every_group_keeps_its_share(seed: int, share: float, min_keep: float) -> None:
    generator = np.random.default_rng(seed)
    scores = {group.name: generator.random(group.width) for group in GROUPS.groups}
    plan = smallest_share(GROUPS, scores, share, min_keep)
    removed, at_floor = 0, []
    for group in GROUPS.groups:
        kept = plan.keep[group.name]
        assert len(kept) >= max(1, min_keep * group.width)
        gone = sorted(set(range(group.width)) - set(kept))
        assert not gone or max(scores[group.name][gone]) <= min(scores[group.name][list(kept)])
        removed += len(gone)
        at_floor.append(len(kept) - 1 < max(1, min_keep * group.width))
    assert removed == round(share * COUNT) or all(at_floor)
