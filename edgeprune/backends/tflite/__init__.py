"""TFLite files, run by LiteRT with XNNPACK. Images are channel-last inside; int8 files are int8 at both ends."""

from __future__ import annotations

from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.backends import Array, Artifact, Inspection, Precision, describe
from edgeprune.device.networks import Network
from edgeprune.device.ops import Op
from edgeprune.errors import UsageError, missing_extra

if TYPE_CHECKING:
    import torch

    from edgeprune.quantization.ranges import RangePolicy
    from edgeprune.target import Target

NAME = "tflite"
EXTRA = "tflite"
SUFFIXES: tuple[str, ...] = (".tflite",)
RUNTIME = "tflite"
PRECISIONS: tuple[Precision, ...] = ("int8", "fp32")
WEIGHT_LIMIT = 127
FLOAT_LAYERS = ""
ON_REQUEST = False


def missing() -> str:
    """Why it cannot run files here; empty when it can."""
    return "" if find_spec("ai_edge_litert") else "the package ai-edge-litert is not installed"


def export(
    model: torch.nn.Module,
    example: Array,
    folder: Path,
    precision: Precision,
    calibration: Array | None = None,
    ranges: RangePolicy | None = None,
    target: Target | None = None,
    in_float: Collection[str] = (),
) -> Artifact:
    """Write `model_fp32.tflite`, and for int8 `model.tflite` beside it.

    Args:
        example: One input (1, ...) float32; four axes are an image, NCHW.
        calibration: Samples (n, ...) float32, needed for int8.
        ranges: Minimum and maximum when None.
        in_float: Paths of weights in the model whose layers stay float in an int8 file.

    Raises:
        MissingExtraError: The converter is not installed.
        UnsupportedError: The model cannot be converted, or holds no layer that is to stay float.
        UsageError: Int8 without calibration samples.
    """
    from edgeprune.conversion import tflite_file
    from edgeprune.conversion.torch_graph import weights_of
    from edgeprune.quantization.ranges import RangePolicy

    float_path = folder / "model_fp32.tflite"
    if precision == "int8" and calibration is None:
        raise UsageError("int8 needs calibration samples", hint="pass 100 or more training samples")
    tflite_file.write_float(model, example, float_path)
    if precision == "fp32":
        return describe(NAME, float_path, precision)
    assert calibration is not None
    kept = weights_of(model, in_float)
    path = folder / "model.tflite"
    tflite_file.write_int8(float_path, path, calibration, ranges or RangePolicy(), kept)
    return describe(NAME, path, precision, float_ops=inspect(path).float_ops)


class TfliteSession:
    """A loaded .tflite file; see `edgeprune.backends.Session`."""

    def __init__(self, path: Path, threads: int) -> None:
        self._interpreter = interpreter(path, threads)
        self._input = self._interpreter.get_input_details()[0]
        self._output = self._interpreter.get_output_details()[0]
        self.runtime = RUNTIME
        self.runtime_version = _version()
        self.threads = threads
        self.precision = "int8" if self._input["dtype"] is np.int8 or _has_int8(self._interpreter) else "fp32"

    def run(self, inputs: Array) -> Array:
        """Outputs (n, ...) of the first output for inputs (n, ...) float32, one sample at a time."""
        return np.concatenate([self._run_one(sample[None]) for sample in inputs])

    def _run_one(self, sample: Array) -> Array:
        image = sample.transpose(0, 2, 3, 1) if _is_channel_last(sample.shape, self._input["shape"]) else sample
        if image.shape != tuple(self._input["shape"]):
            raise UsageError(
                f"the file takes {_times(self._input['shape'])}, the sample is {_times(sample.shape)}",
                hint="give samples as the model was exported for",
            )
        self._interpreter.set_tensor(self._input["index"], quantize(np.ascontiguousarray(image), self._input))
        self._interpreter.reset_all_variables()  # samples know nothing of each other
        self._interpreter.invoke()
        output = dequantize(self._interpreter.get_tensor(self._output["index"]), self._output)
        return output.transpose(0, 3, 1, 2) if output.ndim == 4 else output


def load(path: Path, threads: int = 1) -> TfliteSession:
    """The file as LiteRT runs it on `threads` threads.

    Raises:
        MissingExtraError: The runtime is not installed.
        UsageError: The file is missing or not a TFLite model.
    """
    return TfliteSession(path, threads)


def read_ops(path: Path) -> tuple[Op, ...]:
    """The operators in the file, in order, explicit padding and transposes included.

    Raises:
        MissingExtraError: The schema is not installed.
        UsageError: The file is missing or not a TFLite model.
    """
    from edgeprune.backends.tflite.flatbuffer import read

    return read(path).ops


def inspect(path: Path) -> Inspection:
    """Number formats, layout operators and bias scales of the file.

    Raises:
        MissingExtraError: The schema is not installed.
        UsageError: The file is missing or not a TFLite model.
    """
    from edgeprune.backends.tflite.flatbuffer import read

    return read(path).inspection


