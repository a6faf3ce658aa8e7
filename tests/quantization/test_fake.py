"""The grid in torch is the grid of the files; sensitivity, correction and training stand on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune import backends
from edgeprune.pruning.curves import relative_error
from edgeprune.pruning.trace import attribute, trace
from edgeprune.quantization.correct import channel_means, corrected
from edgeprune.quantization.fake import FakeRange, fake_weight, quantised, quantised_nodes
from edgeprune.quantization.gates import snr_db
from edgeprune.quantization.layers import folded, layers
from edgeprune.quantization.observed import node_ranges
from edgeprune.quantization.ranges import RangePolicy, rounded
from edgeprune.quantization.sensitivity import sensitivity
from tests.quantization.nets import Depthwise
from tests.quantization.test_folding import varied

POLICY = RangePolicy()


def test_an_activation_lies_on_256_levels_with_zero_among_them() -> None:
    values = torch.linspace(-1.3, 2.1, 4001)
    made = FakeRange((-1.0, 2.0)).eval()(values)
    assert len(made.unique()) == 256 and (made == 0).any()
    np.testing.assert_allclose(made.numpy(), rounded(values.numpy().astype(np.float64), (-1.0, 2.0)), atol=1e-6)


def test_gradients_go_straight_through_within_the_range_and_nowhere_beyond() -> None:
    values = torch.tensor([-2.0, -0.5, 0.3, 5.0], requires_grad=True)
    FakeRange((-1.0, 2.0)).eval()(values).sum().backward()
    assert values.grad is not None and values.grad.tolist() == [0, 1, 1, 0]


def test_a_range_follows_training_batches_only() -> None:
    module = FakeRange((-1.0, 1.0))
    module.eval()(torch.tensor([-9.0, 9.0]))
    assert (module.low, module.high) == (-1, 1)
    module.train()(torch.tensor([0.5, 3.0]))
    assert module.low == pytest.approx(-0.99) and module.high == pytest.approx(1.02)


def test_a_weight_has_one_scale_per_output_channel() -> None:
    weight = torch.tensor([[1.0, -0.26, 0.126], [100.0, 50.2, 0.0], [0.0, 0.0, 0.0]])
    made = fake_weight(weight, 0, 4)
    assert made.tolist() == [[1.0, -0.25, 0.25], [100.0, 50.0, 0.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", pytest.param("tflite", marks=pytest.mark.slow)])
def test_one_layers_file_gives_the_integers_of_the_grid(name: str, tmp_path: Path) -> None:
    backend = backends.get(name)
    if reason := backend.missing():
        pytest.skip(reason)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()).eval()
        x = torch.randn(16, 3, 8, 8)
    captured = folded(trace(model, x[:1]))
    ranges = node_ranges(captured.module, quantised_nodes(captured), x, POLICY)
    with torch.no_grad():
        fake = quantised(captured, ranges, backend.WEIGHT_LIMIT).module(x).numpy()
    artifact = backend.export(captured.module, x[:1].numpy(), tmp_path, "int8", x.numpy(), POLICY)
    answers = backend.load(artifact.path).run(x.numpy())
    (end,) = (ranges[name] for name in quantised_nodes(captured)[1:])
    steps = np.round((answers - fake) / ((end[1] - end[0]) / 255))
    assert np.abs(steps).max() <= 1 and np.mean(steps != 0) < 0.01  # ties and fixed-point factors


@pytest.mark.parametrize("name", ["onnxruntime", pytest.param("tflite", marks=pytest.mark.slow)])
def test_a_whole_net_on_the_grid_is_closer_to_its_file_than_the_float_model_is(name: str, tmp_path: Path) -> None:
    backend = backends.get(name)
    if reason := backend.missing():
        pytest.skip(reason)
    x = torch.randn(32, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    captured = folded(trace(varied(Depthwise(8)).float(), x[:1]))
    ranges = node_ranges(captured.module, quantised_nodes(captured), x, POLICY)
    with torch.no_grad():
        plain = captured.module(x).numpy()
        fake = quantised(captured, ranges, backend.WEIGHT_LIMIT).module(x).numpy()
    artifact = backend.export(captured.module, x[:1].numpy(), tmp_path, "int8", x.numpy(), POLICY)
    answers = backend.load(artifact.path).run(x.numpy())
    to_grid, to_float = snr_db(fake, answers), snr_db(plain, answers)
    assert to_grid is not None and to_float is not None and to_grid > to_float + 3


def test_correction_takes_the_mean_error_of_every_layer_away() -> None:
    x = torch.randn(32, 1, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    captured = folded(trace(varied(Depthwise(4)), x[:1]))
    ranges = node_ranges(captured.module, quantised_nodes(captured), x, POLICY)
    known = {layer.node: layer for layer in layers(captured.module)}
    wanted = channel_means(captured.module, known, x)

    def errors(model: object) -> dict[str, float]:
        means = channel_means(quantised(model, ranges, 7).module, known, x)  # type: ignore[arg-type]
        return {name: float((means[name] - wanted[name]).abs().max()) for name in known}

    before, after = errors(captured), errors(corrected(captured, x, POLICY, 7))
    assert min(before.values()) > 1e-4 and max(after.values()) < 1e-12


def test_the_layer_that_int8_hurts_is_the_most_sensitive() -> None:
    model = varied(Depthwise(8)).float()
    with torch.no_grad():
        model.units[2][0].weight[:, 0] *= 300  # leaves the other inputs of each channel no steps
        model.units[1][1].weight[0] /= 300
        model.units[1][1].bias[0] /= 300
    x = torch.rand(64, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    captured = folded(trace(model, x[:1]))
    ranges = node_ranges(captured.module, quantised_nodes(captured), x, POLICY)
    found = sensitivity(captured, ranges, x, 127, relative_error)
    assert next(iter(found)) == "units.2.0.weight" and set(found) == {layer.weight for layer in layers(captured.module)}
    assert list(found.values()) == sorted(found.values(), reverse=True)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(6, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.gru(x)[0][:, -1])


def test_a_recurrent_layer_stays_float_on_the_grid() -> None:
    x = torch.randn(8, 5, 6, generator=torch.Generator().manual_seed(0))
    captured = folded(trace(Recurrent().eval(), x[:1]))
    ranges = node_ranges(captured.module, quantised_nodes(captured), x, POLICY)
    assert [layer.name for layer in layers(captured.module)] == ["head"]
    with torch.no_grad():
        ratio = snr_db(captured.module(x).numpy(), quantised(captured, ranges, 127).module(x).numpy())
    assert ratio is not None and ratio > 25


def test_the_float_model_is_left_alone() -> None:
    x = torch.randn(4, 1, 16, 16)
    captured = folded(trace(Depthwise(4).eval(), x[:1]))
    before = {name: value.clone() for name, value in captured.module.state_dict().items()}
    code = captured.module.code
    corrected(captured, x, POLICY, 127)
    assert captured.module.code == code
    assert all(torch.equal(attribute(captured.module, name), value) for name, value in before.items())
