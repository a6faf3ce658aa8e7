"""Fine-tuning after surgery: epochs of steps by a recipe, judged on validation, the best one kept."""

from __future__ import annotations

import json
import time
from contextlib import closing
from itertools import islice
from pathlib import Path

import torch
from torch import nn

from edgeprune.errors import QualityError, UsageError
from edgeprune.progress import SILENT, Progress
from edgeprune.recipe import TrainSpec
from edgeprune.spec import FitSpec
from edgeprune.training.batchnorm import re_estimate_batchnorm
from edgeprune.training.distil import Teacher
from edgeprune.training.evaluate import better, evaluate
from edgeprune.training.guide import Guide, wants_guide
from edgeprune.training.journal import Journal, check_journal, journal
from edgeprune.training.layout import channels_last_if_it_runs, restored_layout
from edgeprune.training.order import Order
from edgeprune.training.precision import forward_of, half_type
from edgeprune.training.ranks import ALONE, Ranks
from edgeprune.training.resume import Keeper, keeper, shared
from edgeprune.training.state import (
    Best,
    EpochResult,
    Setup,
    State,
    begun,
    fresh_optimiser,
    put_back,
    rate,
    snapshot,
)
from edgeprune.training.step import take_step
from edgeprune.values import Value
from edgeprune.workload import Dataset, Task, Workload
from edgeprune.workload.samples import batch_of
from edgeprune.workload.tasks import Classify

HALVINGS = 2  # times the rate is halved after non-finite numbers before giving up
RECIPE = TrainSpec()


class TrainResult(Value):
    """What fine-tuning did; `best_metric` is the primary metric on validation of the weights that were kept."""

    history: tuple[EpochResult, ...]
    best_epoch: int
    best_metric: float
    best_is_average: bool  # of the weights over the steps, not the last ones
    steps: int
    halvings: int
    stopped_early: bool
    seconds: float


