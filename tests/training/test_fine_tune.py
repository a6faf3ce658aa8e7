from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.errors import QualityError, UsageError
from edgeprune.pruning.trace import trace
from edgeprune.recipe import TrainSpec
from edgeprune.spec import DataSpec, FitSpec
from edgeprune.training.distil import distillation_loss, task_loss, teacher_for
from edgeprune.training.evaluate import better, evaluate, evaluate_session, predict
from edgeprune.training.fine_tune import fine_tune, training_device
from edgeprune.workload import Data, Workload
from edgeprune.workload.augment import Mixed, augmentation, mixture
from edgeprune.workload.samples import Subset, TensorSet
from edgeprune.workload.tasks import Classify

T = TypeVar("T")


def toy_set(count: int, seed: int) -> TensorSet:
    """Images whose label is the brighter quarter, under noise."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 4
    x = torch.randn(count, 1, 8, 8, generator=generator)
    for image, label in zip(x, y):
        row, column = divmod(int(label), 2)
        image[0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 1.0
    return TensorSet(x, y)


def toy_net(seed: int = 0, width: int = 8) -> nn.Module:
    torch.manual_seed(seed)
    layers = [nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(2)]
    return nn.Sequential(*layers, nn.Dropout(0.1), nn.Flatten(), nn.Linear(4 * width, 4)).eval()


def toy_workload(model: nn.Module | None = None, augment: DataSpec | None = None) -> Workload:
    train, validation = toy_set(128, 1), toy_set(64, 2)
    data = Data(train, validation, train, toy_set(64, 3))
    chosen = augmentation(augment) if augment else None
    return Workload("toy", "user", model or toy_net(), train.x[:1], data, Classify(), chosen)


SETTINGS = FitSpec(epochs=3, batch_size=16, learning_rate=0.05)


class Notes:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        yield from items


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("captured", [False, True])
def test_a_toy_problem_is_learnt_by_modules_and_captured_programs(captured: bool) -> None:
    workload = toy_workload()
    model = trace(workload.model, workload.example).module if captured else workload.model
    before = evaluate(model, workload.data.validation, workload.task)["accuracy"]
    result = fine_tune(model, workload, settings=SETTINGS.model_copy(update={"epochs": 6, "patience": 6}))
    assert before < 0.6 and result.best_metric > 0.8 and not model.training
    assert evaluate(model, workload.data.validation, workload.task)["accuracy"] == result.best_metric
    assert [epoch.epoch for epoch in result.history] == list(range(7)) and result.steps == 48
    speeds = [epoch.samples_per_s for epoch in result.history[1:]]
    assert all(speed is not None and speed > 0 for speed in speeds) and result.seconds > 0


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    nets = [toy_net() for _ in range(3)]
    for model, seed in zip(nets, (5, 5, 6)):
        torch.manual_seed(int(torch.randint(1000, (1,))))  # the caller's random state does not matter
        fine_tune(model, toy_workload(augment=DataSpec(flip=True, crop=1)), settings=SETTINGS, seed=seed)
    assert torch.equal(weights(nets[0]), weights(nets[1])) and not torch.equal(weights(nets[0]), weights(nets[2]))


def test_the_callers_random_state_is_left_alone() -> None:
    model, workload = toy_net(), toy_workload()
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    fine_tune(model, workload, settings=SETTINGS, steps=2)
    assert torch.equal(torch.rand(3), expected)


def test_weights_come_back_in_the_usual_memory_layout() -> None:
    model = toy_net()
    fine_tune(model, toy_workload(), settings=SETTINGS, steps=2)
    assert all(p.is_contiguous() for p in model.parameters())


def test_programs_whose_views_forbid_channels_last_train_too() -> None:
    class Viewed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 3, padding=1)
            self.fc = nn.Linear(4 * 64, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.conv(x).view(x.shape[0], -1))

    model = Viewed()
    assert fine_tune(model, toy_workload(), settings=SETTINGS).best_metric > 0.5


def test_a_race_takes_that_many_steps_and_judges_once() -> None:
    result = fine_tune(toy_net(), toy_workload(), settings=SETTINGS, steps=11)
    assert result.steps == 11 and len(result.history) == 1 and result.history[0].epoch == 1


def test_no_epochs_leave_the_weights_as_they_are() -> None:
    model = toy_net()
    before = weights(model)
    result = fine_tune(model, toy_workload(), settings=SETTINGS, epochs=0)
    assert torch.equal(before, weights(model)) and result.best_epoch == 0 and len(result.history) == 1


def test_a_better_teacher_makes_a_better_student_of_few_labels() -> None:
    teacher = toy_net(1)
    workload = toy_workload(teacher)
    fine_tune(teacher, workload, settings=SETTINGS, epochs=8)
    wrong = TensorSet(workload.data.train.x, torch.randint(0, 4, (128,), generator=torch.Generator().manual_seed(0)))
    noisy = Workload("toy", "user", teacher, workload.example, Data(wrong, *workload_sets(workload)), Classify())
    taught, alone = toy_net(2), toy_net(2)
    settings = SETTINGS.model_copy(update={"epochs": 6})
    with_teacher = fine_tune(taught, noisy, settings=settings, teacher=teacher_for(teacher, noisy))
    without = fine_tune(alone, noisy, settings=settings)
    assert with_teacher.best_metric > without.best_metric + 0.1


def workload_sets(workload: Workload) -> tuple:
    return workload.data.validation, workload.data.calibration, workload.data.test


def test_cached_teacher_outputs_equal_a_teacher_asked_each_time() -> None:
    workload = toy_workload(toy_net(3))
    cached = teacher_for(workload.model, workload)
    assert isinstance(cached, torch.Tensor) and cached.shape == (128, 4)
    students = [toy_net(), toy_net()]
    for student, teacher in zip(students, (cached, workload.model)):
        fine_tune(student, workload, settings=SETTINGS, teacher=teacher, steps=6)
    torch.testing.assert_close(weights(students[0]), weights(students[1]), rtol=1e-4, atol=1e-5)


def test_a_teacher_is_asked_each_time_when_samples_change() -> None:
    augmented = toy_workload(augment=DataSpec(flip=True))
    assert teacher_for(augmented.model, augmented) is augmented.model
    sets = toy_workload()
    lazy = Data(Subset(sets.data.train, tuple(range(64))), *workload_sets(sets))
    workload = Workload("toy", "user", sets.model, sets.example, lazy, Classify())
    assert teacher_for(sets.model, workload) is sets.model
    assert fine_tune(toy_net(), workload, settings=SETTINGS, teacher=sets.model, steps=3).steps == 3


def test_teacher_outputs_of_another_set_are_refused() -> None:
    with pytest.raises(ValueError, match="7 teacher outputs for 128 training samples"):
        fine_tune(toy_net(), toy_workload(), settings=SETTINGS, teacher=torch.zeros(7, 4), steps=1)


def test_distillation_loss_is_the_stated_formula() -> None:
    outputs, taught, targets = torch.randn(6, 4), torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    p, q = torch.softmax(taught / 4, 1), torch.softmax(outputs / 4, 1)
    divergence = (p * (p.log() - q.log())).sum(1).mean()
    expected = 0.5 * nn.functional.cross_entropy(outputs, targets) + 0.5 * 16 * divergence
    torch.testing.assert_close(distillation_loss(Classify(), outputs, targets, taught, TrainSpec()), expected)
    torch.testing.assert_close(
        distillation_loss(Classify(), outputs, targets, None, TrainSpec()),
        nn.functional.cross_entropy(outputs, targets),
    )


class Regress:
    primary = "error"
    higher_is_better = False

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (outputs.mean(1) - targets).square().mean()

    def metrics(self, outputs: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        return {"error": float(np.abs(outputs.mean(1) - targets).mean())}


def test_other_tasks_learn_from_the_teachers_outputs_and_keep_the_lowest() -> None:
    outputs, taught = torch.randn(6, 4), torch.randn(6, 4)
    expected = 0.5 * Regress().loss(outputs, torch.zeros(6)) + 0.5 * (outputs - taught).square().mean()
    torch.testing.assert_close(distillation_loss(Regress(), outputs, torch.zeros(6), taught, TrainSpec()), expected)
    sets = toy_workload()
    workload = Workload("toy", "user", sets.model, sets.example, sets.data, Regress())
    result = fine_tune(toy_net(), workload, settings=SETTINGS)
    assert result.best_metric == min(epoch.metrics["error"] for epoch in result.history)


def test_training_stops_early_and_keeps_the_best_epoch() -> None:
    model = toy_net()
    workload = toy_workload()
    fine_tune(model, workload, settings=SETTINGS, epochs=8)
    settled = evaluate(model, workload.data.validation, workload.task)["accuracy"]
    settings = SETTINGS.model_copy(update={"epochs": 9, "patience": 2, "learning_rate": 1e-7})
    result = fine_tune(model, workload, settings=settings)
    assert (
        result.stopped_early and len(result.history) == 3 and result.best_epoch == 0 and result.best_metric == settled
    )


@pytest.mark.parametrize(
    "recipe",
    [
        {"optimizer": "adamw"},
        {"momentum": 0.0, "schedule": "linear", "warmup": 0.2},
        {"clip": "adaptive", "clip_factor": 0.5},
        {"clip": "value", "label_smoothing": 0.1},
        {"clip": "none", "sam": 0.05},
        {"schedule": "one-cycle", "ema": 0.9},
    ],
)
def test_every_recipe_learns_the_toy_problem(recipe: dict[str, object]) -> None:
    model, workload = toy_net(), toy_workload()
    rate = 0.005 if "optimizer" in recipe else 0.05
    settings = SETTINGS.model_copy(update={"epochs": 6, "patience": 6, "learning_rate": rate})
    result = fine_tune(model, workload, settings=settings, recipe=TrainSpec.model_validate(recipe))
    assert result.best_metric > 0.75
    assert evaluate(model, workload.data.validation, workload.task)["accuracy"] == result.best_metric


def test_the_average_of_the_weights_is_kept_where_it_is_better() -> None:
    """At a rate that makes the weights jump about, their average is ahead."""
    model, workload = toy_net(), toy_workload()
    settings = SETTINGS.model_copy(update={"epochs": 1, "batch_size": 4, "learning_rate": 1.0})
    recipe = TrainSpec(schedule="constant", ema=0.9)
    result = fine_tune(model, workload, settings=settings, recipe=recipe)
    assert result.best_is_average and result.best_epoch == 1 and result.history[1].averaged is not None
    assert result.best_metric == result.history[1].averaged["accuracy"] > result.history[1].metrics["accuracy"] + 0.1
    assert evaluate(model, workload.data.validation, workload.task)["accuracy"] == result.best_metric


def test_an_average_of_the_weights_changes_nothing_about_their_training() -> None:
    plain, averaged = (
        fine_tune(toy_net(), toy_workload(), settings=SETTINGS, recipe=TrainSpec(ema=e)) for e in (0, 0.5)
    )
    assert [(e.loss, e.metrics) for e in plain.history] == [(e.loss, e.metrics) for e in averaged.history]


def test_mixed_samples_are_learnt_from_targets_and_a_teacher_alike() -> None:
    workload = replace(toy_workload(), mixup_alpha=0.4)
    assert teacher_for(workload.model, workload) is workload.model, "its outputs change with the mixture"
    settings = SETTINGS.model_copy(update={"epochs": 6, "patience": 6})
    for teacher in (None, toy_net(3)):
        assert fine_tune(toy_net(), workload, settings=settings, teacher=teacher).best_metric > 0.6
    outputs, targets, taught = torch.randn(6, 4), torch.arange(6) % 4, torch.randn(6, 4)
    mix = mixture(6, 0.4, torch.Generator().manual_seed(0))
    mixed = Mixed(mix.share, targets[mix.partner])
    with_mix = distillation_loss(Classify(), outputs, targets, taught, TrainSpec(), mixed)
    without = distillation_loss(Classify(), outputs, targets, taught, TrainSpec())
    own = nn.functional.cross_entropy(outputs, targets)
    partners = nn.functional.cross_entropy(outputs, targets[mix.partner])
    torch.testing.assert_close(with_mix - without, 0.5 * (1 - mix.share) * (partners - own))


def test_smoothed_labels_are_those_of_the_formula_and_need_labels() -> None:
    outputs, targets, recipe = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1]), TrainSpec(label_smoothing=0.2)
    wanted = 0.8 * nn.functional.one_hot(targets, 4) + 0.2 / 4
    expected = -(wanted * outputs.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(task_loss(Classify(), outputs, targets, recipe), expected)
    sets = toy_workload()
    workload = Workload("toy", "user", sets.model, sets.example, sets.data, Regress())
    with pytest.raises(UsageError, match="Regress has no labels that can be smoothed") as caught:
        fine_tune(toy_net(), workload, settings=SETTINGS, recipe=recipe)
    assert caught.value.where == "train.label_smoothing"


def spiked(after: int) -> nn.Module:
    """Turns to NaN in training, once it has been called `after` times in train mode."""

    class Spiked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
            self.calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += self.training
            out: torch.Tensor = self.net(x)
            return out * float("nan") if self.training and self.calls == after else out

    return Spiked()


def test_one_accident_goes_back_to_the_last_good_epoch_with_half_the_rate() -> None:
    notes = Notes()
    model = spiked(after=12)
    result = fine_tune(model, toy_workload(), settings=SETTINGS, progress=notes)
    assert result.halvings == 1 and result.steps == 24 and result.best_metric > 0.6
    assert len(notes.lines) == 1 and "learning rate halved" in notes.lines[0]
    assert torch.isfinite(weights(model)).all()


def test_a_gradient_that_is_not_finite_is_an_accident_though_its_loss_is_finite() -> None:
    class Rooted(nn.Module):
        """The root of zero has an infinite slope; that of the first step is zero."""

        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(64, 4)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.fc(x.flatten(1))
            if self.training:
                self.calls += 1
            return out + (out * (self.calls - 12).abs()).square().sum().sqrt() * 0 if self.training else out

    notes, model = Notes(), Rooted()
    with pytest.raises(QualityError, match="also at a learning rate of"):  # the buffer is rolled back to the same call
        fine_tune(model, toy_workload(), settings=SETTINGS, progress=notes)
    assert len(notes.lines) == 2 and all("back to the last good epoch" in line for line in notes.lines)


def test_an_accident_takes_the_average_back_too() -> None:
    model, recipe = spiked(after=12), TrainSpec(ema=0.5)
    result = fine_tune(model, toy_workload(), settings=SETTINGS, recipe=recipe)
    assert result.halvings == 1 and all(epoch.averaged is not None for epoch in result.history[1:])
    assert torch.isfinite(weights(model)).all()


def test_numbers_that_stay_wrong_end_in_a_quality_error() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(64, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.fc(x.flatten(1))
            return out * float("inf") if self.training else out

    with pytest.raises(QualityError, match="not finite, also at a learning rate of 0.013") as caught:
        fine_tune(Broken(), toy_workload(), settings=SETTINGS)
    assert caught.value.hint == "start lower: fit.learning_rate = 0.005" and caught.value.exit_code == 4


def test_weights_that_grow_without_bound_are_caught_by_the_validation() -> None:
    class Exploding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(64, 4)
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                self.seen += 1
            out: torch.Tensor = self.fc(x.flatten(1))
            return out if self.training or self.seen == 0 else out / 0

    with pytest.raises(QualityError, match="training gives numbers that are not finite"):
        fine_tune(Exploding(), toy_workload(), settings=SETTINGS)


def test_a_model_whose_outputs_are_not_finite_cannot_be_evaluated() -> None:
    class Infinite(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)[:, :4].masked_fill(x[:, 0, :1, :4].flatten(1) > 1, float("inf"))

    with pytest.raises(QualityError, match=r"\d+ of 64 samples give outputs that are not finite"):
        evaluate(Infinite(), toy_set(64, 2), Classify())


def test_predictions_keep_the_order_and_do_not_depend_on_the_batch() -> None:
    model, dataset = toy_net(), toy_set(50, 4)
    outputs, targets = predict(model, dataset, batch_size=7)
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(outputs), model(dataset.x), rtol=1e-4, atol=1e-5)
    assert (targets == dataset.y.numpy()).all()


def test_an_exported_file_is_judged_by_what_its_runtime_says() -> None:
    class Session:
        runtime, runtime_version, threads, precision = "test", "1", 1, "fp32"

        def run(self, inputs: np.ndarray) -> np.ndarray:
            assert inputs.dtype == np.float32
            return inputs.reshape(len(inputs), 2, 4, 2, 4).mean((2, 4)).reshape(len(inputs), 4)

    assert evaluate_session(Session(), toy_set(40, 5), Classify(), batch_size=16)["accuracy"] == 1.0


def test_better_follows_the_tasks_direction() -> None:
    assert better(0.9, 0.8, Classify()) and not better(0.8, 0.8, Classify()) and better(0.1, None, Classify())
    assert better(0.1, 0.2, Regress()) and not better(0.3, 0.2, Regress())


def test_cuda_is_not_replaced_silently(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert training_device("cpu").type == training_device("auto").type == "cpu"
    with pytest.raises(UsageError, match="no CUDA device is available"):
        training_device("cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_learns_the_toy_problem_in_mixed_precision() -> None:
    model, workload = toy_net(), toy_workload(augment=DataSpec(flip=True, crop=1))
    result = fine_tune(model, workload, settings=SETTINGS, epochs=6, teacher=toy_net(1), device="cuda")
    assert result.best_metric > 0.4 and next(model.parameters()).is_cuda


def test_results_can_be_written_and_read_again(tmp_path: Path) -> None:
    result = fine_tune(toy_net(), toy_workload(), settings=SETTINGS, epochs=1)
    assert type(result).model_validate_json(result.model_dump_json()) == result
