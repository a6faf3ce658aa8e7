"""Training on the grid: better on it than before, and the float model is what comes back."""

from __future__ import annotations

import pytest
import torch

from edgeprune.pruning.trace import trace
from edgeprune.quantization.fake import quantised, quantised_nodes
from edgeprune.quantization.layers import folded, layers
from edgeprune.quantization.observed import node_ranges
from edgeprune.quantization.ranges import RangePolicy
from edgeprune.quantization.train import trained_on_grid
from edgeprune.spec import FitSpec
from edgeprune.training.evaluate import evaluate
from tests.quantization.nets import learnt, workload

COARSE = 3  # levels of each sign: two and a half bits


@pytest.mark.slow
def test_training_on_a_coarse_grid_wins_back_what_rounding_lost() -> None:
    held = workload(learnt())
    captured = folded(trace(held.model, held.example))
    ranges = node_ranges(captured.module, quantised_nodes(captured), held.data.calibration.x[:256], RangePolicy())  # type: ignore[attr-defined]

    def accuracy(model: object) -> float:
        return evaluate(quantised(model, ranges, COARSE).module, held.data.validation, held.task)["accuracy"]  # type: ignore[arg-type]

    before = {name: value.clone() for name, value in captured.module.state_dict().items()}
    made = trained_on_grid(captured, held, ranges, COARSE, FitSpec(learning_rate=0.2, batch_size=32), epochs=4)
    assert accuracy(made) > accuracy(captured) + 0.02
    assert [layer.name for layer in layers(made.module)] == [layer.name for layer in layers(captured.module)]
    assert not [node for node in made.graph.nodes if "range" in node.name or "fake" in node.name]
    assert all(torch.equal(value, before[name]) for name, value in captured.module.state_dict().items())
