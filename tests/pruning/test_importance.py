"""Importance: the entry, its refusals and notes, the sites, and the default to the last bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.errors import QualityError, UnsupportedError, UsageError
from edgeprune.pruning.criteria.evidence import Criterion, Evidence, Found, Sampled
from edgeprune.pruning.criteria.gradients import projection
from edgeprune.pruning.criteria.running import Run, differentiable_twice
from edgeprune.pruning.curves import kl_divergence, measured_curves, relative_error
from edgeprune.pruning.groups import ChannelGroups, channel_groups
from edgeprune.pruning.importance import DEFAULT, importance
from edgeprune.pruning.limits import width_levels
from edgeprune.pruning.masked import masked_outputs
from edgeprune.pruning.plan import Plan
from edgeprune.pruning.sites import sites
from edgeprune.pruning.trace import Captured, trace
from tests.pruning.nets import NETS, randomised


def opened(name: str) -> tuple[Captured, ChannelGroups]:
    found = trace(randomised(NETS[name]), torch.zeros(1, 3, 16, 16))
    return found, channel_groups(found.graph)


def some_batches(count: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(4, 3, 16, 16, generator=generator) for _ in range(count)]


def evidence(dense: Captured, groups: ChannelGroups, *, targets: bool = False) -> Evidence:
    answers = torch.zeros(4, dtype=torch.long) if targets else None
    return Evidence(dense, groups, tuple(Sampled((x,), answers) for x in some_batches()))


def test_the_default_is_what_it_was_to_the_last_bit() -> None:
    """Plans of earlier runs come out again: the sums are taken in the same order, whatever is summed beside them."""
    dense, groups = opened("residual")
    generator, scores = torch.Generator().manual_seed(0), {g.name: np.zeros(g.width) for g in groups.groups}
    for x in some_batches():
        run = Run(dense.module, (site.node for site in sites(groups)))
        outputs = run.run(x)
        kept = [run.kept[site.node] for site in sites(groups)]
        sign = torch.randint(0, 2, outputs.shape, generator=generator).to(outputs) * 2 - 1
        slopes = torch.autograd.grad(((sign - sign.mean(-1, keepdim=True)) * outputs).sum(), kept)
        for site, z, slope in zip(sites(groups), kept, slopes, strict=True):
            total = (z * slope).detach().sum([2, 3]).abs().sum(0).double().numpy()
            for g in np.unique(site.group[site.group >= 0]).tolist():
                mine = site.group == g
                np.add.at(scores[groups.groups[g].name], site.channel[mine], total[mine])
    got = importance(DEFAULT, evidence(dense, groups)).scores
    assert all(np.array_equal(got[name], score / 12) for name, score in scores.items())


def test_a_residual_channel_collects_all_its_producers() -> None:
    _, groups = opened("residual")
    names = [site.node for site in sites(groups)]
    assert len(names) == 3  # stem, inner, and the second producer of the residual stream
    assert all(name.startswith("batch_norm") for name in names)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown criterion 'logit_tailor'") as caught:
        importance("logit_tailor", evidence(*opened("plain")))
    assert "logit_taylor" in caught.value.hint


def test_evidence_that_lacks_what_is_needed_is_refused() -> None:
    dense, groups = opened("plain")
    with pytest.raises(UsageError, match="'activation' needs data") as caught:
        importance("activation", Evidence(dense, groups))
    assert "l1" in caught.value.hint and "random" not in caught.value.hint
    for loss, targets in ((None, True), (nn.functional.cross_entropy, False)):
        with pytest.raises(UsageError, match="'taylor' needs a loss and targets"):
            importance("taylor", replace(evidence(dense, groups, targets=targets), loss=loss))


def test_non_finite_scores_name_the_layer() -> None:
    dense, groups = opened("plain")
    with torch.no_grad():
        dense.module.get_parameter("1.0.weight").fill_(float("nan"))
    with pytest.raises(QualityError, match="non-finite"):
        importance("logit_taylor", evidence(dense, groups))


def test_a_model_without_a_floating_point_output_has_no_projection() -> None:
    with pytest.raises(QualityError, match="no floating-point tensor"):
        projection((torch.zeros(2, dtype=torch.long),), torch.Generator())


def test_an_operator_without_a_second_derivative_is_named() -> None:
    with pytest.raises(UnsupportedError, match="torch has none of aten::odd_backward"), differentiable_twice():
        raise RuntimeError("derivative for aten::odd_backward is not implemented")
    with pytest.raises(RuntimeError, match="else"), differentiable_twice():
        raise RuntimeError("something else")


def test_a_model_without_groups_has_no_scores() -> None:
    captured = trace(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval(), torch.zeros(1, 3, 2, 2))
    groups = channel_groups(captured.graph)
    assert importance("l1", Evidence(captured, groups)).scores == {}


def test_the_user_is_told_of_a_patent_and_of_ranks_that_halves_of_the_data_do_not_share() -> None:
    dense, groups = opened("plain")
    told = replace(evidence(dense, groups, targets=True), loss=nn.functional.cross_entropy)
    assert "US patent 11,315,018" in importance("fisher", told).notes[0]
    assert importance("taylor_per_site", told).notes == ()
    first = {group.name: np.arange(float(group.width)) for group in groups.groups}
    second = {name: score[::-1] for name, score in first.items()}
    ranking = importance(Criterion("mine", lambda _: Found(first, (first, second)), "inputs"), told)
    assert ranking.stability is not None and ranking.stability.mean == pytest.approx(-1)
    assert "differently on two halves" in ranking.notes[0] and "importance_samples" in ranking.notes[0]


def test_curves_fall_with_width_and_end_at_zero() -> None:
    dense, groups = opened("residual")
    scores = importance("logit_taylor", evidence(dense, groups)).scores
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
    scores = importance("l1", evidence(dense, groups)).scores
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
    scores = importance("logit_taylor", evidence(dense, groups)).scores
    levels = width_levels(groups, 4, 0.1)
    curves = measured_curves(dense, groups, scores, levels, some_batches()[0], kl_divergence, limit_s=0.0)
    assert all((np.diff(curve) <= 1e-12).all() and curve[-1] == 0 for curve in curves.values())
