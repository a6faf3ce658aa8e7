"""What every backend must do, whatever its runtime."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune import backends
from edgeprune.backends import Artifact
from edgeprune.errors import UsageError
from edgeprune.quantization.gates import check, snr_db

BACKENDS = backends.names()
CASES = [
    *[(backend, net, "int8") for backend in BACKENDS for net in ("residual", "depthwise", "excite")],
    *[(backend, "residual", "fp32") for backend in BACKENDS if "fp32" in backends.get(backend).PRECISIONS],
]
PROFILED = [name for name in BACKENDS if name != "c"]  # have a profiler of their own

Exported = Callable[..., Artifact]


@pytest.fixture(params=CASES, ids="-".join)
def case(request: pytest.FixtureRequest) -> tuple[str, str, str]:
    return request.param


def test_an_export_passes_all_gates_and_answers_as_torch_does(case: Any, exported: Exported, small_net: Any) -> None:
    _, name, precision = case
    net, artifact = small_net(name), exported(*case)
    report = check(artifact, net.answers, net.samples, snr_floor_db=25 if precision == "int8" else 90)
    assert report.precision == precision
    assert report.argmax_agreement is not None and report.argmax_agreement >= 0.85


def test_operators_of_a_file_hold_the_multiply_accumulates_of_the_net(
    case: Any, exported: Exported, small_net: Any
) -> None:
    backend, name, precision = case
    path = exported(*case).path
    assert sum(op.macs for op in backends.get(backend).read_ops(path)) == small_net(name).macs
    inspection = backends.get(backend).inspect(path)
    in_format = inspection.integer_macs if precision == "int8" else inspection.float_macs
    assert in_format == small_net(name).macs


def test_every_operator_reads_the_input_or_an_earlier_output(case: Any, exported: Exported) -> None:
    known: set[str] = set()
    for index, op in enumerate(backends.get(case[0]).read_ops(exported(*case).path)):
        if index == 0:
            known |= set(op.inputs)
        assert set(op.inputs) <= known, op.name
        known.add(op.output)


def test_artifact_tells_size_hash_and_exceptions(case: Any, exported: Exported) -> None:
    artifact = exported(*case)
    files = backends.files(artifact.backend, artifact.path)
    assert artifact.path in files and len(set(files)) == len(files)
    assert artifact.size_bytes == sum(file.stat().st_size for file in files)
    assert artifact == backends.describe(
        artifact.backend, artifact.path, artifact.precision, float_ops=artifact.float_ops, notes=artifact.notes
    )


@pytest.mark.parametrize("backend", PROFILED)
def test_operator_times_are_positive_and_named(backend: str, exported: Exported, small_net: Any) -> None:
    rows = backends.get(backend).time_ops(exported(backend, "excite").path, small_net("excite").samples, 20, 1)
    assert len(rows) >= 8
    assert sum(seconds for _, _, seconds in rows) > 0
    assert all(name and kind and seconds >= 0 for name, kind, seconds in rows)
    assert len(backends.get(backend).time_ops(exported(backend, "excite").path, None, 5, 1)) == len(rows)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["c", "onnxruntime", "tflite"])
def test_exporting_again_writes_the_same_bytes(
    backend: str, exported: Exported, small_net: Any, tmp_path: Path
) -> None:
    net = small_net("residual")
    again = backends.get(backend).export(net.model, net.samples[:1], tmp_path, "int8", net.samples, None)
    assert again.sha256 == exported(backend, "residual").sha256


@pytest.mark.parametrize("backend", BACKENDS)
def test_int8_without_calibration_is_refused(backend: str, small_net: Any, tmp_path: Path) -> None:
    net = small_net("residual")
    with pytest.raises(UsageError, match="int8 needs calibration samples"):
        backends.get(backend).export(net.model, net.samples[:1], tmp_path, "int8", None, None)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_missing_file_is_named(backend: str, tmp_path: Path) -> None:
    module = backends.get(backend)
    path = tmp_path / f"gone{module.SUFFIXES[0]}"
    for door in (module.load, module.read_ops, module.inspect):
        with pytest.raises(UsageError, match="no such model file"):
            door(path)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_damaged_file_is_refused(backend: str, exported: Exported, tmp_path: Path) -> None:
    module, source = backends.get(backend), exported(backend, "residual").path
    damaged = tmp_path / source.name
    damaged.write_bytes(b"\x18\x00\x00\x00XXXX" + source.read_bytes()[8:200])
    damaged.with_suffix(".bin").write_bytes(b"")
    for door in (module.load, module.read_ops, module.inspect):
        with pytest.raises(UsageError, match="cannot load it|not a TFLite model|loading .* failed"):
            door(damaged)


def test_captured_and_edited_models_export_like_plain_ones(small_net: Any, tmp_path: Path) -> None:
    """The program that surgery hands on: captured with a free batch, left in train mode, dropout inside."""
    import torch

    from edgeprune.pruning.trace import trace

    net = small_net("residual")
    module = trace(net.model, torch.from_numpy(net.samples[:2])).module
    module.train()
    backend = backends.get("onnxruntime")
    artifact = backend.export(module, net.samples[:1], tmp_path, "fp32", None, None)
    answers = backend.load(artifact.path).run(net.samples)
    assert (snr_db(net.answers, answers) or np.inf) > 90
    assert module.training, "exporting must not change the model"
