"""What a release is made of, and that the same model, data and tool give the same one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune.deploy.bundle import make_bundle
from edgeprune.deploy.examples import examples
from edgeprune.deploy.manifest import is_plain_name, is_release, read_manifest, release_id, same_release
from edgeprune.deploy.origin import app_name, artifact_of, from_file, read_samples
from edgeprune.errors import QualityError, TrustError, UsageError
from tests.deploy.board import bundle, whole
from tests.report.made_up import made_up_record


@pytest.fixture
def samples() -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(0).standard_normal((8, 16, 16, 16)).astype(np.float32)


def test_the_same_file_gives_the_same_release(small_tflite: Path, samples: Any, tmp_path: Path) -> None:
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        made.append(make_bundle(from_file(small_tflite, None, None, samples, None), tmp_path / name))
    one, two = made
    assert one.name == two.name == release_id(one.document) and is_release(one.name)
    manifest = one.manifest
    assert (manifest.app, manifest.model, manifest.backend) == ("small-net", "model.tflite", "tflite")
    assert set(manifest.files) == {"model.tflite", "golden.npz", "check.py", "bench.py", "example.py", "example.cpp"}
    assert (manifest.golden.real, manifest.golden.vectors, manifest.golden.exact) == (8, 11, True)
    assert read_manifest(one.document, "here") == manifest
    shutil.copytree(one.folder, tmp_path / one.name)
    assert whole(tmp_path / one.name)
    done = subprocess.run([sys.executable, "-B", one.folder / "example.py"], capture_output=True, check=False)
    assert done.returncode == 0 and b"[[" in done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tflite", "onnxruntime", "openvino"])
def test_the_python_example_runs_and_both_are_short(exported: Callable[..., Any], backend: str, tmp_path: Path) -> None:
    artifact = exported(backend, "residual")
    for file in artifact.path.parent.glob(f"{artifact.path.stem}.*"):
        shutil.copyfile(file, tmp_path / f"model{file.suffix}")
    texts = examples(backend, 1)
    (tmp_path / "example.py").write_text(texts["example.py"])
    done = subprocess.run([sys.executable, tmp_path / "example.py"], capture_output=True, check=False)
    assert done.returncode == 0 and b"[" in done.stdout, done.stderr
    assert all(len(text.splitlines()) <= 15 and "COUNT_OF" not in text for text in texts.values())


@pytest.mark.slow
def test_the_cpp_example_runs(exported: Callable[..., Any], tmp_path: Path) -> None:
    """Of the runtimes here, OpenVINO's package alone brings what a C++ program needs."""
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("needs the tool c++")
    openvino = pytest.importorskip("openvino")
    package = Path(openvino.__file__).parent
    artifact = exported("openvino", "residual")
    for file in artifact.path.parent.glob(f"{artifact.path.stem}.*"):
        shutil.copyfile(file, tmp_path / f"model{file.suffix}")
    (tmp_path / "example.cpp").write_text(examples("openvino", 1)["example.cpp"])
    library = next((package / "libs").glob("libopenvino.so*"))
    flags = ["-std=c++17", f"-I{package / 'include'}", f"-Wl,-rpath,{library.parent}", "-o", "example"]
    line = [compiler, "example.cpp", *flags, str(library)]
    built = subprocess.run(line, cwd=tmp_path, capture_output=True, check=False)
    assert built.returncode == 0, built.stderr
    assert subprocess.run(["./example"], cwd=tmp_path, check=False).returncode == 0


def test_what_cannot_be_a_release_is_said(small_tflite: Path, samples: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a bare model file needs real inputs"):
        from_file(small_tflite, None, None, None, None)
    with pytest.raises(UsageError, match=r"the model cannot be run: the model takes \(16, 16, 16\)"):
        make_bundle(from_file(small_tflite, None, None, samples[:, :3], None), tmp_path)


@pytest.mark.slow
def test_answers_that_are_not_finite_are_refused(
    exported: Callable[..., Any], small_net: Callable[[str], Any], tmp_path: Path
) -> None:
    origin = from_file(exported("onnxruntime", "residual", "fp32").path, None, None, small_net("residual").samples, "a")
    huge = np.full_like(origin.samples[:8], 3e38)
    from dataclasses import replace

    with pytest.raises(QualityError, match="values that are not finite"):
        make_bundle(replace(origin, samples=huge), tmp_path)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((7, 3)), "7 real inputs, at least 8 are needed"),
        (np.zeros(9), "not an array"),
        (np.array(["a"] * 9)[:, None], "not an array"),
        (np.full((8, 3), np.nan), "not finite"),
        (None, "cannot read the inputs"),
    ],
)
def test_inputs_must_be_real_ones(tmp_path: Path, array: Any, message: str) -> None:
    file = tmp_path / "inputs.npy"
    if array is not None:
        np.save(file, array)
    with pytest.raises(UsageError, match=message):
        read_samples(file)


def test_a_manifest_from_anywhere_is_read_as_data(tmp_path: Path) -> None:
    document = json.loads(bundle(tmp_path / "r", "one").document)
    row = document["files"]["model.tflite"]
    cases: list[tuple[Any, str]] = [
        (b"", "not a manifest of this version"),
        ({**document, "more": 1}, "not a manifest of this version"),
        ({**document, "files": {**document["files"], "../x": row}}, "lists its files wrongly: '../x'"),
        ({**document, "files": {**document["files"], "a/b": row}}, "lists its files wrongly"),
        ({**document, "files": {**document["files"], "manifest.sig": row}}, "lists its files wrongly"),
        ({**document, "model": "other.tflite"}, "lists its files wrongly: 'other.tflite'"),
        ({**document, "app": "-rf"}, "lists its files wrongly"),
        (b" " * 2**21, "a manifest of 2097152 bytes"),
    ]
    for content, message in cases:
        text = content if isinstance(content, bytes) else json.dumps(content).encode()
        with pytest.raises(TrustError, match=message):
            read_manifest(text, "here")


def test_names_of_releases_and_apps() -> None:
    assert same_release("0123456789abcdef.2", "0123456789abcdef") and not same_release("0123456789abcdef", "f" * 16)
    assert not is_release("0123456789abcdef.1x") and not is_release("../0123456789abcde")
    assert is_plain_name("a.b-c_1") and not any(map(is_plain_name, ("", ".", "-a", "a b", "a\n", "ä")))
    assert app_name("my net (2)!") == "my-net-2" and app_name("…") == "model"


def test_the_artifact_of_a_run_is_that_of_its_verdict(tmp_path: Path) -> None:
    file = tmp_path / "artifacts" / "model.tflite"
    file.parent.mkdir()
    file.write_bytes(b"x")
    record = made_up_record(artifacts={"tflite": Path("/gone/artifacts/model.tflite")}, run=Path("/gone"))
    assert artifact_of(tmp_path, record) == ("tflite", file)
    with pytest.raises(UsageError, match="this run has no artifact for onnxruntime"):
        artifact_of(tmp_path, record, "onnxruntime")
    file.unlink()
    with pytest.raises(UsageError, match="no such file"):
        artifact_of(tmp_path, record)
