"""Pruned networks of every kind become ONNX files that answer as the network does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edgeprune.conversion.onnx_file import write_float
from edgeprune.pruning.groups import channel_groups
from edgeprune.pruning.plan import uniform
from edgeprune.pruning.surgery import prune
from edgeprune.pruning.trace import trace
from tests.pruning.operator_nets import CASES

KINDS = ("lstm_with_given_state", "u_net", "windowed_attention")
MORE = ("lstm", "gru_both_ways", "generator", "small_gpt", "speech_transformer", "time_convolutions")


@pytest.mark.parametrize("name", [*KINDS, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)])
def test_a_pruned_network_that_was_trained_a_step_exports(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, inputs = CASES[name]()
    dense = trace(model.eval(), inputs)
    groups = channel_groups(dense.graph)
    pruned = prune(dense, groups, uniform(groups, 0.5, 1)).module.train()
    optimizer = torch.optim.SGD(pruned.parameters(), 0.01)
    pruned(*inputs).square().mean().backward()
    optimizer.step()
    (x,) = inputs
    write_float(pruned.eval(), x[:1].numpy(), tmp_path / "model.onnx")
    session = _session(tmp_path / "model.onnx")
    (got,) = session.run(None, {session.get_inputs()[0].name: x[:1].numpy()})
    with torch.no_grad():
        want = pruned(x[:1]).numpy()
    assert sum(p.numel() for p in pruned.parameters()) < 0.6 * sum(p.numel() for p in model.parameters())
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * float(np.abs(want).max()))


def _session(path: Path):  # type: ignore[no-untyped-def]
    import onnxruntime

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
