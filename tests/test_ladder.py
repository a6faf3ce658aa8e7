"""What the ladder tries, in which order, and what it keeps; files are judged by the test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from edgeprune import ladder
from edgeprune.errors import UnsupportedError
from edgeprune.ladder import Climbed, Context, Prepared, climb
from edgeprune.pruning.trace import Captured, trace
from edgeprune.quantization.ranges import RangePolicy
from edgeprune.quantized import Source, quantize
from edgeprune.report.quantize import steps_text
from edgeprune.spec import FitSpec, QuantizeSpec, Spec
from tests.quantization.nets import Depthwise, learnt, unequal, workload
from tests.quantization.test_folding import varied


def context(net: Depthwise, **changes: Any) -> Context:
    samples = torch.rand(16, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    given: dict[str, Any] = {
        "workload": workload(net),
        "samples": samples,
        "weight_limit": 127,
        "mixes": True,
        "spec": QuantizeSpec(epochs=0),
        "training": FitSpec(),
        "device": torch.device("cpu"),
        "teacher": lambda: None,
    }
    return Context(**{**given, **changes})


def climbed(drops: Mapping[str, float], net: Depthwise | None = None, **changes: Any) -> tuple[Climbed, list[Prepared]]:
    """Climb with a judge that knows the drop of each last step; what it does not know drops by half."""
    seen: list[Prepared] = []
    net = net or varied(Depthwise(4)).float()

    def judge(number: int, prepared: Prepared) -> dict[str, float]:
        assert number == len(seen)
        seen.append(prepared)
        step = prepared.steps[-1] if prepared.steps else "plain"
        drop = drops.get(step, 0.5)
        return {"onnx": 0.9 - drop, "tflite": 0.9 - drop / 2}

    return climb(trace(net, torch.zeros(1, 1, 16, 16)), 0.9, context(net, **changes), judge), seen


def test_plain_files_that_hold_are_the_end_of_it() -> None:
    found, seen = climbed({"plain": 0.004})
    assert len(seen) == 1 and found.number == 0 and found.prepared.ranges == RangePolicy()
    (row,) = found.rows
    assert (
        row.kept
        and row.drop is not None
        and row.drop == pytest.approx(0.004)
        and row.metrics["tflite"] == pytest.approx(0.898)
    )


def test_the_first_step_that_suffices_is_the_last_that_is_tried() -> None:
    found, _ = climbed({"plain": 0.3, "ranges by percentile": 0.001})
    assert [row.step for row in found.rows] == [
        "plain",
        "channels equalised by weights",
        "channels equalised by activations",
        "ranges by percentile",
    ]
    assert [row.kept for row in found.rows] == [True, False, False, True]
    assert found.prepared.steps == ("ranges by percentile",) and found.number == 3


def test_steps_that_help_are_built_upon_and_others_are_not() -> None:
    drops = {"plain": 0.3, "channels equalised by weights": 0.1, "ranges by percentile": 0.2, "biases corrected": 0.05}
    found, seen = climbed(drops, spec=QuantizeSpec(epochs=0, steps=("equalise", "ranges", "correct")))
    assert found.prepared.steps == ("channels equalised by weights", "biases corrected")
    assert found.prepared.ranges == RangePolicy() and found.rows[found.number].drop == pytest.approx(0.05)
    assert seen[-1].captured is found.prepared.captured


def test_a_step_that_a_converter_cannot_do_is_listed_with_its_reason() -> None:
    def judge(number: int, prepared: Prepared) -> dict[str, float]:
        if prepared.in_float:
            raise UnsupportedError("the converted file holds no such weight")
        return {"onnx": 0.5}

    net = varied(Depthwise(4)).float()
    held = context(net, spec=QuantizeSpec(epochs=0, steps=("mix",)))
    found = climb(trace(net, torch.zeros(1, 1, 16, 16)), 0.9, held, judge)
    assert found.number == 0 and found.rows[1].drop is None and "no such weight" in found.rows[1].note
    assert "no file  1 layer in float (the converted file holds no such weight)" in steps_text(found.rows)
    with pytest.raises(UnsupportedError):
        climb(trace(net, torch.zeros(1, 1, 16, 16)), 0.9, held, refuse)


def refuse(number: int, prepared: Prepared) -> dict[str, float]:
    raise UnsupportedError("nothing can be written")


def test_layers_stay_float_last_the_worst_first_and_by_name() -> None:
    drops = {"plain": 0.3, "1 layer in float": 0.2}
    found, seen = climbed(drops, spec=QuantizeSpec(epochs=0, steps=("mix",)))
    assert [row.step for row in found.rows] == ["plain", "1 layer in float"]  # of six layers one is a quarter
    (name,) = found.prepared.in_float
    assert name in dict(seen[0].captured.module.named_parameters()) and found.rows[1].in_float == (name,)
    assert 0 < found.prepared.float_macs < Prepared(seen[0].captured).float_macs + 10**7
    found, _ = climbed({"plain": 0.3}, spec=QuantizeSpec(steps=("mix",)), mixes=False)
    assert len(found.rows) == 1


def test_relu6_is_given_up_only_where_it_is_there() -> None:
    step = "ReLU6 made ReLU, channels equalised"
    capped = varied(Depthwise(4, act=torch.nn.ReLU6)).float()
    found, _ = climbed({"plain": 0.3, step: 0.001}, capped, spec=QuantizeSpec(steps=("equalise",)))
    assert [row.step for row in found.rows] == ["plain", step] and not found.prepared.same


def test_training_is_asked_for_once_and_its_result_is_what_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def trained(captured: Captured, *_: Any, epochs: int, **__: Any) -> Captured:
        assert epochs == 3
        return captured

    monkeypatch.setattr(ladder, "trained_on_grid", trained)
    kept: list[Captured] = []

    def stored(start: Captured, train: Any) -> Captured:
        kept.append(train())
        return kept[0]

    spec = QuantizeSpec(steps=("train",), epochs=3)
    found, _ = climbed({"plain": 0.3, "trained on the int8 grid": 0.1}, spec=spec, stored=stored)
    assert found.prepared.captured is kept[0] and not found.prepared.same and len(kept) == 1


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["onnxruntime", "tflite", "openvino"])
def test_a_net_on_which_plain_int8_collapses_is_recovered(backend: str, tmp_path: Path) -> None:
    from edgeprune import backends

    if reason := backends.get(backend).missing():
        pytest.skip(reason)
    whole, model = learnt(), unequal(learnt())
    x = workload(model).data.validation[0][0]
    with torch.no_grad():
        torch.testing.assert_close(
            model(torch.as_tensor(x)[None]), whole(torch.as_tensor(x)[None]), rtol=1e-3, atol=1e-3
        )
    held = workload(model)
    source = Source(held, trace(model, held.example), Spec(quantize=QuantizeSpec(max_drop="1.5pp")))
    record = quantize(source, [backend], tmp_path)
    assert record.validation > 0.9 and (record.steps[0].drop or 0.0) > 0.3  # plain int8 is of no use
    assert record.holds and record.exit_code == 0
    assert [row.step for row in record.steps if row.kept][:2] == ["plain", "channels equalised by weights"]
    (artifact,) = record.artifacts
    assert artifact.validation_drop <= 0.015 and artifact.test_drop < 0.04 and not artifact.float_ops
    assert artifact.path.is_file() and artifact.path.is_relative_to(tmp_path)
