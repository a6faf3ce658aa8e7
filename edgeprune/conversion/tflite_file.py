"""From a torch model to a TFLite file: float with channel-last images, and full-integer int8 with int8 in and out."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.conversion.chatter import quiet
from edgeprune.conversion.torch_graph import flatten_channel_last, names_holding, prepare
from edgeprune.errors import missing_extra
from edgeprune.quantization.ranges import Range, RangePolicy, observe

if TYPE_CHECKING:
    import torch

Array = np.ndarray[Any, np.dtype[Any]]


def write_float(model: torch.nn.Module, example: Array, path: Path) -> None:
    """Write the float32 .tflite file for batch one. Images are (1, H, W, C) inside.

    Raises:
        MissingExtraError: The converter is not installed.
        UnsupportedError: The model cannot be captured or converted.
    """
    import torch

    graph_module = prepare(model, example)
    spatial = example.ndim == 4
    if spatial:
        graph_module = flatten_channel_last(graph_module)
    with quiet("converting to TFLite"), torch.no_grad():
        try:
            import litert_torch
        except ImportError as error:
            raise missing_extra("tflite", "converting to TFLite") from error
        sample = torch.from_numpy(example[:1])
        if spatial:
            images_out = graph_module(sample).ndim == 4
            module = litert_torch.to_channel_last_io(graph_module, args=[0], outputs=[0] if images_out else None)
            module.eval()
            sample = sample.permute(0, 2, 3, 1).contiguous()
        else:
            module = graph_module
        litert_torch.convert(module, (sample,)).export(str(path))


def write_int8(
    float_path: Path, path: Path, calibration: Array, policy: RangePolicy, in_float: Collection[Array] = ()
) -> None:
    """Write the full-integer file of a float .tflite file, with our ranges.

    Args:
        calibration: Samples (n, ...) float32 as the torch model takes them.
        in_float: Weights of layers that stay float, with their activation.

    Raises:
        MissingExtraError: The quantiser is not installed.
        UnsupportedError: The quantiser cannot handle the graph, or it has no such weight.
        UsageError: No calibration samples.
    """
    with quiet("quantising the TFLite graph"):
        try:
            from ai_edge_quantizer import qtyping, quantizer, recipe
        except ImportError as error:
            raise missing_extra("tflite", "quantising for TFLite") from error
        ranges, ranks = tensor_ranges(float_path, calibration, policy)
        values = {
            name: {
                "min": np.full((1,) * ranks[name], lo, np.float32),
                "max": np.full((1,) * ranks[name], hi, np.float32),
            }
            for name, (lo, hi) in ranges.items()
        }
        tool = quantizer.Quantizer(str(float_path))
        tool.load_quantization_recipe(recipe.static_wi8_ai8())
        for name in _results_of(float_path, in_float):
            tool.update_quantization_recipe(
                f"^{re.escape(name)}(;|$)", qtyping.TFLOperationName.ALL_SUPPORTED, None, "no_quantize"
            )
        path.write_bytes(bytes(tool.quantize(values).quantized_model))


def _results_of(float_path: Path, weights: Collection[Array]) -> list[str]:
    """Names of the tensors that the operators with these weights write: what the quantiser knows operators by."""
    if not weights:
        return []
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(str(float_path), experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    interpreter.allocate_tensors()
    operators = interpreter._get_ops_details()
    details = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
    written = {int(index) for op in operators for index in op["outputs"]}
    read = {int(index) for op in operators for index in op["inputs"] if int(index) >= 0} - written
    read -= {int(tensor["index"]) for tensor in interpreter.get_input_details()}
    constants = {str(details[index]["name"]): interpreter.get_tensor(index) for index in read}
    holding = names_holding(weights, constants)
    return [
        str(details[int(op["outputs"][0])]["name"])
        for op in operators
        if any(int(index) in read and str(details[int(index)]["name"]) in holding for index in op["inputs"])
    ]


def tensor_ranges(float_path: Path, calibration: Array, policy: RangePolicy) -> tuple[dict[str, Range], dict[str, int]]:
    """Ranges and ranks of every float activation of a float .tflite file over the calibration samples."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        str(float_path),
        num_threads=1,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]
    details = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
    operators = interpreter._get_ops_details()
    inner = [int(index) for op in operators for index in op["outputs"]]
    padded = {int(index) for op in operators if op["op_name"] == "PADV2" for index in op["outputs"]}
    inner = [index for index in inner if details[index]["dtype"] is np.float32]
    names = {index: str(details[index]["name"]) for index in [source["index"], *inner]}

    def samples() -> Iterator[dict[str, Array]]:
        for sample in calibration:
            image = sample.transpose(1, 2, 0) if sample.ndim == 3 else sample
            interpreter.set_tensor(source["index"], np.ascontiguousarray(image[None], np.float32))
            interpreter.invoke()
            values = {index: interpreter.get_tensor(index) for index in names}
            # Max pooling is padded with minus infinity, which int8 replaces by the low end of the range.
            values |= {index: values[index][values[index] != -np.inf] for index in padded & set(values)}
            yield {names[index]: value for index, value in values.items()}

    ranges = observe(samples, policy)
    return ranges, {names[index]: len(details[index]["shape"]) for index in names}
