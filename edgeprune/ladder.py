"""Int8 that holds: what is done to a model, cheapest first, until its exported files lose no more than is allowed.

Every step is judged by the files themselves, in their own runtimes, on the validation set; the test set decides
nothing. A step that makes the worst file better is kept and the next one builds on it. Layers in float come last,
because only they make the file slower on the device; they are listed by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from edgeprune.device.fusion import fuse
from edgeprune.documents import QuantizeRow
from edgeprune.errors import UnsupportedError
from edgeprune.progress import SILENT, Progress
from edgeprune.pruning.curves import kl_divergence, relative_error
from edgeprune.pruning.trace import Captured
from edgeprune.quantization.correct import corrected
from edgeprune.quantization.equalise import equalised, pairs, uncapped
from edgeprune.quantization.fake import quantised_nodes
from edgeprune.quantization.layers import folded, layers
from edgeprune.quantization.observed import node_ranges
from edgeprune.quantization.ranges import Range, RangePolicy
from edgeprune.quantization.sensitivity import sensitivity
from edgeprune.quantization.train import trained_on_grid
from edgeprune.spec import FitSpec, QuantizeSpec
from edgeprune.training.distil import Teacher
from edgeprune.workload import Workload
from edgeprune.workload.tasks import Classify

PLAIN = "plain"
_CORRECTION_SAMPLES = 128
_COUNTS = (1, 2, 4, 8)  # of layers in float that are tried
_MIXED_SHARE = 0.25  # of the layers may stay float


@dataclass(frozen=True)
class Prepared:
    """A float model, and how it is to be exported in int8.

    Attributes:
        ranges: For every activation of every file.
        in_float: Paths of the weights whose layers stay float.
        steps: What was done to it, in order.
        same: Whether the float model still computes what it did before.
    """

    captured: Captured
    ranges: RangePolicy = field(default_factory=RangePolicy)
    in_float: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    same: bool = True

    @property
    def float_macs(self) -> int:
        """Multiply-accumulates of the layers that stay float."""
        nodes = {layer.node for layer in layers(self.captured.module) if layer.weight in self.in_float}
        return sum(op.macs for op in fuse(self.captured.graph) if nodes & set(op.nodes))


@dataclass(frozen=True)
class Context:
    """What the steps may use.

    Attributes:
        samples: Calibration inputs (n, ...), drawn from the training data.
        weight_limit: The coarsest of the files' weight grids.
        mixes: Whether some file's runtime can leave a layer in float.
        teacher: Called only when it comes to training.
        stored: The trained model for one that is to be trained, from an earlier run of the same or by training.
    """

    workload: Workload
    samples: torch.Tensor
    weight_limit: int
    mixes: bool
    spec: QuantizeSpec
    training: FitSpec
    device: torch.device
    teacher: Callable[[], Teacher | None]
    stored: Callable[[Captured, Callable[[], Captured]], Captured] = lambda _, train: train()
    progress: Progress = SILENT


@dataclass(frozen=True)
class Climbed:
    """What was chosen, its number among the steps, and all that was tried."""

    prepared: Prepared
    number: int
    rows: tuple[QuantizeRow, ...]


Step = Callable[[Prepared, Context], Prepared | None]
Judge = Callable[[int, Prepared], Mapping[str, float]]


def climb(captured: Captured, fp32: float, context: Context, judge: Judge) -> Climbed:
    """Try steps until no judged file's drop is above what is allowed; the best that was tried where none suffices.

    Args:
        captured: The float model as it is.
        fp32: Its primary metric on the validation set.
        judge: The primary metric of each file on the validation set, by format, for a number that tells trials apart.
    """
    task, allowed = context.workload.task, context.spec.limit().allowed(fp32)
    sign = 1 if task.higher_is_better else -1

    def tried(number: int, prepared: Prepared, step: str) -> tuple[QuantizeRow, float]:
        try:
            metrics = dict(judge(number, prepared))
        except UnsupportedError as error:  # a converter that cannot do this step; without any it must do
            if step == PLAIN:
                raise
            context.progress.note(f"int8, {step}: {error.message}")
            return QuantizeRow(step=step, metrics={}, drop=None, note=error.message), math.inf
        drop = max(sign * (fp32 - metric) for metric in metrics.values())
        context.progress.note(f"int8, {step}: drop {drop * 100:.2f} pp (allowed {allowed * 100:.2f} pp)")
        return QuantizeRow(step=step, metrics=metrics, drop=drop, in_float=prepared.in_float), drop

    best = Prepared(captured)
    row, lowest = tried(0, best, PLAIN)
    rows, number = [row], 0
    for name, step in _steps(context):
        if lowest <= allowed:
            break
        made = step(best if best.steps else replace(best, captured=folded(captured)), context)
        if made is None:
            continue
        made = replace(made, steps=(*best.steps, name))
        row, drop = tried(len(rows), made, name)
        rows.append(row)
        if drop < lowest:
            best, number, lowest = made, len(rows) - 1, drop
    done = (PLAIN, *best.steps)
    marked = [row.model_copy(update={"kept": row.step in done}) for row in rows]
    return Climbed(best, number, tuple(marked))


def _steps(context: Context) -> Iterator[tuple[str, Step]]:
    worst: list[str] = []  # layers, once it comes to that
    every: Mapping[str, Sequence[tuple[str, Step]]] = {
        "equalise": (
            ("channels equalised by weights", lambda best, _: _equalised(best)),
            ("channels equalised by activations", lambda best, c: _equalised(best, c.samples)),
            ("ReLU6 made ReLU, channels equalised", _without_caps),
        ),
        "ranges": (
            ("ranges by percentile", lambda best, _: replace(best, ranges=RangePolicy(method="percentile"))),
            ("ranges by least squared error", lambda best, _: replace(best, ranges=RangePolicy(method="mse"))),
        ),
        "correct": (("biases corrected", _corrected),),
        "train": (("trained on the int8 grid", _trained),),
        "mix": tuple((f"{count} layer{'s' * (count > 1)} in float", _mixed(count, worst)) for count in _COUNTS),
    }
    for name in context.spec.steps:
        if name == "mix" and not context.mixes:
            continue
        yield from every[name]


def _equalised(best: Prepared, samples: torch.Tensor | None = None) -> Prepared | None:
    if all(pair.capped for pair in pairs(best.captured.module)):
        return None
    by = equalised(best.captured, "weights") if samples is None else equalised(best.captured, "activations", samples)
    return replace(best, captured=by)


def _without_caps(best: Prepared, context: Context) -> Prepared | None:
    """Caps keep channels from being scaled apart; a model may do without them."""
    capped = frozenset(node for pair in pairs(best.captured.module) for node in pair.capped)
    if not capped:
        return None
    freed = uncapped(best.captured, capped)
    return replace(best, captured=equalised(freed, "activations", context.samples), same=False)


def _corrected(best: Prepared, context: Context) -> Prepared:
    few = context.samples[:_CORRECTION_SAMPLES]
    return replace(best, captured=corrected(best.captured, few, best.ranges, context.weight_limit))


def _ranges(best: Prepared, context: Context) -> dict[str, Range]:
    return node_ranges(best.captured.module, quantised_nodes(best.captured), context.samples, best.ranges)


def _trained(best: Prepared, context: Context) -> Prepared | None:
    if not context.spec.epochs:
        return None

    def train() -> Captured:
        context.progress.note("training on the int8 grid")
        return trained_on_grid(
            best.captured,
            context.workload,
            _ranges(best, context),
            context.weight_limit,
            context.training,
            epochs=context.spec.epochs,
            teacher=context.teacher(),
            device=context.device,
            progress=context.progress,
        )

    return replace(best, captured=context.stored(best.captured, train), same=False)


def _mixed(count: int, worst: list[str]) -> Step:
    """The layers that int8 hurts most, in float."""

    def step(best: Prepared, context: Context) -> Prepared | None:
        if count > max(1, _MIXED_SHARE * len(layers(best.captured.module))):
            return None
        if not worst:
            damage = kl_divergence if isinstance(context.workload.task, Classify) else relative_error
            ranges, few = _ranges(best, context), context.samples[:_CORRECTION_SAMPLES]
            worst.extend(sensitivity(best.captured, ranges, few, context.weight_limit, damage, context.progress))
        return replace(best, in_float=tuple(worst[:count]))

    return step
