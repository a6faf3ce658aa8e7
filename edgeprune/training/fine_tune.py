"""Fine-tuning after surgery: distillation from the dense model, cosine rate, clipped gradients, best epoch kept."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice

import torch
from torch import nn

from edgeprune.errors import QualityError, UsageError
from edgeprune.progress import SILENT, Progress
from edgeprune.spec import FitSpec
from edgeprune.training.batchnorm import re_estimate_batchnorm
from edgeprune.training.distil import Teacher, distillation_loss
from edgeprune.training.evaluate import better, evaluate
from edgeprune.training.layout import channels_last_if_it_runs, restored_layout
from edgeprune.values import Value
from edgeprune.workload import Dataset, Workload
from edgeprune.workload.samples import batch_of

MOMENTUM = 0.9
HALVINGS = 2  # times the rate is halved after non-finite numbers before giving up


class EpochResult(Value):
    """One pass. Epoch 0 is the model as it came; its loss, rate and speed are None."""

    epoch: int
    metrics: dict[str, float]  # on the validation set
    loss: float | None = None
    learning_rate: float | None = None  # at the end of the epoch
    samples_per_s: float | None = None


class TrainResult(Value):
    """What fine-tuning did; `best_metric` is the primary metric on validation of the weights that were kept."""

    history: tuple[EpochResult, ...]
    best_epoch: int
    best_metric: float
    steps: int
    halvings: int
    stopped_early: bool
    seconds: float


@dataclass
class _Run:
    """What changes while one model is trained."""

    model: nn.Module
    workload: Workload
    teacher: Teacher | None
    settings: FitSpec
    device: torch.device
    generator: torch.Generator
    progress: Progress
    optimiser: torch.optim.Optimizer
    order: Iterator[torch.Tensor]
    layout: torch.memory_format
    total_steps: int
    step: int = 0
    halvings: int = 0

    @property
    def rate(self) -> float:
        """Cosine from the full rate to zero, halved after each accident."""
        share = self.step / max(1, self.total_steps)
        return self.settings.learning_rate * 0.5**self.halvings * 0.5 * (1 + math.cos(math.pi * share))


def fine_tune(
    model: nn.Module,
    workload: Workload,
    *,
    settings: FitSpec,
    teacher: Teacher | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    seed: int | None = None,
    device: torch.device | str | None = None,
    progress: Progress = SILENT,
) -> TrainResult:
    """Train `model` in place; it ends in eval mode on `device` with the weights of the best epoch.

    SGD with Nesterov momentum, weight decay on matrices only. The validation set decides which epoch is best and when
    to stop; the weights as they came are a candidate too. The same seed gives the same weights on the same machine
    with the same number of threads.

    Args:
        settings: Epochs, batch size, rate, weight decay, clipping, patience, seed, device, whether to distil.
        teacher: From `teacher_for`; None, or `settings.distill` false, trains on the targets alone.
        epochs: Other than `settings.epochs`.
        steps: Train for this many steps and judge once at the end, without early stop: what a race of plans needs.
        seed: Other than `settings.seed`.
        device: Other than `settings.device`.

    Raises:
        QualityError: Numbers stop being finite even after the rate was halved twice.
        UsageError: CUDA is asked for and not there.
    """
    started = time.perf_counter()
    place = torch.device(device) if device is not None else training_device(settings.device)
    wanted = settings.model_copy(update={"epochs": settings.epochs if epochs is None else epochs})
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []), restored_layout(model):
        torch.manual_seed(settings.seed if seed is None else seed)
        run = _start(model, workload, teacher if settings.distill else None, wanted, steps, place, progress)
        per_epoch = steps if steps is not None else _steps_per_epoch(workload, wanted)
        result = _epochs(run, per_epoch, 1 if steps is not None else wanted.epochs, judge_first=steps is None)
    model.eval()
    return result.model_copy(update={"seconds": time.perf_counter() - started})


def re_estimate(
    model: nn.Module,
    dataset: Dataset,
    batch_size: int = 64,
    *,
    batches: int = 16,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> int:
    """Measure BatchNorm statistics anew on up to `batches` random batches; the model ends in eval mode on `device`.

    Returns:
        How many batches were used; 0 without BatchNorm.
    """
    model.to(device)
    order = _order(len(dataset), batch_size, torch.Generator().manual_seed(seed))
    drawn = islice(order, min(batches, max(1, len(dataset) // batch_size)))
    return re_estimate_batchnorm(model, (batch_of(dataset, indices)[0].to(device) for indices in drawn))


def training_device(wish: str) -> torch.device:
    """The device for `auto`, `cpu` or `cuda`.

    Raises:
        UsageError: CUDA is asked for and not there.
    """
    if wish == "cuda" and not torch.cuda.is_available():
        raise UsageError("no CUDA device is available", where="fit.device", hint="use auto or cpu")
    return torch.device("cuda" if wish != "cpu" and torch.cuda.is_available() else "cpu")


def _start(
    model: nn.Module,
    workload: Workload,
    teacher: Teacher | None,
    settings: FitSpec,
    steps: int | None,
    device: torch.device,
    progress: Progress,
) -> _Run:
    model.to(device)
    first = batch_of(workload.data.train, [0])[0].to(device)
    layout = channels_last_if_it_runs(model, first)
    if isinstance(teacher, nn.Module):
        teacher.to(device).eval()
    elif teacher is not None and len(teacher) != len(workload.data.train):
        raise ValueError(f"{len(teacher)} teacher outputs for {len(workload.data.train)} training samples")
    generator = torch.Generator().manual_seed(int(torch.randint(2**31, (1,))))
    total = steps if steps is not None else settings.epochs * _steps_per_epoch(workload, settings)
    order = _order(len(workload.data.train), settings.batch_size, generator)
    optimiser = _optimiser(model, settings)
    return _Run(model, workload, teacher, settings, device, generator, progress, optimiser, order, layout, total)


def _epochs(run: _Run, per_epoch: int, epochs: int, judge_first: bool) -> TrainResult:
    history: list[EpochResult] = []
    best: tuple[float, int] | None = None
    kept = last_good = _snapshot(run.model)
    task = run.workload.task
    epoch = 0
    if judge_first or epochs == 0:
        history.append(EpochResult(epoch=0, metrics=_judge(run)))
        best = (history[0].metrics[task.primary], 0)
    while epoch < epochs and (best is None or epoch - best[1] < run.settings.patience):
        began, first_step = time.perf_counter(), run.step
        loss = _train(run, per_epoch, f"fine-tune {epoch + 1}/{epochs}")
        took = time.perf_counter() - began
        metrics = _judge_if_finite(run) if loss is not None else None
        if loss is None or metrics is None:
            _recover(run, last_good, first_step)
            continue
        epoch += 1
        last_good = _snapshot(run.model)
        speed = per_epoch * min(run.settings.batch_size, len(run.workload.data.train)) / took
        history.append(
            EpochResult(epoch=epoch, metrics=metrics, loss=loss, learning_rate=run.rate, samples_per_s=speed)
        )
        if better(metrics[task.primary], best[0] if best else None, task):
            best, kept = (metrics[task.primary], epoch), last_good
    assert best is not None
    run.model.load_state_dict(kept)
    return TrainResult(
        history=tuple(history),
        best_epoch=best[1],
        best_metric=best[0],
        steps=run.step,
        halvings=run.halvings,
        stopped_early=epoch < epochs,
        seconds=0.0,
    )


def _train(run: _Run, steps: int, label: str) -> float | None:
    """Mean loss over that many steps; None as soon as a number is not finite."""
    run.model.to(memory_format=run.layout)  # type: ignore[call-overload]
    run.model.train()
    total = 0.0
    for indices in run.progress.track(islice(run.order, steps), label, steps):
        loss = _step(run, indices)
        if loss is None:
            return None
        total += loss
    return total / max(1, steps)


def _step(run: _Run, indices: torch.Tensor) -> float | None:
    x, y = batch_of(run.workload.data.train, indices)
    x, y = x.to(run.device), y.to(run.device)
    if run.workload.augment is not None:
        x = run.workload.augment(x, run.generator)
    x = x.to(memory_format=run.layout)
    with _precision(run.device):
        outputs = run.model(x)
        taught = _taught(run.teacher, indices, x)
    loss = distillation_loss(run.workload.task, outputs.float(), y, taught)
    run.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(run.model.parameters(), run.settings.clip_norm)
    value = loss.item()
    if not math.isfinite(value) or not math.isfinite(norm.item()):
        return None
    for group in run.optimiser.param_groups:
        group["lr"] = run.rate
    run.optimiser.step()
    run.step += 1
    return value


def _taught(teacher: Teacher | None, indices: torch.Tensor, x: torch.Tensor) -> torch.Tensor | None:
    if teacher is None:
        return None
    if isinstance(teacher, torch.Tensor):
        return teacher[indices].to(x.device)
    with torch.no_grad():
        outputs: torch.Tensor = teacher(x)
        return outputs.float()


def _precision(device: torch.device) -> AbstractContextManager[object]:
    """Half the bits on a GPU that has them; float32 on the CPU, where bfloat16 training fell to chance in a trial."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()


