"""Does a calibration of this machine foretell networks it never saw: random widths of two networks, measured in turns.

`edgeprune calibrate` runs first, with the machine to itself. Then every network is exported at random widths, every
other one in multiples of eight, and the int8 files are timed in turns with the dense one and ten further copies of it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn

from bench import command
from bench.cells import Result, Sheet
from bench.cifar import ResNet
from bench.public_models import randomised, torchvision_models
from edgeprune import backends
from edgeprune.calibration.calibrate import calibrate
from edgeprune.calibration.store import find
from edgeprune.device.fusion import absorb_padding, fuse
from edgeprune.device.latency import DeviceModel
from edgeprune.profiling import compare_p50
from edgeprune.progress import Progress
from edgeprune.pruning.groups import ChannelGroups, channel_groups
from edgeprune.pruning.plan import Plan, aligned, apply, best_channels, own_step
from edgeprune.pruning.surgery import prune
from edgeprune.pruning.trace import trace
from edgeprune.quantization.ranges import RangePolicy
from edgeprune.target import load_target

LEAST_SHARE = 0.15
STEPS = (8, 1)  # of the widths, in turns


def _resnet20() -> nn.Module:
    return ResNet(3)


def _mobilenet_v2() -> nn.Module:
    model: nn.Module = torchvision_models().mobilenet_v2()
    return model


NETS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet20": (_resnet20, 32),
    "mobilenet_v2": (_mobilenet_v2, 224),
    "mobilenet_v2-96": (_mobilenet_v2, 96),
}


def main(arguments: Sequence[str]) -> int:
    """The command; returns the exit status."""
    parser = command.parser("calibration", (__doc__ or "").splitlines()[0])
    parser.add_argument("--nets", default=",".join(NETS), help="separated by commas")
    parser.add_argument("--widths", type=int, default=30, help="random width vectors of each network")
    parser.add_argument("--quick", action="store_true", help="the short calibration")
    options = parser.parse_args(arguments)
    if options.smoke:
        options.nets, options.widths, options.quick = "resnet20", 3, True
    return command.run("calibration", options, arguments, _benchmark)


def _benchmark(sheet: Sheet, options: argparse.Namespace, folder: Path, progress: Progress) -> None:
    files = {name: _exported(name, options.widths, folder / name, progress) for name in options.nets.split(",")}
    sheet.cell("calibrate", partial(_calibrated, options.quick, progress))
    host = load_target("host")
    model = find(host, host.default_runtime, "int8", 1).model
    assert model is not None
    for name, paths in files.items():
        sheet.cell(name, partial(_judged, name, model, paths))


def _calibrated(quick: bool, progress: Progress) -> Result:
    found = calibrate(load_target("host"), quick=quick, progress=progress, fresh=True)
    return {
        "networks": len(found.rows),
        "spread": float(np.median([row.spread for row in found.rows])),
        "judged": found.judged.model_dump(),
        "band": [found.model.band.low, found.model.band.high],
        "tiles": {name: law.tiles for name, law in found.model.laws.items()},
        "errors": {name: law.error for name, law in found.model.laws.items()},
    }


def random_widths(groups: ChannelGroups, seed: int) -> Plan:
    """Every group at a random share of its channels; with even seeds in multiples of eight."""
    random, step, keep = np.random.default_rng(seed), STEPS[seed % len(STEPS)], {}
    for group in groups.groups:
        share = random.uniform(LEAST_SHARE, 1)
        width = aligned(share * group.width, group.width, own_step(group, step))
        keep[group.name] = best_channels(width, group.width, None)
    return Plan(keep=keep)


def _exported(name: str, count: int, folder: Path, progress: Progress) -> list[Path]:
    """The dense file, then those of the random widths; what is there already is not written again."""
    build, side = NETS[name]
    paths = [folder / f"{index}" / "model.tflite" for index in range(count + 1)]
    if all(path.is_file() for path in paths):
        return paths
    network = randomised(build)
    example = torch.randn(8, 3, side, side, generator=torch.Generator().manual_seed(0))
    captured = trace(network, example[:1])
    groups = channel_groups(captured.graph)
    for index, path in enumerate(progress.track(paths, f"exporting {name}")):
        if path.is_file():
            continue
        module = captured.module if index == 0 else prune(captured, groups, random_widths(groups, index)).module
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = example.numpy()
        backend = backends.get("tflite")
        backend.export(module.eval(), samples[:1], path.parent, "int8", samples, RangePolicy())
    return paths


def _judged(name: str, model: DeviceModel, paths: Sequence[Path]) -> Result:
    """Errors of both ways to a prediction: from the planned graph, as the solver asks, and from the exported file."""
    build, side = NETS[name]
    captured = trace(randomised(build), torch.zeros(1, 3, side, side))
    groups = channel_groups(captured.graph)
    plans = [Plan(keep={}), *(random_widths(groups, index) for index in range(1, len(paths)))]
    planned = [model.total_s(absorb_padding(fuse(apply(plan, groups)))) for plan in plans]
    read = backends.get("tflite").read_ops
    from_file = [model.total_s(absorb_padding(read(path))) for path in paths]
    timed = compare_p50(paths, threads=1)
    return {
        "side": side,
        "noise": timed.noise,
        "runs": timed.runs,
        "measured_ns": [round(seconds * 1e9) for seconds in timed.p50_s],
        "planned_ns": [round(seconds * 1e9) for seconds in planned],
        "from_file_ns": [round(seconds * 1e9) for seconds in from_file],
        "planned": _errors(planned[1:], timed.p50_s[1:], model),
        "from_file": _errors(from_file[1:], timed.p50_s[1:], model),
    }


def _errors(estimated: Sequence[float], measured: Sequence[float], model: DeviceModel) -> Result:
    ratios = np.array(measured) / np.array(estimated)
    errors = np.abs(1 / ratios - 1)
    band = model.band
    return {
        "median": float(np.median(errors)),
        "p90": float(np.quantile(errors, 0.9)),
        "largest": float(errors.max()),
        "rank_correlation": float(spearmanr(estimated, measured).statistic),
        "bias": float(np.median(ratios) - 1),
        "in_band": float(np.mean((ratios >= band.low) & (ratios <= band.high))),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
