"""From a torch model to an ONNX file: float, and full-integer int8 as a QDQ graph.

Activations are unsigned and weights signed per-channel int8: with signed activations the x86 kernels of ONNX Runtime
leave most convolutions in float. Weights keep to seven of their eight bits: x86 CPUs without VNNI add two products of
an unsigned and a signed byte in 16 bits and saturate, which 2 * 255 * 127 overflows and 2 * 255 * 64 does not. So a
file gives the same answers wherever it goes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.conversion.chatter import quiet
from edgeprune.conversion.torch_graph import names_holding, prepare
from edgeprune.quantization.ranges import Range, RangePolicy, observe

if TYPE_CHECKING:
    import onnx
    import torch

Array = np.ndarray[Any, np.dtype[Any]]

OPSET = 18
INPUT, OUTPUT = "input", "output"


def write_float(model: torch.nn.Module, example: Array, path: Path) -> None:
    """Write the float32 ONNX file for batch one; BatchNorm is folded by the exporter.

    Raises:
        UnsupportedError: The model cannot be captured or converted.
    """
    import onnx
    import torch

    graph_module = prepare(model, example)
    with quiet("converting to ONNX"), torch.no_grad():
        program = torch.onnx.export(
            graph_module,
            (torch.from_numpy(example[:1]),),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
        assert program is not None
        proto = program.model_proto
        _pool_instead_of_mean(proto)
        onnx.save(proto, path)


def _pool_instead_of_mean(model: onnx.ModelProto) -> None:
    """ONNX Runtime has an int8 kernel for global pooling, none for the mean that the exporter writes."""
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "ReduceMean" or len(node.input) < 2 or node.input[1] not in constants:
            continue
        axes = numpy_helper.to_array(constants[node.input[1]]).tolist()
        keeps = all(attribute.i == 1 for attribute in node.attribute if attribute.name == "keepdims")
        if keeps and sorted(axes) in ([2, 3], [-2, -1]):
            node.op_type = "GlobalAveragePool"
            del node.input[1:]
            del node.attribute[:]


def write_int8(
    float_path: Path, path: Path, calibration: Array, policy: RangePolicy, in_float: Collection[Array] = ()
) -> None:
    """Write the int8 QDQ file of a float ONNX file.

    Args:
        calibration: Samples (n, ...) float32 as the model takes them.
        in_float: Weights of layers that stay float, with their activation.

    Raises:
        UnsupportedError: The quantiser cannot handle the graph, or it has no such weight.
        UsageError: No calibration samples.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder, quiet("quantising the ONNX graph"):
        ready = Path(folder) / "preprocessed.onnx"
        quant_pre_process(str(float_path), str(ready), skip_symbolic_shape=True)
        graph = onnx.load(ready)
        in_float_nodes = _set_apart(graph, in_float)
        ranges = tensor_ranges(graph, calibration, policy)
        data = {
            name: TensorData(lowest=np.float32(lo).reshape(()), highest=np.float32(hi).reshape(()))
            for name, (lo, hi) in ranges.items()
        }
        quantizer = QDQQuantizer(
            graph,
            per_channel=True,
            reduce_range=True,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=TensorsData(CalibrationMethod.MinMax, data),
            nodes_to_quantize=[],
            nodes_to_exclude=in_float_nodes,
            op_types_to_quantize=sorted({*QLinearOpsRegistry, *QDQRegistry}),
            extra_options={},
        )
        quantizer.quantize_model()
        onnx.save(quantizer.model.model, path)


def _set_apart(model: onnx.ModelProto, weights: Collection[Array]) -> list[str]:
    """Names of the nodes to leave in float: those that read these weights, and a clipped-linear activation behind.

    ONNX Runtime rounds the float weights of a layer that stands between two quantised tensors. A sum of one term
    before it, which no optimiser takes out and which costs a copy, keeps the layer as it is. Edits the graph.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    holding = names_holding(weights, {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer})
    chosen: list[str] = []
    for at, node in reversed(list(enumerate(graph.node))):
        if not holding & set(node.input):
            continue
        clips = [user for user in graph.node if user.op_type in ("Relu", "Clip") and user.input[0] in node.output]
        alone = f"{node.name}_in_float"
        place = next(i for i, name in enumerate(node.input) if name not in holding)
        before, node.input[place] = node.input[place], alone
        graph.node.insert(at, helper.make_node("Sum", [before], [alone], name=alone))
        chosen += [node.name, alone, *(clip.name for clip in clips)]
    return chosen


def tensor_ranges(graph: onnx.ModelProto, calibration: Array, policy: RangePolicy) -> dict[str, Range]:
    """Ranges of every float activation of the graph over the calibration samples."""
    import onnx
    import onnxruntime

    probe = onnx.ModelProto()
    probe.CopyFrom(graph)
    known = {output.name for output in probe.graph.output}
    inner = [name for node in probe.graph.node for name in node.output if name and name not in known]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = session.get_inputs()[0].name
    names = [output.name for output in session.get_outputs() if output.type == "tensor(float)"]

    def samples() -> Iterator[dict[str, Array]]:
        for sample in calibration:
            values = session.run(names, {feed: sample[None]})
            yield {feed: sample, **{name: value for name, value in zip(names, values) if value.size}}

    return observe(samples, policy)
