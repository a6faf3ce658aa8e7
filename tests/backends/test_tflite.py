import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune import backends
from edgeprune.backends.tflite import dequantize, op_profiler, quantize
from edgeprune.errors import MissingExtraError, UsageError

tflite = backends.get("tflite")
SHARED = Path(os.environ.get("EDGEPRUNE_SHARED", Path(__file__).parents[2] / "../shared")) / "data/mlperf_tiny_models"


@pytest.mark.parametrize("net", ["residual", "depthwise", "excite"])
def test_no_transpose_is_left_not_even_before_a_flattened_layer(net: str, exported: Any) -> None:
    inspection = tflite.inspect(exported("tflite", net).path)
    assert inspection.layout_ops == () and inspection.float_ops == () and inspection.faults == ()
    assert inspection.input_types == inspection.output_types == ("int8",)


def test_a_convolution_of_one_channel_is_depthwise_with_a_multiplier(exported: Any) -> None:
    stem = next(op for op in tflite.read_ops(exported("tflite", "depthwise").path) if op.weights)
    assert (stem.kind, stem.in_channels, stem.out_channels, stem.groups) == ("depthwise", 1, 16, 1)
    assert stem.macs == 125 * 16 * 40 and stem.activation == "relu6"


def test_explicit_padding_and_fused_activations_are_told(exported: Any) -> None:
    ops = tflite.read_ops(exported("tflite", "residual").path)
    assert [(op.kind, op.activation) for op in ops] == [
        ("conv", "relu"),
        ("pad", ""),
        ("conv", ""),
        ("conv", ""),
        ("add", "relu"),
        ("dense", ""),
    ]
    assert ops[1].out_positions == 100, "8×8 padded to 10×10"


@pytest.mark.parametrize(
    ("file", "macs"),
    # Multiply-accumulates as the benchmark's authors state them (arXiv 2106.07597), in millions.
    [
        ("kws_ref_model.tflite", 2.7),
        ("pretrainedResnet_quant.tflite", 12.5),
        ("vww_96_int8.tflite", 7.5),
    ],
)
def test_published_files_hold_their_published_work(file: str, macs: float) -> None:
    path = SHARED / file
    if not path.is_file():
        pytest.skip(f"needs the shared data: {file}")
    ops = tflite.read_ops(path)
    assert sum(op.macs for op in ops) / 1e6 == pytest.approx(macs, rel=0.05)
    inspection = tflite.inspect(path)
    assert inspection.faults == () and inspection.float_macs == 0
    assert tflite.arena_bytes(path) > max(op.out_elements for op in ops)


def test_the_arena_holds_the_largest_pair_of_tensors_alive_together(exported: Any) -> None:
    path = exported("tflite", "residual").path
    # The shortcut's input (1,024) lives while the padded copy (1,600) is read and the branch (384) is written.
    assert 1024 + 1600 + 384 <= tflite.arena_bytes(path) <= 3 * (1024 + 1600 + 384)


def test_samples_of_another_shape_are_refused(exported: Any) -> None:
    session = tflite.load(exported("tflite", "residual").path)
    with pytest.raises(UsageError, match="the file takes 1×8×8×3, the sample is 1×3×9×9"):
        session.run(np.zeros((1, 3, 9, 9), np.float32))


def test_quantised_values_come_back_within_half_a_step() -> None:
    tensor = {"dtype": np.int8, "quantization": (0.1, 3)}
    values = np.linspace(-13.1, 12.4, 100).astype(np.float32)
    back = dequantize(quantize(values, tensor), tensor)
    assert np.max(np.abs(back - values)) <= 0.05 + 1e-5
    assert quantize(np.array([1e9, -1e9]), tensor).tolist() == [127, -128]
    assert quantize(values, {"dtype": np.float32, "quantization": (0.0, 0)}).dtype == np.float32


def test_a_missing_package_names_its_extra(
    monkeypatch: pytest.MonkeyPatch, exported: Any, small_net: Any, tmp_path: Path
) -> None:
    path, net = exported("tflite", "residual").path, small_net("residual")
    for module in ("ai_edge_litert", "ai_edge_litert.interpreter", "litert_torch", "ai_edge_quantizer"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match="running .tflite files needs the extra 'tflite'"):
        tflite.load(path)
    with pytest.raises(MissingExtraError, match="reading .tflite files needs"):
        tflite.read_ops(path)
    with pytest.raises(MissingExtraError, match="converting to TFLite needs"):
        tflite.export(net.model, net.samples[:1], tmp_path, "fp32", None, None)
    from edgeprune.conversion import tflite_file
    from edgeprune.quantization.ranges import RangePolicy

    with pytest.raises(MissingExtraError, match="quantising for TFLite needs"):
        tflite_file.write_int8(path, tmp_path / "m.tflite", net.samples, RangePolicy())
    monkeypatch.setattr(tflite, "find_spec", lambda name: None)
    assert tflite.missing() == "the package ai-edge-litert is not installed"


@pytest.mark.parametrize("program", ["raise SystemExit(1)", "print('no table')", "pass", "import os; os.abort()"])
def test_a_profiler_that_does_not_work_means_an_empty_table(
    program: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "python"
    script.write_text(f"#!{sys.executable}\n{program}\n")
    script.chmod(0o755)
    monkeypatch.setattr(op_profiler.sys, "executable", str(script))
    assert op_profiler.time_in_child(tmp_path / "m.tflite", 5, 1) == ()


def test_a_profiler_that_hangs_means_an_empty_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def hang(*arguments: Any, **options: Any) -> None:
        raise op_profiler.subprocess.TimeoutExpired("python", 120)

    monkeypatch.setattr(op_profiler.subprocess, "run", hang)
    assert op_profiler.time_in_child(tmp_path / "m.tflite", 5, 1) == ()


def test_profiler_events_that_make_no_sense_are_dropped() -> None:
    good = [("conv", 8, 1e-6), ("fc", 8, 2e-6), ("call", 1, 4e-6)] * 3
    assert op_profiler._table(good, 3) == [("0", "conv", pytest.approx(1e-6)), ("1", "fc", pytest.approx(2e-6))]
    assert op_profiler._table(good[:-2], 3) == [], "events are missing"
    assert op_profiler._table([("conv", 8, 1e-6), ("fc", 8, 1e-6)], 2) == [], "the order changes"
    assert op_profiler._table([("conv", 8, 1e12)], 1) == [], "an elapsed time of another layout"


def test_padded_max_pooling_quantises_to_the_range_of_its_input(tmp_path: Path) -> None:
    """The converter pads with minus infinity; the range must not see it, and a negative map must not become zero."""
    import torch
    from torch import nn

    from edgeprune.quantization.gates import snr_db

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.MaxPool2d(3, 2, 1), nn.Flatten(), nn.Linear(72, 5)).eval()
        nn.init.constant_(model[0].bias, -3.0)
        samples = torch.randn(32, 3, 8, 8)
        with torch.no_grad():
            expected = model(samples).numpy()
    artifact = tflite.export(model, samples[:1].numpy(), tmp_path, "int8", samples.numpy(), None)
    assert (snr_db(expected, tflite.load(artifact.path).run(samples.numpy())) or 99) > 30