def fine_tune(
    model: nn.Module,
    workload: Workload,
    *,
    settings: FitSpec,
    recipe: TrainSpec = RECIPE,
    teacher: Teacher | None = None,
    guide: Guide | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    seed: int | None = None,
    device: torch.device | str | None = None,
    progress: Progress = SILENT,
    workspace: Path | None = None,
    curves: Path | None = None,
    ranks: Ranks = ALONE,
) -> TrainResult:
    """Train `model` in place; it ends in eval mode on `device` with the weights of the best epoch.

    The validation set decides which epoch is best and when to stop; the weights as they came are a candidate too. The
    same seed gives the same weights on the same machine with the same number of threads.

    Args:
        settings: Epochs, batch size, rate, weight decay, norm to clip at, patience, seed, device, whether to distil.
        recipe: Everything else about the training.
        teacher: From `teacher_for`; None, or `settings.distill` false, trains on the targets alone.
        guide: From `guide_of_plan` or `guide_between`, for recipes that learn from inside the dense model; `model` is
            a captured program then.
        epochs: Other than `settings.epochs`.
        steps: Train for this many steps and judge once at the end, without early stop: what a race of plans needs.
        seed: Other than `settings.seed`.
        device: Other than `settings.device`.
        workspace: A folder where the state is written now and then; the same call goes on from what it finds there,
            and its result is that of a call that was never interrupted.
        curves: A folder for TensorBoard, where the recipe asks for it.
        ranks: The processes that make this call together. Each works on its part of every batch, the leader's weights
            and workspace count, and all end with the same weights, the leader with its statistics.

    Raises:
        QualityError: Numbers stop being finite even after the rate was halved twice.
        UsageError: CUDA is asked for and not there; the recipe does not fit the task; what lies in the workspace is
            damaged.
        UnsupportedError: The model cannot be compiled, and is asked to be.
        MissingExtraError: TensorBoard is asked for and not installed.
        NoRoomError: No room for the state; what was written before is intact.
    """
    started = time.perf_counter()
    check_recipe(recipe, workload.task, distill=settings.distill)
    _check_parts(ranks, min(settings.batch_size, len(workload.data.train)))
    place = torch.device(device) if device is not None else training_device(settings.device)
    rounds = (settings.epochs if epochs is None else epochs) if steps is None else 1
    per_epoch = max(1, len(workload.data.train) // settings.batch_size) if steps is None else steps
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []), restored_layout(model):
        seed = settings.seed if seed is None else seed
        torch.manual_seed(seed)
        setup = Setup(
            model=model,
            workload=workload,
            teacher=_placed_teacher(teacher, workload, place) if settings.distill else None,
            guide=_placed_guide(guide, recipe, place),
            settings=settings,
            recipe=recipe,
            device=place,
            half=half_type(recipe, place),
            forward=forward_of(model, recipe),
            layout=channels_last_if_it_runs(model.to(place), batch_of(workload.data.train, [0])[0].to(place)),
            progress=progress,
            ranks=ranks,
            epochs=rounds,
            per_epoch=per_epoch,
            judge_first=steps is None,
        )
        keep = keeper(setup, workspace, seed)
        state = shared(setup, keep.taken_up(setup, begun(setup)))
        with closing(journal(curves if recipe.tensorboard else None, state.step)) as log:
            result = _carry_out(setup, state, keep, log)
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
    order = Order(len(dataset), batch_size, torch.Generator().manual_seed(seed))
    drawn = islice(order, min(batches, max(1, len(dataset) // batch_size)))
    return re_estimate_batchnorm(model, (batch_of(dataset, indices)[0].to(device) for indices in drawn))


def check_recipe(recipe: TrainSpec, task: Task, *, distill: bool) -> None:
    """Refuse a recipe that cannot be followed.

    Raises:
        UsageError: Label smoothing without labels; learning from inside a teacher that is not learnt from; what cannot
            go together.
        MissingExtraError: TensorBoard is asked for and not installed.
    """
    check_journal(recipe.tensorboard)
    if recipe.label_smoothing > 0 and not isinstance(task, Classify):
        raise UsageError(
            f"{type(task).__name__} has no labels that can be smoothed",
            where="train.label_smoothing",
            hint="leave it out, or smooth in the task's own loss",
        )
    if wants_guide(recipe) and not distill:
        raise UsageError(
            "features and attention are learnt from the dense model, and distillation is off",
            where="fit.distill",
            hint="leave out --no-distill, or train.feature_weight and train.attention_weight",
        )
    if recipe.compile and wants_guide(recipe):
        raise UsageError("a compiled model cannot be looked into", where="train.compile", hint="train.compile = false")
    if recipe.sam > 0 and recipe.precision == "fp16":
        raise UsageError("sam needs gradients that are not scaled", where="train.sam", hint="use bf16 or fp32")


def training_device(wish: str) -> torch.device:
    """The device for `auto`, `cpu` or `cuda`.

    Raises:
        UsageError: CUDA is asked for and not there.
    """
    if wish == "cuda" and not torch.cuda.is_available():
        raise UsageError("no CUDA device is available", where="fit.device", hint="use auto or cpu")
    return torch.device("cuda" if wish != "cpu" and torch.cuda.is_available() else "cpu")


def _check_parts(ranks: Ranks, batch_size: int) -> None:
    if batch_size < ranks.size:
        raise UsageError(
            f"{ranks.size} processes for batches of {batch_size} samples",
            where="fit.batch_size",
            hint="start fewer processes or take larger batches",
        )


def _placed_teacher(teacher: Teacher | None, workload: Workload, device: torch.device) -> Teacher | None:
    if isinstance(teacher, nn.Module):
        return teacher.to(device).eval()
    if teacher is not None and len(teacher) != len(workload.data.train):
        raise ValueError(f"{len(teacher)} teacher outputs for {len(workload.data.train)} training samples")
    return teacher


def _placed_guide(guide: Guide | None, recipe: TrainSpec, device: torch.device) -> Guide | None:
    if not wants_guide(recipe):
        return None
    if guide is None:
        raise ValueError("the recipe learns from inside the dense model, and no guide was given")
    guide.teacher.to(device).eval()
    guide.projections.to(device)
    return guide


def _carry_out(setup: Setup, state: State, keep: Keeper, log: Journal) -> TrainResult:
    """All epochs that are left, until one stops being worth while; the model ends with the weights of the best."""
    if not state.history and (setup.judge_first or setup.epochs == 0):
        _record(setup, state, EpochResult(epoch=0, metrics=_judge(setup)))
    while state.epoch < setup.epochs and not _waited_enough(setup, state):
        loss = _train_epoch(setup, state, keep, log)
        metrics = _judge_if_finite(setup) if loss is not None else None
        if loss is None or metrics is None:
            _recover(setup, state)
            continue
        _close_epoch(setup, state, loss, metrics)
        log.add(state.step, {f"validation/{name}": value for name, value in metrics.items()})
    keep.at_end(setup, state)
    assert state.best is not None
    put_back(setup, state.kept)
    return TrainResult(
        history=tuple(state.history),
        best_epoch=state.best.epoch,
        best_metric=state.best.metric,
        best_is_average=state.best.averaged,
        steps=state.step,
        halvings=state.halvings,
        stopped_early=state.epoch < setup.epochs,
        seconds=0.0,
    )


def _waited_enough(setup: Setup, state: State) -> bool:
    return state.best is not None and state.epoch - state.best.epoch >= setup.settings.patience


def _close_epoch(setup: Setup, state: State, loss: float, metrics: dict[str, float]) -> None:
    """Note how an epoch ended that ended well, and judge the average of its weights too."""
    state.epoch += 1
    state.last_good = snapshot(setup)
    averaged = None
    if state.average is not None:
        state.last_average = {name: value.clone() for name, value in state.average.items()}
        put_back(setup, state.average)
        averaged = _judge(setup)
        put_back(setup, state.last_good)
    speed = setup.per_epoch * setup.batch_size / max(state.seconds, 1e-9)
    result = EpochResult(
        epoch=state.epoch,
        metrics=metrics,
        loss=loss,
        learning_rate=rate(setup, state),
        samples_per_s=speed,
        averaged=averaged,
    )
    state.done, state.loss, state.seconds = 0, 0.0, 0.0
    _record(setup, state, result)


def _record(setup: Setup, state: State, result: EpochResult) -> None:
    """Add to the history; keep the weights, or their average, when they are the best."""
    state.history.append(result)
    candidates = [(result.metrics, state.last_good, False)]
    if result.averaged is not None and state.last_average is not None:
        candidates.append((result.averaged, state.last_average, True))
    for metrics, weights, is_average in candidates:
        metric = metrics[setup.workload.task.primary]
        if better(metric, None if state.best is None else state.best.metric, setup.workload.task):
            state.best, state.kept = Best(metric=metric, epoch=result.epoch, averaged=is_average), weights


def _train_epoch(setup: Setup, state: State, keep: Keeper, log: Journal) -> float | None:
    """The mean loss over the steps that the epoch still needs; None as soon as a number is not finite."""
    setup.model.to(memory_format=setup.layout)  # type: ignore[call-overload]
    setup.model.train()
    left = setup.per_epoch - state.done
    label = f"fine-tune {state.epoch + 1}/{setup.epochs}"
    for indices in setup.progress.track(islice(state.order, left), label, left):
        began = time.perf_counter()
        loss = take_step(setup, state, indices)
        if loss is None:
            return None
        log.add(state.step, {"training/loss": loss, "training/learning_rate": state.optimiser.param_groups[0]["lr"]})
        state.loss += loss
        state.done += 1
        state.seconds += time.perf_counter() - began
        keep.after_step(setup, state)
    statistics = [buffer for buffer in setup.model.buffers() if buffer.is_floating_point()]
    setup.ranks.average(statistics, 1 / setup.ranks.size)
    return state.loss / max(1, setup.per_epoch)


def _judge(setup: Setup) -> dict[str, float]:
    """The metrics on validation, as the leader finds them."""
    metrics: dict[str, float] = json.loads(setup.ranks.tell(lambda: json.dumps(_evaluated(setup))))
    return metrics


def _judge_if_finite(setup: Setup) -> dict[str, float] | None:
    def judged() -> str:
        try:
            return json.dumps(_evaluated(setup))
        except QualityError:
            return "null"

    metrics: dict[str, float] | None = json.loads(setup.ranks.tell(judged))
    return metrics


def _evaluated(setup: Setup) -> dict[str, float]:
    return evaluate(setup.model, setup.workload.data.validation, setup.workload.task, device=setup.device)


def _recover(setup: Setup, state: State) -> None:
    """Back to the last epoch that ended well, with half the rate and no momentum."""
    if state.halvings == HALVINGS:
        raise QualityError(
            f"training gives numbers that are not finite, also at a learning rate of {rate(setup, state):.2g}",
            where=f"step {state.step + 1} of {setup.total_steps}",
            hint=f"start lower: fit.learning_rate = {setup.settings.learning_rate / 10:g}",
        )
    state.halvings += 1
    state.step -= state.done
    state.done, state.loss, state.seconds = 0, 0.0, 0.0
    put_back(setup, state.last_good)
    if state.average is not None and state.last_average is not None:
        for name, value in state.last_average.items():
            state.average[name].copy_(value)
    state.optimiser = fresh_optimiser(setup)
    setup.progress.note(
        f"numbers are not finite: back to the last good epoch, learning rate halved to {rate(setup, state):.2g}"
    )
