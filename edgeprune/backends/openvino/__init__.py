"""OpenVINO IR files (.xml with its .bin), run on the CPU in the precision they were exported for.

Int8 comes from the QDQ graph that the ONNX artifact is made of. OpenVINO computes in bf16 by default where the CPU
can; here the precision hint is always f32, so that an fp32 file is one and int8 files differ from it by design only.
"""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.backends import Array, Artifact, Inspection, Precision, describe, noise
from edgeprune.conversion.chatter import quiet
from edgeprune.device.ops import Op
from edgeprune.errors import UsageError, missing_extra

if TYPE_CHECKING:
    import torch

    from edgeprune.quantization.ranges import RangePolicy
    from edgeprune.target import Target

NAME = "openvino"
EXTRA = "openvino"
SUFFIXES: tuple[str, ...] = (".xml",)
RUNTIME = "openvino"
PRECISIONS: tuple[Precision, ...] = ("int8", "fp32")
WEIGHT_LIMIT = 64  # seven bits and a sign, see `conversion.onnx_file`
FLOAT_LAYERS = ""
ON_REQUEST = False

PRECISION_HINT = "f32"


def missing() -> str:
    """Why it cannot run files here; empty when it can."""
    return "" if find_spec("openvino") else "the package openvino is not installed"


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
    """Write `model_fp32.xml` or, for int8, `model.xml`, with the .bin beside it.

    Args:
        example: One input (1, ...) float32.
        calibration: Samples (n, ...) float32, needed for int8.
        ranges: Minimum and maximum when None.
        in_float: Paths of weights in the model whose layers stay float in an int8 file.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        UnsupportedError: The model cannot be converted, or holds no layer that is to stay float.
        UsageError: Int8 without calibration samples.
    """
    from edgeprune.conversion import onnx_file
    from edgeprune.conversion.torch_graph import weights_of
    from edgeprune.quantization.ranges import RangePolicy

    openvino = _runtime()
    if precision == "int8" and calibration is None:
        raise UsageError("int8 needs calibration samples", hint="pass 100 or more training samples")
    path = folder / ("model_fp32.xml" if precision == "fp32" else "model.xml")
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "float.onnx"
        onnx_file.write_float(model, example, source)
        if precision == "int8":
            assert calibration is not None
            kept = weights_of(model, in_float)
            onnx_file.write_int8(source, Path(scratch) / "int8.onnx", calibration, ranges or RangePolicy(), kept)
            source = Path(scratch) / "int8.onnx"
        with quiet("converting to OpenVINO"):
            openvino.save_model(openvino.convert_model(str(source)), str(path), compress_to_fp16=False)
    note = f"run with the precision hint {PRECISION_HINT}"
    float_ops = inspect(path).float_ops if precision == "int8" else ()
    return describe(NAME, path, precision, float_ops=float_ops, notes=(note,))


class OpenvinoSession:
    """A compiled .xml file; see `edgeprune.backends.Session`."""

    def __init__(self, path: Path, threads: int) -> None:
        from edgeprune.backends.openvino.executed import read_compiled

        self._compiled = compile_file(path, threads)
        self._request = self._compiled.create_infer_request()
        self.runtime = RUNTIME
        self.runtime_version = _version()
        self.threads = threads
        self.precision = read_compiled(self._compiled, path).precision

    def run(self, inputs: Array) -> Array:
        """Outputs (n, ...) of the first output for inputs (n, ...) float32, one sample at a time."""
        outputs = []
        for sample in inputs:
            self._request.infer({0: np.ascontiguousarray(sample[None], np.float32)})
            outputs.append(self._request.get_output_tensor(0).data.copy())
        return np.concatenate(outputs).astype(np.float32)


def load(path: Path, threads: int = 1) -> OpenvinoSession:
    """The file as OpenVINO's CPU plugin runs it on `threads` threads.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        UsageError: The file is missing or not an OpenVINO model.
    """
    return OpenvinoSession(path, threads)


def read_ops(path: Path) -> tuple[Op, ...]:
    """The operators that the CPU plugin runs, in order.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        UsageError: The file is missing or not an OpenVINO model.
    """
    from edgeprune.backends.openvino.executed import read_compiled

    return read_compiled(compile_file(path, 1), path).ops


