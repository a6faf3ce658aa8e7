import pytest
import torch
from torch import nn

from edgeprune.recipe import TrainSpec
from edgeprune.training.clipping import clip


def net() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(5, 4))
    for parameter in layers.parameters():
        parameter.grad = torch.randn_like(parameter)
    return layers


def gradients(model: nn.Module) -> list[torch.Tensor]:
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def norm(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([t.flatten() for t in tensors]).norm()


@pytest.mark.parametrize("kind", ["norm", "value", "adaptive", "none"])
def test_the_norm_is_that_before_clipping_and_not_finite_if_an_entry_is_not(kind: str) -> None:
    model, recipe = net(), TrainSpec.model_validate({"clip": kind})
    before = norm(gradients(model))
    torch.testing.assert_close(clip(list(model.parameters()), recipe, 1.0), before)
    model[3].bias.grad[1] = float("nan")
    assert not clip(list(model.parameters()), recipe, 1.0).isfinite()


def test_each_kind_holds_its_limit_and_no_clipping_changes_nothing() -> None:
    model = net()
    before = gradients(model)
    clip(list(model.parameters()), TrainSpec(clip="none"), 1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, gradients(model)))
    clip(list(model.parameters()), TrainSpec(clip="value", clip_value=0.5), 1.0)
    assert all(torch.equal(b, a.clamp(-0.5, 0.5)) for a, b in zip(before, gradients(model)))
    clip(list(model.parameters()), TrainSpec(), 1.0)
    torch.testing.assert_close(norm(gradients(model)), torch.tensor(1.0), atol=1e-4, rtol=0)


def test_adaptive_clipping_shortens_each_unit_to_its_share_and_leaves_the_last_layer() -> None:
    model = net()
    with torch.no_grad():
        model[0].weight[2] = 0  # counts with the smallest norm
    before = gradients(model)
    clip(list(model.parameters()), TrainSpec(clip="adaptive", clip_factor=0.1), 1.0)
    after, weights = gradients(model), [p.detach() for p in model.parameters()]
    for unit in range(5):
        limit = 0.1 * max(float(weights[0][unit].norm()), 1e-3)
        expected = before[0][unit] * min(1.0, limit / float(before[0][unit].norm()))
        torch.testing.assert_close(after[0][unit], expected)
    torch.testing.assert_close(after[2].norm(), 0.1 * weights[2].norm())  # a vector has one norm
    assert torch.equal(after[4], before[4]) and torch.equal(after[5], before[5])


def test_small_gradients_and_parameters_without_one_stay_as_they_are() -> None:
    model = net()
    for parameter in model.parameters():
        parameter.grad = None if parameter is model[0].bias else parameter.detach() * 0.001
    before = gradients(model)
    clip(list(model.parameters()), TrainSpec(clip="adaptive"), 1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, gradients(model)))
