"""Curves for TensorBoard: written only where asked for, and an error where it is not installed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edgeprune.errors import MissingExtraError
from edgeprune.recipe import TrainSpec
from edgeprune.training.fine_tune import fine_tune
from edgeprune.training.journal import check_journal
from tests.training.test_fine_tune import SETTINGS, toy_net, toy_workload

RECIPE = TrainSpec(tensorboard=True)


class Writer:
    """What TensorBoard's writer is asked for."""

    made: list[Writer] = []

    def __init__(self, folder: str, purge_step: int) -> None:
        self.folder, self.purge_step, self.closed = folder, purge_step, False
        self.points: list[tuple[str, float, int]] = []
        self.made.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.points.append((name, value, step))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def writers(monkeypatch: pytest.MonkeyPatch) -> list[Writer]:
    stand_in: Any = ModuleType("torch.utils.tensorboard")
    stand_in.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", stand_in)
    monkeypatch.setattr("edgeprune.training.journal.find_spec", lambda name: object())
    monkeypatch.setattr(Writer, "made", [])
    return Writer.made


def test_loss_rate_and_metrics_are_written_by_step(writers: list[Writer], tmp_path: Path) -> None:
    result = fine_tune(toy_net(), toy_workload(), settings=SETTINGS, recipe=RECIPE, epochs=2, curves=tmp_path / "a")
    (writer,) = writers
    assert writer.folder == str(tmp_path / "a") and writer.purge_step == 0 and writer.closed
    by_name = {name: [(value, step) for n, value, step in writer.points if n == name] for name, _, _ in writer.points}
    assert list(by_name) == ["training/loss", "training/learning_rate", "validation/accuracy", "validation/macro_f1"]
    assert [step for _, step in by_name["training/loss"]] == list(range(1, 17))
    assert by_name["training/learning_rate"][0] == (SETTINGS.learning_rate, 1)
    assert by_name["validation/accuracy"] == [(e.metrics["accuracy"], 8 * e.epoch) for e in result.history[1:]]


def test_nothing_is_written_unasked(writers: list[Writer], tmp_path: Path) -> None:
    fine_tune(toy_net(), toy_workload(), settings=SETTINGS, epochs=1, curves=tmp_path)
    fine_tune(toy_net(), toy_workload(), settings=SETTINGS, recipe=RECIPE, epochs=1)
    assert not writers


def test_without_the_package_the_install_line_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeprune.training.journal.find_spec", lambda name: None)
    check_journal(False)
    with pytest.raises(MissingExtraError, match="needs the extra 'tensorboard'") as caught:
        fine_tune(toy_net(), toy_workload(), settings=SETTINGS, recipe=RECIPE)
    assert caught.value.hint == 'pip install "edgeprune[tensorboard]"'


@pytest.mark.slow
def test_it_is_not_imported_before_it_is_asked_for() -> None:
    script = "import sys, edgeprune.training.fine_tune; sys.exit('torch.utils.tensorboard' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_real_event_files_are_written(tmp_path: Path) -> None:
    if importlib.util.find_spec("tensorboard") is None:
        pytest.skip("needs the extra tensorboard")
    fine_tune(toy_net(), toy_workload(), settings=SETTINGS, recipe=RECIPE, epochs=1, curves=tmp_path)
    assert [file.name.startswith("events.out.tfevents") for file in tmp_path.iterdir()] == [True]
