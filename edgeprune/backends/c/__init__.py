"""C libraries for microcontrollers: an int8 .tflite file as C99 sources that need nothing else.

Every operator computes exactly what TensorFlow Lite's reference kernels do, and the library carries vectors that show
it. `edgeprune.backends.c.schedule` plans steps and arena, `library` writes the folder, `host` runs it here.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune import backends
from edgeprune.backends import Array, Artifact, Inspection, Precision
from edgeprune.device.fusion import absorb_padding
from edgeprune.device.ops import Op
from edgeprune.errors import UnsupportedError, UsageError

if TYPE_CHECKING:
    import torch

    from edgeprune.backends.c.host import LibrarySession
    from edgeprune.backends.c.schedule import Program
    from edgeprune.quantization.ranges import RangePolicy
    from edgeprune.target import Target

NAME = "c"
EXTRA = "mcu"
SUFFIXES: tuple[str, ...] = (".c.json",)
RUNTIME = "edgeprune-c"
PRECISIONS: tuple[Precision, ...] = ("int8",)
WEIGHT_LIMIT = 127
FLOAT_LAYERS = "a C library computes in integers only"
ON_REQUEST = True

VECTORS = 4  # that a library tests itself with
_SEED = 0


def missing() -> str:
    """Why it cannot run files here; empty when it can."""
    from edgeprune.backends.c.host import compiler

    if not compiler():
        return "there is no C compiler (cc, gcc, clang or the Python package ziglang)"
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
    """Write `model.tflite` and, from it, the library `model/`.

    Args:
        example: One input (1, ...) float32; four axes are an image, NCHW.
        calibration: Samples (n, ...) float32; the first ones are among the library's own vectors.
        ranges: Minimum and maximum when None.
        target: Decides the kernels, as in `convert`.
        in_float: Nothing: there is no float here.

    Raises:
        MissingExtraError: The converter is not installed.
        UnsupportedError: The model cannot be converted, an operator cannot be written as C, the precision is fp32, or
            layers are to stay float.
        UsageError: Int8 without calibration samples.
    """
    if precision != "int8":
        raise UnsupportedError("C libraries compute in int8", hint="export in int8, or to another format")
    if in_float:
        raise UnsupportedError(
            f"{FLOAT_LAYERS}, and {', '.join(in_float)} shall stay float", hint="leave no layer in float"
        )
    written = backends.get("tflite").export(model, example, folder, precision, calibration, ranges)
    report = convert(written.path, folder / "model", "model", target)
    return backends.describe(NAME, report, precision, float_ops=written.float_ops)


def convert(path: Path, folder: Path, name: str, target: Target | None = None, vectors: int = VECTORS) -> Path:
    """Write an int8 .tflite file as a C library; returns the path of its report.

    Args:
        name: What the library is called; made an identifier of C.
        target: Decides the kernels, and gets an example project where it says where its memories lie.
        vectors: Random inputs that the library tests itself with, answered by LiteRT's reference kernels.

    Raises:
        MissingExtraError: The package that reads .tflite files is not installed.
        UnsupportedError: An operator cannot be written as C.
        UsageError: The file is missing or not a TFLite model.
    """
    from edgeprune.backends.c import board, library
    from edgeprune.backends.c.reader import read
    from edgeprune.backends.c.schedule import schedule

    program = schedule(read(path), board.variant(target))
    reader = backends.get("tflite")
    return library.write_library(
        program,
        folder,
        name,
        reference_vectors(program, path, vectors),
        target=target,
        ops=ops_of(program, reader.read_ops(path)),
        inspection=reader.inspect(path),
    )


def ops_of(program: Program, ops: tuple[Op, ...]) -> tuple[Op, ...]:
    """The file's operators as the library runs them: in its order, with padding and additions in convolutions."""
    made, padding = ({op.output: op for op in found} for found in (ops, absorb_padding(ops)))
    found = []
    for call in program.calls:
        pads = call.step.operator.options.get("padding") == "EXPLICIT"
        op = (padding if pads else made)[f"t{call.step.operator.outputs[0]}"]
        if call.step.added is not None:
            added = made[f"t{call.step.output}"]
            other = tuple(name for name in added.inputs if name != op.output)
            op = replace(op, inputs=(*op.inputs, *other), output=added.output, activation=added.activation)
            op = replace(op, nodes=(*op.nodes, *added.nodes))
        found.append(op)
    return tuple(found)


def reference_vectors(program: Program, path: Path, count: int) -> list[tuple[list[Array], list[Array]]]:
    """Random inputs over all stored values, and what LiteRT's reference kernels answer to them."""
    tflite: Any = backends.get("tflite")
    loaded = tflite.interpreter(path, 1, reference=True)
    random = np.random.default_rng(_SEED)
    vectors = []
    for _ in range(count):
        taken = [_random(random, program, index) for index in program.model.inputs]
        for detail, values in zip(loaded.get_input_details(), taken, strict=True):
            loaded.set_tensor(detail["index"], values)
        loaded.reset_all_variables()  # states of an LSTM, which the library starts anew too
        loaded.invoke()
        vectors.append((taken, [loaded.get_tensor(detail["index"]).copy() for detail in loaded.get_output_details()]))
    return vectors


def _random(random: np.random.Generator, program: Program, index: int) -> Array:
    tensor = program.model.tensor(index)
    if tensor.dtype == "float32":
        return random.standard_normal(tensor.shape).astype(np.float32)
    if tensor.dtype == "bool":
        return random.integers(0, 2, tensor.shape).astype(np.bool_)
    limits = np.iinfo(tensor.dtype)
    values: Array = random.integers(limits.min, limits.max, tensor.shape, dtype=tensor.dtype, endpoint=True)
    return values


def files(path: Path) -> tuple[Path, ...]:
    """All files of the library, its report included.

    Raises:
        UsageError: The report is missing or damaged.
    """
    from edgeprune.backends.c.library import read_report

    return (path, *(path.parent / file for file in read_report(path)["files"]))


def load(path: Path, threads: int = 1) -> LibrarySession:
    """The library, compiled for this machine.

    Raises:
        MissingExtraError: There is no C compiler.
        UsageError: The report is missing or damaged, or a source does not compile.
    """
    from edgeprune.backends.c.host import LibrarySession

    return LibrarySession(path)


def read_ops(path: Path) -> tuple[Op, ...]:
    """The steps of the library, in order, each convolution with the addition it takes along.

    Raises:
        UsageError: The report is missing or damaged.
    """
    from edgeprune.backends.c.library import read_report

    try:
        return tuple(Op(**{key: _tuple(value) for key, value in op.items()}) for op in read_report(path)["ops"])
    except (KeyError, TypeError, AttributeError):
        raise UsageError("cannot load it: its operators are damaged", where=str(path)) from None


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def inspect(path: Path) -> Inspection:
    """Number formats and faults of the file that the library was made from.

    Raises:
        UsageError: The report is missing or damaged.
    """
    from edgeprune.backends.c.library import read_report

    try:
        return Inspection.model_validate(read_report(path)["inspection"])
    except (KeyError, ValueError):
        raise UsageError("cannot load it: its inspection is damaged", where=str(path)) from None


def time_ops(path: Path, inputs: Array | None, runs: int, threads: int) -> tuple[tuple[str, str, float], ...]:
    """Nothing: times on this machine say nothing about a microcontroller."""
    return ()


def arena_bytes(path: Path) -> int:
    """Bytes of the library's arena.

    Raises:
        UsageError: The report is missing or damaged.
    """
    from edgeprune.backends.c.library import read_report

    return int(read_report(path)["arena_bytes"])
