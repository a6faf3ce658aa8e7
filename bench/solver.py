"""How long the budgeted solve takes on six public networks, how close to the optimum, and how much better than greedy.

Random weights, valued by their L1 norm. Each network is solved to shares of the latency that the rpi4's int8 model
gives it, by latency alone and by latency, RAM, size and MACs at once. The networks come from installed torchvision and
timm, or from the folder that EDGEPRUNE_TORCHVISION names.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import nn

from bench import command
from bench.cells import Result, Sheet
from bench.cifar import resnet20
from bench.public_models import randomised, torchvision_models
from edgeprune.cost import Correction
from edgeprune.device.fusion import fuse
from edgeprune.device.profiles import load_latency_model
from edgeprune.errors import UsageError, did_you_mean
from edgeprune.progress import Progress
from edgeprune.pruning.allocation import Bounds, Costing, most_valuable, problem_of, score_values, smallest
from edgeprune.pruning.criteria.evidence import Evidence
from edgeprune.pruning.descent import greedy
from edgeprune.pruning.groups import channel_groups
from edgeprune.pruning.importance import importance
from edgeprune.pruning.limits import Levels, width_levels
from edgeprune.pruning.solver import solve
from edgeprune.pruning.trace import trace
from edgeprune.target import load_target

SHARES = (0.75, 0.5, 0.25)  # of the dense latency, and of what lies between the smallest and the dense other costs
MIN_KEEP, GAP, LIMIT_S = 0.1, 1e-3, 20.0


class ResNet8(nn.Module):
    """The image classification network of MLPerf Tiny: one block per stage, 1 x 1 convolutions on the shortcuts."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _convolution(3, 16, 3, 1)
        widths = ((16, 16, 1), (16, 32, 2), (32, 64, 2))
        self.first = nn.ModuleList(_convolution(a, b, 3, stride) for a, b, stride in widths)
        self.second = nn.ModuleList(_convolution(b, b, 3, 1) for _, b, _ in widths)
        self.short = nn.ModuleList(nn.Conv2d(a, b, 1, stride) if a != b else nn.Identity() for a, b, stride in widths)
        self.head = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        for first, second, short in zip(self.first, self.second, self.short):
            x = (second(first(x).relu()) + short(x)).relu()
        logits: torch.Tensor = self.head(x.mean((2, 3)))
        return logits


def _convolution(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs))


def _vit_tiny() -> nn.Module:
    torchvision_models()  # timm lies beside torchvision
    model: nn.Module = importlib.import_module("timm").create_model("vit_tiny_patch16_224")
    return model


# How it is built, input height and width, channel step.
NETS: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "resnet8": (ResNet8, 32, 4),
    "resnet20": (resnet20, 32, 4),
    "resnet50": (lambda: torchvision_models().resnet50(), 224, 8),
    "mobilenet_v2": (lambda: torchvision_models().mobilenet_v2(), 224, 8),
    "efficientnet_b0": (lambda: torchvision_models().efficientnet_b0(), 224, 8),
    "vit_tiny": (_vit_tiny, 224, 8),
    "densenet121": (lambda: torchvision_models().densenet121(), 224, 8),
}


SIX = tuple(NETS)[:6]


def main(arguments: Sequence[str]) -> int:
    """The command; returns the exit status."""
    parser = command.parser("solver", (__doc__ or "").splitlines()[0])
    parser.add_argument("--nets", default=",".join(SIX), help=f"separated by commas; all: {', '.join(NETS)}")
    options = parser.parse_args(arguments)
    if options.smoke:
        options.nets = "resnet8"
    return command.run("solver", options, arguments, _benchmark)


def _benchmark(sheet: Sheet, options: argparse.Namespace, folder: Path, progress: Progress) -> None:
    for name in options.nets.split(","):
        if name not in NETS:
            raise UsageError(f"no network {name!r}", where="--nets", hint=did_you_mean(name, NETS))
        progress.note(name)
        sheet.cell(name, partial(measured, *NETS[name]))


def measured(build: Callable[[], nn.Module], side: int, step: int) -> Result:
    """All solves of one network."""
    example = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    captured = trace(randomised(build), example)
    groups = channel_groups(captured.graph)
    target = load_target("rpi4")
    runtime = target.default_runtime
    threads = target.runtime(runtime).threads
    latency = load_latency_model(target, runtime, "int8", threads)
    costing = Costing(groups, fuse(captured.graph), target, runtime, threads, "int8", latency, Correction())
    levels = width_levels(groups, step, MIN_KEEP)
    scores = importance("l1", Evidence(captured, groups)).scores
    limits = {f"{share:g} {name}": made for share in SHARES for name, made in bounds(costing, levels, share).items()}
    return {
        "groups": len(groups.groups),
        "levels": sum(map(len, levels)),
        "smallest": round(_latency_s(smallest(costing, levels).cost) / _latency_s(costing.of_ops(costing.ops).cost), 4),
        "solves": {name: solved(costing, made, levels, scores) for name, made in limits.items()},
    }


def bounds(costing: Costing, levels: Levels, share: float) -> dict[str, Bounds]:
    """A share of the dense latency, alone and with the same share of what the other costs can spare."""
    dense, least = costing.of_ops(costing.ops).cost, smallest(costing, levels).cost
    limits = {}
    for name in ("ram_bytes", "size_bytes", "macs"):
        high, low = getattr(dense, name), getattr(least, name)
        limits[name] = low + share * (high - low)
    alone = Bounds(latency_s=share * _latency_s(dense))
    return {"latency": alone, "all": Bounds(latency_s=alone.latency_s, **limits)}


def solved(costing: Costing, limits: Bounds, levels: Levels, scores: dict[str, object]) -> Result:
    """One solve, with the greedy answer to the same tables beside it, and the plan that holds by its true cost."""
    values = score_values(costing.groups, levels, scores)
    started = time.perf_counter()
    problem = problem_of(costing, limits, levels, values)
    tables_s = time.perf_counter() - started
    found, other = solve(problem, GAP, LIMIT_S), greedy(problem)
    if found is None:
        return {"feasible": False, "tables_s": round(tables_s, 3)}
    least = sum(float(value.min()) for value in problem.values)
    plan = most_valuable("l1", costing, limits, levels, values, scores, GAP, LIMIT_S)
    return {
        "feasible": True,
        "tables_s": round(tables_s, 3),
        "solver_s": round(found.seconds, 3),
        "method": found.method,
        "gap": found.gap,
        "greedy": None if other is None else (other.value - least) / (found.value - least),
        "greedy_s": None if other is None else round(other.seconds, 3),
        "plan_gap": None if plan is None else plan.gap,
    }


def _latency_s(cost: object) -> float:
    seconds = cost.latency_s
    assert isinstance(seconds, float)
    return seconds


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
