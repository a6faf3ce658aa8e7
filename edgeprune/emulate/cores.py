"""The Cortex-M cores a library can be compiled for, and how each tool calls them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgeprune.errors import UnsupportedError, did_you_mean


@dataclass(frozen=True)
class Core:
    """One core.

    Attributes:
        name: As in `[cpu] core` of a target.
        gcc: Flags of GCC that choose the instruction set and the calling convention.
        zig: Target and processor of `zig cc`. Without the names of what it has, no FPU and no DSP is assumed.
        unicorn: Suffix of Unicorn's name for the model; empty where there is none.
        dsp: Whether it has the DSP extension.
        executed_as: The core that is emulated; another one only where that has all instructions that are compiled for.
    """

    name: str
    gcc: tuple[str, ...]
    zig: tuple[str, ...]
    unicorn: str
    dsp: bool
    executed_as: str


def _core(name: str, unicorn: str, gcc_fpu: str = "", zig_features: str = "", dsp: bool = False) -> Core:
    """A core whose FPU, where it has one, GCC calls `gcc_fpu`."""
    cpu = name.lower().replace("+", "plus")
    soft = not gcc_fpu
    gcc: tuple[str, ...] = (f"-mcpu={cpu}", "-mthumb")
    gcc += ("-mfloat-abi=soft",) if soft else ("-mfloat-abi=hard", f"-mfpu={gcc_fpu}")
    triple = "thumb-freestanding-eabi" if soft else "thumb-freestanding-eabihf"
    zig_cpu = cpu.replace("-", "_")
    return Core(name, gcc, ("-target", triple, f"-mcpu={zig_cpu}{zig_features}"), unicorn, dsp, name)


_HELIUM = "+mve_fp+fp_armv8d16"
_CORTEX_M55 = _core("Cortex-M55", "", "auto", _HELIUM, dsp=True)
# By its architecture, since GCC 12 does not know the core: that of a Cortex-M55, whose model executes it. What a
# Cortex-M85 has beyond (pointer authentication) no compiler uses unasked.
_CORTEX_M85 = replace(
    _core("Cortex-M85", "", "auto", _HELIUM, dsp=True),
    gcc=("-march=armv8.1-m.main+mve+fp.dp", "-mthumb", "-mfloat-abi=hard"),
    executed_as="Cortex-M55",
)


CORES = {
    core.name: core
    for core in (
        _core("Cortex-M0", "M0"),
        _core("Cortex-M0+", "M0"),  # the same instructions
        _core("Cortex-M3", "M3"),
        _core("Cortex-M4", "M4", "fpv4-sp-d16", "+vfp4d16sp", dsp=True),
        _core("Cortex-M7", "M7", "fpv5-sp-d16", "+fp_armv8d16sp", dsp=True),
        _core("Cortex-M33", "M33", "fpv5-sp-d16", "+dsp+fp_armv8d16sp", dsp=True),
        _CORTEX_M55,
        _CORTEX_M85,
    )
}


def core_of(name: str) -> Core:
    """The core of a name such as `Cortex-M4`.

    Raises:
        UnsupportedError: None of that name is known here.
    """
    if name not in CORES:
        raise UnsupportedError(f"no library can be compiled for {name}", hint=did_you_mean(name, CORES))
    return CORES[name]
