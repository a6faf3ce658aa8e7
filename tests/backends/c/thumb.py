"""Runs one lowered step on an emulated Cortex-M4 and counts the instructions it executes."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune.backends import Array
from edgeprune.backends.c.lowering import Step, Variant, lowering
from edgeprune.backends.c.model import Model
from tests.backends.c.harness import CSRC, source_of

_MEMORY, _SIZE = 0x20000000, 1 << 22
_SCRIPT = """SECTIONS {
  . = 0x10000; .code : { *(.text* .rodata*) } . = 0x800000; .data : { *(.data* .bss* COMMON) }
  /DISCARD/ : { *(.ARM.exidx* .ARM.attributes) }
}
"""


def compilers() -> list[str]:
    """Of gcc and zig, which are here to compile for the core."""
    found = {"gcc": shutil.which("arm-none-eabi-gcc"), "zig": find_spec("ziglang")}
    return [name for name, where in found.items() if where]


def needed() -> None:
    """Skips a test where the emulator or every compiler is missing."""
    if find_spec("unicorn") is None:
        pytest.skip("needs the extra mcu")
    if not compilers():
        pytest.skip("needs arm-none-eabi-gcc or ziglang")


def run(
    model: Model,
    inputs: list[Array],
    folder: Path,
    compiler: str = "",
    optimise: str = "-O2",
    variant: Variant = "dsp",
) -> tuple[list[Array], int]:
    """Outputs of a model of one step, and instructions executed from its call to its return."""
    image = _linked(model, Step(*model.operators), folder, compiler or compilers()[0], optimise, variant)
    outputs = [np.zeros(model.tensor(i).shape, model.tensor(i).dtype) for i in model.outputs]
    machine = _Machine(image)
    places = [machine.place(array) for array in (*inputs, *outputs)]
    count = machine.call(places)
    return [machine.read(at, like) for at, like in zip(places[len(inputs) :], outputs, strict=True)], count


def code_bytes(model: Model, folder: Path, compiler: str = "", optimise: str = "-O2") -> dict[str, int]:
    """Bytes of each function linked for a step."""
    from elftools.elf.elffile import ELFFile

    with _linked(model, Step(*model.operators), folder, compiler or compilers()[0], optimise, "dsp").open("rb") as file:
        symbols = ELFFile(file).get_section_by_name(".symtab")
        return {s.name: s["st_size"] for s in symbols.iter_symbols() if s["st_info"]["type"] == "STT_FUNC"}


def _linked(model: Model, step: Step, folder: Path, compiler: str, optimise: str, variant: Variant) -> Path:
    lowered = lowering(step.operator.kind).lower(model, step, variant)
    source, script, image = folder / "thumb.c", folder / "thumb.ld", folder / f"thumb-{compiler}{optimise}.elf"
    source.write_text(source_of(model, lowered))
    script.write_text(_SCRIPT)
    command = ["arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"]
    if compiler == "zig":
        target = ("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m4+vfp4d16sp", "-fno-sanitize=undefined")
        command = [sys.executable, "-m", "ziglang", "cc", *target]
    command += ["-std=c99", optimise, "-ffreestanding", "-ffunction-sections", "-nostdlib", "-DEP_PREFIX=test"]
    command += ["-fno-unwind-tables", "-fno-asynchronous-unwind-tables", "-Wl,--gc-sections", "-Wl,-e,run"]
    command += [f"-I{CSRC}", str(source), *(str(CSRC / f"{stem}.c") for stem in lowered.kernels)]
    subprocess.run([*command, f"-Wl,-T,{script}", "-o", str(image)], check=True)
    return image


class _Machine:
    """A core with the image loaded, memory for arrays, and a stack."""

    def __init__(self, image: Path) -> None:
        import unicorn
        from elftools.elf.elffile import ELFFile
        from unicorn import arm_const

        self.arm = arm_const
        self.core = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS)
        self.core.ctl_set_cpu_model(arm_const.UC_CPU_ARM_CORTEX_M4)
        self.core.mem_map(0, 1 << 24)
        self.core.mem_map(_MEMORY, _SIZE)
        self.used = _MEMORY + 0x10000  # the stack lies below
        self.count = 0
        with image.open("rb") as file:
            elf = ELFFile(file)
            self.entry = elf.header.e_entry
            for segment in elf.iter_segments("PT_LOAD"):
                if segment["p_filesz"]:
                    self.core.mem_write(segment["p_vaddr"], segment.data())
        self.core.hook_add(unicorn.UC_HOOK_BLOCK, self._block)

    def place(self, array: Array) -> int:
        """Copies an array into memory; its address."""
        at, self.used = self.used, self.used + (array.nbytes + 15) // 8 * 8
        self.core.mem_write(at, np.ascontiguousarray(array).tobytes())
        return at

    def read(self, at: int, like: Array) -> Array:
        return np.frombuffer(bytes(self.core.mem_read(at, like.nbytes)), like.dtype).reshape(like.shape)

    def call(self, arguments: list[int]) -> int:
        """Instructions until the return; registers that a callee keeps must be kept."""
        arm, stack = self.arm, _MEMORY + 0xF000
        assert len(arguments) <= 4
        kept = [getattr(arm, f"UC_ARM_REG_R{i}") for i in range(4, 12)]
        for at, register in enumerate(kept):
            self.core.reg_write(register, 0xA0000000 + at)
        for at, argument in enumerate(arguments):
            self.core.reg_write(getattr(arm, f"UC_ARM_REG_R{at}"), argument)
        self.core.reg_write(arm.UC_ARM_REG_SP, stack)
        self.core.reg_write(arm.UC_ARM_REG_LR, 0x101)
        self.core.emu_start(self.entry | 1, 0x100)
        assert [self.core.reg_read(register) for register in kept] == [0xA0000000 + at for at in range(8)]
        assert self.core.reg_read(arm.UC_ARM_REG_SP) == stack
        return self.count

    def _block(self, core: Any, address: int, size: int, _: object) -> None:
        self.count += self._instructions(address, size)

    @functools.cache  # noqa: B019
    def _instructions(self, address: int, size: int) -> int:
        code = np.frombuffer(bytes(self.core.mem_read(address, size)), "<u2")
        at = found = 0
        while at < code.size:
            at, found = at + 1 + (code[at] >> 11 in (0b11101, 0b11110, 0b11111)), found + 1
        return found
