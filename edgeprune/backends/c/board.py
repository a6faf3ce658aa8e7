"""What a target says about compiling and linking for it."""

from __future__ import annotations

from collections.abc import Mapping

from edgeprune.backends.c.lowering import Variant
from edgeprune.target import Target

# Single precision units suffice: no kernel computes in floating point.
_CORE_FLAGS = {
    "Cortex-M0": "-mcpu=cortex-m0 -mthumb",
    "Cortex-M0+": "-mcpu=cortex-m0plus -mthumb",
    "Cortex-M3": "-mcpu=cortex-m3 -mthumb",
    "Cortex-M4": "-mcpu=cortex-m4 -mthumb -mfpu=fpv4-sp-d16 -mfloat-abi=hard",
    "Cortex-M7": "-mcpu=cortex-m7 -mthumb -mfpu=fpv5-sp-d16 -mfloat-abi=hard",
    "Cortex-M33": "-mcpu=cortex-m33 -mthumb -mfpu=fpv5-sp-d16 -mfloat-abi=hard",
    "Cortex-M55": "-mcpu=cortex-m55 -mthumb -mfloat-abi=hard",
    # as an architecture, since GCC 12 does not know the core's name
    "Cortex-M85": "-march=armv8.1-m.main+mve+fp.dp -mthumb -mfloat-abi=hard",
}
_VECTOR_CORES = ("Cortex-M55", "Cortex-M85")
_DSP_CORES = ("Cortex-M4", "Cortex-M7", "Cortex-M33")


def variant(target: Target | None) -> Variant:
    """The kernels that a target runs fastest; plain C where it is not known."""
    core = target.cpu.core if target is not None else ""
    return "mve" if core in _VECTOR_CORES else "dsp" if core in _DSP_CORES else "plain"


def values(target: Target) -> Mapping[str, str] | None:
    """What the example project for a board is filled in with; None where the target does not say enough.

    That is its core, and where its flash and RAM lie.
    """
    memory, core_flags = target.memory, _CORE_FLAGS.get(target.cpu.core)
    if core_flags is None or memory.flash_address is None or memory.ram_address is None:
        return None
    ram_bytes = memory.ram_block_bytes or memory.ram_bytes
    if ram_bytes is None or memory.flash_bytes is None:
        return None
    return {
        "target": target.name,
        "description": target.description,
        "core_flags": core_flags,
        "optimise": "-O2" if target.cpu.core in _VECTOR_CORES else "-O3",
        "flash_address": f"0x{memory.flash_address:08X}",
        "flash_bytes": str(memory.flash_bytes),
        "ram_address": f"0x{memory.ram_address:08X}",
        "ram_bytes": str(ram_bytes),
    }
