"""What published networks execute on an emulated Raspberry Pi 4, and how well their published latencies follow from it.

    make bench-emulator [MEASUREMENTS=DIR]

Networks are written as .tflite files with random weights, run by the board's own LiteRT under QEMU and counted: by
XNNPACK's kernels, and by TFLite's own with ruy, of which far more is published. Then cycles are fitted and each
network, and each family, is foretold by the others.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bench import command
from bench.cells import ROOT, Result, Sheet
from bench.emulator_nets import written
from edgeprune.boards.execution import execute
from edgeprune.boards.kit import kit_of, qemu_version
from edgeprune.errors import UsageError
from edgeprune.progress import Progress
from edgeprune.target import load_target
from tools.counted_fitting import KERNELS, judged, read_rows
from tools.engines import tflite_network

TARGET = "rpi4"
_BY_XNNPACK = {
    "int8": ("mobilenet_v1_1.0_224", "mobilenet_v2_1.0_224"),
    "fp32": ("mobilenet_v1_1.0_224", "mobilenet_v2_1.0_224", "mobilenet_v3_large_1.0_224"),
}
_BY_RUY = (  # from small to large
    "mobilenet_v2_0.35_96",
    "mobilenet_v1_0.25_128",
    "mobilenet_v2_0.5_160",
    "mobilenet_v1_0.25_224",
    "mobilenet_v2_0.35_224",
    "mobilenet_v1_0.5_160",
    "mobilenet_v2_1.0_96",
    "mobilenet_v1_1.0_128",
    "mobilenet_v2_0.75_160",
    "mobilenet_v3_large_minimalistic_1.0_224",
    "mobilenet_v3_large_1.0_224",
    "mobilenet_v1_0.75_192",
    "mobilenet_v2_1.0_224",
)
NETS = (
    *(f"xnnpack/int8/{model}" for model in _BY_XNNPACK["int8"]),
    *(f"ruy/{precision}/{model}" for model in _BY_RUY for precision in ("int8", "fp32")),
    *(f"xnnpack/fp32/{model}" for model in _BY_XNNPACK["fp32"]),
)


def main(arguments: Sequence[str]) -> int:
    """The command; returns the exit status."""
    parser = command.parser("emulator", (__doc__ or "").splitlines()[0])
    shared = Path(os.environ.get("EDGEPRUNE_SHARED", ROOT.parent / "shared"))
    tables = Path(os.environ.get("EDGEPRUNE_MEASUREMENTS", shared / "measurements"))
    parser.add_argument("--measurements", type=Path, default=tables, help="folder of tables")
    parser.add_argument("--nets", default=",".join(NETS), help="kernels/precision/network, separated by commas")
    options = parser.parse_args(arguments)
    if options.smoke:
        options.nets = NETS[-1]
    return command.run("emulator", options, arguments, _benchmark)


def _benchmark(sheet: Sheet, options: argparse.Namespace, folder: Path, progress: Progress) -> None:
    for key in options.nets.split(","):
        sheet.cell(f"count/{key}", partial(counted, key, folder, progress))
    if options.measurements.is_dir() and not options.smoke:
        counts = {key: sheet.result(f"count/{key}") for key in NETS if key in options.nets.split(",")}
        rows = read_rows(options.measurements, counts)
        sheet.cell("fit", lambda: judged(rows, load_target(TARGET)))


def counted(key: str, folder: Path, progress: Progress) -> Result:
    """What one inference executes on the emulated board, the last of three.

    Raises:
        MissingExtraError: The board is not set up.
        UsageError: There is no such network.
    """
    kernels, precision, model_id = key.split("/")
    ops = tflite_network(model_id)
    if kernels not in KERNELS or precision not in ("int8", "fp32") or ops is None:
        raise UsageError(f"no network {key!r}", where="--nets", hint="such as xnnpack/int8/mobilenet_v1_1.0_224")
    path = written(model_id, precision, folder)
    progress.note(f"executing {key} on an emulated {TARGET}")
    found = execute(path, "tflite", kit_of(load_target(TARGET)), delegates=kernels == "xnnpack")
    tally = found.tallies[-1]
    return {
        "macs": sum(op.macs for op in ops),
        "instructions": tally.instructions,
        "classes": dict(tally.classes),
        "l1_misses": tally.l1_misses,
        "l2_misses": tally.l2_misses,
        "read_bytes": tally.read_bytes,
        "written_bytes": tally.written_bytes,
        "repeated": found.tallies[-2].instructions,
        "anonymous_bytes": found.anonymous_bytes,
        "runtime": found.version,
        "emulator": qemu_version(),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
