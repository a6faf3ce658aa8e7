"""What int8 networks cost as C libraries on microcontrollers: instructions, cycles, memory, and outputs compared.

Every full-integer .tflite file of a folder (`--models`, else EDGEPRUNE_MODELS, else the MLPerf Tiny models of the
shared data) and networks that the benchmark writes itself, executed on emulated cores, compiled by two toolchains.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench import command
from bench.cells import RESULTS, ROOT, Result, Sheet, read_document
from bench.mcu_nets import NETS, chosen_nets, written
from edgeprune.backends.c.reader import read
from edgeprune.backends.c.schedule import schedule
from edgeprune.emulated import profile_emulated
from edgeprune.errors import UnsupportedError, UsageError
from edgeprune.progress import Progress
from edgeprune.target import load_target

TARGETS = ("nucleo-l4r5zi", "nucleo-h7a3zi", "nucleo-u575zi", "mps3-an547")  # Cortex-M4, M7, M33, M55
TOOLCHAINS = ("gcc", "zig")
REFUSED = "refused"
_QEMU = "Cortex-M55"  # executed by qemu-system-arm, which is not everywhere
_SOURCES = ("csrc", "backends/c", "emulate")  # what the counts depend on, in the package


@dataclass(frozen=True)
class Peer:
    """A network elsewhere: instructions of CMSIS-NN on a Cortex-M4, bytes of the arena of TensorFlow Lite Micro."""

    macs: int
    instructions: int
    arena_bytes: int


# Counted in QEMU on an M4 with CMSIS-NN after v7.0.0, gcc 12 -Ofast, without the interpreter; arenas as TensorFlow Lite
# Micro reports them on the 32-bit core. By name and MACs: another network of the same name has no peer.
_AD = Peer(264_192, 579_380, 2_580)
PEERS = {
    "pretrainedResnet_quant.tflite": Peer(12_501_632, 29_871_786, 54_996),
    "kws_ref_model.tflite": Peer(2_656_768, 7_843_419, 22_820),
    "vww_96_int8.tflite": Peer(7_489_664, 24_712_075, 100_708),
    "ad01_int8.tflite": _AD,
    "autoencoder": _AD,
}


def main(arguments: Sequence[str]) -> int:
    """The command; returns the exit status."""
    parser = command.parser("mcu", (__doc__ or "").splitlines()[0])
    shared = Path(os.environ.get("EDGEPRUNE_SHARED", ROOT.parent / "shared"))
    models = Path(os.environ.get("EDGEPRUNE_MODELS", shared / "data" / "mlperf_tiny_models"))
    parser.add_argument("--models", type=Path, default=models, help="folder of .tflite files")
    parser.add_argument("--nets", default=",".join(NETS), help="of its own, separated by commas")
    targets = [name for name in TARGETS if load_target(name).cpu.core != _QEMU or shutil.which("qemu-system-arm")]
    parser.add_argument("--targets", default=",".join(targets), help="separated by commas; a Cortex-M55 needs QEMU")
    parser.add_argument("--toolchains", default=",".join(TOOLCHAINS), help="separated by commas")
    parser.add_argument("--compared", type=int, default=100, help="inputs compared with the reference kernels")
    options = parser.parse_args(arguments)
    if options.smoke:
        options.models, options.nets, options.compared = None, "autoencoder", 4
        options.targets, options.toolchains = TARGETS[0], TOOLCHAINS[0]
    options.files = digest(options.models, ("*.tflite",)) if options.models else None
    options.sources = [digest(ROOT / "edgeprune" / part, ("**/*.c", "**/*.h", "**/*.py")) for part in _SOURCES]
    kept = options.results or RESULTS / "mcu.json"
    options.fresh = options.fresh or (not options.smoke and stale(kept, options.sources))
    return command.run("mcu", options, arguments, _benchmark)


def digest(folder: Path, patterns: Sequence[str]) -> str:
    """What the files of a folder hold, in twelve characters; figures of other contents are not mixed."""
    found = hashlib.sha256()
    for path in sorted(path for pattern in patterns for path in folder.glob(pattern)):
        found.update(path.name.encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:12]


def stale(results: Path, sources: list[str]) -> bool:
    """Whether the figures that are there are those of other kernels, which nobody needs any more."""
    return results.is_file() and read_document(results)["settings"].get("sources") != sources


def _benchmark(sheet: Sheet, options: argparse.Namespace, folder: Path, progress: Progress) -> None:
    nets, targets, toolchains = chosen_nets(options.nets), options.targets.split(","), options.toolchains.split(",")
    if options.models is not None and not options.models.is_dir():
        raise UsageError("no models here", where=str(options.models), hint="make bench-mcu MODELS=FOLDER")
    files = sorted(options.models.glob("*.tflite")) if options.models else []
    refused = sheet.cell(REFUSED, lambda: refusals(files))
    sources: dict[str, Callable[[], Path]] = {
        path.name: partial(Path, path) for path in files if path.name not in refused
    }
    sources |= {name: partial(written, name, folder) for name in nets}
    for name, source in sources.items():
        for target in targets:
            for toolchain in toolchains:
                count = partial(counted, source, target, toolchain, options.compared, progress)
                sheet.cell(f"{name}/{target}/{toolchain}", count)


def refusals(files: Sequence[Path]) -> dict[str, str]:
    """Why a file cannot be written as C, or not be executed, by its name; the others are left out."""
    found = {}
    for path in files:
        try:
            program = schedule(read(path))
        except UnsupportedError as error:
            found[path.name] = error.message
            continue
        if (ends := len(program.model.inputs) + len(program.model.outputs)) != 2:
            found[path.name] = f"the emulator runs one input and one output, this has {ends} in all"
    return found


def counted(source: Callable[[], Path], target: str, toolchain: str, compared: int, progress: Progress) -> Result:
    """The counts of a file on a target's core, and what they were taken with.

    Raises:
        UsageError: There is no such target or toolchain.
    """
    if toolchain not in TOOLCHAINS:
        raise UsageError(f"no toolchain {toolchain!r}", where="--toolchains", hint=" or ".join(TOOLCHAINS))
    path = source()
    found = profile_emulated(
        path,
        load_target(target),
        compared=compared,
        toolchain=toolchain,  # type: ignore[arg-type]  # one of them
        must_fit=False,
        progress=progress,
    )
    assert found.counts is not None
    return {
        "macs": found.cost.macs,
        **found.counts.model_dump(mode="json"),
        **found.environment,
        "notes": list(found.notes),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
