"""How a budget is approached: at once or in stages, at equal MACs and equal training.

Trained ResNet-20 on CIFAR-10 at a share of its MACs. The fine-tunes between the stages take as many steps as one epoch;
the arm without stages trains one epoch more.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench import cifar, command, runs
from bench.cells import ROOT, Result, Sheet
from edgeprune.device.fusion import fuse
from edgeprune.errors import UsageError, did_you_mean
from edgeprune.progress import Progress
from edgeprune.pruning.trace import trace
from edgeprune.spec import Spec
from edgeprune.workload import Workload

ARMS = ("one-shot", "geometric", "agp")
BATCH = 64
_STAGES = 3


@dataclass(frozen=True)
class _Bench:
    """What every cell needs."""

    options: argparse.Namespace
    folder: Path
    progress: Progress
    workload: Workload
    dense_macs: int


def main(arguments: Sequence[str]) -> int:
    """The command; returns the exit status."""
    parser = command.parser("schedule", (__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 to N - 1")
    parser.add_argument("--arms", default="one-shot,geometric", help=f"of {', '.join(ARMS)}")
    parser.add_argument("--epochs", type=int, default=4, help="of the last fine-tune; of one-shot one more")
    parser.add_argument("--share", type=float, default=0.25, help="of the dense MACs")
    parser.add_argument("--train-images", type=int, default=5000, help="validation images included")
    parser.add_argument("--test-images", type=int, default=10_000)
    options = parser.parse_args(arguments)
    if options.smoke:
        options.seeds, options.epochs, options.train_images, options.test_images = 1, 1, 1000, 200
    return command.run("schedule", options, arguments, _benchmark)


def chosen_arms(text: str) -> tuple[str, ...]:
    """The arms in the order in which they run.

    Raises:
        UsageError: One is not known.
    """
    asked = [arm.strip() for arm in text.split(",")]
    if unknown := [arm for arm in asked if arm not in ARMS]:
        raise UsageError(f"unknown schedule {unknown[0]!r}", where="--arms", hint=did_you_mean(unknown[0], ARMS))
    return tuple(arm for arm in ARMS if arm in asked)


def _benchmark(sheet: Sheet, options: argparse.Namespace, folder: Path, progress: Progress) -> None:
    arms = chosen_arms(options.arms)
    workload = cifar.workload(options.train_images, options.test_images)
    dense_macs = sum(op.macs for op in fuse(trace(workload.model, workload.example).graph))
    bench = _Bench(options, folder, progress, workload, dense_macs)
    for seed in range(options.seeds):
        for arm in arms:
            sheet.cell(f"{arm}/seed{seed}", partial(_fitted, bench, arm, seed))


def fit_of(arm: str, seed: int, epochs: int, steps_per_epoch: int) -> dict[str, Any]:
    """How an arm is fitted: all train equally many steps after the race."""
    return {
        "seed": seed,
        "schedule": arm,
        "stages": _STAGES,
        "epochs": epochs + (arm == "one-shot"),
        "patience": epochs + 1,
        "batch_size": BATCH,
        "race_steps": round(steps_per_epoch / (_STAGES - 1)),
        "curves_limit_s": 20.0,
        "formats": ("tflite",),
    }


def _fitted(bench: _Bench, arm: str, seed: int) -> Result:
    options, steps_per_epoch = bench.options, len(bench.workload.data.train) // BATCH
    tree = {
        "model": {"entry": "bench/cifar.py:resnet20"},
        "data": {"source": "bench/cifar.py:workload", "flip": True, "crop": 4},
        "target": {"name": "rpi4"},
        "budget": {"macs": f"{bench.dense_macs * options.share / 1e6:.6f}M"},
        "fit": fit_of(arm, seed, options.epochs, steps_per_epoch),
        "out": bench.folder / f"{arm}-seed{seed}",
    }
    record = runs.fit(Spec.model_validate(tree), bench.workload, bench.progress, anew=options.fresh)
    row = next(row for row in record.costs if row.role == "pruned")
    return {
        "verdict": record.verdict,
        "plan": next((row.plan for row in record.rounds if row.decision == "accept"), None),
        "macs": row.macs,
        "dense_macs": bench.dense_macs,
        "parameters": row.parameters,
        "dense": record.metric.dense,
        "fp32": record.metric.pruned,
        "int8": record.metric.artifacts["tflite"],
        "timings_s": {entry.stage: entry.seconds for entry in record.timings},
        "run": record.run.resolve().relative_to(ROOT).as_posix(),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
