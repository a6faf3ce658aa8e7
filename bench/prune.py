"""Five torchvision networks with random weights: is surgery exact, and how long do all steps up to it take.

Half of the channels of every group go, at random. The networks come from an installed torchvision, or from the folder
that EDGEPRUNE_TORCHVISION names.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from bench import command
from bench.cells import Result, Sheet
from bench.public_models import randomised, torchvision_models
from edgeprune.cost import Correction
from edgeprune.device.fusion import fuse
from edgeprune.device.profiles import load_latency_model
from edgeprune.errors import UsageError, did_you_mean
from edgeprune.progress import Progress
from edgeprune.pruning.allocation import Bounds, Costing, most_valuable, score_values, smallest
from edgeprune.pruning.criteria.evidence import Evidence
from edgeprune.pruning.groups import ChannelGroups, channel_groups
from edgeprune.pruning.importance import importance
from edgeprune.pruning.limits import width_levels
from edgeprune.pruning.masked import masked_outputs
from edgeprune.pruning.plan import Plan, apply, uniform
from edgeprune.pruning.surgery import prune
from edgeprune.pruning.trace import Captured, trace
from edgeprune.target import load_target

T = TypeVar("T")

NETS = ("mobilenet_v2", "mobilenet_v3_small", "densenet121", "efficientnet_b0", "resnet50")
SHARES = (0.75, 0.5, 0.25)  # of the dense latency that the solver is given
STEP, MIN_KEEP, GAP, LIMIT_S = 8, 0.1, 1e-3, 20.0


def main(arguments: Sequence[str]) -> int:
    """The command; returns the exit status."""
    parser = command.parser("prune", (__doc__ or "").splitlines()[0])
    parser.add_argument("--nets", default=",".join(NETS), help="torchvision names, separated by commas")
    parser.add_argument("--sizes", default="64,224", help="input height and width, separated by commas")
    parser.add_argument("--repeats", type=int, default=3, help="of what is timed; the median counts")
    options = parser.parse_args(arguments)
    if options.smoke:
        options.nets, options.sizes, options.repeats = "mobilenet_v3_small", "64", 1
    return command.run("prune", options, arguments, _benchmark)


def _benchmark(sheet: Sheet, options: argparse.Namespace, folder: Path, progress: Progress) -> None:
    models = torchvision_models()
    for name in options.nets.split(","):
        if not hasattr(models, name):
            raise UsageError(f"no network {name!r}", where="--nets", hint=did_you_mean(name, NETS))
        for side in map(int, options.sizes.split(",")):
            progress.note(f"{name} at {side} x {side}")
            sheet.cell(f"{name}/{side}", partial(_cell, models, name, side, options.repeats))


def _cell(models: Any, name: str, side: int, repeats: int) -> Result:
    version = sys.modules["torchvision"].__version__
    return {"torchvision": version, **measured(randomised(getattr(models, name)), side, repeats)}


def measured(model: nn.Module, side: int, repeats: int) -> Result:
    """Everything about one network at one input size."""
    example = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    captured, trace_s = timed(lambda: trace(model, example), repeats)
    groups, groups_s = timed(lambda: channel_groups(captured.graph), repeats)
    scores = importance("random", Evidence(captured, groups)).scores
    plan = uniform(groups, 0.5, 1, scores)
    pruned, prune_s = timed(lambda: prune(captured, groups, plan), repeats)
    planned = apply(plan, groups)
    return {
        "parameters": [_parameters(captured.module), _parameters(pruned.module)],
        "groups": len(groups.groups),
        "frozen": {entry.name: entry.width for entry in groups.frozen},
        "error": error(captured, groups, plan, side),
        "retraced": trace(pruned.module, example).graph == planned,
        "trace_s": round(trace_s, 4),
        "groups_s": round(groups_s, 4),
        "prune_s": round(prune_s, 4),
        "solves": [solved(captured, groups, share) for share in SHARES],
    }


def timed(work: Callable[[], T], repeats: int) -> tuple[T, float]:
    """The last answer, and the median of the wall times in seconds."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        answer = work()
        seconds.append(time.perf_counter() - started)
    return answer, statistics.median(seconds)


@torch.no_grad()
def error(captured: Captured, groups: ChannelGroups, plan: Plan, side: int) -> float:
    """max |pruned - masked| / max |masked| on four random inputs, in the model's own precision."""
    x = torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(1))
    want = masked_outputs(captured, groups, plan, x)
    got = prune(captured, groups, plan).module.eval()(x)
    return float((want - got).abs().max() / want.abs().max())


def solved(captured: Captured, groups: ChannelGroups, share: float) -> Result:
    """One solve to a share of the dense latency by the rpi4's int8 model. The value of a width is its L1 score."""
    target = load_target("rpi4")
    runtime = target.default_runtime
    threads = target.runtime(runtime).threads
    latency = load_latency_model(target, runtime, "int8", threads)
    assert latency is not None
    costing = Costing(groups, fuse(captured.graph), target, runtime, threads, "int8", latency, Correction())
    levels = width_levels(groups, STEP, MIN_KEEP)
    scores = importance("l1", Evidence(captured, groups)).scores
    dense_s = costing.of_ops(costing.ops).cost.latency_s
    assert dense_s is not None
    values = score_values(groups, levels, scores)
    smallest_s = smallest(costing, levels).cost.latency_s
    assert smallest_s is not None
    asked = {"share": share, "smallest": round(smallest_s / dense_s, 4)}
    started = time.perf_counter()
    found = most_valuable("l1", costing, Bounds(latency_s=share * dense_s), levels, values, scores, GAP, LIMIT_S)
    wall_s = round(time.perf_counter() - started, 3)
    if found is None:
        return {**asked, "feasible": False, "wall_s": wall_s}
    reached_s = found.predicted.cost.latency_s
    assert reached_s is not None
    return {
        **asked,
        "feasible": True,
        "reached": round(reached_s / dense_s, 4),
        "solver_s": round(found.seconds, 3),
        "wall_s": wall_s,  # tables and further solves included
        "gap": found.gap,
    }


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
