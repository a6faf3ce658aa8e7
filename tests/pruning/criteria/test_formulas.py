"""Every criterion on a net of two layers, against its paper's formula in plain autograd."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.functional import hessian

from edgeprune.pruning.criteria import second_order
from edgeprune.pruning.criteria.evidence import Evidence
from edgeprune.pruning.importance import CRITERIA, importance
from tests.pruning.criteria.scored import of_layers

T = torch.Tensor
Net = tuple[T, T, T, T]  # weights and biases of two layers
HIDDEN, CLASSES, SAMPLES, BATCH = 6, 4, 24, 8


class Case:
    """y = b2 + W2 tanh(b1 + W1 x) with class labels: the same as evidence, and as plain tensors."""

    def __init__(self, *, rectified: bool = False, batches: int = SAMPLES // BATCH) -> None:
        generator = torch.Generator().manual_seed(0)
        first, second = nn.Linear(5, HIDDEN), nn.Linear(HIDDEN, CLASSES)
        with torch.no_grad():
            for value in (first.weight, first.bias, second.weight, second.bias):
                value.copy_(torch.randn(value.shape, generator=generator))
        self.x = torch.randn(batches * BATCH, 5, generator=generator)
        self.y = torch.randint(0, CLASSES, (batches * BATCH,), generator=generator)
        self.rectified = rectified
        act = nn.ReLU() if rectified else nn.Tanh()
        self.evidence: Evidence = of_layers(
            first, act, second, inputs=self.x, targets=self.y, split=BATCH, loss=F.cross_entropy
        )
        weights = (first.weight, first.bias, second.weight, second.bias)
        self.net: Net = tuple(value.detach().clone() for value in weights)  # type: ignore[assignment]

    def batches(self) -> Iterator[tuple[T, T]]:
        yield from zip(self.x.split(BATCH), self.y.split(BATCH), strict=True)

    def logits(self, x: T, w1: T | None = None, gate: T | None = None) -> T:
        first, b1, w2, b2 = self.net
        z = x @ (first if w1 is None else w1).T + b1
        z = z if gate is None else z * gate
        return (torch.relu(z) if self.rectified else torch.tanh(z)) @ w2.T + b2

    def loss(self, x: T, y: T, w1: T | None = None, gate: T | None = None) -> T:
        return F.cross_entropy(self.logits(x, w1, gate), y)

    def gate_slope(self, x: T, y: T) -> T:
        """dL/dm of the mean loss at open gates: what G sums to over the samples of a batch."""
        m = torch.ones(HIDDEN, requires_grad=True)
        return torch.autograd.grad(self.loss(x, y, gate=m), m)[0]

    def weight_slope(self, x: T, y: T, w1: T | None = None) -> T:
        w = (self.net[0] if w1 is None else w1).clone().requires_grad_()
        return torch.autograd.grad(self.loss(x, y, w), w)[0]


def mean(rows: Iterator[T] | list[T]) -> T:
    return torch.stack(list(rows)).mean(0)


FORMULAS: dict[str, Callable[[Case], T]] = {}


def formula(function: Callable[[Case], T]) -> Callable[[Case], T]:
    FORMULAS[function.__name__] = function
    return function


@formula
def l1(c: Case) -> T:
    size = c.net[0].abs().sum(1)
    return size / size.mean()


@formula
def l2(c: Case) -> T:
    size = torch.linalg.vector_norm(c.net[0], dim=1)
    return size / size.mean()


@formula
def fpgm(c: Case) -> T:
    w = c.net[0]
    far = torch.stack(
        [sum((torch.linalg.vector_norm(w[i] - w[j]) for j in range(HIDDEN)), torch.zeros(())) for i in range(HIDDEN)]
    )
    return far / far.mean()


@formula
def lamp(c: Case) -> T:
    squares = c.net[0].square().sum(1)
    order = squares.argsort()
    shares = torch.empty(HIDDEN)
    for place, channel in enumerate(order):
        shares[channel] = squares[channel] / squares[order[place:]].sum()
    return shares


@formula
def slimming(c: Case) -> T:
    return torch.ones(HIDDEN)  # no BatchNorm: nothing to rank by


@formula
def activation(c: Case) -> T:
    size = (c.x @ c.net[0].T + c.net[1]).abs().mean(0)
    return size / size.mean()


@formula
def apoz(c: Case) -> T:
    zeros = (torch.relu(c.x @ c.net[0].T + c.net[1]) == 0).float().mean(0)
    return 1 - zeros


@formula
def logit_taylor(c: Case) -> T:
    generator = torch.Generator().manual_seed(0)
    effects = []
    for x, _ in c.batches():
        sign = torch.randint(0, 2, (len(x), CLASSES), generator=generator).float() * 2 - 1
        sign = sign - sign.mean(1, keepdim=True)
        for one, r in zip(x, sign, strict=True):
            m = torch.ones(HIDDEN, requires_grad=True)
            effects.append(torch.autograd.grad(c.logits(one[None], gate=m)[0] @ r, m)[0].abs())
    return mean(effects)


@formula
def taylor(c: Case) -> T:
    return mean(c.gate_slope(x, y).abs() for x, y in c.batches())


@formula
def taylor_per_sample(c: Case) -> T:
    return mean(c.gate_slope(x[None], y[None]).abs() for x, y in zip(c.x, c.y, strict=True))


FORMULAS["taylor_per_site"] = taylor_per_sample  # a channel of this net has one site


@formula
def taylor_of_weights(c: Case) -> T:
    return mean((c.net[0] * c.weight_slope(x, y)).sum(1).abs() for x, y in c.batches())


@formula
def gradient(c: Case) -> T:
    return mean(c.weight_slope(x, y).abs().mean(1) for x, y in c.batches())


@formula
def gradient_ratio(c: Case) -> T:
    norm = torch.linalg.vector_norm
    return mean(norm(c.weight_slope(x, y), dim=1) / norm(c.net[0], dim=1) for x, y in c.batches())


@formula
def fisher(c: Case) -> T:
    return 0.5 * mean(c.gate_slope(x[None], y[None]).square() for x, y in zip(c.x, c.y, strict=True))


@formula
def snip(c: Case) -> T:
    share = (c.net[0] * c.weight_slope(c.x, c.y)).abs()
    return share.sum(1) / share.sum()


@formula
def grasp(c: Case) -> T:
    """With respect to all parameters: H g by a finite difference of gradients in double precision."""
    everything = torch.cat([value.flatten() for value in c.net]).double()

    def slope(theta: T, x: T, y: T) -> T:
        theta = theta.clone().requires_grad_()
        parts = theta.split([value.numel() for value in c.net])
        w1, b1, w2, b2 = (part.reshape(value.shape) for part, value in zip(parts, c.net, strict=True))
        loss = F.cross_entropy(torch.tanh(x.double() @ w1.T + b1) @ w2.T + b2, y)
        return torch.autograd.grad(loss, theta)[0]

    rows = []
    for x, y in c.batches():
        g, step = slope(everything, x, y), 1e-5
        product = (slope(everything + step * g, x, y) - slope(everything - step * g, x, y)) / (2 * step)
        rows.append((everything * product)[: c.net[0].numel()].reshape(HIDDEN, -1).sum(1))
    flow = mean(rows)
    return flow - flow.min()


@formula
def synflow(c: Case) -> T:
    first, b1, w2, b2 = (value.abs() for value in c.net)
    w = first.clone().requires_grad_()
    total = (torch.tanh(torch.ones(1, 5) @ w.T + b1) @ w2.T + b2).sum()
    return (torch.autograd.grad(total, w)[0] * first).sum(1)


@formula
def movement(c: Case) -> T:
    net, moved = [value.clone() for value in c.net], torch.zeros(HIDDEN)
    for x, y in c.batches():
        w1, b1, w2, b2 = (value.requires_grad_() for value in net)
        slopes = torch.autograd.grad(F.cross_entropy(torch.tanh(x @ w1.T + b1) @ w2.T + b2, y), (w1, b1, w2, b2))
        moved -= (w1 * slopes[0]).detach().sum(1)
        net = [(value - 0.01 * slope).detach() for value, slope in zip(net, slopes, strict=True)]
    moved = moved / (SAMPLES // BATCH)
    return moved - moved.min()


ESTIMATED = {"hessian", "obd"}  # by random vectors: below


@pytest.mark.parametrize("name", sorted(set(CRITERIA) - ESTIMATED - {"random"}))
def test_a_criterion_is_its_formula(name: str) -> None:
    case = Case(rectified=name == "apoz")
    want = FORMULAS[name](case).detach().double().numpy()
    got = importance(name, case.evidence).scores["0"]
    assert np.allclose(got, want, rtol=1e-3, atol=1e-5 * abs(want).max())


def diagonal_of_gates(c: Case) -> T:
    rows = [hessian(lambda m, x=x, y=y: c.loss(x, y, gate=m), torch.ones(HIDDEN)).diagonal() for x, y in c.batches()]
    return 0.5 * mean(rows).abs()


def diagonal_of_weights(c: Case) -> T:
    first = c.net[0]
    rows = [
        hessian(lambda w, x=x, y=y: c.loss(x, y, w.reshape(HIDDEN, 5)), first.flatten()).diagonal()
        for x, y in c.batches()
    ]
    return (0.5 * mean(rows).reshape(HIDDEN, 5) * first.square()).sum(1).abs()


@pytest.fixture
def orthogonal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The random signs of the next 32 probes are the rows of a Hadamard matrix, for which the estimate is exact."""
    rows = torch.ones(1, 1)
    while len(rows) < 32:
        rows = torch.cat([torch.cat([rows, rows], 1), torch.cat([rows, -rows], 1)])
    drawn = iter(rows)
    monkeypatch.setattr(second_order, "signs", lambda like, _: next(drawn)[: like.numel()].reshape(like.shape))


