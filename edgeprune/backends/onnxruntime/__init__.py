"""ONNX files, run by ONNX Runtime on the CPU. Int8 is a QDQ graph with float inputs and outputs."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Collection
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.backends import Array, Artifact, Inspection, Precision, describe, noise
from edgeprune.device.ops import Op
from edgeprune.errors import UsageError, missing_extra

if TYPE_CHECKING:
    import onnxruntime
    import torch

    from edgeprune.quantization.ranges import RangePolicy
    from edgeprune.target import Target

NAME = "onnxruntime"
EXTRA = ""
SUFFIXES: tuple[str, ...] = (".onnx",)
RUNTIME = "onnxruntime"
PRECISIONS: tuple[Precision, ...] = ("int8", "fp32")
WEIGHT_LIMIT = 64  # seven bits and a sign, see `conversion.onnx_file`
FLOAT_LAYERS = ""
ON_REQUEST = False


def missing() -> str:
    """Why it cannot run files here; empty when it can."""
    return "" if find_spec("onnxruntime") else "the package onnxruntime is not installed"


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
    """Write `model_fp32.onnx`, and for int8 `model.onnx` beside it.

    Args:
        example: One input (1, ...) float32.
        calibration: Samples (n, ...) float32, needed for int8.
        ranges: Minimum and maximum when None.
        in_float: Paths of weights in the model whose layers stay float in an int8 file.

    Raises:
        UnsupportedError: The model cannot be converted, or holds no layer that is to stay float.
        UsageError: Int8 without calibration samples.
    """
    from edgeprune.conversion import onnx_file
    from edgeprune.conversion.torch_graph import weights_of
    from edgeprune.quantization.ranges import RangePolicy

    float_path = folder / "model_fp32.onnx"
    if precision == "int8" and calibration is None:
        raise UsageError("int8 needs calibration samples", hint="pass 100 or more training samples")
    onnx_file.write_float(model, example, float_path)
    if precision == "fp32":
        return describe(NAME, float_path, precision)
    assert calibration is not None
    kept = weights_of(model, in_float)
    path = folder / "model.onnx"
    onnx_file.write_int8(float_path, path, calibration, ranges or RangePolicy(), kept)
    return describe(NAME, path, precision, float_ops=inspect(path).float_ops)


class OnnxRuntimeSession:
    """A loaded .onnx file; see `edgeprune.backends.Session`."""

    def __init__(self, path: Path, threads: int) -> None:
        onnxruntime = _runtime()
        self.runtime = RUNTIME
        self.runtime_version = str(onnxruntime.__version__)
        self.threads = threads
        self._session = _session(path, threads)
        self._input = self._session.get_inputs()[0]
        self.precision = _precision(path)

    def run(self, inputs: Array) -> Array:
        """Outputs (n, ...) of the first output for inputs (n, ...) float32, one sample at a time."""
        values = [self._session.run(None, {self._input.name: sample[None]})[0] for sample in inputs.astype(np.float32)]
        return np.concatenate(values).astype(np.float32)


def load(path: Path, threads: int = 1) -> OnnxRuntimeSession:
    """The file as ONNX Runtime runs it on `threads` threads.

    Raises:
        UsageError: The file is missing or not an ONNX model.
    """
    return OnnxRuntimeSession(path, threads)


def read_ops(path: Path) -> tuple[Op, ...]:
    """The operators of the graph after ONNX Runtime's fusions, in order.

    Raises:
        UsageError: The file is missing or not an ONNX model.
    """
    from edgeprune.backends.onnxruntime.optimized import read

    return read(path).ops


def inspect(path: Path) -> Inspection:
    """Number formats after ONNX Runtime's fusions: what is not fused into an integer operator runs in float.

    Raises:
        UsageError: The file is missing or not an ONNX model.
    """
    from edgeprune.backends.onnxruntime.optimized import read

    return read(path).inspection


def time_ops(path: Path, inputs: Array | None, runs: int, threads: int) -> tuple[tuple[str, str, float], ...]:
    """(node name, type, mean seconds per inference) from ONNX Runtime's profiler.

    Args:
        inputs: Samples (n, ...) float32, used in turn; noise when None.
    """
    with tempfile.TemporaryDirectory() as folder:
        session = _session(path, threads, profile=str(Path(folder) / "ort"))
        source = session.get_inputs()[0]
        if inputs is None:
            inputs = noise(tuple(size if isinstance(size, int) and size > 0 else 1 for size in source.shape))
        for index in range(runs):
            session.run(None, {source.name: inputs[index % len(inputs)][None].astype(np.float32)})
        events = json.loads(Path(session.end_profiling()).read_text())
    totals: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            key = event["name"].removesuffix("_kernel_time"), event["args"]["op_name"]
            totals[key].append(event["dur"] * 1e-6)
    return tuple((node, kind, float(np.mean(seconds))) for (node, kind), seconds in totals.items())


def values(path: Path, samples: Array) -> dict[str, Array]:
    """What activations hold, as ONNX Runtime computes them; of an int8 file those that are rounded, and float ones.

    Raises:
        UsageError: The file is missing or not an ONNX model.
    """
    import onnx

    _session(path, 1)  # a clear refusal of what is no model
    model = onnx.load(path)
    constants = {tensor.name for tensor in model.graph.initializer}
    entries = {entry.name for entry in model.graph.input} - constants
    shown = {}  # what is read out -> what it is called
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] not in constants:
            shown[node.output[0]] = node.output[0].removesuffix("_DequantizeLinear_Output")
        elif node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            shown |= {name: name for name in node.output if name}
    rounded = {node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    shown = {name: called for name, called in shown.items() if name not in rounded or name in entries}
    known = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in shown if name not in known)
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder) / "probe.onnx"
        onnx.save(model, probe)
        session = _session(probe, 1)
        feed = session.get_inputs()[0].name
        names = [output.name for output in session.get_outputs() if output.type == "tensor(float)"]
        runs = [session.run(names, {feed: sample[None].astype(np.float32)}) for sample in samples]
    stacked = {
        name: np.concatenate([run[i] for run in runs])
        for i, name in enumerate(names)
        if name in shown and np.ndim(runs[0][i])
    }
    order = [feed, *(name for node in model.graph.node for name in node.output)]
    return {shown[name]: stacked[name] for name in sorted(stacked, key=_made(order, shown))}


def _made(order: list[str], shown: dict[str, str]) -> Callable[[str], int]:
    """When a value was computed: quantisers stand behind all other nodes in a file."""
    first = {name: place for place, name in enumerate(order)}
    return lambda name: min(first.get(shown[name], len(order)), first.get(name, len(order)))


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise missing_extra("all", "running .onnx files") from error
    return onnxruntime


def _session(path: Path, threads: int, profile: str = "") -> onnxruntime.InferenceSession:
    onnxruntime = _runtime()
    if not path.is_file():
        raise UsageError("there is no such model file", where=str(path))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = profile
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise UsageError(
            f"ONNX Runtime cannot load it: {str(error).splitlines()[0][:300]}",
            where=str(path),
            hint="is it a whole .onnx file with its weights inside?",
        ) from error


def _precision(path: Path) -> str:
    import onnx

    types = {node.op_type for node in onnx.load(path).graph.node}
    return "int8" if types & {"QuantizeLinear", "QLinearConv", "QLinearMatMul"} else "fp32"
