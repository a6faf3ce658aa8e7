"""Runs lowered steps on a Cortex-M55 that QEMU emulates: many in one firmware, whose instructions count as one."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from edgeprune.backends import Array
from edgeprune.backends.c.lowering import Step, lowering
from edgeprune.backends.c.model import Model
from edgeprune.emulate import qemu
from edgeprune.emulate.cores import core_of
from edgeprune.emulate.cortex_m import Call
from edgeprune.emulate.toolchain import Sources, ToolchainName, find_toolchain, firmware
from tests.backends.c.harness import CSRC, source_of

Case = tuple[Model, list[Array]]
_TIGHT_END = 0x3008_0000  # of the core's own data memory: what is read beyond it is a fault
_APART = 32  # bytes around each output, which nothing may be written to


def needed(compiler: ToolchainName = "gcc") -> None:
    """Skips a test where the emulator or the compiler is missing."""
    if not shutil.which("qemu-system-arm"):
        pytest.skip("needs qemu-system-arm")
    if compiler == "gcc" and not shutil.which("arm-none-eabi-gcc"):
        pytest.skip("needs arm-none-eabi-gcc")
    if compiler == "zig" and not find_spec("ziglang"):
        pytest.skip("needs the extra mcu")


def run(
    cases: Sequence[Case], folder: Path, compiler: ToolchainName = "gcc", tight: bool = True
) -> tuple[list[list[Array]], int]:
    """Outputs of each model of one step, or of a convolution and an ADD, and the instructions of all of them.

    Args:
        tight: Whether the first input of each is copied to where memory ends, so that reading beyond it is a fault.
    """
    needed(compiler)
    given, places, kernels = b"", list[list[int]](), set[str]()
    parts, calls, outputs, written = list[str](), list[str](), list[list[Array]](), _APART
    for at, (model, inputs) in enumerate(cases):
        lowered = lowering(model.operators[0].kind).lower(model, Step(*model.operators), "mve")
        kernels |= set(lowered.kernels)
        parts.append(source_of(model, lowered, f"run_{at}"))
        first, *others = [np.ascontiguousarray(values).tobytes() for values in inputs]
        arguments = [f"{'at_end' if tight else 'as_is'}(input + {len(given)}, {len(first)})"]
        given += first
        for values in others:
            arguments.append(f"(const void *)(input + {len(given)})")
            given += values
        outputs.append([np.zeros(model.tensor(i).shape, model.tensor(i).dtype) for i in model.outputs])
        places.append([])
        for result in outputs[-1]:
            arguments.append(f"(void *)(output + {written})")
            places[-1].append(written)
            written += -(-result.nbytes // 8) * 8 + _APART
        calls.append(f"    run_{at}({', '.join(arguments)});")
    answer = _called(folder, _program(parts, calls), sorted(kernels), given, written, compiler)
    untouched = np.ones(written, bool)
    for results, found in zip(outputs, places, strict=True):
        for at, (result, place) in enumerate(zip(results, found, strict=True)):
            stored = np.frombuffer(answer.output[place : place + result.nbytes], result.dtype)
            results[at] = stored.reshape(result.shape)
            untouched[place : place + result.nbytes] = False
    assert not np.frombuffer(answer.output, np.uint8)[untouched].any(), "something is written beside an output"
    return outputs, answer.instructions


def _program(parts: Sequence[str], calls: Sequence[str]) -> str:
    head = """
#include <stdint.h>
int net_run(const int8_t *input, int8_t *output, void *arena);
#define as_is(from, size) (const void *)(from)
static __attribute__((unused)) const void *at_end(const int8_t *from, uint32_t size)
{
    int8_t *to = (int8_t *)(END - size);
    for (uint32_t i = 0; i < size; i++) {
        ((volatile int8_t *)to)[i] = from[i];
    }
    return to;
}
""".replace("END", f"{_TIGHT_END:#x}u")
    body = "\n".join(["int net_run(const int8_t *input, int8_t *output, void *arena)", "{", "    (void)arena;", *calls])
    return "\n".join([head, *parts, body, "    return 0;", "}", ""])


def _called(
    folder: Path,
    text: str,
    kernels: Sequence[str],
    given: bytes,
    written: int,
    compiler: ToolchainName,
) -> qemu.Answer:
    program = folder / "steps.c"
    program.write_text(text)
    around = firmware(len(given), written, 16)
    files = (program, *(CSRC / f"{stem}.c" for stem in kernels), *around.files)
    sources = Sources(files, (CSRC,), {"EP_PREFIX": "test", **(around.defines or {})})
    wanted = Call("net_run", (given,), written, 16, {})
    _, (answer,) = qemu.call(find_toolchain(compiler), core_of("Cortex-M55"), sources, wanted)
    assert answer.returned == 0
    return answer
