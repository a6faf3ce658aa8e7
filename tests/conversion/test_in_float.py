"""Layers that shall stay float do, in the file that the runtime really executes, and all others are int8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edgeprune import backends
from edgeprune.conversion.torch_graph import names_holding
from edgeprune.errors import UnsupportedError
from edgeprune.ladder import Prepared
from edgeprune.pruning.trace import trace
from edgeprune.quantization.gates import check
from edgeprune.quantization.layers import folded
from edgeprune.quantization.ranges import RangePolicy
from tests.quantization.nets import Depthwise
from tests.quantization.test_folding import varied

KEPT = ("units.1.0.weight", "head.weight")  # a depthwise and a linear layer


@pytest.mark.parametrize(
    "name",
    ["onnxruntime", pytest.param("openvino", marks=pytest.mark.slow), pytest.param("tflite", marks=pytest.mark.slow)],
)
def test_the_named_layers_run_in_float_and_no_others(name: str, tmp_path: Path) -> None:
    backend = backends.get(name)
    if reason := backend.missing():
        pytest.skip(reason)
    x = torch.rand(16, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    captured = folded(trace(varied(Depthwise(4)).float(), x[:1]))
    prepared = Prepared(captured, in_float=KEPT)
    artifact = backend.export(captured.module, x[:1].numpy(), tmp_path, "int8", x.numpy(), RangePolicy(), in_float=KEPT)
    found = backend.inspect(artifact.path)
    assert found.float_macs == prepared.float_macs == 8 * 8 * 4 * 9 + 8 * 10
    with torch.no_grad():
        reference = captured.module(x).numpy()
    report = check(artifact, reference, x.numpy(), float_macs=prepared.float_macs)
    words = ("conv", "gemm", "fully", "matmul")
    heavy = [op for op in report.exceptions if any(word in op.split()[0].lower() for word in words)]
    assert len(heavy) == 2 and report.precision == "int8"


def test_a_c_library_has_no_float_to_leave_a_layer_in(tmp_path: Path) -> None:
    model, x = torch.nn.Linear(4, 2), np.zeros((1, 4), np.float32)
    with pytest.raises(UnsupportedError, match="computes in integers only, and weight shall stay float"):
        backends.get("c").export(model, x, tmp_path, "int8", x, RangePolicy(), in_float=("weight",))


def test_a_weight_is_found_in_any_order_of_its_elements_or_refused() -> None:
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    constants = {"turned": weight.T.copy(), "other": weight + 1, "whole": np.arange(6)}
    assert names_holding((weight,), constants) == {"turned"}
    with pytest.raises(UnsupportedError, match="holds no weight like the one of shape"):
        names_holding((weight * 2,), constants)
