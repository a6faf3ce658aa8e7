"""A training that stops anywhere goes on from its last written state and ends with the same bits."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import nn

from edgeprune.errors import NoRoomError, UsageError
from edgeprune.recipe import TrainSpec
from edgeprune.spec import DataSpec
from edgeprune.training.fine_tune import TrainResult, fine_tune
from tests.training.test_fine_tune import SETTINGS, Notes, toy_net, toy_workload

T = TypeVar("T")
EVERY_STEP = TrainSpec(checkpoint_steps=1)


class Stop(Exception):
    pass


class Stopping:
    """Ends the process, as it were, when this many steps have been made."""

    def __init__(self, after: int) -> None:
        self.left = after

    def note(self, text: str) -> None:
        pass

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        for item in items:
            if label.startswith("fine-tune"):
                if self.left == 0:
                    raise Stop
                self.left -= 1
            yield item


def bits(model: nn.Module) -> list[bytes]:
    return [value.contiguous().numpy().tobytes() for value in model.state_dict().values()]


def told(result: TrainResult) -> dict[str, Any]:
    """The result without times."""
    found = result.model_dump(exclude={"seconds"})
    found["history"] = [{**epoch, "samples_per_s": None} for epoch in found["history"]]
    return found


def start(model: nn.Module, recipe: TrainSpec, folder: Path | None, progress: Any = None, **more: Any) -> TrainResult:
    workload = replace(toy_workload(augment=DataSpec(flip=True, crop=1)), mixup_alpha=0.0 if recipe.sam == 0 else 0.2)
    settings = SETTINGS.model_copy(update={"epochs": 3, "patience": 3})
    options = {"progress": progress} if progress else {}
    return fine_tune(
        model, workload, settings=settings, recipe=recipe, teacher=toy_net(3), workspace=folder, **options, **more
    )


# 128 samples in batches of 16 are 8 steps per epoch.
@pytest.mark.parametrize("stops", [(0,), (1,), (5,), (8,), (9,), (23,), (3, 0, 7, 2)])
def test_after_a_stop_the_weights_are_those_of_a_training_without(tmp_path: Path, stops: tuple[int, ...]) -> None:
    whole = toy_net()
    expected = start(whole, EVERY_STEP, None)
    for after in stops:
        with pytest.raises(Stop):
            start(toy_net(), EVERY_STEP, tmp_path, Stopping(after))
    model = toy_net()
    assert told(start(model, EVERY_STEP, tmp_path)) == told(expected) and bits(model) == bits(whole)


def test_what_is_made_between_two_writes_is_made_again(tmp_path: Path) -> None:
    whole, model, recipe = toy_net(), toy_net(), TrainSpec(checkpoint_steps=5)
    expected = start(whole, recipe, None)
    with pytest.raises(Stop):
        start(toy_net(), recipe, tmp_path, Stopping(13))
    notes = Notes()
    assert told(start(model, recipe, tmp_path, notes)) == told(expected) and bits(model) == bits(whole)
    assert notes.lines == ["going on after step 10 of 24"]


def test_a_race_goes_on_too(tmp_path: Path) -> None:
    whole, model = toy_net(), toy_net()
    expected = start(whole, EVERY_STEP, None, steps=11)
    with pytest.raises(Stop):
        start(toy_net(), EVERY_STEP, tmp_path, Stopping(6), steps=11)
    assert told(start(model, EVERY_STEP, tmp_path, steps=11)) == told(expected) and bits(model) == bits(whole)


def test_a_finished_training_is_not_made_again(tmp_path: Path) -> None:
    whole, model = toy_net(), toy_net()
    expected = start(whole, EVERY_STEP, tmp_path)
    assert told(start(model, EVERY_STEP, tmp_path, Stopping(0))) == told(expected) and bits(model) == bits(whole)


def test_the_state_is_written_as_often_as_the_recipe_says(tmp_path: Path) -> None:
    start(toy_net(), TrainSpec(), tmp_path / "never")  # it took less than a minute
    start(toy_net(), TrainSpec(checkpoint_s=0), tmp_path / "always", steps=1)
    assert not (tmp_path / "never").exists()
    assert [file.name for file in (tmp_path / "always").iterdir()] == ["training.safetensors"]


EVERYTHING = EVERY_STEP.model_copy(
    update={"optimizer": "adamw", "schedule": "one-cycle", "clip": "adaptive", "ema": 0.9, "sam": 0.05}
)


@pytest.mark.parametrize("after", [1, 8, 13])
def test_what_averages_and_optimisers_remember_is_kept_too(tmp_path: Path, after: int) -> None:
    whole, model = toy_net(), toy_net()
    expected = start(whole, EVERYTHING, None)
    with pytest.raises(Stop):
        start(toy_net(), EVERYTHING, tmp_path, Stopping(after))
    assert told(start(model, EVERYTHING, tmp_path)) == told(expected) and bits(model) == bits(whole)
    assert expected.history[1].averaged is not None


@pytest.mark.parametrize("change", ["weights", "seed", "recipe", "length"])
def test_the_state_of_another_training_is_left_alone_and_said_so(tmp_path: Path, change: str) -> None:
    with pytest.raises(Stop):
        start(toy_net(), EVERY_STEP, tmp_path, Stopping(4))
    recipe = EVERY_STEP.model_copy(update={"temperature": 2.0}) if change == "recipe" else EVERY_STEP
    more = {"seed": {"seed": 9}, "length": {"epochs": 2}}.get(change, {})
    nets = [toy_net(4 if change == "weights" else 0) for _ in range(2)]
    notes = Notes()
    expected = start(nets[0], recipe, None, **more)
    assert told(start(nets[1], recipe, tmp_path, notes, **more)) == told(expected) and bits(nets[0]) == bits(nets[1])
    assert notes.lines[0].endswith("is of another training; this one starts from its beginning")


def test_how_often_it_is_written_may_change_between_two_starts(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        start(toy_net(), EVERY_STEP, tmp_path, Stopping(4))
    notes = Notes()
    start(toy_net(), TrainSpec(), tmp_path, notes)
    assert notes.lines == ["going on after step 4 of 24"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [(lambda data: data[:100], "the checkpoint is damaged"), (lambda data: data.replace(b"halvings", b"HALVINGS"), "")],
)
def test_a_damaged_state_is_named(tmp_path: Path, damage: Any, message: str) -> None:
    start(toy_net(), EVERY_STEP, tmp_path, steps=1)
    file = tmp_path / "training.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UsageError, match=message or "not the state of a training of this version") as caught:
        start(toy_net(), EVERY_STEP, tmp_path, steps=1)
    assert caught.value.hint == "remove it and resume" and caught.value.where == str(file)


def test_a_full_disk_leaves_what_was_written_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, model = toy_net(), toy_net()
    expected = start(whole, EVERY_STEP, None)
    with pytest.raises(Stop):
        start(toy_net(), EVERY_STEP, tmp_path, Stopping(6))

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "no")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(NoRoomError, match="no room for"):
            start(toy_net(), EVERY_STEP, tmp_path)
    assert told(start(model, EVERY_STEP, tmp_path)) == told(expected) and bits(model) == bits(whole)
    assert not torch.equal(whole[0].weight, toy_net()[0].weight)
