"""Runs a model file on kept inputs and says how far its outputs are from the kept ones. Stands alone, as bench.py does.

    python check.py --runtime tflite --model model.tflite --golden golden.npz                      compare, on a device
    python check.py --runtime tflite --model model.tflite --golden golden.npz --inputs inputs.npy  keep, on the host

Inputs and outputs are kept as the file itself takes and gives them: its layout, its number format. One code writes
and compares them, so that a difference is the runtime's. Prints one JSON document. Exit status 7: the runtime is not
installed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SCHEMA = "edgeprune.check/1"
EXIT_NO_RUNTIME = 7
SATURATING = 8.0  # times the greatest magnitude of the real inputs, where the number format has no limits of its own
MADE = ("zeros", "largest", "saturating")  # inputs that follow the real ones

Array = Any


class Model:
    """A loaded file: `run` takes one input as the file takes it, and gives all outputs."""

    def __init__(self, shape: tuple[int, ...], kind: Any, scale: float, zero: int, run: Callable[[Array], list[Array]]):
        self.shape, self.kind, self.scale, self.zero, self.run = shape, np.dtype(kind), scale, zero, run

    def raw(self, values: Array) -> Array:
        """Samples (n, ...) float32, images NCHW, as the file takes them."""
        if values.ndim == 4 and values.shape[1:] != self.shape[1:]:
            values = values.transpose(0, 2, 3, 1)
        if values.shape[1:] != self.shape[1:]:
            sys.exit(f"the model takes {self.shape[1:]}, the samples are {values.shape[1:]}")
        if self.kind.kind in "iu":
            limits = np.iinfo(self.kind)
            values = np.clip(np.round(values / (self.scale or 1)) + self.zero, limits.min, limits.max)
        return np.ascontiguousarray(values.astype(self.kind))

    def made(self, real: Array) -> Array:
        """The inputs named in MADE, (3, ...), beside real ones."""
        most = float(np.abs(real.astype(np.float64)).max()) or 1.0
        low, high = -SATURATING * most, SATURATING * most
        largest = most
        if self.kind.kind in "iu":
            limits = np.iinfo(self.kind)
            low, high, largest = limits.min, limits.max, limits.max
        alternating = np.where(np.arange(real[0].size).reshape(real.shape[1:]) % 2, high, low)
        zeros, full = np.full(real.shape[1:], self.zero), np.full(real.shape[1:], largest)
        return np.stack([zeros, full, alternating]).astype(self.kind)


def load_tflite(path: str, threads: int) -> Model:
    interpreter = tflite_class()(model_path=path, num_threads=threads)
    interpreter.allocate_tensors()
    source, sinks = interpreter.get_input_details()[0], interpreter.get_output_details()

    def run(values: Array) -> list[Array]:
        interpreter.set_tensor(source["index"], values[None])
        interpreter.invoke()
        return [interpreter.get_tensor(sink["index"]) for sink in sinks]

    scale, zero = source["quantization"]
    return Model(tuple(int(size) for size in source["shape"]), source["dtype"], float(scale), int(zero), run)


def load_onnxruntime(path: str, threads: int) -> Model:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0]
    kinds = {"tensor(float)": "float32", "tensor(int8)": "int8", "tensor(uint8)": "uint8", "tensor(int64)": "int64"}
    shape = tuple(size if isinstance(size, int) and size > 0 else 1 for size in source.shape)

    def run(values: Array) -> list[Array]:
        return [np.asarray(output) for output in session.run(None, {source.name: values[None]})]

    return Model(shape, kinds.get(source.type, "float32"), 1.0, 0, run)


def load_openvino(path: str, threads: int) -> Model:
    import openvino

    core = openvino.Core()
    options = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": "1", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(path), "CPU", options)
    shape = tuple(1 if size.is_dynamic else size.get_length() for size in compiled.input(0).get_partial_shape())

    def run(values: Array) -> list[Array]:
        answers = compiled(values[None])
        return [np.array(answers[index]) for index in range(len(compiled.outputs))]

    return Model(shape, "float32", 1.0, 0, run)


LOADERS = {"tflite": load_tflite, "onnxruntime": load_onnxruntime, "openvino": load_openvino}


def tflite_class() -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        from tflite_runtime.interpreter import Interpreter
    return Interpreter


def runtime_version(runtime: str) -> str:
    """Imports the runtime; package and version that are installed."""
    from importlib.metadata import PackageNotFoundError, version

    if runtime == "tflite":
        tflite_class()
    else:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # importing it reports to its vendor
        __import__(runtime)
    for name in ("ai-edge-litert", "tflite-runtime") if runtime == "tflite" else (runtime,):
        try:
            return name + " " + version(name)
        except PackageNotFoundError:
            continue
    return "unknown"


def keep(model: Model, samples: Array, file: str) -> dict[str, Any]:
    """Write the real samples, the made inputs and the outputs to all of them."""
    real = model.raw(samples)
    inputs = np.concatenate([real, model.made(real)])
    answers = [model.run(values) for values in inputs]
    outputs = [np.concatenate([answer[index] for answer in answers]) for index in range(len(answers[0]))]
    arrays: dict[str, Any] = {f"output_{index}": values for index, values in enumerate(outputs)}
    with Path(file).open("wb") as stream:
        np.savez(stream, inputs=inputs, **arrays)
    return {
        "real": len(real),
        "vectors": len(inputs),
        "input": str(inputs.dtype),
        "outputs": [str(values.dtype) for values in outputs],
        "ranges": [float(np.abs(values.astype(np.float64)).max()) for values in outputs],
        "finite": all(bool(np.isfinite(values.astype(np.float64)).all()) for values in outputs),
    }


def compare(model: Model, file: str) -> dict[str, Any]:
    """For every vector and output: the largest distance from the kept one, and whether the largest value is the same.

    `margins` are the kept distances between an output's two largest values: a smaller error cannot be told from a tie.
    """
    with np.load(file, allow_pickle=False) as golden:
        inputs = golden["inputs"]
        kept = [golden[f"output_{index}"].astype(np.float64) for index in range(len(golden.files) - 1)]
    errors, same, margins = [], [], []
    for number, values in enumerate(inputs):
        answers = [answer.astype(np.float64)[0] for answer in model.run(values)]
        if [answer.shape for answer in answers] != [expected[number].shape for expected in kept]:
            sys.exit("the outputs have other shapes than those kept")
        pairs = [(answer, expected[number]) for answer, expected in zip(answers, kept)]
        errors.append([distance(answer, expected) for answer, expected in pairs])
        same.append([int(answer.argmax()) == int(expected.argmax()) for answer, expected in pairs])
        margins.append([margin(expected) for _, expected in pairs])
    return {"vectors": len(inputs), "errors": errors, "same": same, "margins": margins}


def distance(answer: Array, expected: Array) -> float:
    """The largest distance; 1e308 where a value is not finite, which JSON cannot say."""
    found = float(np.abs(answer - expected).max()) if answer.size else 0.0
    return found if np.isfinite(found) else 1e308


def margin(expected: Array) -> float:
    largest = np.sort(expected.reshape(-1))[-2:]
    return float(largest[-1] - largest[0]) if len(largest) == 2 else 0.0


def hashes(model: str) -> dict[str, str]:
    """Of the files that were loaded."""
    paths = [Path(model), *([Path(model).with_suffix(".bin")] if model.endswith(".xml") else [])]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runtime", required=True, choices=sorted(LOADERS))
    parser.add_argument("--model", required=True)
    parser.add_argument("--golden", required=True, help=".npz of kept inputs and outputs")
    parser.add_argument("--inputs", help=".npy of samples (n, ...) float32, images NCHW: write --golden from them")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    try:
        version = runtime_version(options.runtime)
    except ImportError as error:
        print(f"{options.runtime} is not installed: {error}", file=sys.stderr)
        return EXIT_NO_RUNTIME
    # Runtimes write to stdout as they load; the document alone belongs there.
    document = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    model = LOADERS[options.runtime](options.model, options.threads)
    if options.inputs:
        found = keep(model, np.load(options.inputs, allow_pickle=False), options.golden)
    else:
        found = compare(model, options.golden)
    about = {"runtime": options.runtime, "runtime_version": version, "machine": platform.machine()}
    json.dump({"schema": SCHEMA, **about, "sha256": hashes(options.model), **found}, document)
    document.write("\n")
    document.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
