"""What int8 costs in accuracy, as ONNX, TFLite and OpenVINO files: plain, and after the steps that were needed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from bench import command
from bench.cells import Result, Sheet
from bench.int8_nets import NETS, workload
from bench.loop import chosen_nets
from edgeprune.progress import Progress
from edgeprune.pruning.trace import trace
from edgeprune.quantize_document import QuantizeRecord
from edgeprune.quantized import Source, quantize
from edgeprune.spec import FitSpec, QuantizeSpec, Spec

_FORMATS = ("onnxruntime", "openvino", "tflite")
_RECURRENT = ("tflite",)  # ONNX Runtime and OpenVINO have no int8 kernel for a GRU


def main(arguments: Sequence[str]) -> int:
    """The command; returns the exit status."""
    parser = command.parser("int8", (__doc__ or "").splitlines()[0])
    parser.add_argument("--nets", default=",".join(NETS), help=f"some of {','.join(NETS)}")
    parser.add_argument("--max-drop", default="0.5pp", help="on validation, of every file against its float model")
    parser.add_argument("--test-images", type=int, default=10_000)
    options = parser.parse_args(arguments)
    if options.smoke:
        options.nets, options.test_images = "gru", 50
    return command.run("int8", options, arguments, _benchmark)


def _benchmark(sheet: Sheet, options: argparse.Namespace, folder: Path, progress: Progress) -> None:
    for name in chosen_nets(options.nets, NETS):
        sheet.cell(name, partial(_quantised, name, options, folder, progress))


def _quantised(name: str, options: argparse.Namespace, folder: Path, progress: Progress) -> Result:
    held = workload(name, options.test_images)
    torch.manual_seed(0)
    spec = Spec(quantize=QuantizeSpec(max_drop=options.max_drop), fit=FitSpec(epochs=1))
    source = Source(held, trace(held.model, held.example), spec)
    return row_of(quantize(source, _RECURRENT if name == "gru" else _FORMATS, folder / name, progress))


def row_of(record: QuantizeRecord) -> Result:
    """What the table shows of one net: drops in fractions, on validation of every step, on test of the chosen files."""
    sign = 1 if record.higher_is_better else -1
    return {
        "holds": record.holds,
        "samples": record.samples,
        "fp32": {"validation": record.validation, "test": record.test},
        "plain": {name: sign * (record.validation - value) for name, value in record.steps[0].metrics.items()},
        "validation": {row.name: row.validation_drop for row in record.artifacts},
        "test": {row.name: row.test_drop for row in record.artifacts},
        "snr_db": {row.name: row.snr_db for row in record.artifacts},
        "float_ops": {row.name: row.float_ops for row in record.artifacts},
        "steps": [
            {"step": row.step, "drop": row.drop, "kept": row.kept, "in_float": row.in_float} for row in record.steps
        ],
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
