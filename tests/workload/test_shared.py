"""Real data sets and weights, where they are at hand."""

import os
from pathlib import Path

import pytest
import torch

from edgeprune.spec import DataSpec
from edgeprune.workload.data import load_data
from edgeprune.workload.samples import labels_of
from edgeprune.workload.weights import read_weights

SHARED = Path(os.environ.get("EDGEPRUNE_SHARED", Path(__file__).parents[2] / "../shared")) / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared data (EDGEPRUNE_SHARED)")


@needs_shared
@pytest.mark.slow
def test_fashion_mnist_is_read_as_published() -> None:
    data = load_data(DataSpec(source=f"idx:{SHARED / 'fashion_mnist'}"))
    assert len(data.train) + len(data.validation) == 60_000 and len(data.test) == 10_000
    assert labels_of(data.test)[:5].tolist() == [9, 2, 1, 1, 6]


@needs_shared
def test_a_checkpoint_of_a_wrapped_resnet_gives_plain_names() -> None:
    state = read_weights(SHARED / "cifar10_resnet" / "resnet20-12fca82f.th")
    assert state["conv1.weight"].shape == (16, 3, 3, 3) and not any(key.startswith("module.") for key in state)
    assert all(isinstance(value, torch.Tensor) for value in state.values())