@pytest.mark.usefixtures("orthogonal")
@pytest.mark.parametrize(("name", "exact"), [("hessian", diagonal_of_gates), ("obd", diagonal_of_weights)])
def test_curvature_is_the_hessians_diagonal(name: str, exact: Callable[[Case], T]) -> None:
    case = Case(batches=1)
    want = exact(case).numpy()
    many = replace(case.evidence, batches=case.evidence.batches * 16)  # two probes of each
    assert np.allclose(importance(name, many).scores["0"], want, rtol=1e-3, atol=1e-5 * want.max())


@pytest.mark.parametrize(("name", "exact"), [("hessian", diagonal_of_gates), ("obd", diagonal_of_weights)])
def test_random_signs_come_near_it(name: str, exact: Callable[[Case], T]) -> None:
    case = Case()
    want = exact(case).numpy()
    many = replace(case.evidence, batches=case.evidence.batches * 20)
    assert np.corrcoef(importance(name, many).scores["0"], want)[0, 1] > 0.9


@pytest.mark.usefixtures("orthogonal")
def test_closing_a_gate_costs_what_first_and_second_order_say() -> None:
    """On a loss that is quadratic in the gates both orders together are exact."""
    generator = torch.Generator().manual_seed(2)
    first, second = nn.Linear(5, HIDDEN), nn.Linear(HIDDEN, 1)
    x, y = torch.randn(16, 5, generator=generator), torch.randn(16, 1, generator=generator)
    evidence = of_layers(first, second, inputs=x, targets=y, split=16, loss=F.mse_loss)
    curvature = importance("hessian", replace(evidence, batches=evidence.batches * 16)).scores["0"]
    with torch.no_grad():
        z, dense = first(x), F.mse_loss(second(first(x)), y)
        m = torch.eye(HIDDEN)
        costs = torch.stack([F.mse_loss(second(z * (1 - m[c])), y) - dense for c in range(HIDDEN)])
        terms = [(2 * (second(z) - y) * (z[:, c] * second.weight[0, c])[:, None]).mean() for c in range(HIDDEN)]
    assert np.allclose(curvature, (costs + torch.stack(terms)).numpy(), rtol=1e-3, atol=1e-5)


