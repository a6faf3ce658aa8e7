"""Do the models of the C library foretell what an emulated core counts: random widths of two networks, and files.

Every network is exported at random widths, every other one in multiples of eight; the models see the planned graph, as
a solver does, the core executes the exported file. Of int8 files (those of `bench.mcu`) the models see the operators.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn

from bench import command
from bench.calibration import random_widths
from bench.cells import ROOT, Result, Sheet
from bench.cifar import ResNet
from bench.loop_nets import mobile
from bench.mcu import refusals
from bench.mcu_nets import NETS as FILES
from bench.mcu_nets import written
from bench.public_models import randomised
from edgeprune import backends
from edgeprune.cost import Measurement
from edgeprune.device.estimate import estimate
from edgeprune.device.fusion import fuse
from edgeprune.emulated import profile_emulated
from edgeprune.progress import Progress
from edgeprune.pruning.groups import channel_groups
from edgeprune.pruning.plan import Plan, apply
from edgeprune.pruning.surgery import prune
from edgeprune.pruning.trace import trace
from edgeprune.quantization.ranges import RangePolicy
from edgeprune.target import load_target

TARGETS = ("nucleo-l4r5zi", "nucleo-u575zi", "nucleo-h7a3zi", "nucleo-g0b1re")  # Cortex-M4, M33, M7, M0+
_COMPARED = 2  # inputs; the benchmark of the kernels compares more


def _resnet20() -> nn.Module:
    return ResNet(3)


# By name: how it is built, its input's channels and side.
NETS: Mapping[str, tuple[Callable[[], nn.Module], int, int]] = {
    "resnet20": (_resnet20, 3, 32),
    "mobile": (mobile, 1, 64),
}


def main(arguments: Sequence[str]) -> int:
    """The command; returns the exit status."""
    parser = command.parser("mcu-model", (__doc__ or "").splitlines()[0])
    shared = Path(os.environ.get("EDGEPRUNE_SHARED", ROOT.parent / "shared"))
    models = Path(os.environ.get("EDGEPRUNE_MODELS", shared / "data" / "mlperf_tiny_models"))
    parser.add_argument("--models", type=Path, default=models, help="folder of .tflite files")
    parser.add_argument("--nets", default=",".join(NETS), help="separated by commas")
    parser.add_argument("--targets", default=",".join(TARGETS), help="separated by commas")
    parser.add_argument("--widths", type=int, default=30, help="random width vectors of each network")
    options = parser.parse_args(arguments)
    if options.smoke:
        options.models, options.nets, options.targets, options.widths = None, "mobile", TARGETS[0], 2
    return command.run("mcu-model", options, arguments, _benchmark)


def _benchmark(sheet: Sheet, options: argparse.Namespace, folder: Path, progress: Progress) -> None:
    plans = {name: _exported(name, options.widths, folder / name, progress) for name in options.nets.split(",")}
    for target in options.targets.split(","):
        for name, pairs in plans.items():
            sheet.cell(f"{name}/{target}", partial(_planned, name, target, pairs, progress))
        sheet.cell(f"files/{target}", partial(_files, options.models, target, folder, options.smoke, progress))


def _exported(name: str, count: int, folder: Path, progress: Progress) -> list[tuple[Plan, Path]]:
    """The random widths and their files; what is there already is not written again."""
    build, channels, side = NETS[name]
    network = randomised(build)
    example = torch.randn(8, channels, side, side, generator=torch.Generator().manual_seed(0))
    captured = trace(network, example[:1])
    groups = channel_groups(captured.graph)
    pairs = [(random_widths(groups, index), folder / f"{index}" / "model.tflite") for index in range(count)]
    for plan, path in progress.track(pairs, f"exporting {name}"):
        if path.is_file():
            continue
        module = prune(captured, groups, plan).module.eval()
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = example.numpy()
        backends.get("tflite").export(module, samples[:1], path.parent, "int8", samples, RangePolicy())
    return pairs


def _planned(name: str, target: str, pairs: Sequence[tuple[Plan, Path]], progress: Progress) -> Result:
    build, channels, side = NETS[name]
    groups = channel_groups(trace(randomised(build), torch.zeros(1, channels, side, side)).graph)
    board = load_target(target)
    estimates = [estimate(fuse(apply(plan, groups)), board) for plan, _ in pairs]
    return _compared(estimates, [_executed(path, target, progress) for _, path in pairs])


def _files(models: Path | None, target: str, folder: Path, smoke: bool, progress: Progress) -> Result:
    """Errors on whole files, of which no step was in the fit."""
    found = sorted(models.glob("*.tflite")) if models else []
    refused = refusals(found)
    paths = [path for path in found if path.name not in refused]
    paths += [written(name, folder) for name in (["autoencoder"] if smoke else FILES)]
    ops = [backends.get("tflite").read_ops(path) for path in paths]
    found_costs = [_executed(path, target, progress) for path in paths]
    names = [path.name if path.name != "model.tflite" else path.parent.name for path in paths]
    return {"names": names, **_compared([estimate(own, load_target(target)) for own in ops], found_costs)}


def _executed(path: Path, target: str, progress: Progress) -> Measurement:
    return profile_emulated(path, load_target(target), compared=_COMPARED, must_fit=False, progress=progress)


def _compared(estimates: Sequence[Measurement], executed: Sequence[Measurement]) -> Result:
    """What was estimated beside what was executed, and the errors of latency, flash and RAM."""
    latencies = _column(estimates, "latency_s"), _column(executed, "latency_s")
    sizes = _column(estimates, "size_bytes"), _column(executed, "size_bytes")
    rams = _column(estimates, "ram_bytes"), _column(executed, "ram_bytes")
    ends = [found.cost.latency_interval_s or (0.0, 0.0) for found in estimates]
    inside = [
        low <= end[0] and end[1] <= high
        for (low, high), end in zip(ends, [found.cost.latency_interval_s or (0.0, 0.0) for found in executed])
    ]
    return {
        "estimated_ns": [round(value * 1e9) for value in latencies[0]],
        "executed_ns": [round(value * 1e9) for value in latencies[1]],
        "latency": {**_errors(*latencies), "interval_inside": float(np.mean(inside))},
        "flash": _errors(*sizes),
        "ram": _errors(*rams),
    }


def _column(found: Sequence[Measurement], name: str) -> list[float]:
    return [float(getattr(one.cost, name) or 0.0) for one in found]


def _errors(estimated: Sequence[float], executed: Sequence[float]) -> Result:
    ratios = np.array(estimated) / np.array(executed)
    errors = np.abs(ratios - 1)
    return {
        "median": float(np.median(errors)),
        "p90": float(np.quantile(errors, 0.9)),
        "largest": float(errors.max()),
        "bias": float(np.median(ratios) - 1),
        "rank_correlation": float(spearmanr(estimated, executed).statistic),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
