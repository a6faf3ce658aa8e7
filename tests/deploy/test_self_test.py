"""The verdict on a device's answers, and the runner that gives them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune.children import Ended
from edgeprune.deploy.bundle import INT8_SHARE, STEPS, tolerances
from edgeprune.deploy.manifest import Manifest
from edgeprune.deploy.self_test import check_words, judged, judged_latency, latency_words, verdict
from edgeprune.errors import BudgetError, DeviceError, EdgepruneError, MissingExtraError, QualityError
from edgeprune.runner import check
from tests.deploy.board import bundle

Answer = dict[str, Any]


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    made = bundle(tmp_path / "r", "one").manifest
    golden = made.golden.model_copy(update={"real": 2, "vectors": 3, "exact": True, "tolerances": (2.0,)})
    return made.model_copy(update={"golden": golden})


def answer(**changes: Any) -> Answer:
    errors, same, margins = [[0.0]] * 3, [[True]] * 3, [[9.0]] * 3
    version = {"runtime_version": "fake 1", "machine": "paper"}
    return {"vectors": 3, "errors": errors, "same": same, "margins": margins, **version, **changes}


def test_the_same_answers_pass(manifest: Manifest) -> None:
    row = verdict(answer(), manifest, "here")
    assert (row.vectors, row.exact, row.largest_error) == (3, True, 0.0)


def test_another_version_may_differ_within_the_tolerance(manifest: Manifest) -> None:
    errors = [[0.0], [2.0], [1.0]]
    row = verdict(answer(errors=errors, runtime_version="fake 2"), manifest, "here")
    assert not row.exact and row.largest_error == 1.0
    with pytest.raises(QualityError, match="the answer to real input 1 is off by 2, 0 is allowed: both run fake 1"):
        verdict(answer(errors=errors), manifest, "here")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"errors": [[0.0], [0.0], [2.5]]}, "the answer to zeros is off by 2.5, 2 is allowed"),
        ({"errors": [[float("nan")], [0.0], [0.0]]}, "the answer to real input 0 is off by nan"),
        ({"same": [[True], [False], [True]]}, "real input 1 gets another largest output"),
        ({"errors": [[0.0]] * 2}, "2 of 3 test vectors were answered"),
        ({"vectors": 0, "errors": [], "same": [], "margins": []}, "0 of 3 test vectors were answered"),
    ],
)
def test_wrong_answers_fail(manifest: Manifest, changes: Answer, message: str) -> None:
    with pytest.raises(QualityError, match=message):
        verdict(answer(runtime_version="fake 2", **changes), manifest, "here")


def test_a_tie_may_go_either_way(manifest: Manifest) -> None:
    changes: Answer = {"same": [[False], [True], [False]], "margins": [[2.0], [9.0], [9.0]], "runtime_version": "2"}
    assert verdict(answer(**changes), manifest, "here").vectors == 3


def ended(document: Any, status: int = 0) -> Ended:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return Ended(status, text, b"why\n")


@pytest.mark.parametrize(
    ("end", "kind", "message"),
    [
        (Ended(7, b"", b"no litert\n"), MissingExtraError, "the runtime cannot be loaded: no litert"),
        (Ended(127, b"", b"not found\n"), DeviceError, "Python cannot be started: not found"),
        (Ended(139, b"", b""), QualityError, "the self-test ended with status 139: no message"),
        (ended(b"hello"), DeviceError, "no document of the runner's"),
        (ended([]), DeviceError, "no document of the runner's"),
        (ended({"schema": "edgeprune.bench/1"}), DeviceError, "no document of the runner's"),
        (ended({"schema": check.SCHEMA}), QualityError, "another model file was loaded"),
        (ended({"schema": check.SCHEMA, "sha256": {"model.tflite": "0"}}), QualityError, "another model file"),
    ],
)
def test_what_is_no_answer_is_never_taken_for_one(
    manifest: Manifest, end: Ended, kind: type[EdgepruneError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        judged(end, manifest, "here")


@pytest.mark.parametrize("missing", ["errors", "same", "margins", "vectors", "runtime_version"])
def test_an_answer_that_lacks_something_is_none(manifest: Manifest, missing: str) -> None:
    loaded = {"model.tflite": manifest.files["model.tflite"].sha256}
    document = {"schema": check.SCHEMA, "sha256": loaded, **answer()}
    assert judged(ended(document), manifest, "here").vectors == 3
    del document[missing]
    with pytest.raises(DeviceError, match="no document of the self-test's"):
        judged(ended(document), manifest, "here")


def test_the_median_refutes_a_budget(manifest: Manifest) -> None:
    timed = ended({"schema": "edgeprune.bench/1", "samples_ns": [[1, 2, 30]]})
    row = judged_latency(timed, manifest, 2, "here")
    assert (row.latency_ns, row.runs, row.statistic) == (2, 3, "median")
    assert judged_latency(timed, manifest, None, "here").budget_ns is None
    with pytest.raises(BudgetError, match="the median of 3 runs on the device is 2 ns, budget 1 ns"):
        judged_latency(timed, manifest, 1, "here")
    for end, kind in ((Ended(1, b"", b"x\n"), QualityError), (ended({"schema": "edgeprune.bench/1"}), DeviceError)):
        with pytest.raises(kind):
            judged_latency(end, manifest, None, "here")


def test_tolerances_follow_the_number_format() -> None:
    assert tolerances("int8", ["int8", "float32"], [127.0, 10.0]) == (STEPS, INT8_SHARE * 10)
    assert tolerances("fp32", ["float32"], [0.0]) == (1e-6,)


def run_check(folder: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    line = [sys.executable, "-B", check.__file__, *words]
    return subprocess.run(line, cwd=folder, capture_output=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tflite", "onnxruntime", "openvino"])
def test_the_runner_keeps_answers_and_finds_others(
    exported: Callable[..., Any], small_net: Callable[[str], Any], backend: str, tmp_path: Path
) -> None:
    artifact = exported(backend, "residual")
    np.save(tmp_path / "inputs.npy", small_net("residual").samples[:8])
    words = [f"--runtime={backend}", f"--model={artifact.path}", "--golden=golden.npz"]
    done = run_check(tmp_path, *words, "--inputs=inputs.npy")
    assert done.returncode == 0, done.stderr
    kept = json.loads(done.stdout)
    assert (kept["real"], kept["vectors"], kept["finite"]) == (8, 11, True)
    again = json.loads(run_check(tmp_path, *words).stdout)
    assert again["vectors"] == 11 and all(map(all, again["same"])) and not any(map(any, again["errors"]))
    assert set(again["sha256"]) == {file.name for file in (artifact.path, *artifact.path.parent.glob("*.bin"))}
    with np.load(tmp_path / "golden.npz") as golden:
        arrays = {name: golden[name] for name in golden.files}
    arrays["output_0"][3] += 3
    np.savez(tmp_path / "golden.npz", **arrays)
    errors = json.loads(run_check(tmp_path, *words).stdout)["errors"]
    assert errors[3][0] > 0 and not any(errors[0])


def test_made_inputs_reach_the_ends_of_the_format() -> None:
    integers = check.Model((1, 2, 2), np.int8, 0.5, -3, lambda values: [])
    zeros, largest, saturating = integers.made(np.zeros((8, 2, 2), np.int8))
    assert set(zeros.flat) == {-3} and set(largest.flat) == {127} and set(saturating.flat) == {-128, 127}
    floats = check.Model((1, 4), np.float32, 1.0, 0, lambda values: [])
    real = np.full((8, 4), -2, np.float32)
    zeros, largest, saturating = floats.made(real)
    assert set(zeros.flat) == {0} and set(largest.flat) == {2} and set(saturating.flat) == {-16, 16}
    assert integers.raw(np.full((1, 2, 2), 1e9, np.float32)).max() == 127


def test_the_commands_name_everything(manifest: Manifest) -> None:
    assert check_words("py", manifest)[:3] == ("py", "-B", "check.py")
    assert "--model=model.tflite" in latency_words("py", manifest)
