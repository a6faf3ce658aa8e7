"""A file against its float model: every tensor finds its layer, and the layer that is broken is named."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from edgeprune import backends
from edgeprune.compared import compare, matched, plain_snr_db, scaled_snr_db
from edgeprune.errors import UnsupportedError, UsageError
from edgeprune.pruning.trace import Captured, attribute, trace
from edgeprune.quantization.equalise import equalised
from edgeprune.quantization.layers import folded, with_tensors
from edgeprune.quantization.ranges import RangePolicy
from tests.quantization.nets import Depthwise, unequal
from tests.quantization.test_folding import varied

BACKENDS = [
    "onnxruntime",
    pytest.param("openvino", marks=pytest.mark.slow),
    pytest.param("tflite", marks=pytest.mark.slow),
]


def samples(count: int = 16) -> torch.Tensor:
    return torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def net() -> Captured:
    return folded(trace(varied(Depthwise(4)).float(), samples(1)))


def written(name: str, captured: Captured, folder: Path, precision: Any = "int8") -> Path:
    backend = backends.get(name)
    if reason := backend.missing():
        pytest.skip(reason)
    x = samples().numpy()
    return backend.export(captured.module, x[:1], folder, precision, x, RangePolicy()).path


@pytest.mark.parametrize("name", BACKENDS)
def test_every_tensor_of_a_file_finds_its_layer(name: str, tmp_path: Path) -> None:
    captured = net()
    record = compare(written(name, captured, tmp_path), captured, samples())
    assert {row.layer for row in record.tensors} >= {f"units.{i}.0" for i in range(5)} | {"head"}
    assert not set(record.unmatched) & {row.node for row in record.tensors}
    assert all(row.snr_db is None or row.snr_db > 20 for row in record.tensors)
    ratios = [row.snr_db for row in record.tensors if row.snr_db is not None]
    assert ratios == sorted(ratios) and record.samples == 16


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "tflite"])
def test_the_layer_that_is_wrong_in_the_file_loses_most(name: str, tmp_path: Path) -> None:
    captured = net()
    weight = attribute(captured.module, "units.2.0.weight").detach()
    turned = weight.clone()
    turned[: len(weight) // 2] *= -1
    record = compare(written(name, with_tensors(captured, {"units.2.0.weight": turned}), tmp_path), captured, samples())
    assert max(record.tensors, key=lambda row: row.lost_db or 0.0).layer == "units.2.0"


@pytest.mark.slow
def test_a_float_file_is_equal_to_rounding(tmp_path: Path) -> None:
    captured = net()
    record = compare(written("onnxruntime", captured, tmp_path, "fp32"), captured, samples(4))
    assert all(row.snr_db is None or row.snr_db > 90 for row in record.tensors)
    assert len(record.tensors) >= 7


@pytest.mark.slow
def test_equalised_channels_are_seen_through(tmp_path: Path) -> None:
    captured = folded(trace(unequal(varied(Depthwise(4)).float(), 1.0), samples(1)))
    path = written("onnxruntime", equalised(captured), tmp_path)
    record = compare(path, captured, samples())
    by_layer = {row.layer: row for row in record.tensors}
    first = by_layer["units.0.0"]
    assert first.snr_db is not None and first.scaled_snr_db is not None
    assert first.scaled_snr_db > 20 > first.snr_db


def test_matches_keep_their_order_where_tensors_are_noise() -> None:
    random = np.random.default_rng(0)
    a, b, c = (random.standard_normal((4, 8)) for _ in range(3))
    noise = random.standard_normal((4, 8))
    assert matched({"a": a, "b": b, "c": c}, {"x": a + 0.01, "y": noise, "z": c}) == {"a": "x", "b": "y", "c": "z"}
    assert matched({"a": a}, {"x": np.zeros((4, 9))}) == {}


def test_ratios_by_hand() -> None:
    reference = np.array([[1.0, -2.0], [3.0, 4.0]])
    assert plain_snr_db(reference, reference) is None
    assert plain_snr_db(reference, reference * 1.1) == pytest.approx(20)
    assert plain_snr_db(np.zeros((2, 2)), reference) == -np.inf
    assert scaled_snr_db(reference, reference * np.array([10.0, 0.5])) in (None, pytest.approx(300, abs=60))


def test_what_is_not_this_models_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alien = SimpleNamespace(values=lambda path, samples: {"x": np.zeros((2, 7, 7))})
    monkeypatch.setattr(backends, "revealing", lambda name: alien)
    with pytest.raises(UsageError, match="no tensor of the file is like one"):
        compare(tmp_path / "model.onnx", net(), samples(2))


def test_what_cannot_be_looked_into_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="keeps its activations to itself"):
        backends.revealing("c")
