"""The benchmark's data and network are what their README says."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from bench import cifar
from edgeprune.errors import UsageError
from edgeprune.pruning.groups import channel_groups
from edgeprune.pruning.trace import trace
from edgeprune.training.evaluate import evaluate
from edgeprune.workload.samples import labels_of

SHARED = Path(os.environ.get("EDGEPRUNE_SHARED", Path(__file__).parents[2] / "../shared")) / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared data (EDGEPRUNE_SHARED)")


def test_the_network_has_the_published_number_of_parameters_and_nothing_frozen_but_the_head() -> None:
    model = cifar.ResNet(3)
    assert sum(parameter.numel() for parameter in model.parameters()) == 269_722
    groups = channel_groups(trace(model, torch.zeros(1, 3, 32, 32)).graph)
    assert [entry.name for entry in groups.frozen] == ["linear"]


def test_a_missing_folder_is_named_with_the_way_to_set_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRUNE_SHARED", str(tmp_path))
    with pytest.raises(UsageError, match="no CIFAR-10 here") as caught:
        cifar.shared_data()
    assert "EDGEPRUNE_SHARED" in caught.value.hint and str(tmp_path) in caught.value.where
    (tmp_path / "data" / "cifar10").mkdir(parents=True)
    with pytest.raises(UsageError, match="no test images of class 0"):
        cifar.read_split("test")


@needs_shared
def test_trained_weights_and_images_give_the_stated_accuracy() -> None:
    work = cifar.workload(1000, 500)
    sizes = [len(part) for part in (work.data.train, work.data.validation, work.data.calibration, work.data.test)]
    assert sizes == [900, 100, 256, 500]
    for part, each in ((work.data.train, 90), (work.data.validation, 10), (work.data.test, 50)):
        assert np.bincount(labels_of(part)).tolist() == [each] * 10
    assert work.example.shape == (1, 3, 32, 32) and work.augment is not None
    assert evaluate(work.model, work.data.test, work.task)["accuracy"] == pytest.approx(0.9173, abs=0.035)
