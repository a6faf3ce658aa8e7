"""Learning from inside the dense model: which channels are compared, and by what formula."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from edgeprune.errors import UsageError
from edgeprune.pruning.groups import channel_groups
from edgeprune.pruning.plan import Plan
from edgeprune.pruning.surgery import prune
from edgeprune.pruning.trace import Captured, trace
from edgeprune.recipe import TrainSpec
from edgeprune.training.fine_tune import fine_tune
from edgeprune.training.guide import Guide, guide_between, guide_loss, guide_of_plan, run_watched, wants_guide
from tests.training.test_fine_tune import SETTINGS, toy_net, toy_workload, weights
from tests.training.test_resume import EVERY_STEP, Stop, Stopping, bits, told

FEATURES, ATTENTION = TrainSpec(feature_weight=1.0), TrainSpec(attention_weight=1.0)


def net() -> Captured:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Conv2d(8, 6, 3, stride=2)]
    return trace(nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(54, 4)).eval(), torch.zeros(1, 1, 8, 8))


def pruned(dense: Captured) -> tuple[Captured, Plan, Guide]:
    groups = channel_groups(dense.graph)
    plan = Plan(keep={groups.groups[0].name: (0, 2, 3, 7), groups.groups[1].name: (1, 5)})
    small = prune(dense, groups, plan)
    return small, plan, guide_of_plan(dense, groups, plan, small)


def inside(guide: Guide, student: Captured, x: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    _, taught = run_watched(guide.teacher, x, {point.teacher for point in guide.points})
    _, learnt = run_watched(student.module, x, {point.student for point in guide.points})
    return taught, learnt


def test_a_plan_selects_the_channels_that_the_student_has() -> None:
    dense = net()
    small, _, guide = pruned(dense)
    assert [point.kept.tolist() for point in guide.points if point.kept is not None] == [[0, 2, 3, 7], [1, 5]]
    assert all(point.space for point in guide.points) and not guide.projections
    taught, learnt = inside(guide, small, torch.randn(5, 1, 8, 8))
    first = guide.points[0]
    torch.testing.assert_close(learnt[first.student], taught[first.teacher][:, [0, 2, 3, 7]])  # nothing before it went
    assert bool((learnt[first.student] < 0).any()), "the in-place activation after it changed what was kept"


def test_outputs_are_those_of_a_run_that_is_not_watched() -> None:
    dense, x = net(), torch.randn(3, 1, 8, 8)
    outputs, kept = run_watched(dense.module, x, ["batch_norm"])
    assert torch.equal(outputs, dense.module(x)) and list(kept) == ["batch_norm"]


def test_a_student_that_is_its_teacher_is_at_no_distance() -> None:
    dense = net()
    groups = channel_groups(dense.graph)
    guide = guide_of_plan(dense, groups, Plan(keep={}), dense)
    taught, learnt = inside(guide, dense, torch.randn(4, 1, 8, 8))
    both = TrainSpec(feature_weight=2.0, attention_weight=3.0)
    assert guide_loss(guide, taught, learnt, both) == 0 and wants_guide(both) and not wants_guide(TrainSpec())


def test_distances_are_the_stated_formulas() -> None:
    small, _, guide = pruned(net())
    taught, learnt = inside(guide, small, torch.randn(4, 1, 8, 8))
    features, attention = [], []
    for point in guide.points:
        t, s = taught[point.teacher], learnt[point.student]
        kept = t[:, point.kept]
        features.append((s - kept).square().sum() / kept.square().sum())
        maps = [x.square().mean(1).flatten(1) for x in (t, s)]
        units = [m / m.norm(dim=1, keepdim=True) for m in maps]
        attention.append((units[0] - units[1]).norm(dim=1).square().mean())
    torch.testing.assert_close(guide_loss(guide, taught, learnt, FEATURES), sum(features) / 2)
    torch.testing.assert_close(guide_loss(guide, taught, learnt, ATTENTION), sum(attention) / 2)
    both = guide_loss(guide, taught, learnt, TrainSpec(feature_weight=2.0, attention_weight=3.0))
    torch.testing.assert_close(both, sum(features) + 1.5 * sum(attention))


@pytest.mark.parametrize("recipe", [FEATURES, ATTENTION])
def test_training_by_it_alone_brings_the_student_nearer(recipe: TrainSpec) -> None:
    dense, workload = net(), toy_workload()
    small, _, guide = pruned(dense)
    with torch.no_grad():
        for parameter in small.module.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    x = workload.data.validation.x
    before = guide_loss(guide, *inside(guide, small, x), recipe)
    nothing = torch.zeros(128, 4)
    alone = recipe.model_copy(update={"teacher_share": 0.0})
    fine_tune(small.module, workload, settings=SETTINGS, recipe=alone, teacher=nothing, guide=guide, steps=40)
    assert guide_loss(guide, *inside(guide, small, x), recipe) < 0.7 * before


def test_a_projection_makes_up_for_widths_and_is_trained_and_resumed(tmp_path: Path) -> None:
    workload = toy_workload()

    def run(folder: Path | None, stop: int | None) -> tuple[nn.Module, dict, Guide]:
        teacher, student = (trace(toy_net(seed, width), workload.example) for seed, width in ((3, 12), (0, 8)))
        guide = guide_between(teacher, student, [("batch_norm", "batch_norm")])
        recipe = EVERY_STEP.model_copy(update={"feature_weight": 1.0, "clip": "adaptive"})
        options = {} if stop is None else {"progress": Stopping(stop)}
        result = fine_tune(
            student.module, workload, settings=SETTINGS, recipe=recipe, guide=guide, workspace=folder, **options
        )
        return student.module, told(result), guide

    model, result, guide = run(None, None)
    start = guide_between(
        *(trace(toy_net(s, w), workload.example) for s, w in ((3, 12), (0, 8))), [("batch_norm",) * 2]
    )
    (weight,), (first,) = guide.projections.values(), start.projections.values()
    assert weight.shape == (12, 8) and not torch.equal(weight, first)
    with pytest.raises(Stop):
        run(tmp_path, 5)
    again, same, other = run(tmp_path, None)
    assert bits(again) == bits(model) and same == result
    assert torch.equal(next(iter(other.projections.values())), weight) and weights(again).isfinite().all()


def test_steps_that_are_not_there_or_differ_in_size_are_refused() -> None:
    teacher, student = net(), trace(toy_net(), torch.zeros(1, 1, 8, 8))
    with pytest.raises(UsageError, match="there is no step 'nowhere'"):
        guide_between(teacher, student, [("nowhere", "conv2d")])
    with pytest.raises(UsageError, match=r"batch_norm is \(1, 8, 8, 8\), conv2d_1 of the teacher \(1, 6, 3, 3\)"):
        guide_between(teacher, student, [("batch_norm", "conv2d_1")])


def test_attention_needs_positions() -> None:
    layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 4)).eval()
    dense = trace(layers, torch.zeros(1, 1, 8, 8))
    groups = channel_groups(dense.graph)
    guide = guide_of_plan(dense, groups, Plan(keep={}), dense)
    taught, learnt = inside(guide, dense, torch.randn(4, 1, 8, 8))
    assert guide_loss(guide, taught, learnt, FEATURES) == 0
    with pytest.raises(UsageError, match="no layer of this model has positions") as caught:
        guide_loss(guide, taught, learnt, ATTENTION)
    assert caught.value.where == "train.attention_weight"


def test_a_recipe_that_needs_a_guide_is_refused_without_one_and_without_a_teacher() -> None:
    model, workload = net().module, toy_workload()
    with pytest.raises(ValueError, match="no guide was given"):
        fine_tune(model, workload, settings=SETTINGS, recipe=FEATURES)
    alone = SETTINGS.model_copy(update={"distill": False})
    with pytest.raises(UsageError, match="distillation is off") as caught:
        fine_tune(model, workload, settings=alone, recipe=FEATURES)
    assert caught.value.where == "fit.distill"
