"""Small C programs for emulated cores, and what it takes to build and call them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgeprune.emulate.cores import core_of
from edgeprune.emulate.cortex_m import Call, Run, call, layer_functions
from edgeprune.emulate.elf import Image, read_image
from edgeprune.emulate.instructions import Classes, census_by_function, classes
from edgeprune.emulate.toolchain import MemoryMap, Sources, Toolchain, build, find_toolchain, firmware
from edgeprune.errors import MissingExtraError

MEMORY = MemoryMap(0x0800_0000, 256 * 1024, 0x2000_0000, 64 * 1024)
RUN = "#include <stdint.h>\nint net_run(const int8_t *in, int8_t *out, void *arena)\n"

LOOP = """
#include <stdint.h>
int net_run(const int8_t *in, int8_t *out, void *arena);
__attribute__((naked)) int net_run(const int8_t *in, int8_t *out, void *arena)
{
    __asm__ volatile(
        ".syntax unified\\n movs r3, #125\\n lsls r3, r3, #3\\n"
        "1: nop\\n nop\\n nop\\n nop\\n nop\\n nop\\n nop\\n nop\\n"
        "subs r3, r3, #1\\n"
        "bne 1b\\n"            /* taken 999 times of 1000 */
        "movs r0, #0\\n"
        "bx lr\\n");
}
"""
LOOP_INSTRUCTIONS = 2 + 1000 * 10 + 2

# A convolution 3x3 of 8 to 12 channels on 12x12 and a pool, in plain C, as two layers.
NET = """
#include <stdint.h>
#define SIDE 12
#define IN 8
#define OUT 12
extern const int8_t net_weights[OUT * 9 * IN];
static __attribute__((noinline)) void conv(const int8_t *in, int8_t *out)
{
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++)
            for (int o = 0; o < OUT; o++) {
                int32_t sum = 0;
                for (int k = 0; k < 9; k++) {
                    const int v = y + k / 3 - 1, u = x + k % 3 - 1;
                    if (v < 0 || v >= SIDE || u < 0 || u >= SIDE) continue;
                    for (int c = 0; c < IN; c++)
                        sum += in[(v * SIDE + u) * IN + c] * net_weights[(o * 9 + k) * IN + c];
                }
                sum >>= 6;
                out[(y * SIDE + x) * OUT + o] = (int8_t)(sum < -128 ? -128 : sum > 127 ? 127 : sum);
            }
}
static __attribute__((noinline)) void pool(const int8_t *in, int8_t *out)
{
    for (int o = 0; o < OUT; o++) {
        int32_t sum = 0;
        for (int i = 0; i < SIDE * SIDE; i++) sum += in[i * OUT + o];
        out[o] = (int8_t)(sum / (SIDE * SIDE));
    }
}
__attribute__((noinline)) void net_layer_0(const int8_t *in, int8_t *out) { conv(in, out); }
__attribute__((noinline)) void net_layer_1(const int8_t *in, int8_t *out) { pool(in, out); }
int net_run(const int8_t *in, int8_t *out, void *arena)
{
    net_layer_0(in, arena);
    net_layer_1(arena, out);
    return 0;
}
"""
NET_INPUT_BYTES, NET_OUTPUT_BYTES, NET_ARENA_BYTES, NET_MACS = 12 * 12 * 8, 12, 12 * 12 * 12, 34 * 34 * 8 * 12


def net_weights() -> list[int]:
    return [(37 * i + 11 * (i // 7)) % 255 - 127 for i in range(12 * 9 * 8)]


def net_input(seed: int = 1) -> bytes:
    return bytes((seed * 91 * i + i // 5) % 256 for i in range(NET_INPUT_BYTES))


def write_net(folder: Path) -> list[Path]:
    """The net's two files."""
    values = ", ".join(map(str, net_weights()))
    head = f"#include <stdint.h>\nextern const int8_t net_weights[{len(net_weights())}];\n"
    (folder / "net.c").write_text(NET)
    (folder / "net_weights.c").write_text(f"{head}const int8_t net_weights[{len(net_weights())}] = {{{values}}};\n")
    return [folder / "net.c", folder / "net_weights.c"]


def expected(given: bytes) -> bytes:
    """What the net makes of an input."""
    import numpy as np

    x = np.zeros((14, 14, 8), np.int64)
    x[1:13, 1:13] = np.frombuffer(given, np.int8).reshape(12, 12, 8)
    w = np.array(net_weights()).reshape(12, 3, 3, 8)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (0, 1))  # (12, 12, 8, 3, 3)
    sums = np.clip(np.einsum("yxchw,ohwc->yxo", windows, w) >> 6, -128, 127).sum((0, 1))
    return (np.sign(sums) * (np.abs(sums) // 144)).astype(np.int8).tobytes()


def toolchain(name: str) -> Toolchain:
    if name == "gcc" and not shutil.which("arm-none-eabi-gcc"):
        pytest.skip("needs arm-none-eabi-gcc")
    try:
        return find_toolchain(name)  # type: ignore[arg-type]
    except MissingExtraError:
        pytest.skip("needs the extra mcu")


def need_emulator() -> None:
    import importlib.util

    if not importlib.util.find_spec("unicorn"):
        pytest.skip("needs the extra mcu")


def linked(
    folder: Path, text: str, core: str, name: str = "gcc", memory: MemoryMap = MEMORY, arena: int = 1024
) -> Image:
    """A program of one file, built; once for the same text and core."""
    key = (text, core, name, memory, arena)
    if key not in _BUILT:
        _BUILT[key] = _linked(folder, text, core, name, memory, arena)
    return _BUILT[key]


_BUILT: dict[tuple[object, ...], Image] = {}


def _linked(folder: Path, text: str, core: str, name: str, memory: MemoryMap, arena: int) -> Image:
    file = folder / "program.c"
    file.write_text(text)
    around = firmware(16, 16, arena)
    sources = Sources((file, *around.files), (), around.defines)
    tools = toolchain(name)
    return read_image(build(tools, core_of(core), sources, "net_run", memory, folder / f"{name}.elf", "-O2"))


def ran(image: Image, core: str, given: bytes = bytes(16), memory: MemoryMap = MEMORY, **options: object) -> Run:
    need_emulator()
    wanted = Call("net_run", (given,), 16, 1024, layer_functions(image, "net"), **options)  # type: ignore[arg-type]
    _, (run,) = call(image, core_of(core), memory, wanted)
    return run


def counted(image: Image, run: Run) -> dict[tuple[int | None, str], Classes]:
    """Classes by layer and function."""
    return {
        (layer, function): classes(census)
        for layer, blocks in run.layers.items()
        for function, census in census_by_function(image, blocks).items()
    }