def test_slimming_reads_the_scales_of_batchnorm() -> None:
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)]
    with torch.no_grad():
        layers[1].weight.copy_(torch.linspace(-1, 2, 8))
    evidence = of_layers(*layers, inputs=torch.randn(2, 3, 8, 8), targets=torch.zeros(2), split=2, loss=None)
    ranking = importance("slimming", evidence)
    assert np.allclose(ranking.scores["0"], np.abs(np.linspace(-1, 2, 8)))
    assert np.allclose(ranking.scores["3"], ranking.scores["0"].mean())
    assert ranking.notes == ("slimming says nothing of 3: all channels score alike, the first ones stay",)


def test_synflow_is_conserved_between_layers() -> None:
    """Without biases, what flows into a hidden channel flows out of it (Tanaka et al. 2020, theorem 1)."""
    first, second, third = nn.Linear(5, 7, bias=False), nn.Linear(7, 6, bias=False), nn.Linear(6, 3, bias=False)
    layers = (first, nn.ReLU(), second, nn.ReLU(), third)
    evidence = of_layers(*layers, inputs=torch.randn(2, 5), targets=torch.zeros(2), split=2, loss=None)
    scores = importance("synflow", evidence).scores
    assert np.isclose(scores["0"].sum(), scores["2"].sum())
    paths = third.weight.abs() @ second.weight.abs() @ first.weight.abs()
    assert np.isclose(scores["0"].sum(), paths.sum().item())
