"""A program that was captured with two samples takes any number of them, or is captured another way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgeprune.pruning import trace as module
from edgeprune.pruning.trace import trace
from tests.pruning.nets import Lambda
from tests.pruning.operator_nets import CASES

T = torch.Tensor


@pytest.fixture
def symbolic(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each capture so far needed a symbolic batch."""
    taken: list[bool] = []
    export = module._exported

    def noted(model: nn.Module, pair: tuple[Any, ...], dynamic: Any) -> Any:
        taken.append(dynamic is not None)
        return export(model, pair, dynamic)

    monkeypatch.setattr(module, "_exported", noted)
    return taken


@pytest.mark.parametrize("name", sorted(CASES))
def test_every_operator_is_followed_without_a_symbolic_batch(name: str, symbolic: list[bool]) -> None:
    torch.manual_seed(0)
    model, inputs = CASES[name]()
    program = trace(model.eval(), inputs)
    assert symbolic == [False]
    five = tuple(torch.cat([x, x.flip(0), x[:1]]) for x in inputs)
    with torch.no_grad():
        want, got = model(*five), program.module(*five)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["fused_qkv", "lstm", "windowed_attention", "unrolled_cell", "written_in_place"])
def test_both_ways_give_the_same_picture(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for slices of a whole axis, which a symbolic capture leaves in."""
    torch.manual_seed(0)
    model, inputs = CASES[name]()
    quick = trace(model.eval(), inputs).graph
    monkeypatch.setattr(module, "_with_numbers", lambda program: None)
    slow = trace(model, inputs).graph
    layers = [[(n.op, n.shapes) for n in g.nodes if n.base not in ("slice", "parameter")] for g in (quick, slow)]
    steps = [[step for step in found if step[1] and step[0] != "parameter"] for found in layers]
    assert steps[0] == steps[1]


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: m.head(x.sum(0, keepdim=True) / x.shape[0] + x),  # the number of samples as a value
        lambda m, x: m.head(x + torch.arange(x.shape[0])[:, None]),  # numbered samples
        lambda m, x: m.head(x - x[:1]),  # one sample against all
    ],
)
def test_what_the_rules_cannot_follow_is_captured_with_a_symbol(forward: Any, symbolic: list[bool]) -> None:
    model = Lambda(forward, head=nn.Linear(6, 3))
    program = trace(model, torch.randn(4, 6))
    assert symbolic == [False, True]
    x = torch.randn(5, 6)
    torch.testing.assert_close(program.module(x), model(x))


def test_sizes_that_equal_the_number_of_samples_are_no_samples() -> None:
    """Two heads, two windows and two branches beside two samples."""

    def forward(m: Any, x: T) -> T:
        b, n, _ = x.shape
        q = m.q(x).view(b, 2, n // 2, 2, 4).permute(0, 1, 3, 2, 4).reshape(b * 2, 2, n // 2, 4)
        y = F.scaled_dot_product_attention(q, q, q) + torch.ones(2, 1, 1)
        y = torch.stack([y, y.roll(1, 1)]).sum(0).view(b, 2, 2, n // 2, 4)
        return m.head(y.expand(b, 2, 2, n // 2, 4).permute(0, 1, 3, 2, 4).reshape(b, n, 8))

    model = Lambda(forward, q=nn.Linear(6, 8), head=nn.Linear(8, 3))
    program = trace(model, torch.randn(2, 4, 6))
    for count in (1, 3):
        x = torch.randn(count, 4, 6)
        torch.testing.assert_close(program.module(x), model(x))


class Standardising(nn.Module):
    """Input statistics as buffers, of which the forward pass takes the root."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("var", torch.tensor([[0.3], [0.7], [1.1]]).view(3, 1, 1))
        self.body = nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x / (self.var**0.5 + 1e-8))


def test_what_is_computed_of_a_buffer_follows_the_precision_of_the_model() -> None:
    model, x = Standardising().eval(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    captured = trace(model, x.float())
    want, got = model.double()(x).detach(), captured.module.double()(x).detach()
    assert float((want - got).abs().max() / want.abs().max()) < 1e-14
