"""Runs one lowered step compiled for this machine, and the reference kernels of LiteRT beside it."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import numpy as np

from edgeprune.backends import Array
from edgeprune.backends.c.lowering import Constant, Lowered, Step, Variant, lowering
from edgeprune.backends.c.model import Model
from edgeprune.backends.tflite import interpreter
from tests.backends.c.files import write

CSRC = Path(__file__).parents[3] / "edgeprune" / "csrc"
WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-Wconversion", "-Wsign-conversion", "-Wshadow", "-pedantic")
_C_TYPES = {"int8": "int8_t", "uint8": "uint8_t", "int16": "int16_t", "uint16": "uint16_t", "int32": "int32_t"}
_C_TYPES |= {"uint32": "uint32_t", "int64": "int64_t", "bool": "uint8_t"}


def reference(model: Model, inputs: list[Array], folder: Path) -> list[Array]:
    """Outputs of LiteRT's reference kernels, no delegate."""
    loaded = interpreter(write(model, folder / "model.tflite"), 1, reference=True)
    for detail, values in zip(loaded.get_input_details(), inputs, strict=True):
        loaded.set_tensor(detail["index"], values)
    loaded.invoke()
    return [loaded.get_tensor(detail["index"]) for detail in loaded.get_output_details()]


def run(
    model: Model, inputs: list[Array], folder: Path, variant: Variant = "plain", flags: tuple[str, ...] = ("-O1",)
) -> list[Array]:
    """Outputs of a model of one step, or of a convolution and an ADD, compiled by the system's C compiler."""
    step = Step(*model.operators)
    library = ctypes.CDLL(str(compiled(model, step, folder, variant, flags)))
    outputs = [np.zeros(model.tensor(i).shape, model.tensor(i).dtype) for i in model.outputs]
    held = [np.ascontiguousarray(values) for values in inputs]
    pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (*held, *outputs)]
    library.run(*pointers)
    return outputs


def compiled(model: Model, step: Step, folder: Path, variant: Variant, flags: tuple[str, ...]) -> Path:
    """A shared library with `run(inputs..., outputs...)`."""
    lowered = lowering(step.operator.kind).lower(model, step, variant)
    source, library = folder / "step.c", folder / f"step-{len(list(folder.glob('*.so')))}.so"
    source.write_text(source_of(model, lowered))
    kernels = [str(CSRC / f"{stem}.c") for stem in lowered.kernels]
    command = ["cc", *WARNINGS, *flags, "-shared", "-fPIC", "-DEP_PREFIX=test", f"-I{CSRC}", str(source), *kernels]
    subprocess.run([*command, "-o", str(library)], check=True)
    return library


def source_of(model: Model, lowered: Lowered, run: str = "run") -> str:
    """C of one step behind a function of that name, which is in all its names at file scope."""
    sources, results = [model.tensor(i) for i in model.inputs], [model.tensor(i) for i in model.outputs]
    parameters = [f"const {_C_TYPES[t.dtype]} *in{i}" for i, t in enumerate(sources)]
    parameters += [f"{_C_TYPES[t.dtype]} *out{i}" for i, t in enumerate(results)]
    names = {f"in{i}": f"in{i}" for i in range(len(sources))} | {f"out{i}": f"out{i}" for i in range(len(results))}
    names |= {constant.name: f"{run}_{constant.name}" for constant in lowered.constants}
    names |= {"scratch": "scratch", "step": run}
    lines = ['#include "ep_kernels.h"', *(_constant(constant, names[constant.name]) for constant in lowered.constants)]
    lines += [lowered.definitions.format(**names), f"void {run}({', '.join(parameters)});"]
    lines += [f"void {run}({', '.join(parameters)})", "{"]
    if lowered.scratch_bytes:
        lines.append(f"    static int8_t scratch[{lowered.scratch_bytes}] __attribute__((aligned(8)));")
    return "\n".join([*lines, f"    {lowered.call.format(**names)}", "}", ""])


def _constant(constant: Constant, name: str) -> str:
    values = ", ".join(str(value) for value in constant.values.ravel().tolist())
    kind = _C_TYPES[str(constant.values.dtype)]
    aligned = f" __attribute__((aligned({constant.alignment})))"
    return f"static const {kind} {name}[{constant.values.size}]{aligned} = {{{values}}};"
