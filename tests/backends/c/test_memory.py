"""Arenas of real networks: how small they are, and that the solver's RAM estimate is what the generator plans."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from edgeprune import backends
from edgeprune.backends.c import lowering
from edgeprune.backends.c.lowering import Lowered, Step, Variant
from edgeprune.backends.c.model import Model, Operator
from edgeprune.backends.c.reader import read
from edgeprune.backends.c.schedule import schedule
from edgeprune.device.estimate import as_run
from edgeprune.device.fusion import fuse
from edgeprune.device.memory import memory_plan
from edgeprune.pruning.trace import trace

SHARED = Path(os.environ.get("EDGEPRUNE_SHARED", Path(__file__).parents[3] / "../shared")) / "data/mlperf_tiny_models"


class Bare:
    """Any operator without scratch memory, written over its inputs where the solver's rules say so."""

    KINDS = ()
    PADS = True

    def check(self, model: Model, operator: Operator) -> None:
        return

    def lower(self, model: Model, step: Step, variant: Variant) -> Lowered:
        over = {"ADD": (0, 1), "MUL": (0, 1), "HARD_SWISH": (0,), "QUANTIZE": (0,), "LOGISTIC": (0,)}
        places = (1,) if step.added else over.get(step.operator.kind, ())
        return Lowered("", (), overwrites=places[: len(model.activations(step.operator)) + (step.added is not None)])


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lowerings that only say what lies over what."""

    class Every(dict[str, Bare]):
        def __missing__(self, kind: str) -> Bare:
            return Bare()

        def __contains__(self, kind: object) -> bool:
            return True

        def get(self, kind: str, other: object = None) -> Bare:  # type: ignore[override]
            return Bare()

    monkeypatch.setattr(lowering, "lowerings", Every)


def published(file: str) -> Path:
    path = SHARED / file
    if not path.is_file():
        pytest.skip(f"needs the shared data: {file}")
    return path


@pytest.mark.parametrize("file", ["pretrainedResnet_quant.tflite", "kws_ref_model.tflite", "vww_96_int8.tflite"])
def test_the_estimate_of_a_published_file_is_its_planned_arena(file: str, bare: None) -> None:
    path = published(file)
    ops = as_run(backends.get("tflite").read_ops(path), "edgeprune-c")
    program = schedule(read(path))
    assert memory_plan(ops).total_bytes == program.arena_bytes == program.bound_bytes
    assert len(ops) == len(program.calls)


@pytest.mark.parametrize("net", ["residual", "depthwise", "excite"])
def test_the_estimate_of_a_captured_net_is_its_planned_arena(
    net: str, bare: None, small_net: Any, exported: Any
) -> None:
    import torch

    path = exported("tflite", net).path
    program = schedule(read(path))
    captured = trace(small_net(net).model, torch.from_numpy(small_net(net).samples[:2]))
    for ops in (backends.get("tflite").read_ops(path), fuse(captured.graph)):
        assert memory_plan(as_run(ops, "edgeprune-c")).total_bytes == program.arena_bytes
    assert program.arena_bytes == program.bound_bytes


def test_operators_of_the_runtime_are_the_same_when_asked_again(bare: None) -> None:
    ops = as_run(backends.get("tflite").read_ops(published("pretrainedResnet_quant.tflite")), "edgeprune-c")
    assert as_run(ops, "edgeprune-c") == ops
    assert sum(len(op.inputs) == 2 for op in ops) == 3, "every sum lies in a convolution"
    assert sum(op.macs for op in ops) == 12_501_632
