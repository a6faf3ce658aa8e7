"""What a C library takes of a microcontroller that nothing here compiles for or executes: counted from what is written.

RAM is the planned arena and the weights are counted, both exactly. Code is what a stand-in takes; of stack and time
nothing is known.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from edgeprune import backends
from edgeprune.backends.c.library import read_report
from edgeprune.cost import Measurement
from edgeprune.device.estimate import estimate
from edgeprune.emulate.cores import CORES
from edgeprune.emulate.elf import Image, read_image
from edgeprune.emulate.toolchain import MemoryMap, Sources, build, find_toolchain
from edgeprune.progress import SILENT, Progress
from edgeprune.target import Target
from edgeprune.units import format_size

# It takes plain C too, and has instructions of 2 and 4 bytes, where an Xtensa core has some of 2 and 3.
_STAND_IN = "Cortex-M3"
_ROOM = MemoryMap(flash_address=0, flash_bytes=2**26, ram_address=0x2000_0000, ram_bytes=2**26)
_NAME = "model"


def profile_generated(path: Path, target: Target, runtime: str, progress: Progress = SILENT) -> Measurement:
    """The estimated cost of an int8 .tflite file, or of a C library, on a core that there is no emulator for.

    Raises:
        MissingExtraError: There is no compiler for the stand-in.
        QualityError: The library does not compile.
        UnsupportedError: An operator cannot be written as C.
        UsageError: The file is missing or damaged.
    """
    backend: Any = backends.get("c")
    with tempfile.TemporaryDirectory() as scratch:
        report = path
        if path.name.endswith(".tflite"):
            progress.note(f"writing {path.name} as C")
            report = backend.convert(path, Path(scratch) / _NAME, _NAME, target)
        library = read_report(report)
        core = target.cpu.core if target.cpu.core in CORES else _STAND_IN
        progress.note(f"compiling {report.name} for a {core}")
        image, compiler = _linked(report, library, core, Path(scratch))
        ops = backend.read_ops(report)
    priced = estimate(ops, target, runtime, "int8")
    update = {"ram_bytes": library["arena_bytes"], "ram_kind": "arena", "size_bytes": image.flash_bytes}
    return priced.model_copy(
        update={
            "cost": priced.cost.model_copy(update=update),
            "runtime_version": library["tool_version"],
            "environment": {"core": core, "toolchain": compiler},
            "notes": (*priced.notes, *_notes(target, image, core, compiler)),
        }
    )


def _linked(report: Path, library: dict[str, Any], core: str, folder: Path) -> tuple[Image, str]:
    """The library linked for a core, and the compiler's name and version."""
    root, toolchain = report.parent, find_toolchain()
    files = tuple(root / file for file in library["files"] if file.startswith("src/") and file.endswith(".c"))
    sources = Sources(files, (root / "include", root / "src"))
    built = build(toolchain, CORES[core], sources, f"{library['name']}_run", _ROOM, folder / "library.elf")
    return read_image(built), toolchain.version


def _notes(target: Target, image: Image, core: str, compiler: str) -> tuple[str, ...]:
    weights, code = format_size(image.weights_bytes), format_size(image.flash_bytes - image.weights_bytes)
    stands_in = "" if core == target.cpu.core else f", since nothing here compiles for {target.cpu.core}"
    return (
        f"C generated, not executed: there is no emulator for {target.cpu.core} here",
        "RAM is the arena, exact; the stack on top of it is not known",
        f"size is flash: weights {weights}, exact, and code {code} as compiled for {core} ({compiler}){stands_in}",
    )
