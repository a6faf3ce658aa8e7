from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.conversion.torch_graph import flatten_channel_last, prepare
from edgeprune.errors import UnsupportedError


def targets(module: torch.fx.GraphModule) -> list[str]:
    return [str(node.target) for node in module.graph.nodes if node.op == "call_function"]


def run(module: nn.Module, sample: np.ndarray) -> torch.Tensor:
    with torch.no_grad():
        return module(torch.from_numpy(sample))


@pytest.mark.parametrize("name", ["residual", "depthwise", "excite"])
def test_a_prepared_model_answers_as_before_without_dropout_views_and_means(name: str, small_net: Any) -> None:
    net = small_net(name)
    prepared = prepare(net.model, net.samples[:1])
    assert np.allclose(run(prepared, net.samples[:1]), net.answers[:1], atol=1e-6)
    assert not {"aten.dropout.default", "aten.view.default", "aten.mean.dim"} & set(targets(prepared))


def test_preparing_changes_neither_the_model_nor_its_mode(small_net: Any) -> None:
    model = small_net("residual").model
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prepared = prepare(model, small_net("residual").samples[:1])
    assert model.training and not any(module.training for module in prepared.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    model.eval()


def test_a_flattened_map_is_read_channel_last_with_the_same_answers(small_net: Any) -> None:
    net = small_net("residual")
    prepared = flatten_channel_last(prepare(net.model, net.samples[:1]))
    assert np.allclose(run(prepared, net.samples[:1]), net.answers[:1], atol=1e-6)
    assert "aten.permute.default" in targets(prepared)


class Branches(nn.Module):
    """A flattened map that two linear layers read, one of them through an activation, and maybe one other reader."""

    def __init__(self, other: bool) -> None:
        super().__init__()
        self.conv, self.one, self.two, self.other = nn.Conv2d(2, 3, 3), nn.Linear(48, 5), nn.Linear(48, 5), other

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = self.conv(x).flatten(1)
        out = self.one(flat) + self.two(torch.relu(flat))
        return out + flat[:, :5] if self.other else out


@pytest.mark.parametrize("other", [False, True])
def test_a_map_with_another_reader_keeps_its_order(other: bool) -> None:
    model = Branches(other).eval()
    sample = np.random.default_rng(0).standard_normal((1, 2, 6, 6)).astype(np.float32)
    prepared = flatten_channel_last(prepare(model, sample))
    assert np.allclose(run(prepared, sample), run(model, sample), atol=1e-6)
    assert ("aten.permute.default" in targets(prepared)) is not other


def test_a_mean_that_keeps_its_axes_or_takes_others_stays_right() -> None:
    class Means(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3), keepdim=True).flatten(1) + x.mean((1, 2)).sum() + x.mean((-1, -2))

    sample = np.random.default_rng(0).standard_normal((1, 2, 3, 4)).astype(np.float32)
    prepared = prepare(Means(), sample)
    assert np.allclose(run(prepared, sample), run(Means(), sample), atol=1e-6)
    assert targets(prepared).count("aten.adaptive_avg_pool2d.default") == 2
    assert targets(prepared).count("aten.mean.dim") == 1


def test_a_model_that_cannot_be_captured_is_refused() -> None:
    class Deciding(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(UnsupportedError, match="capturing the model for export failed"):
        prepare(Deciding(), np.ones((1, 2), np.float32))
