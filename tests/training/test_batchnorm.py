import pytest
import torch
from torch import nn

from edgeprune.pruning.trace import trace
from edgeprune.training.batchnorm import batchnorm_buffers, re_estimate_batchnorm
from edgeprune.training.fine_tune import re_estimate
from edgeprune.workload.samples import TensorSet


def net(momentum: float | None = 0.1) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4, momentum=momentum),
        nn.Dropout(0.5),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3),
        nn.BatchNorm2d(6, momentum=momentum),
    ).eval()


def images(count: int = 64) -> torch.Tensor:
    return torch.randn(count, 2, 8, 8, generator=torch.Generator().manual_seed(1)) * 3 + 1


@pytest.mark.parametrize(("captured", "momentum"), [(False, 0.1), (False, None), (True, 0.1), (True, 0.9)])
def test_statistics_equal_those_over_all_samples(captured: bool, momentum: float | None) -> None:
    if captured and momentum is None:
        pytest.skip(
            "the capture of a BatchNorm with a cumulative average is a constant momentum, covered by the others"
        )
    model, x = net(momentum), images()
    first = model[0](x)
    subject = trace(model, x[:1]).module if captured else model
    assert re_estimate_batchnorm(subject, iter(x.split(16))) == 4
    buffers = dict(subject.named_buffers())
    mean, variance = (buffers[name] for name in batchnorm_buffers(subject)[0])
    torch.testing.assert_close(mean, first.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(variance, first.var((0, 2, 3)), rtol=1e-2, atol=1e-4)


def test_captured_programs_and_modules_agree_in_every_layer() -> None:
    model, x = net(), images()
    program = trace(model, x[:1]).module
    for subject in (model, program):
        re_estimate_batchnorm(subject, iter(x.split(16)))
    names = (batchnorm_buffers(model), batchnorm_buffers(program))
    assert len(names[0]) == len(names[1]) == 2
    found = [dict(subject.named_buffers()) for subject in (model, program)]
    for one, other in zip(*names):
        for a, b in zip(one, other):
            torch.testing.assert_close(found[0][a], found[1][b], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("captured", [False, True])
def test_nothing_but_the_statistics_changes(captured: bool) -> None:
    model = net()
    subject = trace(model, images()[:1]).module if captured else model
    weights = {name: p.clone() for name, p in subject.named_parameters()}
    re_estimate_batchnorm(subject, iter(images().split(16)))
    assert all(torch.equal(p, weights[name]) for name, p in subject.named_parameters()) and not subject.training
    if captured:
        norms = [n for n in subject.graph.nodes if n.target is torch.ops.aten.batch_norm.default]
        assert [n.args[5:7] for n in norms] == [(False, 0.1)] * 2
    else:
        assert [subject[i].momentum for i in (1, 5)] == [0.1, 0.1] and not subject[2].training


def test_wrong_statistics_from_before_do_not_matter() -> None:
    one, other = net(), net()
    other[1].running_mean += 100
    other[5].running_var *= 50
    for model in (one, other):
        re_estimate_batchnorm(model, iter(images().split(16)))
    torch.testing.assert_close(one[5].running_var, other[5].running_var)


def test_a_model_without_batchnorm_runs_nothing() -> None:
    assert re_estimate_batchnorm(nn.Linear(3, 2), iter(())) == 0
    assert batchnorm_buffers(nn.BatchNorm1d(3, track_running_stats=False)) == ()


def test_random_batches_of_a_set_are_drawn_by_seed() -> None:
    dataset = TensorSet(images(), torch.zeros(64, dtype=torch.long))
    found = []
    for seed in (1, 1, 2):
        model = net()
        assert re_estimate(model, dataset, batch_size=16, batches=2, seed=seed) == 2
        found.append(model[5].running_mean)
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    assert re_estimate(net(), dataset, batch_size=100) == 1
