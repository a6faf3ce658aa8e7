from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgeprune import backends
from edgeprune.conversion import onnx_file
from edgeprune.quantization.ranges import RangePolicy

onnxruntime = backends.get("onnxruntime")


@pytest.mark.parametrize("net", ["residual", "depthwise", "excite"])
def test_every_layer_with_weights_runs_in_integers(net: str, exported: Any) -> None:
    inspection = onnxruntime.inspect(exported("onnxruntime", net).path)
    assert inspection.float_macs == 0
    expected = {"excite": {"HardSigmoid"}}.get(net, set())
    assert {name.split()[0] for name in inspection.float_ops} == expected


def test_an_int8_export_leaves_the_float_file_beside_it(exported: Any, small_net: Any) -> None:
    artifact, net = exported("onnxruntime", "residual"), small_net("residual")
    float_path = artifact.path.with_name("model_fp32.onnx")
    assert np.allclose(onnxruntime.load(float_path).run(net.samples), net.answers, atol=1e-5)
    assert float_path.stat().st_size > 1.5 * artifact.size_bytes


def test_a_mean_over_the_image_becomes_pooling_which_has_an_int8_kernel(exported: Any) -> None:
    kinds = [op.kind for op in onnxruntime.read_ops(exported("onnxruntime", "depthwise").path)]
    assert kinds == ["quantize", "conv", "depthwise", "conv", "mean", "dense", "quantize"]


def test_ranges_of_the_policy_are_those_in_the_file(exported: Any, small_net: Any, tmp_path: Path) -> None:
    """The scale of the input is (hi - lo) / 255 of the calibration samples."""
    import onnx
    from onnx import numpy_helper

    net = small_net("residual")
    float_path = exported("onnxruntime", "residual").path.with_name("model_fp32.onnx")
    for policy in (RangePolicy(), RangePolicy(method="percentile", percentile=99)):
        onnx_file.write_int8(float_path, tmp_path / "m.onnx", net.samples, policy)
        graph = onnx.load(tmp_path / "m.onnx").graph
        values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        first = next(node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == "input")
        from edgeprune.quantization.ranges import value_range

        lo, hi = value_range(net.samples, policy)
        assert values[first.input[1]] == pytest.approx((hi - lo) / 255, rel=1e-3)


def test_answers_do_not_depend_on_the_number_of_threads(exported: Any, small_net: Any) -> None:
    path, samples = exported("onnxruntime", "excite").path, small_net("excite").samples[:4]
    assert np.array_equal(onnxruntime.load(path, 1).run(samples), onnxruntime.load(path, 2).run(samples))


def test_weights_leave_a_bit_free_so_that_no_cpu_saturates(exported: Any) -> None:
    """Two products of a byte and a weight must fit 16 bits: some x86 kernels add them there."""
    model = onnx.load(exported("onnxruntime", "residual").path)
    weights = [numpy_helper.to_array(t) for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8]
    kernels = [values for values in weights if values.ndim > 1]
    assert len(kernels) >= 4
    assert max(int(np.abs(values.astype(int)).max()) for values in kernels) == 64
    assert 2 * 255 * 64 < 2**15
