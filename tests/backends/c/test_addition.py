"""The addition in a kernel's epilogue against LiteRT's reference kernel, for every pair of int8 values."""

import ctypes
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgeprune.backends import Array
from edgeprune.backends.c.addition import addition
from edgeprune.backends.c.model import Model, Operator, Quantization, Tensor
from edgeprune.errors import UnsupportedError
from tests.backends.c.harness import CSRC, WARNINGS, reference

PAIRS = np.indices((256, 256)).reshape(2, -1) - 128


def adding(
    scales: tuple[float, float, float],
    zero_points: tuple[int, int, int] = (0, 0, 0),
    activation: str = "NONE",
    size: int = 65536,
) -> Model:
    stored = [float(np.float32(scale)) for scale in scales]
    tensors = [
        Tensor(name, (1, size), "int8", Quantization((scale,), (zero,)))
        for name, scale, zero in zip("abc", stored, zero_points, strict=True)
    ]
    operator = Operator("ADD", (0, 1), (2,), {"fused_activation_function": activation})
    return Model(tuple(tensors), (operator,), (0, 1), (2,))


def sums(model: Model, values: Array, folder: Path, computed: int) -> Array:
    source, library = folder / "sum.c", folder / f"sum{computed}.so"
    lines = ['#include "ep_kernels.h"', addition(model, model.operators[0], computed).definition("by").format()]
    lines += ["void run(const int8_t *a, const int8_t *b, int8_t *c, int32_t n);"]
    lines += ["void run(const int8_t *a, const int8_t *b, int8_t *c, int32_t n) { test_add_run(a, b, c, n, &by); }"]
    source.write_text("\n".join([*lines, ""]))
    flags = (
        "-O1",
        "-shared",
        "-fPIC",
        "-fsanitize=undefined",
        "-fno-sanitize-recover",
        "-fsanitize-undefined-trap-on-error",
    )
    command = ["cc", *WARNINGS, *flags, "-DEP_PREFIX=test", f"-I{CSRC}", str(source), "-o", str(library)]
    subprocess.run(command, check=True)
    output = np.zeros(values.shape[1], np.int8)
    held = [np.ascontiguousarray(values[computed]), np.ascontiguousarray(values[1 - computed]), output]
    ctypes.CDLL(str(library)).run(*(array.ctypes.data_as(ctypes.c_void_p) for array in held), output.size)
    return output


@pytest.mark.parametrize(
    ("scales", "zero_points", "activation"),
    [
        ((0.05, 0.05, 0.05), (3, -7, 0), "NONE"),
        ((0.05, 0.02, 0.06), (-128, 127, -128), "RELU"),
        ((0.001, 0.9, 0.02), (127, -128, 5), "RELU6"),
        ((1e-12, 2.0, 0.5), (1, 2, 3), "RELU_N1_TO_1"),
        ((0.5, 0.25, 0.125), (-1, 1, -50), "RELU6"),
        ((1.0, 1.0, 5e-5), (0, 0, 0), "NONE"),
        ((0.01, 0.011, 1e5), (0, 9, -3), "NONE"),
    ],
)
def test_every_pair_is_summed_as_the_reference_sums_it(
    scales: tuple[float, float, float], zero_points: tuple[int, int, int], activation: str, tmp_path: Path
) -> None:
    model = adding(scales, zero_points, activation)
    values = PAIRS.astype(np.int8)
    (expected,) = reference(model, [values[:1], values[1:]], tmp_path)
    for computed in (0, 1):
        np.testing.assert_array_equal(sums(model, values, tmp_path, computed), expected[0])


def test_a_sum_too_fine_to_be_rescaled_is_refused() -> None:
    model = adding((1.0, 0.5, 1e-7), size=1)
    with pytest.raises(UnsupportedError, match="18 times finer"):
        addition(model, model.operators[0], 0)


def test_an_activation_that_no_kernel_fuses_is_refused() -> None:
    model = adding((1.0, 0.5, 0.5), activation="TANH", size=1)
    with pytest.raises(UnsupportedError, match="TANH"):
        addition(model, model.operators[0], 0)