def _judge(run: _Run) -> dict[str, float]:
    return evaluate(run.model, run.workload.data.validation, run.workload.task, device=run.device)


def _judge_if_finite(run: _Run) -> dict[str, float] | None:
    try:
        return _judge(run)
    except QualityError:
        return None


def _recover(run: _Run, last_good: dict[str, torch.Tensor], step: int) -> None:
    """Back to the last epoch that ended well, with half the rate and no momentum."""
    if run.halvings == HALVINGS:
        raise QualityError(
            f"training gives numbers that are not finite, also at a learning rate of {run.rate:.2g}",
            where=f"step {run.step + 1} of {run.total_steps}",
            hint=f"start lower: fit.learning_rate = {run.settings.learning_rate / 10:g}",
        )
    run.halvings += 1
    run.step = step
    run.model.load_state_dict(last_good)
    run.optimiser = _optimiser(run.model, run.settings)
    run.progress.note(f"numbers are not finite: back to the last good epoch, learning rate halved to {run.rate:.2g}")


def _snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _optimiser(model: nn.Module, settings: FitSpec) -> torch.optim.Optimizer:
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=MOMENTUM, nesterov=True)


def _steps_per_epoch(workload: Workload, settings: FitSpec) -> int:
    return max(1, len(workload.data.train) // settings.batch_size)


def _order(count: int, batch_size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Batches of indices without end, shuffled anew each time round; what does not fill a batch is left for later."""
    size = min(batch_size, count)
    while True:
        shuffled = torch.randperm(count, generator=generator)
        yield from shuffled[: count // size * size].split(size)  # type: ignore[no-untyped-call]
