"""Equalisation computes the same to rounding, brings channels to like ranges, and says what it cannot reach."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgeprune.pruning.trace import attribute, trace
from edgeprune.quantization.equalise import Criterion, equalised, pairs, uncapped
from edgeprune.quantization.layers import folded
from edgeprune.quantization.observed import observed_channels
from tests.quantization.nets import Depthwise, unequal
from tests.quantization.test_folding import varied


class Mixed(nn.Module):
    """Pairs through padding, pooling, grouped layers, a flattened map and linear layers; a residual sum is none."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 12, 3, groups=4)
        self.c, self.d = nn.Conv2d(12, 6, 1), nn.Conv2d(6, 6, 1)
        self.e, self.f = nn.Linear(6 * 9, 7), nn.Linear(7, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.pad(F.relu(self.a(x)), (1, 1, 1, 1))
        x = F.leaky_relu(self.c(F.max_pool2d(F.relu(self.b(x)), 2)), 0.1)
        x = x + self.d(x)
        x = F.relu(self.e(F.adaptive_avg_pool2d(x, 3).flatten(1)))
        return self.f(x)


@pytest.mark.parametrize("by", ["weights", "activations"])
@pytest.mark.parametrize("net", [lambda: unequal(Depthwise(4)), Mixed])
def test_an_equalised_model_computes_the_same(net: type[nn.Module], by: Criterion) -> None:
    model = varied(net())
    x = torch.randn(4, 1 if isinstance(model, Depthwise) else 3, 16, 16, dtype=torch.float64)
    plain = folded(trace(model, x[:1]))
    made = equalised(plain, by, x)
    want = model(x).detach()
    torch.testing.assert_close(made.module(x), want, rtol=1e-9, atol=1e-9 * float(want.abs().max()))
    changed = [path for path, _ in plain.module.named_parameters() if not same(plain, made, path)]
    assert changed


def same(one: object, other: object, path: str) -> bool:
    return torch.equal(attribute(one.module, path), attribute(other.module, path))  # type: ignore[attr-defined]


def test_pairs_are_chains_alone() -> None:
    model = Mixed().eval()
    found = pairs(folded(trace(model, torch.randn(1, 3, 16, 16))).module)
    assert [(pair.first.name, pair.second.name, pair.repeat) for pair in found] == [
        ("a", "b", 1),
        ("b", "c", 1),
        ("e", "f", 1),
    ]


def test_a_flattened_map_gives_a_channel_many_inputs() -> None:
    model = nn.Sequential(nn.Conv2d(2, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 4, 3)).eval().double()
    x = torch.randn(6, 2, 4, 4, dtype=torch.float64)
    captured = trace(model, x[:1])
    (pair,) = pairs(captured.module)
    assert pair.repeat == 4
    torch.testing.assert_close(equalised(captured).module(x), model(x), rtol=1e-9, atol=1e-9)


def test_channels_come_to_like_ranges() -> None:
    x = torch.rand(32, 1, 16, 16)
    plain = folded(trace(unequal(varied(Depthwise(8)).float()), x[:1]))
    held = {pair.held: 1 for pair in pairs(plain.module)}

    def spread(module: object) -> float:
        highs = [high[high > 0] for _, high in observed_channels(module, held, x).values()]  # type: ignore[arg-type]
        return max(float(high.max() / high.min()) for high in highs)

    before = spread(plain.module)
    assert spread(equalised(plain, "weights").module) < before / 5
    assert spread(equalised(plain, "activations", x).module) < before / 5


def test_a_cap_keeps_layers_from_being_a_pair_until_it_is_taken_away() -> None:
    x = torch.rand(2, 1, 16, 16)
    plain = folded(trace(varied(Depthwise(4, act=nn.ReLU6)).float(), x[:1]))
    found = pairs(plain.module)
    assert len(found) == 5 and all(len(pair.capped) == 1 for pair in found)
    unchanged = equalised(plain)
    assert all(same(plain, unchanged, path) for path, _ in plain.module.named_parameters())
    free = uncapped(plain, frozenset(name for pair in found for name in pair.capped))
    assert not any(pair.capped for pair in pairs(free.module))
    assert {node.base for node in free.graph.nodes} & {"relu", "relu6"} == {"relu"}


def test_a_channel_that_never_speaks_changes_nothing() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU(), nn.Conv2d(3, 2, 1)).eval()
    with torch.no_grad():
        model[0].weight[1] = 0
        model[0].bias[1] = 0
        model[2].weight[:, 2] = 0
    x = torch.randn(4, 2, 3, 3)
    made = equalised(trace(model, x[:1]), "activations", x)
    assert torch.isfinite(made.module(x)).all()
    torch.testing.assert_close(made.module(x), model(x), rtol=1e-5, atol=1e-6)
