"""The backend `c`: whole files against LiteRT's reference kernels, value by value."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune import backends
from edgeprune.backends.c import convert
from edgeprune.backends.c.model import Model, Operator, Quantization, Tensor
from edgeprune.backends.c.schedule import schedule
from edgeprune.errors import UnsupportedError, UsageError
from edgeprune.target import load_target
from tests.backends.c.files import write
from tests.backends.c.test_lstm import random_lstm as lstm
from tests.backends.c.test_memory import published

c: Any = backends.get("c")
tflite: Any = backends.get("tflite")


def differing(path: Path, report: Path, count: int, seed: int = 7) -> int:
    """Output values that differ from the reference kernels over random inputs."""
    loaded, session, random = tflite.interpreter(path, 1, reference=True), c.load(report), np.random.default_rng(seed)
    wrong = 0
    for _ in range(count):
        given = [random.integers(-128, 128, d["shape"]).astype(np.int8) for d in loaded.get_input_details()]
        for detail, values in zip(loaded.get_input_details(), given, strict=True):
            loaded.set_tensor(detail["index"], values)
        loaded.reset_all_variables()
        loaded.invoke()
        expected = [loaded.get_tensor(detail["index"]) for detail in loaded.get_output_details()]
        wrong += sum(int((a != b).sum()) for a, b in zip(session.run_stored(given), expected, strict=True))
    return wrong


@pytest.mark.parametrize("target", [None, "nucleo-l4r5zi", "ek-ra8d1"], ids=["plain", "dsp", "mve"])
@pytest.mark.parametrize(
    ("file", "most_bytes"),
    [("pretrainedResnet_quant.tflite", 42_000), ("kws_ref_model.tflite", 16_300), ("vww_96_int8.tflite", 65_500)],
)
def test_published_files_are_exact_in_little_memory(
    file: str, most_bytes: int, target: str | None, tmp_path: Path
) -> None:
    path = published(file)
    report = convert(path, tmp_path, "net", load_target(target) if target else None, vectors=2)
    assert differing(path, report, 3) == 0
    assert c.arena_bytes(report) <= most_bytes
    assert sum(op.macs for op in c.read_ops(report)) == sum(op.macs for op in tflite.read_ops(path))


@pytest.mark.parametrize("net", ["residual", "depthwise", "excite"])
def test_exported_nets_are_exact(net: str, exported: Any, tmp_path: Path) -> None:
    artifact = exported("c", net)
    assert artifact.path.name == "model.c.json" and artifact.path.parent.name == "model"
    assert differing(artifact.path.parents[1] / "model.tflite", artifact.path, 10) == 0


def test_every_run_of_an_lstm_starts_anew(tmp_path: Path) -> None:
    """What the library tests itself with, and what profiles and gates compare with, knows nothing of earlier runs."""
    network = next(made for made in map(lstm, range(20)) if made.tensors[0].shape[0] == 1)  # one sample a run
    path = write(network, tmp_path / "model.tflite")
    report = convert(path, tmp_path / "net", "net", vectors=4)
    assert differing(path, report, 4) == 0
    assert subprocess.run(["make", "-sC", str(report.parent), "test"], check=False, capture_output=True).returncode == 0
    samples = np.random.default_rng(0).standard_normal((3, *network.tensors[0].shape[1:])).astype(np.float32)
    session = tflite.load(path)
    together = session.run(samples)
    np.testing.assert_array_equal(together[2:], session.run(samples[2:]))
    np.testing.assert_array_equal(c.load(report).run(samples), together)


def test_operators_tell_what_convolutions_take_along(exported: Any) -> None:
    path = exported("c", "residual").path
    ops = c.read_ops(path)
    assert [op.kind for op in ops] == ["conv", "conv", "conv", "dense"]
    assert ops[2].inputs[1] == ops[1].output and ops[2].activation == "relu"
    layers = json.loads(path.read_text())["layers"]
    assert [layer["macs"] for layer in layers] == [op.macs for op in ops]


def test_fp32_is_refused(small_net: Any, tmp_path: Path) -> None:
    net = small_net("residual")
    with pytest.raises(UnsupportedError, match="C libraries compute in int8"):
        c.export(net.model, net.samples[:1], tmp_path, "fp32", None, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ({"ops": [{"name": "a"}], "inspection": {}}, "its operators are damaged"),
        ({}, "its operators are damaged"),
        ({"ops": []}, "its inspection is damaged"),
        ({"ops": [], "inspection": {"input_types": 3}}, "its inspection is damaged"),
    ],
)
def test_a_report_without_its_parts_is_refused(text: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "net.c.json"
    path.write_text(json.dumps({"schema": "edgeprune.c-library/1", **text}))
    with pytest.raises(UsageError, match=message):
        c.read_ops(path)
        c.inspect(path)


def test_views_of_any_number_format_are_passed_on(tmp_path: Path) -> None:
    """Vectors over the whole range of every format that a file may have at its ends."""
    for kind in ("int8", "uint8", "int16", "int32", "bool", "float32"):
        scaled = Quantization((0.5,), (0,)) if kind == "int8" else None
        ends = [Tensor(name, shape, kind, scaled) for name, shape in (("a", (2, 6)), ("b", (3, 4)))]  # type: ignore[arg-type]
        shape = Tensor("shape", (2,), "int32", None, np.array([3, 4], np.int32))
        net = Model((*ends, shape), (Operator("RESHAPE", (0, 2), (1,)),), (0,), (1,))
        path = write(net, tmp_path / f"{kind}.tflite")
        program = schedule(net)
        for (given,), (taken,) in c.reference_vectors(program, path, 2):
            assert given.dtype == kind and np.array_equal(given.reshape(3, 4), taken)
