"""Every criterion, by being registered; the default against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.errors import QualityError, UsageError
from edgeprune.pruning import importance as module
from edgeprune.pruning.curves import kl_divergence, measured_curves, relative_error
from edgeprune.pruning.groups import ChannelGroups, channel_groups
from edgeprune.pruning.importance import CRITERIA, criterion, importance, sites
from edgeprune.pruning.limits import width_levels
from edgeprune.pruning.masked import masked_outputs
from edgeprune.pruning.plan import Plan
from edgeprune.pruning.trace import Captured, trace
from tests.pruning.nets import NETS, randomised


def opened(name: str) -> tuple[Captured, ChannelGroups]:
    found = trace(randomised(NETS[name]), torch.zeros(1, 3, 16, 16))
    return found, channel_groups(found.graph)


def some_batches(count: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(4, 3, 16, 16, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("name", sorted(CRITERIA))
@pytest.mark.parametrize("net", ["residual", "dense_block", "inverted_residual", "grouped", "decoder"])
def test_a_criterion_gives_one_finite_score_per_channel(name: str, net: str) -> None:
    dense, groups = opened(net)
    scores = importance(name, dense, groups, some_batches(), seed=0)
    again = importance(name, dense, groups, some_batches(), seed=0)
    assert set(scores) == set(groups.by_name)
    for group in groups.groups:
        assert scores[group.name].shape == (group.width,)
        assert (scores[group.name] >= 0).all()
        assert np.array_equal(scores[group.name], again[group.name])


@pytest.mark.parametrize("name", sorted(set(CRITERIA) - {"random"}))
def test_permuting_channels_permutes_the_scores(name: str) -> None:
    torch.manual_seed(0)
    model = randomised(NETS["plain"])
    permuted = randomised(NETS["plain"])
    order = torch.randperm(16)
    with torch.no_grad():
        first, second = permuted[0], permuted[1]
        first[0].weight.copy_(model[0][0].weight[order])
        for key in ("weight", "bias", "running_mean", "running_var"):
            getattr(first[1], key).copy_(getattr(model[0][1], key)[order])
        second[0].weight.copy_(model[1][0].weight[:, order])
    scores = []
    for net in (model, permuted):
        found = trace(net, torch.zeros(1, 3, 16, 16))
        scores.append(importance(name, found, channel_groups(found.graph), some_batches(), seed=0)["0.0"])
    assert np.allclose(scores[0][order.numpy()], scores[1], rtol=1e-4)


def test_the_default_is_the_first_order_effect_of_closing_a_gate() -> None:
    """On a linear net the effect of a channel on r·y is exact: r·W[:, c] * z_c, summed over positions."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)).eval()
    found = trace(model, torch.zeros(1, 3, 8, 8))
    groups = channel_groups(found.graph)
    (batch,) = [torch.randn(5, 3, 8, 8)]
    scores = importance("logit_taylor", found, groups, [batch], seed=7)["0"]
    generator = torch.Generator().manual_seed(7)
    sign = torch.randint(0, 2, (5, 4), generator=generator).float() * 2 - 1
    sign = sign - sign.mean(-1, keepdim=True)
    with torch.no_grad():
        z = model[1](model[0](batch)).flatten(1)  # (5, 6)
        effect = z * (sign @ model[3].weight)  # (5, 6)
    assert np.allclose(scores, effect.abs().mean(0).numpy(), rtol=1e-4)


def test_a_residual_channel_collects_all_its_producers() -> None:
    _, groups = opened("residual")
    names = [site.node for site in sites(groups)]
    assert len(names) == 3  # stem, inner, and the second producer of the residual stream
    assert all(name.startswith("batch_norm") for name in names)


def test_nothing_in_the_model_changes_and_in_place_activations_do_not_disturb() -> None:
    dense, groups = opened("plain")
    before = {key: value.clone() for key, value in dense.module.state_dict().items()}
    importance("logit_taylor", dense, groups, some_batches(), seed=0)
    assert all(torch.equal(before[key], value) for key, value in dense.module.state_dict().items())


def test_unknown_and_doubled_criteria_are_refused() -> None:
    dense, groups = opened("plain")
    with pytest.raises(UsageError, match="unknown criterion 'logit_tailor'") as caught:
        importance("logit_tailor", dense, groups, some_batches(), seed=0)
    assert "logit_taylor" in caught.value.hint
    with pytest.raises(ValueError, match="registered twice"):
        criterion(module.l1)


def test_non_finite_scores_name_the_layer() -> None:
    dense, groups = opened("plain")
    with torch.no_grad():
        dense.module.get_parameter("1.0.weight").fill_(float("nan"))
    with pytest.raises(QualityError, match="non-finite"):
        importance("logit_taylor", dense, groups, some_batches(), seed=0)


def test_curves_fall_with_width_and_end_at_zero() -> None:
    dense, groups = opened("residual")
    scores = importance("logit_taylor", dense, groups, some_batches(), seed=0)
    levels = width_levels(groups, 4, 0.1)
    samples = torch.cat(some_batches())
    before = {key: value.clone() for key, value in dense.module.state_dict().items()}
    curves = measured_curves(dense, groups, scores, levels, samples, kl_divergence, limit_s=60)
    for group, widths in zip(groups.groups, levels, strict=True):
        curve = curves[group.name]
        assert curve.shape == (len(widths),)
        assert curve[-1] == 0
        assert (np.diff(curve) <= 1e-12).all()
    assert all(torch.equal(before[key], value) for key, value in dense.module.state_dict().items())


def test_a_measured_point_is_the_damage_of_the_masked_model() -> None:
    dense, groups = opened("biased")  # no BatchNorm, so batch statistics play no part
    scores = importance("l1", dense, groups, some_batches(), seed=0)
    levels = width_levels(groups, 4, 0.1)
    samples = torch.cat(some_batches())
    curves = measured_curves(dense, groups, scores, levels, samples, relative_error, limit_s=60)
    group, widths = groups.groups[0], levels[0]
    kept = tuple(sorted(np.argsort(-scores[group.name], kind="stable")[: widths[0]].tolist()))
    with torch.no_grad():
        small = masked_outputs(dense, groups, Plan(keep={group.name: kept}), samples)
        want = relative_error(dense.module(samples), small)
    assert curves[group.name][0] == pytest.approx(want, rel=1e-4)


def test_without_time_the_curves_follow_the_scores() -> None:
    dense, groups = opened("residual")
    scores = importance("logit_taylor", dense, groups, some_batches(), seed=0)
    levels = width_levels(groups, 4, 0.1)
    curves = measured_curves(dense, groups, scores, levels, some_batches()[0], kl_divergence, limit_s=0.0)
    assert all((np.diff(curve) <= 1e-12).all() and curve[-1] == 0 for curve in curves.values())
