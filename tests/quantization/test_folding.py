"""BatchNorm folded into layers computes the same, and what cannot be folded stays."""

import torch
from torch import nn

from edgeprune.pruning.trace import attribute, trace
from edgeprune.quantization.layers import folded, layers, with_tensors
from tests.quantization.nets import Depthwise


class Odd(nn.Module):
    """What must not be folded: a BatchNorm on the input, one behind two readers, and one behind a tied weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.BatchNorm2d(4) for _ in range(3))
        self.conv, self.tied = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(self.first(x))
        y = torch.relu_(self.second(y)) + y
        return self.tied(y) + self.third(self.tied(x))


def varied(model: nn.Module) -> nn.Module:
    """BatchNorm statistics as training leaves them."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.uniform_(-1, 1)
                module.running_var.uniform_(0.1, 4)
                nn.init.uniform_(module.weight, 0.2, 2)
                nn.init.uniform_(module.bias, -1, 1)
    return model.eval().double()


def test_a_folded_model_computes_the_same_without_batchnorm() -> None:
    model = varied(Depthwise(4))
    x = torch.randn(3, 1, 16, 16, dtype=torch.float64)
    captured = trace(model, x[:1])
    made = folded(captured)
    torch.testing.assert_close(made.module(x), model(x), rtol=1e-9, atol=1e-9)
    assert not [node for node in made.graph.nodes if node.base == "batch_norm"]
    assert [layer.name for layer in layers(made.module)] == [f"units.{i}.0" for i in range(5)] + ["head"]
    assert all(layer.bias for layer in layers(made.module))
    assert [node for node in captured.graph.nodes if node.base == "batch_norm"]  # the argument is as it was


def test_a_batchnorm_that_is_not_alone_behind_its_layer_stays() -> None:
    model = varied(Odd())
    x = torch.randn(3, 4, 5, 5, dtype=torch.float64)
    made = folded(trace(model, x[:1]))
    torch.testing.assert_close(made.module(x), model(x), rtol=1e-9, atol=1e-9)
    assert len([node for node in made.graph.nodes if node.base == "batch_norm"]) == 3


def test_a_bias_that_a_layer_did_not_have_is_added_and_computes() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 1, bias=False)).eval()
    x = torch.randn(1, 2, 4, 4)
    made = with_tensors(trace(model, x), {"0.bias": torch.tensor([1.0, 2.0, 3.0])})
    torch.testing.assert_close(made.module(x), model(x) + torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1))
    assert attribute(made.module, "0.bias").requires_grad