def time_ops(path: Path, inputs: Array | None, runs: int, threads: int) -> tuple[tuple[str, str, float], ...]:
    """(name, type, mean seconds per inference) as XNNPACK reports them; empty when its profiler does not work.

    The runtime's own buffers are used as input: operator times do not depend on the values.
    """
    from edgeprune.backends.tflite.op_profiler import time_in_child

    return time_in_child(path, runs, threads)


def write_network(network: Network, path: Path, precision: Precision) -> None:
    """Write a network described by sizes alone, with random weights.

    Raises:
        MissingExtraError: The schema is not installed.
        UnsupportedError: A layer is of a kind that cannot be written.
    """
    from edgeprune.backends.tflite.writer import write

    write(network, path, precision)


def arena_bytes(path: Path) -> int:
    """Bytes of the activation arena that the reference kernels plan, which is what a microcontroller needs.

    Raises:
        MissingExtraError: The runtime is not installed.
        UsageError: The file is missing or not a TFLite model.
    """
    reference = interpreter(path, 1, reference=True)
    indices = {int(i) for op in reference._get_ops_details() for i in op["outputs"]}
    indices |= {int(tensor["index"]) for tensor in reference.get_input_details()}
    spans = []
    for index in indices:
        view = reference.tensor(index)()
        start = view.__array_interface__["data"][0]
        spans.append((start, start + view.nbytes))
        del view
    return int(max(end for _, end in spans) - min(start for start, _ in spans))


def interpreter(path: Path, threads: int, *, reference: bool = False, preserve: bool = False) -> Any:
    """A LiteRT interpreter with its tensors allocated.

    Args:
        reference: The plain kernels and no delegate.
        preserve: Every activation can be read after a run; no delegate either.

    Raises:
        MissingExtraError: The runtime is not installed.
        UsageError: The file is missing or not a TFLite model.
    """
    from edgeprune.conversion.chatter import quiet

    if not path.is_file():
        raise UsageError("there is no such model file", where=str(path))
    with quiet(f"loading {path.name}", refuse=UsageError):
        try:
            from ai_edge_litert.interpreter import Interpreter, OpResolverType
        except ImportError as error:
            raise missing_extra("tflite", "running .tflite files") from error
        resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if preserve else OpResolverType.AUTO
        resolver = OpResolverType.BUILTIN_REF if reference else resolver
        loaded = Interpreter(
            str(path),
            num_threads=threads,
            experimental_op_resolver_type=resolver,
            experimental_preserve_all_tensors=preserve,
        )
        loaded.allocate_tensors()
    return loaded


def values(path: Path, samples: Array) -> dict[str, Array]:
    """What activations hold, as LiteRT's kernels compute them without a delegate.

    Raises:
        MissingExtraError: The runtime is not installed.
        UsageError: The file is missing or not a TFLite model.
    """
    loaded = interpreter(path, 1, preserve=True)
    source = loaded.get_input_details()[0]
    details = {tensor["index"]: tensor for tensor in loaded.get_tensor_details()}
    written = [int(index) for op in loaded._get_ops_details() for index in op["outputs"]]
    indices = [source["index"], *(index for index in dict.fromkeys(written) if details[index]["shape"].size)]
    found: dict[int, list[Array]] = {index: [] for index in indices}
    for sample in samples:
        whole = sample[None]
        image = whole.transpose(0, 2, 3, 1) if _is_channel_last(whole.shape, source["shape"]) else whole
        loaded.set_tensor(source["index"], quantize(np.ascontiguousarray(image), source))
        loaded.invoke()
        for index in indices:
            held = dequantize(loaded.get_tensor(index), details[index])
            found[index].append(held.transpose(0, 3, 1, 2) if held.ndim == 4 else held)
    return {str(details[index]["name"]): np.concatenate(runs) for index, runs in found.items()}


def quantize(values: Array, tensor: dict[str, Any]) -> Array:
    """Float values in the number format of the tensor."""
    kind = tensor["dtype"]
    scale, zero = tensor["quantization"]
    if np.dtype(kind).kind == "f" or scale == 0:
        return values.astype(kind)
    limits = np.iinfo(kind)
    levels: Array = np.clip(np.round(values / scale) + zero, limits.min, limits.max).astype(kind)
    return levels


def dequantize(values: Array, tensor: dict[str, Any]) -> Array:
    """Values of the tensor as float32."""
    scale, zero = tensor["quantization"]
    if values.dtype.kind == "f" or scale == 0:
        return values.astype(np.float32)
    floats: Array = ((values.astype(np.float32) - zero) * scale).astype(np.float32)
    return floats


def _is_channel_last(sample: tuple[int, ...], shape: Array) -> bool:
    return len(sample) == 4 and len(shape) == 4 and tuple(shape) == (sample[0], sample[2], sample[3], sample[1])


def _has_int8(loaded: Any) -> bool:
    weights = [tensor for tensor in loaded.get_tensor_details() if len(tensor["shape"]) >= 2]
    return any(tensor["dtype"] is np.int8 for tensor in weights)


def _times(shape: Any) -> str:
    return "×".join(str(size) for size in shape)


def _version() -> str:
    from importlib.metadata import version

    return version("ai-edge-litert")
