"""Trained ResNet-20 on CIFAR-10 to a microcontroller's latency, RAM and flash at once, as a C library.

The accuracy is that of the C library's outputs on all test images. A limit binds where groups of channels that were
narrowed would break it if they were a step wider.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench import cifar, command, runs
from bench.cells import ROOT, Result, Sheet
from edgeprune.progress import Progress
from edgeprune.spec import Spec
from edgeprune.workload import Workload

LIMITS = ("latency", "ram", "size")


def main(arguments: Sequence[str]) -> int:
    """The command; returns the exit status."""
    return command.run("mcu-fit", options_of(arguments), arguments, _benchmark)


def options_of(arguments: Sequence[str]) -> argparse.Namespace:
    """What the command line says."""
    parser = command.parser("mcu-fit", (__doc__ or "").splitlines()[0])
    parser.add_argument("--target", default="nucleo-l4r5zi")
    parser.add_argument("--latency", default="300ms")
    parser.add_argument("--ram", default="26KiB")
    parser.add_argument("--size", default="150KiB", help="of flash: code and weights")
    parser.add_argument("--seeds", type=int, default=1, help="seeds 0 to N - 1")
    parser.add_argument("--epochs", type=int, default=10, help="of fine-tuning")
    parser.add_argument("--train-images", type=int, default=20_000, help="validation images included")
    parser.add_argument("--test-images", type=int, default=10_000)
    options = parser.parse_args(arguments)
    if options.smoke:
        options.epochs, options.train_images, options.test_images = 1, 1000, 200
    return options


def _benchmark(sheet: Sheet, options: argparse.Namespace, folder: Path, progress: Progress) -> None:
    workload = cifar.workload(options.train_images, options.test_images)
    for seed in range(options.seeds):
        spec = spec_of(options, folder / f"seed{seed}", seed)
        sheet.cell(f"fit/seed{seed}", partial(_fitted, spec, workload, progress, anew=options.fresh))


def spec_of(options: argparse.Namespace, out: Path, seed: int) -> Spec:
    """The job of one seed."""
    fit: dict[str, Any] = {"seed": seed, "epochs": options.epochs, "patience": options.epochs, "formats": ("c",)}
    if options.smoke:
        fit |= {"race_steps": 4, "curves_limit_s": 5.0}
    return Spec.model_validate(
        {
            "model": {"entry": "bench/cifar.py:resnet20"},
            "data": {"source": "bench/cifar.py:workload", "flip": True, "crop": 4},
            "target": {"name": options.target},
            "budget": {limit: getattr(options, limit) for limit in LIMITS},
            "fit": fit,
            "out": out,
        }
    )


def _fitted(spec: Spec, workload: Workload, progress: Progress, *, anew: bool) -> Result:
    record = runs.fit(spec, workload, progress, anew=anew)
    rows = {row.role: row for row in record.costs}
    return {
        "verdict": record.verdict,
        "violations": [violation.text for violation in record.violations],
        "binding": list(record.binding),
        "source": record.source.value,
        "budget": record.budget.model_dump(exclude_none=True),
        "latency_ns": record.latency_ns,
        "latency_interval_ns": record.latency_interval_ns,
        "ram_bytes": record.ram_bytes,
        "size_bytes": record.size_bytes,
        "rounds": len(record.rounds),
        "rehearsals": len(record.rehearsals),
        "plan": next((row.plan for row in record.rounds if row.decision == "accept"), None),
        "blocked": {row.what: [row.blocked, row.shrunk] for row in record.limits},
        "dense": record.metric.dense,
        "fp32": record.metric.pruned,
        "int8": record.metric.artifacts,
        "parameters": {role: row.parameters for role, row in rows.items() if row.parameters},
        "macs": {role: row.macs for role, row in rows.items() if row.macs},
        "samples": record.samples,
        "notes": list(record.notes),
        "timings_s": {row.stage: row.seconds for row in record.timings},
        "run": record.run.resolve().relative_to(ROOT).as_posix(),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
