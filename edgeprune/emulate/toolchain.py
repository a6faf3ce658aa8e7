"""Compiles and links C for a Cortex-M: GNU's `arm-none-eabi-gcc` where it is installed, else clang as pip's `ziglang`.

The linker script is ours and holds the sizes of the chip, so that what does not fit fails here, with the bytes.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from edgeprune.emulate.cores import Core
from edgeprune.errors import BudgetError, EdgepruneError, MissingExtraError, QualityError, UsageError
from edgeprune.units import format_size

ToolchainName = Literal["gcc", "zig"]
NEEDED = 'pip install "edgeprune[mcu]", or apt-get install gcc-arm-none-eabi'
_FIRMWARE = Path(__file__).with_name("firmware.c")
# A library that needs no unwinding has no tables of it; what is not reached from the entry takes no flash.
_FLAGS = (
    *("-std=gnu99", "-ffreestanding", "-ffunction-sections", "-fdata-sections", "-fno-unwind-tables"),
    *("-fno-asynchronous-unwind-tables", "-fno-common", "-nostdlib", "-Wl,--gc-sections"),
)
# zig's clang would trap undefined behaviour; GCC's own library holds what the core has no instruction for.
_OWN_FLAGS: dict[ToolchainName, tuple[str, ...]] = {"gcc": ("-lgcc",), "zig": ("-fno-sanitize=all",)}
# Only where it is needed: the first time for a core, zig compiles its library, which takes some ten seconds.
_ZIG_LIBRARY = "-rtlib=compiler-rt"
_SCRIPT = """\
ENTRY({entry})
MEMORY
{{
    FLASH (rx) : ORIGIN = {flash_address:#x}, LENGTH = {flash_bytes}
    RAM (rw) : ORIGIN = {ram_address:#x}, LENGTH = {ram_bytes}
}}
edgeprune_ram_end = ORIGIN(RAM) + LENGTH(RAM);
SECTIONS
{{
    {vectors}
    .text : {{ {first} *(.text .text.*) }} > FLASH
    .rodata : {{ *(.rodata .rodata.*) *(.weights .weights.*) *(.*_weights .*_weights.*) }} > FLASH
    .data : {{ *(.data .data.*) }} > RAM AT > FLASH
    .bss (NOLOAD) : {{ KEEP(*(.bss.edgeprune_*)) *(.bss .bss.*) *(COMMON) . = ALIGN(8); edgeprune_ram_free = .; }} > RAM
    /DISCARD/ : {{ *(.ARM.exidx*) *(.ARM.extab*) *(.eh_frame*) *(.note*) }}
}}
"""
_OVERFLOW = re.compile(r"region [`']?(FLASH|RAM)'?:? overflowed by (\d+) bytes")


@dataclass(frozen=True)
class Toolchain:
    """A compiler and linker.

    Attributes:
        version: For the record, such as `arm-none-eabi-gcc 12.2.1`.
    """

    name: ToolchainName
    command: tuple[str, ...]
    version: str


@dataclass(frozen=True)
class MemoryMap:
    """Where flash and RAM of a chip begin, and their bytes."""

    flash_address: int
    flash_bytes: int
    ram_address: int
    ram_bytes: int


@dataclass(frozen=True)
class Sources:
    """A library in C.

    Attributes:
        files: What is compiled.
        include_dirs: Searched for headers, in order.
        defines: Macros by name; an empty value defines the bare name.
    """

    files: tuple[Path, ...]
    include_dirs: tuple[Path, ...] = ()
    defines: Mapping[str, str] | None = None


@cache
def find_toolchain(name: ToolchainName | None = None) -> Toolchain:
    """The toolchain of a name, or the best one there is.

    Raises:
        MissingExtraError: There is none (of that name).
    """
    for tried in (name,) if name else ("gcc", "zig"):
        command = _command(tried)
        if command is not None:
            return Toolchain(tried, command, _version(tried, command))
    wanted = {"gcc": "arm-none-eabi-gcc", "zig": "the package ziglang", None: "a compiler for Cortex-M"}[name]
    raise MissingExtraError(f"{wanted} is not installed", hint=NEEDED)


def _command(name: ToolchainName) -> tuple[str, ...] | None:
    if name == "gcc":
        path = shutil.which("arm-none-eabi-gcc")
        return (path,) if path else None
    return (sys.executable, "-m", "ziglang", "cc") if importlib.util.find_spec("ziglang") else None


def _version(name: ToolchainName, command: Sequence[str]) -> str:
    asked = [*command, "-dumpfullversion"] if name == "gcc" else [*command[:-1], "version"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return f"{'arm-none-eabi-gcc' if name == 'gcc' else 'zig cc'} {done.stdout.strip()}"


def build(
    toolchain: Toolchain,
    core: Core,
    sources: Sources,
    entry: str,
    memory: MemoryMap,
    output: Path,
    optimisation: str = "-O3",
    vectors: int | None = None,
) -> Path:
    """Links a library to an ELF file at `output`, with what is reached from `entry` and nothing else.

    With an address for `vectors`, the section of that name is put there and kept.

    Of the system's libraries only the compiler's own is linked.

    Raises:
        BudgetError: Flash or RAM of the chip are too small; says by how many bytes.
        QualityError: The compiler refuses the sources.
    """
    missing = [str(path) for path in sources.files if not path.is_file()]
    if missing:
        raise UsageError(f"no such source file: {', '.join(missing)}")
    kept = f".vectors {vectors:#x} : {{ KEEP(*(.vectors)) }}" if vectors is not None else ""
    own = _SCRIPT.format(entry=entry, first=f"*(.text.{entry})", vectors=kept, **vars(memory))
    with tempfile.TemporaryDirectory(prefix="edgeprune-link-") as folder:
        script = Path(folder) / "memory.ld"
        script.write_text(own, encoding="utf-8")
        machine = core.gcc if toolchain.name == "gcc" else core.zig
        command = [*toolchain.command, *machine, optimisation, *_FLAGS]
        command += [f"-I{path}" for path in sources.include_dirs]
        command += [f"-D{key}={value}" if value else f"-D{key}" for key, value in (sources.defines or {}).items()]
        # the linker of zig does not take the entry from the script
        command += [*map(str, sources.files), f"-Wl,-e,{entry}", f"-Wl,-T,{script}"]
        command += _OWN_FLAGS[toolchain.name]
        # zig keeps what it compiled in a cache; a temporary one for this call, the user's own for its runtime library
        environment = os.environ | {"ZIG_LOCAL_CACHE_DIR": folder, "LC_ALL": "C"}
        command += ["-o", str(output)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if toolchain.name == "zig" and "undefined symbol: __" in done.stderr:
            command.append(_ZIG_LIBRARY)
            done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise _refusal(done.stderr, toolchain, core, memory)
    return output


def firmware(input_bytes: int, output_bytes: int, arena_bytes: int) -> Sources:
    """What is linked beside a library: the caller's buffers as the arrays `edgeprune_input`, `_output`, `_arena`."""
    sizes = {"INPUT_BYTES": input_bytes, "OUTPUT_BYTES": output_bytes, "ARENA_BYTES": max(arena_bytes, 1)}
    return Sources((_FIRMWARE,), defines={name: str(size) for name, size in sizes.items()})


def _refusal(log: str, toolchain: Toolchain, core: Core, memory: MemoryMap) -> EdgepruneError:
    """The error for what the compiler or linker printed."""
    over: dict[str, int] = {}
    for region, size in _OVERFLOW.findall(log):
        over[region] = max(over.get(region, 0), int(size))
    if over:
        has = {"FLASH": memory.flash_bytes, "RAM": memory.ram_bytes}
        parts = [
            f"{'flash' if r == 'FLASH' else 'RAM'} by {n} bytes (has {format_size(has[r])})" for r, n in over.items()
        ]
        return BudgetError(f"the library does not fit: it overflows {' and '.join(sorted(parts))}", where=core.name)
    lines = [line for line in log.splitlines() if "error" in line or "undefined" in line] or log.splitlines()[-3:]
    return QualityError(
        f"the library does not compile for {core.name}: {'; '.join(line.strip() for line in lines[:3])}",
        where=toolchain.version,
    )
