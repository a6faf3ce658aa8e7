import torch
from torch import nn

from edgeprune.training.averages import decay_at, update_average
from edgeprune.training.sharpness import uphill


def test_the_average_is_the_weighted_sum_and_counts_are_taken_as_they_are() -> None:
    average = {"w": torch.zeros(2), "n": torch.tensor(0)}
    for step in (1, 2):
        update_average(average, {"w": torch.full((2,), float(step)), "n": torch.tensor(step)}, 0.75)
    torch.testing.assert_close(average["w"], torch.full((2,), 0.75 * 0.25 * 1 + 0.25 * 2))
    assert average["n"] == 2


def test_the_average_follows_quickly_at_first() -> None:
    decays = [decay_at(0.99, step) for step in range(2000)]
    assert decays == sorted(decays) and decays[1] == 2 / 11 and decays[-1] == 0.99


def test_uphill_is_one_radius_along_the_gradient_and_back_again() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    x = torch.randn(8, 3)
    model(x).square().sum().backward()
    parameters = list(model.parameters())
    before = [value.detach().clone() for value in (*parameters, *model.buffers())]
    gradients = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    with uphill(model, parameters, 0.3):
        moved = torch.cat([(p.detach() - b).flatten() for p, b in zip(parameters, before)])
        torch.testing.assert_close(moved, 0.3 * gradients / gradients.norm(), rtol=1e-4, atol=1e-6)
        model(x)  # moves the running statistics
        assert not torch.equal(model[1].running_mean, before[len(parameters)])
    assert all(torch.equal(value, b) for value, b in zip((*parameters, *model.buffers()), before))