def inspect(path: Path) -> Inspection:
    """The precision each operator really runs in.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        UsageError: The file is missing or not an OpenVINO model.
    """
    from edgeprune.backends.openvino.executed import read_compiled

    return read_compiled(compile_file(path, 1), path).inspection


def time_ops(path: Path, inputs: Array | None, runs: int, threads: int) -> tuple[tuple[str, str, float], ...]:
    """(name, type, mean seconds per inference) from the CPU plugin's counters.

    Args:
        inputs: Samples (n, ...) float32, used in turn; noise when None.
    """
    compiled = compile_file(path, threads, counters=True)
    request = compiled.create_infer_request()
    if inputs is None:
        inputs = noise(tuple(int(size) for size in compiled.input(0).get_shape()))
    totals: dict[tuple[str, str], float] = defaultdict(float)
    for index in range(runs):
        request.infer({0: np.ascontiguousarray(inputs[index % len(inputs)][None], np.float32)})
        for entry in request.profiling_info:
            if entry.status.name == "EXECUTED":
                totals[entry.node_name, entry.node_type] += entry.real_time.total_seconds()
    return tuple((name, kind, seconds / runs) for (name, kind), seconds in totals.items())


def values(path: Path, samples: Array) -> dict[str, Array]:
    """What activations hold: of an int8 file those that are rounded, of a float one every operator's result.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        UsageError: The file is missing or not an OpenVINO model.
    """
    openvino = _runtime()
    compile_file(path, 1)  # a clear refusal of what is no model
    core = openvino.Core()
    model = core.read_model(str(path))
    made = [op for op in model.get_ordered_ops() if op.get_type_name() not in ("Constant", "Result", "Parameter")]
    made = [op for op in made if not _is_constant(op)]
    rounding = [op for op in made if op.get_type_name() == "FakeQuantize"]
    shown = {}
    for op in rounding or made:
        if op.output(0).get_element_type() == openvino.Type.f32:
            named = op.input_value(0).get_node() if rounding else op
            shown[op.get_friendly_name()] = named.get_friendly_name()
    results = {result.input_value(0).get_node().get_friendly_name() for result in model.get_results()}
    model.add_outputs([op.output(0) for op in made if op.get_friendly_name() in shown.keys() - results])
    places = {result.input_value(0).get_node().get_friendly_name(): i for i, result in enumerate(model.get_results())}
    settings = {"INFERENCE_PRECISION_HINT": PRECISION_HINT, "INFERENCE_NUM_THREADS": 1}
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    found: dict[str, list[Array]] = {name: [] for name in shown}
    for sample in samples:
        request.infer({0: np.ascontiguousarray(sample[None], np.float32)})
        for name, held in found.items():
            held.append(request.get_output_tensor(places[name]).data.copy())
    return {shown[name]: np.concatenate(held) for name, held in found.items()}


def _is_constant(op: Any) -> bool:
    """Whether nothing of it depends on the input."""
    sources = [value.get_source_output().get_node() for value in op.inputs()]
    return all(source.get_type_name() == "Constant" or _is_constant(source) for source in sources) and bool(sources)


def compile_file(path: Path, threads: int, *, counters: bool = False) -> Any:
    """The model compiled for the CPU with the precision hint f32.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        UsageError: The file is missing or not an OpenVINO model.
    """
    openvino = _runtime()
    for file in (path, path.with_suffix(".bin")):
        if not file.is_file():
            raise UsageError("there is no such model file", where=str(file), hint="an .xml needs its .bin beside it")
    options: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": "1",
        "INFERENCE_PRECISION_HINT": PRECISION_HINT,
    }
    if counters:
        options["PERF_COUNT"] = True
    with quiet(f"loading {path.name}", refuse=UsageError):
        core = openvino.Core()
        return core.compile_model(core.read_model(str(path)), "CPU", options)


def _runtime() -> Any:
    # Importing OpenVINO and converting with it report to its vendor; without this package it uses a silent stub.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise missing_extra("openvino", "OpenVINO files") from error
    return openvino


def _version() -> str:
    from importlib.metadata import version

    return version("openvino")
