"""Kernels for cores with Helium, executed on an emulated Cortex-M55, against LiteRT's reference kernels."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune.backends.c.lowering import Step, lowering
from edgeprune.backends.c.model import Model, Operator, Quantization
from edgeprune.emulate import qemu
from edgeprune.emulate.cores import core_of
from edgeprune.emulate.cortex_m import Call
from edgeprune.emulate.toolchain import Sources, ToolchainName, find_toolchain, firmware
from tests.backends.c import helium, test_conv, test_dense, test_depthwise, test_elementwise, test_pool, test_reduce
from tests.backends.c.harness import CSRC, reference, run
from tests.backends.c.layers import Layer, layer_model
from tests.backends.c.steps import computed, constant, filled, one_step


def random_layers(seed: int, count: int) -> list[helium.Case]:
    """Convolutions and fully connected layers of random shapes; every third one has an addition behind."""
    draw = np.random.default_rng(seed)
    cases = []
    for number in range(count):
        groups = int(draw.choice([1, 1, 1, 2, 3]))
        kernel = tuple(int(size) for size in draw.integers(1, 5, 2)) if number % 4 else ()
        layer = Layer(
            input=(
                int(draw.integers(1, 3)),
                *(int(n) for n in draw.integers(4, 9, 2)),
                groups * int(draw.integers(1, 20)),
            )
            if kernel
            else (int(draw.integers(1, 4)), int(draw.integers(1, 90))),
            channels=groups * int(draw.integers(1, 13)),
            kernel=kernel,
            stride=(int(draw.integers(1, 3)), int(draw.integers(1, 4))),
            dilation=(1, 1) if draw.integers(3) else (2, 1),
            padding=str(draw.choice(["SAME", "VALID"])) if kernel and max(kernel) < 3 else "SAME",
            activation=str(draw.choice(["NONE", "RELU", "RELU6", "RELU_N1_TO_1"])),
            groups=groups if kernel else 1,
            per_channel=bool(draw.integers(2)),
            extreme=bool(draw.integers(2)),
            spread=float(draw.choice([0.5, 50.0, 300.0, 3e6])),
            seed=number,
        )
        cases.append(layer_model(layer, added="RELU" if kernel and number % 3 == 0 else None))
    return cases


def random_depthwise(seed: int, count: int) -> list[helium.Case]:
    """Depthwise layers of random shapes; every third one has an addition behind."""
    draw = np.random.default_rng(seed)
    cases = []
    for number in range(count):
        layer = test_depthwise.Layer(
            input=(int(draw.integers(1, 3)), *(int(n) for n in draw.integers(3, 12, 2)), int(draw.integers(2, 20))),
            kernel=(3, 3) if number % 2 else (int(draw.integers(1, 7)), int(draw.integers(1, 7))),
            multiplier=int(draw.choice([1, 1, 1, 2])),
            stride=(int(draw.integers(1, 4)), int(draw.integers(1, 4))),
            dilation=((1, 1), (1, 1), (2, 1), (1, 2))[int(draw.integers(4))],
            activation=str(draw.choice(["NONE", "RELU", "RELU6"])),
            zero=int(draw.integers(-128, 128)),
            output_zero=int(draw.integers(-128, 128)),
            per_channel=bool(draw.integers(2)),
            extreme=bool(draw.integers(2)),
            spread=float(draw.choice([0.5, 60.0, 1e5])),
            added=number % 3 == 0,
        )
        cases.append(test_depthwise.made(layer, number))
    return cases


def conv_layers() -> list[helium.Case]:
    return [layer_model(layer) for layer in (*test_conv.LAYERS.values(), *test_dense.LAYERS.values())]


def depthwise_layers() -> list[helium.Case]:
    return [test_depthwise.made(layer) for layer in (*test_depthwise.SLIDING, *test_depthwise.OTHERS)]


def elementwise_steps() -> list[helium.Case]:
    cases = [
        (test_elementwise.combining(kind, (1, 65536), (1, 65536), **quantization), test_elementwise.pairs())
        for kind in ("ADD", "MUL")
        for quantization in test_elementwise.QUANTIZATIONS[:5]
    ]
    for kind in ("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM"):
        for first, second in test_elementwise.SHAPES:
            values = [test_elementwise.values(first, 1), test_elementwise.values(second, 2)]
            cases.append((test_elementwise.combining(kind, first, second), values))
    return cases


def other_steps() -> list[helium.Case]:
    """Pools, means, tables, clamps, and what moves bytes."""
    cases = [
        (test_pool.pooling(kind, **case), [test_pool.values(case["shape"])])
        for kind in ("AVERAGE_POOL_2D", "MAX_POOL_2D")
        for case in (*test_pool.CASES, {"shape": (1, 5, 4, 37), "size": (2, 3)})
    ]
    cases += [
        (test_reduce.reducing("MEAN", shape, axes), [test_reduce.values(shape, 1)])
        for shape, axes in (((1, 5, 7, 9), (1, 2)), ((2, 3, 21), (1,)), ((1, 4, 6), (2,)))
    ]
    random = np.random.default_rng(3)
    models = [
        one_step(kind, [computed((1, size), 0.1, 3)], [computed((1, size), scale, -7, name="y")])
        for kind, scale in (("LOGISTIC", 1 / 256), ("HARD_SWISH", 0.05), ("RELU", 0.1), ("RELU6", 0.1))
        for size in (1, 15, 16, 61)
    ]
    models = [_logistic(model) if model.operators[0].kind == "LOGISTIC" else model for model in models]
    sides = [(0, 0), (1, 2), (3, 0), (0, 5)]
    models += [
        one_step("PAD", [computed((1, 3, 4, 5)), constant(sides)], [computed((1, 6, 7, 10))]),
        one_step("CONCATENATION", [computed((2, 3, 5)), computed((2, 3, 18))], [computed((2, 3, 23))], axis=2),
        one_step("TRANSPOSE", [computed((4, 5, 17)), constant((1, 0, 2))], [computed((5, 4, 17))]),
    ]
    return cases + [(model, filled(model, random)) for model in models]


def _logistic(model: Model) -> Model:
    fixed = replace(model.tensors[1], quantization=Quantization((1 / 256,), (-128,)))
    return replace(model, tensors=(model.tensors[0], fixed))


@pytest.mark.parametrize("number", [0, 7, 20])
def test_what_is_written_for_it_computes_the_same_elsewhere(number: int, tmp_path: Path) -> None:
    for cases in (random_layers(1, 24), random_depthwise(2, 24)):
        model, inputs = cases[number]
        (expected,) = reference(model, inputs, tmp_path)
        np.testing.assert_array_equal(run(model, inputs, tmp_path, "mve")[0], expected)


def thresholds(factor: float) -> np.ndarray[Any, Any]:
    """Sums around every threshold between two results of a factor."""
    near = (np.arange(-140, 141) - 0.5)[:, None] / factor + np.arange(-4, 5)
    return np.unique(np.clip(np.rint(near), -(2**23) + 1, 2**23 - 1)).astype(np.int32)


def biases_alone(kind: str, sums: np.ndarray[Any, Any], factor: float) -> Model:
    """A layer whose weights are 0 and whose sums are biases; the output's zero point is -3."""
    if kind == "FULLY_CONNECTED":
        return test_dense.biases_alone(sums, factor)
    if kind == "CONV_2D":
        model, _ = layer_model(Layer((1, 1, 1, 1), sums.size, (1, 1), per_channel=False))
        source, weights, bias, output = model.tensors
    else:
        layer = test_depthwise.Layer((1, 1, 1, 2), (1, 1), multiplier=sums.size // 2, per_channel=False)
        model, _ = test_depthwise.made(layer)
        source, weights, output, bias = model.tensors
        sums = sums[: sums.size // 2 * 2]
    one, scaled = Quantization((1.0,), (0,)), Quantization((float(np.float32(factor)),), (0,))
    changed = {
        "source": replace(source, quantization=one),
        "weights": replace(weights, quantization=scaled, data=np.zeros_like(weights.data)),
        "bias": replace(bias, quantization=scaled, data=sums),
        "output": replace(output, quantization=Quantization((1.0,), (-3,))),
    }
    order = ("source", "weights", "bias", "output") if kind == "CONV_2D" else ("source", "weights", "output", "bias")
    return replace(model, tensors=tuple(changed[name] for name in order))


def sums_alone() -> list[helium.Case]:
    """Sums around every threshold between two results, for factors above 1 down to the smallest that are not 0."""
    models = [
        biases_alone(kind, thresholds(factor), factor)
        for kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
        for factor in (1.7, 0.5, 1 / 3, 0.9 * 2**-8, 1.01 * 2**-16, 0.99 * 2**-21, 2**-24)
    ]
    return [(model, [np.zeros(model.tensor(0).shape, np.int8)]) for model in models]


FAMILIES: dict[str, Any] = {
    "convolutions and fully connected layers": conv_layers,
    "random layers": lambda: random_layers(1, 48),
    "depthwise convolutions": depthwise_layers,
    "random depthwise convolutions": lambda: random_depthwise(2, 36),
    "elementwise operators": elementwise_steps,
    "other operators": other_steps,
    "sums around the thresholds": sums_alone,
}


@pytest.mark.parametrize("compiler", ["gcc", pytest.param("zig", marks=pytest.mark.slow)])
def test_a_core_with_helium_computes_what_the_reference_does(compiler: ToolchainName, tmp_path: Path) -> None:
    helium.needed(compiler)
    named = [(family, *case) for family, made in FAMILIES.items() for case in made()]
    found, _ = helium.run([(model, inputs) for _, model, inputs in named], tmp_path, compiler)
    for (family, model, inputs), ours in zip(named, found, strict=True):
        for given, expected in zip(ours, reference(model, inputs, tmp_path), strict=True):
            np.testing.assert_array_equal(given, expected, f"{family}: {model.operators}")


RESCALES = """
#include "ep_helium.h"
int net_run(const int8_t *input, int8_t *output, void *arena);

static uint32_t state = 1;
static int32_t drawn(void)
{
    state = state * 1664525u + 1013904223u;
    return (int32_t)(state ^ state >> 15);
}

/* Sums whose products lie half way, around 0, at the ends of 32 bits, and anywhere. */
static int32_t sum_of(int32_t at, int32_t shift)
{
    const int32_t step = (int32_t)((uint32_t)1 << (shift < 0 ? -shift : 0)), small = at % 61 - 30;
    switch (at % 5) {
    case 0: return small;
    case 1: return (int32_t)((uint32_t)step * (uint32_t)small);
    case 2: return (int32_t)((uint32_t)step * (uint32_t)small + (uint32_t)(at % 3) - 1);
    case 3: return at % 2 ? INT32_MIN + at % 7 : INT32_MAX - at % 7;
    default: return drawn() >> (at % 32);
    }
}

int net_run(const int8_t *input, int8_t *output, void *arena)
{
    static const int32_t multipliers[4] = {1 << 30, INT32_MAX, 0, 1518500250};
    int32_t wrong = 0, sums[4], results[4], down[4];
    (void)input, (void)arena;
    for (int32_t shift = -31; shift <= 30; ++shift) {
        for (int32_t at = 0; at < 600; ++at) {
            const int32_t multiplier = at % 2 ? multipliers[at / 2 % 4] : (drawn() & INT32_MAX) | 1 << 30;
            for (int32_t i = 0; i < 4; ++i) {
                sums[i] = sum_of(4 * at + i, shift);
            }
            const int32x4_t of = vldrwq_s32(sums), by = vdupq_n_s32(multiplier), shifts = vdupq_n_s32(shift);
            vstrwq_s32(results, EP(rescale_lanes)(of, by, shifts));
            vstrwq_s32(down, EP(rescale_lanes_down)(of, by, shifts));
            for (int32_t i = 0; i < 4; ++i) {
                const int32_t expected = EP(rescale)(sums[i], multiplier, shift);
                wrong += results[i] != expected || (shift < 0 && down[i] != expected);
            }
        }
    }
    output[0] = (int8_t)(wrong > 100 ? 100 : wrong);
    return 0;
}
"""


@pytest.mark.parametrize("compiler", ["gcc", pytest.param("zig", marks=pytest.mark.slow)])
def test_lanes_are_rescaled_as_single_sums_are(compiler: ToolchainName, tmp_path: Path) -> None:
    helium.needed(compiler)
    (tmp_path / "rescales.c").write_text(RESCALES)
    around = firmware(1, 1, 16)
    sources = Sources((tmp_path / "rescales.c", *around.files), (CSRC,), around.defines)
    wanted = Call("net_run", (b"\0",), 1, 16, {})
    _, (answer,) = qemu.call(find_toolchain(compiler), core_of("Cortex-M55"), sources, wanted)
    assert answer.output == b"\0"


# What each kernel computes with, as the assembler is given it.
INSTRUCTIONS = {
    "ep_conv": ("vmladava.s8", "letp", "vqrdmulh.s32", "vrshl.s32"),
    "ep_dense": ("vmladava.s8", "letp", "vqdmulh.s32"),
    "ep_depthwise_strips": ("vmladav.s8", "vqrdmlah.s32", "vrshl.s32"),
    "ep_elementwise": ("vqrdmlah.s32", "vmax.s8", "vmin.s8"),
    "ep_pool": ("vmax.s8", "vadd.i32"),
    "ep_table": ("vldrb.u8",),
    "ep_layout": ("letp",),
}


@pytest.mark.parametrize("kernel", INSTRUCTIONS)
def test_kernels_are_made_of_vector_instructions(kernel: str) -> None:
    if not shutil.which("arm-none-eabi-gcc"):
        pytest.skip("needs arm-none-eabi-gcc")
    command = ["arm-none-eabi-gcc", *core_of("Cortex-M55").gcc, "-O2", "-S", f"-I{CSRC}", str(CSRC / f"{kernel}.c")]
    listing = subprocess.run([*command, "-o", "-"], capture_output=True, text=True, check=True).stdout
    for instruction in INSTRUCTIONS[kernel]:
        assert re.search(rf"\b{re.escape(instruction)}\s", listing), instruction


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "most"),
    [
        (layer_model(Layer((1, 8, 8, 64), 64, (3, 3))), 0.17),
        (layer_model(Layer((1, 12, 12, 64), 64, (1, 1))), 0.26),
        (layer_model(Layer((1, 32, 32, 3), 16, (3, 3))), 0.72),
        (layer_model(Layer((1, 128), 128, per_channel=False)), 0.25),
        (test_depthwise.made(test_depthwise.Layer((1, 25, 5, 64))), 1.2),
    ],
    ids=["3x3", "1x1", "first", "dense", "depthwise"],
)
def test_instructions_for_each_multiplication_stay_few(case: helium.Case, most: float, tmp_path: Path) -> None:
    model = case[0]
    _, count = helium.run([case], tmp_path, tight=False)
    weights = model.tensors[1]
    assert weights.data is not None
    positions = model.tensor(model.outputs[0]).size / model.tensor(model.outputs[0]).shape[-1]
    assert count <= most * weights.size * positions


def test_filters_that_no_strip_holds_are_left_to_the_kernel_for_any() -> None:
    layers: Sequence[test_depthwise.Layer] = (
        test_depthwise.Layer((1, 20, 20, 2), (16, 16)),
        test_depthwise.Layer((1, 9, 9, 2), dilation=(2, 2)),
    )
    for layer in layers:
        model, _ = test_depthwise.made(layer)
        lowered = lowering("DEPTHWISE_CONV_2D").lower(model, Step(*model.operators), "mve")
        assert lowered.kernels == ("ep_depthwise",)
    assert isinstance(model.operators[0], Operator)
