"""Each gate has a file or a runtime that trips it."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgeprune import backends
from edgeprune.backends import Artifact, Inspection
from edgeprune.errors import QualityError
from edgeprune.quantization import gates
from edgeprune.quantization.gates import check, snr_db

REFERENCE = np.random.default_rng(0).standard_normal((16, 4)).astype(np.float32)
SAMPLES = np.zeros((16, 3), np.float32)
GOOD = Inspection(input_types=("int8",), output_types=("int8",), integer_macs=1000, float_macs=0)


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., gates.GateReport]:
    """Runs the gates on a stand-in for a .tflite backend that says what the test wants."""

    def run(inspection: Inspection = GOOD, answers: Any = REFERENCE, precision: str = "int8", **options: Any) -> Any:
        path = tmp_path / "model.tflite"
        path.write_bytes(b"model")
        artifact = backends.describe("tflite", path, "int8")
        session = SimpleNamespace(runtime="tflite", precision=precision, run=lambda samples: answers)
        backend = SimpleNamespace(inspect=lambda path: inspection, load=lambda path: session)
        monkeypatch.setattr(gates.backends, "get", lambda name: backend)
        return check(artifact, REFERENCE, SAMPLES, **options)

    return run


def test_a_right_file_passes_and_is_described(judge: Any) -> None:
    report = judge(answers=REFERENCE + 0.01)
    assert report.argmax_agreement == 1.0 or report.argmax_agreement > 0.9
    assert report.max_abs_error == pytest.approx(0.01, rel=1e-3)
    assert report.snr_db == pytest.approx(snr_db(REFERENCE, REFERENCE + 0.01))
    assert judge().snr_db is None


def test_a_file_that_was_not_written_fails(tmp_path: Path) -> None:
    artifact = Artifact(backend="tflite", path=tmp_path / "no.tflite", precision="int8", size_bytes=1, sha256="0")
    with pytest.raises(QualityError, match="gate 'file': .*missing or empty"):
        check(artifact, REFERENCE, SAMPLES)


def test_a_file_changed_since_its_export_fails(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"model")
    artifact = backends.describe("tflite", path, "int8")
    path.write_bytes(b"other")
    with pytest.raises(QualityError, match="gate 'file': its hash is"):
        check(artifact, REFERENCE, SAMPLES)


@pytest.mark.parametrize("end", ["input_types", "output_types"])
def test_a_float_end_of_an_integer_file_fails(judge: Any, end: str) -> None:
    with pytest.raises(QualityError, match="gate 'ends': an .*put is float32, expected int8"):
        judge(GOOD.model_copy(update={end: ("float32",)}))


def test_layers_left_in_float_fail_and_are_named(judge: Any) -> None:
    left = GOOD.model_copy(update={"float_macs": 10, "float_ops": ("CONV_2D stem",)})
    with pytest.raises(QualityError, match="gate 'arithmetic': 10 of 1,010 .*CONV_2D stem"):
        judge(left)
    assert judge(left, allow=["CONV_2D"]).exceptions == ("CONV_2D stem",)


def test_layers_left_in_float_on_purpose_pass_and_are_named(judge: Any) -> None:
    left = GOOD.model_copy(update={"float_macs": 10, "float_ops": ("CONV_2D stem",)})
    assert judge(left, float_macs=10).exceptions == ("CONV_2D stem",)
    with pytest.raises(QualityError, match="gate 'arithmetic': 10 of 1,010"):
        judge(left, float_macs=9)


def test_other_float_and_layout_operators_are_named_or_refused(judge: Any) -> None:
    odd = GOOD.model_copy(update={"float_ops": ("GELU act",), "layout_ops": ("TRANSPOSE t",)})
    assert judge(odd).exceptions == ("GELU act", "TRANSPOSE t")
    assert judge(odd, allow=["GELU", "TRANSPOSE t"]).exceptions == ("GELU act", "TRANSPOSE t")
    with pytest.raises(QualityError, match="gate 'arithmetic': TRANSPOSE t .* not allowed"):
        judge(odd, allow=["GELU"])


def test_a_fault_of_the_format_fails(judge: Any) -> None:
    with pytest.raises(QualityError, match="gate 'format': its bias scale is off"):
        judge(GOOD.model_copy(update={"faults": ("its bias scale is off by 20 %",)}))


def test_a_runtime_that_computes_in_another_precision_fails(judge: Any) -> None:
    with pytest.raises(QualityError, match="gate 'precision': int8 was asked for, tflite runs bf16"):
        judge(precision="bf16")


def test_wrong_answers_fail_with_their_signal_to_noise_ratio(judge: Any) -> None:
    with pytest.raises(QualityError, match=r"gate 'answers': signal-to-noise ratio -\d\.\d dB over 16 samples"):
        judge(answers=-REFERENCE)
    with pytest.raises(QualityError, match="at least 50 dB"):
        judge(answers=REFERENCE + 0.01, snr_floor_db=50)


def test_answers_of_another_shape_or_not_finite_fail(judge: Any) -> None:
    with pytest.raises(QualityError, match="gate 'answers': it answers"):
        judge(answers=REFERENCE[:, :2])
    with pytest.raises(QualityError, match="not finite"):
        judge(answers=np.full_like(REFERENCE, np.nan))


def test_signal_to_noise_ratio_of_a_silent_reference_is_minus_infinity() -> None:
    assert snr_db(np.zeros(3), np.ones(3)) == float("-inf")
    assert snr_db(np.full(100, 10.0), np.full(100, 11.0)) == pytest.approx(20)


def test_a_biased_scale_in_a_real_file_is_found(exported: Any, small_net: Any, tmp_path: Path) -> None:
    """The silent miscompilation: the file's bias scale is not input × weight scale."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    net, source = small_net("residual"), exported("tflite", "residual")
    model = schema.ModelT.InitFromPackedBuf(source.path.read_bytes(), 0)
    graph = model.subgraphs[0]
    bias = graph.tensors[graph.operators[-1].inputs[2]]
    bias.quantization.scale = np.asarray(bias.quantization.scale) * np.float32(0.155)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path = tmp_path / "model.tflite"
    path.write_bytes(bytes(builder.Output()))
    with pytest.raises(QualityError, match=r"gate 'format': FULLY_CONNECTED .* bias scale is off by 84\.5 %"):
        check(backends.describe("tflite", path, "int8"), net.answers, net.samples)
